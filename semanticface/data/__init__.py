"""Datasets on disk: rendered, captured, imported; consent and provenance."""
