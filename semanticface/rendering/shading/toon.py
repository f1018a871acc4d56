"""The toon look: flat bands of light, ink outlines, simple palettes and cartoon proportions on the same head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from semanticface.rendering.camera import Camera
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import appearance as look
from semanticface.rendering.head import rig as rigs
from semanticface.rendering.head.appearance import Appearance, appearance, linear
from semanticface.rendering.head.cartoon_warp import Bend, bend
from semanticface.rendering.head.mesh import CLOTH, HAIR, N_ATTRIBUTES, PROP, Mesh
from semanticface.rendering.head.rig import EYE_RIGHT, LOWER_TEETH, SKIN, TONGUE, UPPER_TEETH, Identity
from semanticface.rendering.kernels import TABLE, kernel, noise, scratch, smooth
from semanticface.rendering.sensor import blur, reprint
from semanticface.rendering.shading import raster
from semanticface.rendering.shading import textures as paint
from semanticface.rendering.shading.antialias import blend, even_pixels, other_samples, spread
from semanticface.rendering.shading.background import background
from semanticface.rendering.shading.lighting import lights
from semanticface.rendering.shading.photo import crease
from semanticface.rendering.shading.projection import SHADOW_EXTENT, see, shadow_of
from semanticface.rendering.shading.wrinkles import height_map

# Skins no human has; greens, teals and purples are left to the imp.
_FANCY = np.array(
    [(255, 196, 206), (158, 196, 240), (250, 222, 120), (196, 200, 210), (255, 170, 120), (236, 236, 240)], float
)
SHADOW_SIZE, SHADOW_BIAS = 128, 0.05
_INSIDE = PROP + 1  # of the mouth, in the painter alone
INK_GROUPS = np.array([1, 2, 2, 3, 3, 4, 1, 5, 6, 8, 7], np.uint8)
"""Ink runs where two neighbouring pixels' parts lie in different groups."""


@dataclass(frozen=True, slots=True, eq=False)
class ToonStyle:
    """How a subject is drawn.

    Attributes:
        paint: colours and amounts, as in the photo look.
        bend: its proportions.
        bands: float32[3], thresholds of the bands of light and their softness.
        shadow: float32[3], what the shaded side's colour is multiplied by.
        ink: float32[3], sRGB colour of lines.
        width: of the outlines in pixels of a 224 px picture; 0 leaves them out.
        lips: how far lips are coloured, 0 to 1.
        folds: how strongly wrinkles are inked.
        gleam: strength of highlights.
    """

    paint: Appearance
    bend: Bend
    bands: np.ndarray
    shadow: np.ndarray
    ink: np.ndarray
    width: float
    lips: float
    folds: float
    gleam: float


