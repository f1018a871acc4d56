"""General helpers: atomic files, CSV lines, prefetching, HTML and the One-Euro filter."""
