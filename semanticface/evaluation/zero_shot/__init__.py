"""Any model measured without training, local or behind a server."""