def style_of(subject: int | None, who: Identity) -> ToonStyle:
    """The style of a subject; ``None`` is the plain one."""
    rng = np.random.default_rng([41] if subject is None else [subject, 41])
    plain = appearance(subject, who)
    colours, amounts = plain.colours.copy(), plain.amounts.copy()
    if subject is not None:
        if rng.random() < 0.28:
            skin = _FANCY[rng.integers(len(_FANCY))] * rng.uniform(0.85, 1.0, 3)
            colours[look.SKIN] = linear(skin)
            colours[look.LIPS] = linear(skin * [0.85, 0.55, 0.6])
            colours[look.LID] = linear(skin * 0.85)
        if rng.random() < 0.45:
            hair = rng.dirichlet([0.7, 0.7, 0.7]) * rng.uniform(150, 480)
            colours[look.HAIR] = colours[look.BROW] = linear(np.clip(hair, 8, 245))
        if rng.random() < 0.5:
            colours[look.IRIS] = linear(np.clip(rng.dirichlet([0.8] * 3) * 380, 10, 235))
            colours[look.IRIS_RING] = colours[look.IRIS] * 0.2
    grey = colours[look.SKIN].mean()
    colours[look.SKIN] = np.clip(grey + (colours[look.SKIN] - grey) * rng.uniform(1.0, 1.35), 0.01, 1)
    colours[look.SCLERA] = linear(np.array([246, 246, 248]))
    colours[look.TEETH] = linear(np.array([248, 246, 240]))
    for place in (look.BLOTCH, look.PORES, look.MOLES, look.VEINS, look.STUBBLE, look.BLEMISHES, look.SPOTS):
        amounts[place] = 0
    amounts[look.BROW_THICK] *= rng.uniform(1.0, 1.7)
    amounts[look.IRIS_SIZE] = rng.uniform(0.46, 0.62)
    amounts[look.PUPIL] = rng.uniform(0.35, 0.6)
    eyes = 0.42 if subject is None else rng.uniform(0.0, 1.0)
    widths = (0.9, 1.03, 1.05) if subject is None else tuple(rng.normal([0.93, 1.03, 1.04], [0.11, 0.06, 0.08]))
    shape = bend(
        who, eyes=eyes, mouth=float(np.clip(rng.normal(0.08, 0.14), -0.2, 0.4)),
        nose=float(np.clip(rng.normal(-0.15, 0.28), -0.5, 0.6)), cheeks=rng.normal(0.05, 0.12),
        chin=rng.normal(0, 0.15), widths=widths, stretch=1.0 if subject is None else float(rng.normal(1.0, 0.07)),
    )  # fmt: skip
    if subject is None:
        bands, width, ink = np.array([0.02, 0.6, 0.03]), 1.3, np.array([0.12, 0.09, 0.10])
        shadow = np.array([0.66, 0.55, 0.62])
    else:
        soft = 0.02 + 0.5 * rng.random() ** 3
        bands = np.array([rng.uniform(-0.25, 0.3), rng.uniform(0.45, 0.9), soft])
        width = 0.0 if rng.random() < 0.12 else rng.uniform(0.8, 2.2)
        ink = np.clip(rng.normal(0.08, 0.06, 3), 0, 0.35)
        shadow = rng.uniform(0.45, 0.85) * np.clip(rng.normal(1, 0.12, 3), 0.6, 1.3)
    return ToonStyle(
        Appearance(colours.astype(np.float32), amounts, plain.resting * 0.6, plain.folds, plain.hair, plain.hair_seed),
        shape, bands.astype(np.float32), shadow.astype(np.float32), ink.astype(np.float32), float(width),
        lips=0.75 if subject is None else float(rng.beta(1.5, 1.0)), folds=float(rng.uniform(0.55, 1.0)),
        gleam=float(rng.random()),
    )  # fmt: skip


@kernel
def _srgb(x):  # type: ignore[no-untyped-def]
    x = min(max(x, 0.0), 1.0)
    return 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055


@kernel
def _mix(r, g, b, other, k):  # type: ignore[no-untyped-def]
    return r + (other[0] - r) * k, g + (other[1] - g) * k, b + (other[2] - b) * k


