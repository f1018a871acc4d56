"""What only the experiments in eval/ and data_prep/ need; the library does not import it."""
