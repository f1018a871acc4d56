"""Geometry and appearance of the rendered head: rig, hair, clothes, accessories and props."""