@kernel
def cel(  # type: ignore[no-untyped-def]
    out, group, samples, span, front, w1, w2, attributes, triangles, part, groups, turns, centres, heights, table,
    colours, amounts, light, tint, bands, shadow_colour, ink, lips_drawn, folds, gleam, shadow, bounds, right, over,
):  # fmt: skip
    """Fill ``samples`` of ``out`` (float32[H * W, 3] sRGB) and ``group`` (uint8[H * W]) with the toon's flat paint.

    ``samples`` and ``span`` are as in ``photo.shade``.
    """
    texels = shadow.shape[0] / 2 / SHADOW_EXTENT
    half = shadow.shape[0] / 2 - 0.5
    wide = front.shape[1]
    front, w1, w2 = front.ravel(), w1.ravel(), w2.ravel()
    s = np.empty(N_ATTRIBUTES, np.float32)
    for at in samples:
        blend(s, at, span, wide, front, w1, w2, attributes, triangles)
        kind = part[front[at]]
        x, y, z, qx, qy, qz = s[0], s[1], s[2], s[6], s[7], s[8]
        line, flat, gloss = 0.0, 0.0, 0.0
        # The light's edge follows the head's roundness more than its relief, as a pen would draw it.
        nx, ny, nz = s[3] + 0.6 * qx, s[4] + 0.5 * (qy - 0.3), s[5] + 0.5 * qz
        if kind == SKIN and s[10] > 0.5:
            r, g, b = 0.11, 0.012, 0.016
            flat = 1.0
            kind = _INSIDE
        elif kind == SKIN:
            cloth_line = -1.15 + 0.9 * smooth(0.65, 1.1, abs(x)) - 0.3 * smooth(0.2, 0.9, z)
            if y < cloth_line:
                kind = CLOTH
            else:
                r, g, b = colours[look.SKIN, 0], colours[look.SKIN, 1], colours[look.SKIN, 2]
                ax = abs(x)
                if z > 0.3:
                    h, _, _ = crease(heights, x, y)
                    line = max(line, 0.8 * folds * smooth(0.0035, 0.0085, -h))
                    blush = 0.45 * smooth(1.0, 0.2, (ax - 0.42) ** 2 / 0.02 + (y - 0.0) ** 2 / 0.012)
                    g, b = g * (1 - 0.25 * blush), b * (1 - 0.18 * blush)
                k = smooth(0.42, 0.56, s[9])
                k *= lips_drawn
                r, g, b = _mix(r, g, b, colours[look.LIPS], k)
                line = max(line, 0.9 * smooth(0.26, 0.12, s[13]) * (1 - 0.8 * s[12]) if z > 0.4 else 0.0)
                if z > 0.5 and 0.16 < y < 0.5 and amounts[look.SHADOW_MAKEUP] > 0:
                    ex, ey = (ax - 0.308) / 0.17, (y - 0.345) / 0.075
                    k = amounts[look.SHADOW_MAKEUP] * smooth(1.8, 1.3, ex * ex + ey * ey) * smooth(0.0, 0.02, ey)
                    r, g, b = _mix(r, g, b, colours[look.LID], k)
                if amounts[look.BEARD] > 0:
                    k = smooth(0.4, 0.5, paint.beard(amounts, x, y, z, s[9])[1])
                    r, g, b = _mix(r, g, b, colours[look.HAIR], k)
                if z > 0.3:
                    k = smooth(0.22, 0.36, paint.brow(table, amounts, x, y) / max(amounts[look.BROW_DENSE], 0.1))
                    r, g, b = _mix(r, g, b, colours[look.BROW], k)
                if amounts[look.CROP] > 0 and y > -0.6:
                    k = smooth(-0.01, 0.015, paint.hairline(amounts, x, y, z)) * (1 - s[12])
                    k *= min(amounts[look.CROP] * 1.4, 1.0)
                    r, g, b = _mix(r, g, b, colours[look.HAIR], k)
                gloss = 0.15
        if kind == CLOTH:
            r, g, b = colours[look.CLOTH, 0], colours[look.CLOTH, 1], colours[look.CLOTH, 2]
            if amounts[look.PATTERN] < 0.3 and (y * 5.0) % 1.0 < 0.4:
                r, g, b = colours[look.CLOTH2, 0], colours[look.CLOTH2, 1], colours[look.CLOTH2, 2]
        elif kind == 1 or kind == EYE_RIGHT:
            side = kind - 1
            ox, oy, oz = qx - centres[side, 0], qy - centres[side, 1], qz - centres[side, 2]
            inv = 1 / max(math.sqrt(ox * ox + oy * oy + oz * oz), 1e-6)
            ox, oy, oz = ox * inv, oy * inv, oz * inv
            m = turns[side]
            lx = m[0, 0] * ox + m[1, 0] * oy + m[2, 0] * oz
            ly = m[0, 1] * ox + m[1, 1] * oy + m[2, 1] * oz
            lz = m[0, 2] * ox + m[1, 2] * oy + m[2, 2] * oz
            d = math.sqrt(lx * lx + ly * ly) / amounts[look.IRIS_SIZE] if lz > 0 else 9.0
            r, g, b = colours[look.SCLERA, 0], colours[look.SCLERA, 1], colours[look.SCLERA, 2]
            if d < 1.06:
                up = 0.55 + 0.75 * smooth(0.5, -0.9, ly / amounts[look.IRIS_SIZE])
                r, g, b = colours[look.IRIS, 0] * up, colours[look.IRIS, 1] * up, colours[look.IRIS, 2] * up
                k = smooth(0.86, 0.94, d)
                r, g, b = _mix(r, g, b, colours[look.IRIS_RING], k)
                if d < amounts[look.PUPIL]:
                    r, g, b = 0.005, 0.005, 0.008
                k = smooth(0.98, 1.06, d)
                r, g, b = _mix(r, g, b, colours[look.SCLERA], k)
                spot = (lx - amounts[look.IRIS_SIZE] * 0.32) ** 2 + (ly - amounts[look.IRIS_SIZE] * 0.38) ** 2
                if spot < (0.20 * amounts[look.IRIS_SIZE]) ** 2:
                    r, g, b = 1.0, 1.0, 1.0
            k = 0.35 * smooth(0.12, 0.22, oy)
            r, g, b = r * (1 - k), g * (1 - k), b * (1 - 0.8 * k)
            flat = 1.0
        elif kind in (UPPER_TEETH, LOWER_TEETH):
            deep = 0.65 * smooth(0.95, 0.70, z)
            gap = abs(math.atan2(x, z - 0.62) / 0.30 - round(math.atan2(x, z - 0.62) / 0.30))
            tone = (1 - deep) * (1 - 0.25 * smooth(0.08, 0.0, gap))
            r, g, b = colours[look.TEETH, 0] * tone, colours[look.TEETH, 1] * tone, colours[look.TEETH, 2] * tone
            flat = 1.0
        elif kind == TONGUE:
            tone = 1 - 0.6 * smooth(0.9, 0.5, z) - 0.2 * smooth(0.025, 0.0, abs(x))
            r, g, b = colours[look.TONGUE, 0] * tone, colours[look.TONGUE, 1] * tone, colours[look.TONGUE, 2] * tone
            flat = 1.0
        elif kind == HAIR:
            tone = 0.82 + 0.3 * smooth(0.4, 0.6, noise(table, x * 9, y * 0.8, amounts[look.SEED]))
            r, g, b = colours[look.HAIR, 0] * tone, colours[look.HAIR, 1] * tone, colours[look.HAIR, 2] * tone
            gloss = 0.6
        elif kind == PROP:
            r, g, b = x, y, z
        if flat == 0.0:
            inv = 1 / max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
            c = (nx * light[0] + ny * light[1] + nz * light[2]) * inv
            if kind != HAIR:
                mx, my, mz = qx + 0.03 * s[3], qy + 0.03 * s[4], qz + 0.03 * s[5]
                free = raster.lit(
                    shadow,
                    bounds,
                    (mx * right[0] + my * right[1] + mz * right[2]) * texels + half,
                    (mx * over[0] + my * over[1] + mz * over[2]) * texels + half,
                    mx * light[0] + my * light[1] + mz * light[2] + SHADOW_BIAS,
                )
                c = min(c, free * 3.0 - 1.2)
            soft = bands[2]
            day = smooth(bands[0] - soft, bands[0] + soft, c)
            mr = shadow_colour[0] + (1 - shadow_colour[0]) * day
            mg = shadow_colour[1] + (1 - shadow_colour[1]) * day
            mb = shadow_colour[2] + (1 - shadow_colour[2]) * day
            high = 0.16 * gleam * smooth(bands[1] - soft, bands[1] + soft, c)
            if gloss > 0.3:
                band = smooth(0.13, 0.05, abs(y - 0.45)) * day
                high += 0.35 * gleam * band * smooth(0.35, 0.6, noise(table, x * 12, 0.0, amounts[look.SEED]))
            high *= min(1.0, 0.1 + 1.6 * (r + g + b) / 3)
            r, g, b = r * mr * tint[0] + high, g * mg * tint[1] + high, b * mb * tint[2] + high
        group[at] = groups[kind]
        out[at, 0] = _srgb(r) * (1 - line) + ink[0] * line
        out[at, 1] = _srgb(g) * (1 - line) + ink[1] * line
        out[at, 2] = _srgb(b) * (1 - line) + ink[2] * line


