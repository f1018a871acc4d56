"""Live Link Face takes as a dataset."""
