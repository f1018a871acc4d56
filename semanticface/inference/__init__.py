"""The predictor and its decoding engine; intervals and their calibration; video and live prediction."""