@kernel
def outline(out, group, near, reach, jump, ink):  # type: ignore[no-untyped-def]
    """Ink every pixel that lies within ``reach`` of another group, or of a step in depth of ``jump`` decimetres."""
    height, width = group.shape
    for y in range(height):
        for x in range(width):
            best = 0.0
            here, depth = group[y, x], near[y, x]
            for k in range(4):
                for step in range(1, reach + 1):
                    i = x + (step if k == 0 else -step if k == 1 else 0)
                    j = y + (step if k == 2 else -step if k == 3 else 0)
                    if i < 0 or j < 0 or i >= width or j >= height:
                        break
                    behind = here > 0 and depth > near[j, i]
                    if group[j, i] != here or (behind and 1 / near[j, i] - 1 / depth > jump * (0.6 + 0.4 * step)):
                        best = 1.0
            if best > 0.0:
                for c in range(3):
                    out[y, x, c] = ink[c]


@kernel
def lash_ink(out, at, place, ink, amount):  # type: ignore[no-untyped-def]
    """Upper lashes as one solid shape, lower ones as a hint, over the samples ``at`` (flat indices) of ``out``."""
    for n in range(len(at)):
        dx, dy, dz = place[n, 0], place[n, 1], place[n, 2]
        way = smooth(0.145, 0.235, math.sqrt(dx * dx + dy * dy + dz * dz))
        limit = (0.25 + 0.6 * amount * smooth(-0.1, 0.12, dx)) if dy > 0.0 else 0.05
        alpha = smooth(limit + 0.1, limit, way)
        for c in range(3):
            out[at[n], c] += (ink[c] - out[at[n], c]) * alpha


