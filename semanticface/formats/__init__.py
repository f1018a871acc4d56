"""Coefficient files: CSV, JSONL, Live Link Face, Live Link UDP, glTF."""
