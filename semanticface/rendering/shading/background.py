"""Procedural backgrounds: rooms, windows, leaves, sky and street, lights, shelves, walls.

Each is drawn small and upscaled, most of them blurred like the background of a portrait lens.
"""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 112
_KINDS = ("plain", "room", "window", "leaves", "outdoors", "lights", "shelf", "wall", "cloth", "abstract")
_PROBS = (0.15, 0.18, 0.09, 0.12, 0.13, 0.09, 0.05, 0.08, 0.05, 0.06)
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / (SIDE - 1)


def background(shot: int | None, size: int) -> np.ndarray:
    """Background of a shot, float32[size, size, 3], sRGB in [0, 1]; ``None`` is a plain wall."""
    if shot is None:
        shade = np.linspace(0.66, 0.52, size, dtype=np.float32)[:, None, None]
        return np.broadcast_to(shade * np.array([0.94, 1.0, 1.06], np.float32), (size, size, 3)).copy()
    rng = np.random.default_rng([shot, 23])
    kind = rng.choice(_KINDS, p=_PROBS)
    if kind == "plain":
        image, max_blur = _plain(rng), 0.0
    elif kind == "room":
        image, max_blur = _room(rng), 5.0
    elif kind == "window":
        image, max_blur = _window(rng), 4.0
    elif kind == "leaves":
        image, max_blur = _leaves(rng), 4.0
    elif kind == "outdoors":
        image, max_blur = _outdoors(rng), 3.5
    elif kind == "lights":
        image, max_blur = _lights(rng), 0.8
    elif kind == "shelf":
        image, max_blur = _shelf(rng), 3.0
    elif kind == "wall":
        image, max_blur = _wall(rng), 2.0
    elif kind == "cloth":
        image, max_blur = _cloth(rng), 1.5
    else:
        image, max_blur = _abstract(rng), 3.0
    blur = max_blur * rng.random()
    if blur > 1.4:  # blurring at half size looks the same at a quarter of the cost
        image = image.reduce(2).filter(ImageFilter.GaussianBlur(blur / 2))
    elif blur > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.multiply(np.asarray(image), np.float32(1 / 255), dtype=np.float32)


def _colour(rng: np.random.Generator, low: float = 20, high: float = 240, vivid: float = 0.35) -> np.ndarray:
    """A mostly dull colour of walls and objects; sRGB 0..255."""
    saturation = rng.random() ** 1.5 * vivid * 1.6 if rng.random() < 0.93 else rng.random()
    return np.array(colorsys.hsv_to_rgb(rng.random(), min(saturation, 1.0), 1.0)) * rng.uniform(low, high)


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _fill(colour: np.ndarray, gain: float = 1.0) -> tuple[int, int, int]:
    r, g, b = np.clip(colour * gain, 0, 255).astype(int).tolist()
    return r, g, b


def _ramp(rng: np.random.Generator) -> np.ndarray:
    """0 to 1 across the image in a random direction, float32[SIDE, SIDE, 1]."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.clip(0.5 + (_X - 0.5) * np.cos(angle) + (_Y - 0.5) * np.sin(angle), 0, 1)[..., None]


def _clouds(rng: np.random.Generator, *cells: int) -> np.ndarray:
    """Smooth noise of mean 0 and about unit spread, coarse to fine, float32[SIDE, SIDE, 1]."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for n in cells:
        grain = Image.fromarray(rng.standard_normal((n, n), dtype=np.float32))
        total += np.asarray(grain.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) * np.float32(cells[0] / n) ** 0.6
    return total[..., None]


def _lit(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """A surface of one colour under uneven light, float[SIDE, SIDE, 3]."""
    return colour * (1 + rng.uniform(-0.5, 0.3) * _ramp(rng))


def _plain(rng: np.random.Generator) -> Image.Image:
    base = _colour(rng, 10, 255)
    if rng.random() < 0.4:
        return _image(_lit(rng, base))
    if rng.random() < 0.5:
        other = _colour(rng, 10, 255)
        return _image(base + (other - base) * _ramp(rng))
    # Studio backdrop paper with a spotlight.
    x, y = rng.uniform(0.2, 0.8, 2)
    spot = np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / rng.uniform(0.05, 0.5))[..., None]
    return _image(base * (0.45 + 0.75 * spot) + 4 * _clouds(rng, 6, 24))


