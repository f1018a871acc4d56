"""Predictor: a picture to its answer, with the decoding engine, intervals, video and live reading."""
