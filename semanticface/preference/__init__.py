"""SuperFace: candidates, choices, judges, pairs and rounds of DPO."""
