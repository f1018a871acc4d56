"""Geometry of the rendered head: the rig, who a subject is, hair, clothes and props."""