def draw(
    mesh: Mesh,
    style: ToonStyle,
    who: Identity,
    coefficients: np.ndarray,
    camera: Camera,
    *,
    shot: int | None,
    size: int,
    supersample: int,
    conditions: Conditions,
) -> np.ndarray:
    """Draw a bent mesh as a cartoon; arguments as in ``photo.draw``; uint8[size, size, 3]."""
    full = size * supersample
    scene = lights(shot, conditions)
    view = see(mesh, camera, size, supersample)
    out, group = scratch("inked", (full, full, 3)), scratch("groups", (full, full), np.uint8)
    raster.enlarge(out, background(shot, size), supersample)
    group[:] = 0
    shadow = shadow_of(mesh, scene.directions[0] @ view.camera.turn, SHADOW_SIZE, scene.pattern)
    tint = scene.colours[look.SKIN] / scene.colours[look.SKIN].mean()
    tint = (1 + 0.5 * (tint - 1)) * np.clip(scene.exposure * 0.9, 0.7, 1.1)
    paint_of = style.paint
    heights = height_map(coefficients, paint_of.folds, paint_of.resting)
    samples = scratch("samples", (full * full,), np.int32)
    unlashed = np.zeros((size, size), bool)
    even, starts = even_pixels(
        samples, view.front, view.near, view.part, mesh.fine, unlashed, supersample, np.float32(camera.focal)
    )
    arguments = (
        view.front, view.w1, view.w2, mesh.attributes, view.triangles, view.part, INK_GROUPS,
        rigs.rig().eye_turns(coefficients), style.bend(who.eye_centres), heights, TABLE, paint_of.colours,
        paint_of.amounts, shadow.light, tint.astype(np.float32), style.bands, style.shadow, style.ink,
        np.float32(style.lips), np.float32(style.folds), np.float32(style.gleam), shadow.depth, shadow.bounds,
        shadow.right, shadow.up,
    )  # fmt: skip
    colours, groups = out.reshape(-1, 3), group.ravel()
    cel(colours, groups, starts, supersample, *arguments)
    cel(colours, groups, other_samples(samples, colours, view.front, even, supersample), 1, *arguments)
    spread(out, group, even, supersample)
    if style.width > 0:
        reach = max(1, round(style.width * full / 448))
        outline(out, group, view.near, reach, np.float32(0.16), style.ink)
    amount = np.float32(paint_of.amounts[look.LASH_AMOUNT])
    lash_ink(colours, view.lash_at, view.lash_from, style.ink, amount)
    out = raster.downsample(out, supersample)
    if supersample == 1:
        out = blur(out, np.float32(0.12))
    return reprint((np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8), shot, conditions)
