"""SuperFace: candidates, choices between rendered faces, pairs, judges and preference training."""