def _pane(draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: np.ndarray, light: np.ndarray) -> None:
    """A window: bright pane, frame and glazing bars."""
    x0, y0, x1, y1 = box
    frame = _colour(rng, 30, 235, 0.2)
    draw.rectangle([x0 - 2, y0 - 2, x1 + 2, y1 + 2], fill=_fill(frame))
    draw.rectangle([x0, y0, x1, y1], fill=_fill(light))
    if rng.random() < 0.5:  # something outside
        low = y0 + (y1 - y0) * rng.uniform(0.35, 0.8)
        draw.rectangle([x0, low, x1, y1], fill=_fill(light * rng.uniform(0.3, 0.8) * [0.9, 1.0, 0.85]))
    for _ in range(int(rng.integers(0, 3))):
        at = rng.uniform(x0, x1)
        draw.line([at, y0, at, y1], fill=_fill(frame), width=int(rng.integers(1, 4)))
    if rng.random() < 0.5:
        at = rng.uniform(y0, y1)
        draw.line([x0, at, x1, at], fill=_fill(frame), width=int(rng.integers(1, 4)))


def _room(rng: np.random.Generator) -> Image.Image:
    wall = _colour(rng, 50, 240, 0.25)
    image = _image(_lit(rng, wall))
    draw = ImageDraw.Draw(image)
    if rng.random() < 0.5:  # a second wall
        corner = rng.uniform(0.1, 0.9) * SIDE
        draw.rectangle([corner, 0, SIDE, SIDE], fill=_fill(wall, rng.uniform(0.5, 0.9)))
    floor = rng.uniform(0.6, 1.1) * SIDE
    draw.rectangle([0, floor, SIDE, 2 * SIDE], fill=_fill(_colour(rng, 30, 160)))
    if rng.random() < 0.35:
        x, y = rng.uniform(-0.1, 0.8) * SIDE, rng.uniform(-0.2, 0.3) * SIDE
        box = np.array([x, y, x + rng.uniform(15, 45), y + rng.uniform(25, 60)])
        _pane(draw, rng, box, np.array([235, 240, 250]) * rng.uniform(0.7, 1.0))
    for _ in range(int(rng.integers(2, 9))):
        kind, x, shade = rng.random(), rng.uniform(-10, SIDE), _colour(rng, 15, 220, 0.4)
        if kind < 0.35:  # a picture on the wall
            y, w, h = rng.uniform(0, 0.5) * SIDE, rng.uniform(6, 26), rng.uniform(6, 26)
            draw.rectangle([x - 1.5, y - 1.5, x + w + 1.5, y + h + 1.5], fill=_fill(_colour(rng, 10, 200, 0.2)))
            draw.rectangle([x, y, x + w, y + h], fill=_fill(shade))
        elif kind < 0.75:  # furniture
            w, h = rng.uniform(12, 50), rng.uniform(15, 60)
            draw.rectangle([x, floor + 12 - h, x + w, floor + 12], fill=_fill(shade))
            if rng.random() < 0.5:
                for k in range(1, int(rng.integers(2, 5))):
                    at = floor + 12 - h * k / 4
                    draw.line([x, at, x + w, at], fill=_fill(shade, 0.6))
        elif kind < 0.85:  # a lamp
            y, r = rng.uniform(0.05, 0.6) * SIDE, rng.uniform(3, 9)
            draw.ellipse([x - r, y - r, x + r, y + r], fill=_fill(np.array([255, 240, 205])))
        else:  # a plant or a person, anything round
            y, w, h = floor - rng.uniform(5, 40), rng.uniform(5, 16), rng.uniform(8, 30)
            draw.ellipse([x - w, y - h, x + w, y + h], fill=_fill(shade))
    return image


def _window(rng: np.random.Generator) -> Image.Image:
    image = _image(_lit(rng, _colour(rng, 15, 130, 0.25)))
    draw = ImageDraw.Draw(image)
    light = np.array([242, 246, 255]) * rng.uniform(0.75, 1.0)
    x, gap = rng.uniform(-30, 20), rng.uniform(3, 25)
    top, low = rng.uniform(-20, 30), rng.uniform(60, SIDE + 20)
    while x < SIDE:
        width = rng.uniform(22, 60)
        _pane(draw, rng, np.array([x, top, x + width, low]), light)
        x += width + gap
    if rng.random() < 0.3:  # a curtain
        at, width = rng.uniform(0, SIDE), rng.uniform(8, 30)
        shade = _colour(rng, 80, 230)
        for k in np.arange(0, width, 2):
            draw.rectangle([at + k, 0, at + k + 2, SIDE], fill=_fill(shade, 0.8 + 0.2 * np.sin(k * 1.3)))
    return image


