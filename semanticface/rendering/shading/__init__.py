"""From geometry to pixels: rasteriser, materials, lighting, background, photo and toon shading."""
