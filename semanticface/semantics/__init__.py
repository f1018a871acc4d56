"""Stage I by rule: coefficients to an analysis in words and to the JSON answer, and back. No torch."""