def _leaves(rng: np.random.Generator) -> Image.Image:
    green = np.array([rng.uniform(25, 95), rng.uniform(60, 130), rng.uniform(15, 70)]) * rng.uniform(0.5, 1.2)
    if rng.random() < 0.15:
        green = green[[1, 0, 2]] * [1.2, 1.0, 0.6]  # autumn
    bright = green * 1.7 + [50, 50, 10]
    high = np.clip(0.5 + 0.45 * _clouds(rng, 5, 12, 30), 0, 1)
    field = green * 0.35 + (green - green * 0.35) * high
    image = _image(field)
    draw = ImageDraw.Draw(image)
    reach = rng.uniform(1.5, 6)
    for x, y, w, tone, angle in rng.random((int(rng.integers(40, 110)), 5)):
        long, thin = reach * (0.5 + w), reach * (0.5 + w) * (0.3 + 0.5 * angle)
        w, h = (long, thin) if angle < 0.5 else (thin, long)
        x, y = x * SIDE, y * SIDE
        colour = green * 0.6 + (bright - green * 0.6) * tone
        draw.ellipse([x - w, y - h, x + w, y + h], fill=_fill(colour))
    if rng.random() < 0.6:  # sky between the leaves
        sky = np.array([225, 235, 245]) * rng.uniform(0.8, 1.05)
        hole = np.clip((_clouds(rng, 6, 16) - rng.uniform(0.2, 1.0) - 1.2 * _Y[..., None]) * 4, 0, 1)
        values = np.asarray(image, np.float32)
        image = _image(values + (sky - values) * hole)
    return image


def _outdoors(rng: np.random.Generator) -> Image.Image:
    top = np.array([(70, 120, 200), (120, 160, 215), (190, 200, 212), (150, 155, 165), (60, 60, 95)][rng.integers(5)])
    low = np.array([(205, 222, 240), (240, 232, 220), (250, 205, 160), (225, 228, 232)][rng.integers(4)])
    horizon = rng.uniform(0.35, 0.95)
    height = np.clip(_Y / horizon, 0, 1)[..., None]
    sky = (top + (low - top) * height**1.5) * rng.uniform(0.7, 1.05)
    if rng.random() < 0.5:
        sky = sky + (245 - sky) * np.clip(_clouds(rng, 4, 9, 20) * 0.5, 0, 1) * rng.uniform(0.3, 0.9)
    ground = _colour(rng, 60, 170, 0.3) if rng.random() < 0.5 else np.array([90, 120, 60]) * rng.uniform(0.5, 1.3)
    field = ground * (1 + 0.12 * _clouds(rng, 8, 28) + 0.4 * (_Y[..., None] - 1))
    line = horizon + 0.015 * _clouds(rng, 3, 8)[:1, :, 0]
    image = _image(np.where((line < _Y)[..., None], field, sky))
    draw = ImageDraw.Draw(image)
    kind = rng.random()
    if kind < 0.45:  # houses
        x = rng.uniform(-20, 10)
        while x < SIDE:
            w, h = rng.uniform(10, 34), rng.uniform(8, 70)
            colour, base = _colour(rng, 50, 200, 0.2), (horizon + 0.03) * SIDE
            draw.rectangle([x, base - h, x + w, base], fill=_fill(colour))
            pane, step = _fill(colour, rng.choice([0.5, 1.4])), rng.uniform(4, 8)
            for j in np.arange(base - h + 3, base - 4, step):
                for i in np.arange(x + 2, x + w - 3, step):
                    draw.rectangle([i, j, i + step * 0.45, j + step * 0.55], fill=pane)
            x += w + rng.exponential(8)
    elif kind < 0.8:  # trees or hills
        dark = np.array([50, 75, 40]) * rng.uniform(0.5, 1.4)
        for x, w, h in rng.uniform((0, 5, 4), (SIDE, 20, 30), (int(rng.integers(3, 12)), 3)):
            y = horizon * SIDE
            draw.ellipse([x - w, y - h, x + w, y + h * 0.3], fill=_fill(dark, rng.uniform(0.7, 1.3)))
    return image


def _lights(rng: np.random.Generator) -> Image.Image:
    """Defocused lights at night or behind leaves: discs that add up."""
    base = _colour(rng, 5, 70)
    values = base * (1 + 0.3 * _clouds(rng, 4, 9))
    largest = rng.uniform(3, 11)
    warm = np.array([(255, 200, 120), (255, 235, 200), (150, 190, 255), (255, 90, 70), (120, 255, 170)], float)
    few = rng.permutation(5)[: rng.integers(1, 4)]
    for x, y, r, a in rng.random((int(rng.integers(10, 45)), 4)):
        radius = largest * (0.5 + 0.6 * r)
        x0, y0 = int(x * SIDE - radius - 1), int(y * SIDE - radius - 1)
        across = int(2 * radius + 3)
        window = np.s_[max(y0, 0) : max(y0 + across, 0), max(x0, 0) : max(x0 + across, 0)]
        d = np.hypot(_X[window] * (SIDE - 1) - x * SIDE, _Y[window] * (SIDE - 1) - y * SIDE)
        disc = np.clip(radius - d, 0, 1) * (0.75 + 0.25 * d / radius)
        values[window] += disc[..., None] * warm[few[int(a * 1e6) % len(few)]] * (0.15 + 0.7 * a)
    return _image(values)


