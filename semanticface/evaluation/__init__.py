"""Metrics, the benchmark, reports and comparison sheets."""
