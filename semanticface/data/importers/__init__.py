"""Pictures with labels of other tools as a dataset."""
