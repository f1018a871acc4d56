"""Files, tables of lines, prefetching, HTML, a smoothing filter: nothing about faces."""
