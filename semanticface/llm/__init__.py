"""Any chat model, local or behind a server, and Stage I written by one."""