def _shelf(rng: np.random.Generator) -> Image.Image:
    wood = _colour(rng, 25, 190, 0.4)
    image = _image(_lit(rng, wood * 0.5))
    draw = ImageDraw.Draw(image)
    rows = int(rng.integers(2, 6))
    height = SIDE / rows
    vivid = rng.uniform(0.15, 0.45)
    for row in range(rows):
        base, x = (row + 1) * height - 2, rng.uniform(-4, 4)
        while x < SIDE:
            w = rng.uniform(1.5, 7)
            if rng.random() < 0.85:
                h = height * rng.uniform(0.55, 0.92)
                colour = _colour(rng, 25, 230, vivid)
                draw.rectangle([x, base - h, x + w, base], fill=_fill(colour))
                if w > 3 and rng.random() < 0.5:
                    draw.rectangle([x, base - h * 0.8, x + w, base - h * 0.65], fill=_fill(colour, 1.6))
            x += w + 0.4
        draw.rectangle([0, base, SIDE, base + 3], fill=_fill(wood))
    return image


def _wall(rng: np.random.Generator) -> Image.Image:
    """Bricks, tiles or boards in slight perspective."""
    angle, narrow = rng.normal(0, 0.08), rng.normal(0, 0.35)
    depth = 1 + narrow * (_X - 0.5)
    u = ((_X - 0.5) * np.cos(angle) + (_Y - 0.5) * np.sin(angle)) / depth
    v = ((_Y - 0.5) * np.cos(angle) - (_X - 0.5) * np.sin(angle)) / depth
    kind = rng.random()
    height = rng.uniform(0.05, 0.14)
    long = height * (rng.uniform(2, 3.2) if kind < 0.5 else 1.0 if kind < 0.75 else 30.0)
    row = np.floor(v / height)
    column = np.floor(u / long + (0.5 * (row % 2) if kind < 0.5 else 0.37 * row * (kind > 0.75)))
    fu, fv = (u / long + (0.5 * (row % 2) if kind < 0.5 else 0)) % 1, (v / height) % 1
    joint = rng.uniform(0.04, 0.14)
    mortar = (fv < joint) | ((fu < joint * height / long) & (kind < 0.75))
    tones = rng.normal(1, rng.uniform(0.02, 0.15), 64)
    tone = tones[((row * 7 + column * 13) % 64).astype(int)][..., None]
    brick = np.array([165, 85, 65]) * rng.uniform(0.5, 1.2) if kind < 0.25 else _colour(rng, 50, 235, 0.3)
    gap = np.full(3, rng.uniform(40, 220))
    values = np.where(mortar[..., None], gap, brick * tone) + 5 * _clouds(rng, 10, 40)
    return _image(values * (1 + rng.uniform(-0.4, 0.2) * _ramp(rng)))


def _cloth(rng: np.random.Generator) -> Image.Image:
    """Curtain folds, or stripes, checks or dots of a wallpaper."""
    first, second = _colour(rng, 30, 235), _colour(rng, 30, 235)
    kind, step = rng.random(), rng.uniform(0.04, 0.2)
    if kind < 0.4:
        fold = np.sin(2 * np.pi * (_X / step + 0.25 * _clouds(rng, 3)[..., 0] * _Y))[..., None]
        return _image(first * (0.75 + 0.25 * fold))
    if kind < 0.6:
        mask = (_X / step) % 1 < rng.uniform(0.2, 0.8)
    elif kind < 0.8:
        mask = ((_X / step) % 1 < 0.5) ^ ((_Y / step) % 1 < 0.5)
    else:
        mask = np.hypot((_X / step) % 1 - 0.5, (_Y / step) % 1 - 0.5) < rng.uniform(0.15, 0.4)
    return _image(np.where(mask[..., None], second, first) * (1 + rng.uniform(-0.4, 0.2) * _ramp(rng)))


def _abstract(rng: np.random.Generator) -> Image.Image:
    """Random shapes or clouds in any colours."""
    tone, other = rng.uniform(10, 245, 3), rng.uniform(10, 245, 3)
    image = _image(tone + (other - tone) * _ramp(rng))
    if rng.random() < 0.4:
        values = np.concatenate([_clouds(rng, 3, 6, 12, 24) for _ in range(3)], -1)
        return _image(np.asarray(image, np.float32) + rng.uniform(12, 50) * values)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 16))):
        colour = _fill(rng.uniform(0, 255, 3))
        x, y = rng.uniform(-8, SIDE + 8, 2)
        w, h = rng.exponential(14, 2) + 2
        if rng.random() < 0.6:
            draw.ellipse([x - w, y - h, x + w, y + h], fill=colour)
        else:
            corners = rng.uniform(-w - h, w + h, (3, 2)) + np.array([x, y])
            draw.polygon([tuple(corner) for corner in corners], fill=colour)
    return image
