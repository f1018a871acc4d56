"""Shading: rasteriser, textures, lighting, background, photo and toon styles."""
