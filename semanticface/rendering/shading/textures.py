"""Procedural textures in base-mesh coordinates, so they follow every identity and expression.

All functions are compiled and evaluate one point: x, y, z on the base mesh in decimetres around ``rig.ORIGIN``;
``colours`` and ``params`` are those of ``appearance.Appearance``; results are linear RGB.
"""

from __future__ import annotations

import math

from semanticface.rendering.head import channel as ch
from semanticface.rendering.kernels import falloff, kernel, noise, smoothstep


@kernel
def brow(table, params, x, y):  # type: ignore[no-untyped-def]
    """Brow hair coverage of a point, 0 to 1."""
    ax = abs(x)
    if ax > 0.68 or y < 0.36 or y > 0.66:
        return 0.0
    end = 0.125 + 0.425 * params[ch.BROW_LENGTH]
    t = (ax - 0.115) / (end - 0.115)
    if t < -0.12 or t > 1.02:
        return 0.0
    middle = 0.462 + params[ch.BROW_LIFT] + params[ch.BROW_ARCH] * (0.048 * t * (2.1 - 2.05 * t) * 1.9 - 0.012)
    middle += 0.022 * t - 0.035 * t * t
    half = params[ch.BROW_THICK] * (0.043 - 0.030 * t * t) * smoothstep(-0.12, 0.10, t)
    d = (y - middle) / max(half, 0.004)
    coverage = smoothstep(1.25, 0.45, abs(d)) * smoothstep(1.02, 0.80, t) * smoothstep(-0.12, 0.08, t)
    if coverage <= 0.0:
        return 0.0
    lean = ax * 0.8 - (y - middle) * (1.1 - 1.0 * t)
    strand = noise(table, lean * 170, (y - middle) * 26 + t * 6, params[ch.SEED] + x)
    return coverage * params[ch.BROW_DENSE] * (0.66 + 0.5 * smoothstep(0.25, 0.75, strand))


@kernel
def hairline(params, x, y, z):  # type: ignore[no-untyped-def]
    """Signed height of a point above the hairline, decimetres; positive has hair."""
    front = 0.985 + params[ch.HAIRLINE]
    if y < min(front, 0.74) - 0.2 and abs(x) < 1.5 * (z + 0.10):
        return -0.2  # the middle of the face is far below it: skip the angle
    angle = abs(math.atan2(x, z + 0.10))
    front += 0.30 * params[ch.RECEDE] * smoothstep(0.10, 0.45, angle)
    front += 0.25 * max(params[ch.RECEDE] - 0.3, 0.0)
    side = 0.30 - 0.32 * params[ch.SIDEBURN]
    if angle < 1.0:
        line = front + (0.74 - front) * smoothstep(0.35, 1.0, angle)
    elif angle < 1.36:
        line = 0.74 + (side - 0.74) * smoothstep(1.0, 1.22, angle)
    else:
        line = side + (0.44 - side) * smoothstep(1.36, 1.52, angle)
        line += (-0.42 - 0.44) * smoothstep(1.68, 2.1, angle)
    return y - line


@kernel
def beard(params, x, y, z, lips):  # type: ignore[no-untyped-def]
    """Beard region and this beard's density at a point: (0 to 1, 0 to 1)."""
    ax = abs(x)
    if y > 0.15 or z < -0.25:
        return 0.0, 0.0
    low = smoothstep(-1.12, -0.80, y)
    cheek = -0.36 + 0.95 * max(ax - 0.30, 0.0) ** 1.1 if ax > 0.30 else -0.36
    top = smoothstep(cheek + 0.07, cheek - 0.05, y)
    moustache = smoothstep(0.33, 0.25, ax) * smoothstep(-0.12, -0.17, y)
    over = moustache * smoothstep(-0.40, -0.34, y)
    chin = smoothstep(0.34, 0.25, ax)
    clean = max(smoothstep(0.05, 0.25, z), 0.0) * low * (1 - smoothstep(0.15, 0.5, lips))
    density = top * (params[ch.CHIN_BEARD] * chin + params[ch.JAW_BEARD] * (1 - chin))
    density = max(density * (1 - over), params[ch.MOUSTACHE] * over)
    return max(top, moustache) * clean, density * clean


@kernel
def skin(table, colours, params, x, y, z, lips, lid, ear):  # type: ignore[no-untyped-def]
    """Skin with pores, spots, makeup, beard, lips, brows and hairline: (r, g, b, gloss)."""
    seed = params[ch.SEED]
    broad = noise(table, x * 3.1 + seed, y * 3.1, z * 3.1)
    mid = noise(table, x * 11 + seed, y * 11, z * 11)
    fine = noise(table, x * 46, y * 46 + seed, z * 46)
    ax = abs(x)
    flush = 0.55 * falloff((ax - 0.38) ** 2 / 0.035 + y * y / 0.04) if z > 0.4 else 0.0
    flush += 0.7 * falloff(x * x / 0.018 + (y + 0.01) ** 2 / 0.02) if z > 0.9 else 0.0
    flush += 0.55 * ear + 0.25 * lid
    flush = flush * 0.55 + params[ch.BLOTCH] * ((mid - 0.5) * 0.55 + (broad - 0.5) * 0.5)
    flush = min(max(flush, -0.3), 1.0) * 0.6
    shade = 1.0 + (broad - 0.5) * 0.14 + params[ch.PORES] * (fine - 0.5) * 0.22
    r = (colours[ch.SKIN, 0] + (colours[ch.BLOOD, 0] - colours[ch.SKIN, 0]) * flush) * shade
    g = (colours[ch.SKIN, 1] + (colours[ch.BLOOD, 1] - colours[ch.SKIN, 1]) * flush) * shade
    b = (colours[ch.SKIN, 2] + (colours[ch.BLOOD, 2] - colours[ch.SKIN, 2]) * flush) * shade
    gloss = params[ch.SHINE] * (0.5 + 0.5 * falloff(x * x / 0.06) * (1.0 if z > 0.7 else 0.3))
    if params[ch.SPOTS] > 0.0:
        k = params[ch.SPOTS] * smoothstep(
            0.60, 0.66, noise(table, x * 5.5 + seed, y * 5.5, z * 5.5) * 0.75 + mid * 0.25
        )
        k *= 0.35 + 0.65 * smoothstep(0.15, 0.55, abs(x) + 0.8 * abs(y - 0.1))
        r, g, b = (
            r + (colours[ch.SPOT, 0] - r) * k,
            g + (colours[ch.SPOT, 1] - g) * k,
            b + (colours[ch.SPOT, 2] - b) * k,
        )
    if params[ch.FRECKLES] > 0.0 and z > 0.3:
        dot = smoothstep(0.66, 0.82, noise(table, x * 27 + 3 * seed, y * 27, z * 27))
        k = dot * params[ch.FRECKLES] * 0.55 * smoothstep(0.35, 0.05, abs(y - 0.06)) * smoothstep(0.05, 0.35, 1 - ax)
        r, g, b = r * (1 - 0.35 * k), g * (1 - 0.55 * k), b * (1 - 0.65 * k)
    if params[ch.MOLES] > 0.0:
        mole = smoothstep(0.952, 0.962, noise(table, x * 9 + 7 * seed, y * 9 + 5, z * 9))
        r, g, b = r * (1 - 0.65 * mole), g * (1 - 0.75 * mole), b * (1 - 0.75 * mole)
    if params[ch.BLEMISHES] > 0.0 and z > 0.0:
        spot = noise(table, x * 16 + 11 * seed, y * 16 + 3, z * 16)
        k = params[ch.BLEMISHES] * smoothstep(0.80, 0.90, spot) * smoothstep(0.40, 0.60, broad)
        g, b = g * (1 - 0.45 * k), b * (1 - 0.40 * k)
    if params[ch.BLUSH] > 0.0 and z > 0.3:
        slant = y - 0.05 - 0.3 * (ax - 0.46)
        k = 0.6 * params[ch.BLUSH] * falloff((ax - 0.46) ** 2 / 0.02 + slant * slant / 0.012)
        g, b = g * (1 - 0.35 * k), b * (1 - 0.28 * k)
    if z > 0.5 and 0.16 < y < 0.5:
        ex, ey = (ax - 0.308) / 0.17, (y - 0.345) / 0.075
        e = ex * ex + ey * ey
        if params[ch.SHADOW_MAKEUP] > 0.0 and ey > -0.2:
            k = params[ch.SHADOW_MAKEUP] * smoothstep(2.6, 0.9, e)
            r += (colours[ch.LID, 0] - r) * k
            g += (colours[ch.LID, 1] - g) * k
            b += (colours[ch.LID, 2] - b) * k
        if params[ch.LINER] > 0.0:
            lx, ly = (ax - 0.308) / 0.145, (y - 0.335) / 0.050
            k = 0.9 * params[ch.LINER] * smoothstep(1.30, 1.05, lx * lx + ly * ly)
            r, g, b = r * (1 - k), g * (1 - k), b * (1 - k)
        # Thin skin around the eyes is darker and redder, most of all under them.
        k = (0.16 + params[ch.EYE_BAGS] * smoothstep(0.3, -0.6, ey)) * smoothstep(2.6, 0.8, e)
        r, g, b = r * (1 - 0.7 * k), g * (1 - k), b * (1 - 0.8 * k)
    stubble = params[ch.STUBBLE] + 2.0 * params[ch.BEARD]
    if stubble > 0.0:
        region, density = beard(params, x, y, z, lips)
        if region > 0.0:
            grain = noise(table, x * 75, y * 75, z * 75 + seed)
            strand = noise(table, x * 60, y * 16, z * 60 + seed)
            k = region * (0.38 * params[ch.STUBBLE] * (0.6 + 0.8 * grain))
            full = smoothstep(0.25, 0.75, density + 0.5 * (strand - 0.5)) * params[ch.BEARD] * (0.75 + 0.4 * strand)
            k = min(max(k, full), 0.97)
            tone = 0.75 + 0.5 * strand
            r += (colours[ch.HAIR, 0] * tone - r) * k
            g += (colours[ch.HAIR, 1] * tone - g) * k
            b += (colours[ch.HAIR, 2] * tone - b) * k
            gloss *= 1 - 0.8 * k
    if lips > 0.02:
        k = smoothstep(0.5 - 0.42 * (1.2 - params[ch.LIP_EDGE]), 0.62, lips)
        line = 0.86 + 0.22 * noise(table, x * 75, y * 9, seed)
        r += (colours[ch.LIPS, 0] * line - r) * k
        g += (colours[ch.LIPS, 1] * line - g) * k
        b += (colours[ch.LIPS, 2] * line - b) * k
        gloss += (1.2 * params[ch.LIP_GLOSS] - gloss) * k
    if z > 0.3:
        k = min(brow(table, params, x, y), 0.96)
        if k > 0.0:
            r += (colours[ch.BROW, 0] - r) * k
            g += (colours[ch.BROW, 1] - g) * k
            b += (colours[ch.BROW, 2] - b) * k
            gloss *= 1 - 0.7 * k
    if params[ch.CROP] > 0.0 and y > -0.6:
        over = hairline(params, x, y, z)
        if over > -0.1:
            grain = noise(table, x * 62, y * 62, z * 62)
            strand = noise(table, x * 40, y * 12, z * 12 + seed)
            k = smoothstep(-0.045, 0.05, over + 0.09 * (strand - 0.5)) * (1 - ear)
            k *= min(params[ch.CROP] * (0.8 + 0.35 * grain), 0.97)
            tone = 0.7 + 0.6 * strand
            r += (colours[ch.HAIR, 0] * tone - r) * k
            g += (colours[ch.HAIR, 1] * tone - g) * k
            b += (colours[ch.HAIR, 2] * tone - b) * k
            gloss *= 1 - 0.6 * k
    return r, g, b, gloss


@kernel
def eye(table, colours, params, x, y, z, seed):  # type: ignore[no-untyped-def]
    """An eyeball in eye space (unit sphere, pupil at +z): (r, g, b, wet) with ``wet`` 1 on the cornea."""
    radius = math.sqrt(x * x + y * y) if z > 0 else 1.5
    size = params[ch.IRIS_SIZE]
    t = radius / size
    if t > 1.12:
        vein = params[ch.VEINS] * smoothstep(0.45, 1.0, radius)
        line = abs(noise(table, x * 9 + seed, y * 9, z * 3) - 0.5)
        red = vein * (0.35 + 0.9 * smoothstep(0.06, 0.0, line))
        red = min(red, 0.8)
        return (colours[ch.SCLERA, 0] * (1 - 0.05 * red), colours[ch.SCLERA, 1] * (1 - 0.30 * red),
                colours[ch.SCLERA, 2] * (1 - 0.28 * red), 0.35)  # fmt: skip
    angle = math.atan2(y, x)
    streak = noise(table, math.cos(angle) * 7 + seed, math.sin(angle) * 7, t * 2.2)
    fine = noise(table, math.cos(angle) * 19, math.sin(angle) * 19 + seed, t * 3)
    tone = 0.62 + 0.55 * streak + 0.4 * fine
    tone *= 1.0 + 0.35 * smoothstep(0.75, params[ch.PUPIL], t)
    ring = smoothstep(0.72, 0.98, t)
    r = colours[ch.IRIS, 0] * tone * (1 - ring) + colours[ch.IRIS_RING, 0] * ring
    g = colours[ch.IRIS, 1] * tone * (1 - ring) + colours[ch.IRIS_RING, 1] * ring
    b = colours[ch.IRIS, 2] * tone * (1 - ring) + colours[ch.IRIS_RING, 2] * ring
    pupil = smoothstep(params[ch.PUPIL] + 0.05, params[ch.PUPIL] - 0.04, t)
    r, g, b = r * (1 - pupil) + 0.004 * pupil, g * (1 - pupil) + 0.004 * pupil, b * (1 - pupil) + 0.004 * pupil
    white = smoothstep(0.96, 1.12, t)
    return (r + (colours[ch.SCLERA, 0] - r) * white, g + (colours[ch.SCLERA, 1] - g) * white,
            b + (colours[ch.SCLERA, 2] - b) * white, 1.0)  # fmt: skip


@kernel
def tooth(table, colours, params, x, y, z, upper):  # type: ignore[no-untyped-def]
    """A row of teeth: (r, g, b). Gaps by the angle along the arch, gums towards the root."""
    angle = math.atan2(x, z - 0.62)
    step = 0.30 if upper else 0.235
    at = angle / step
    near = abs(at - math.floor(at) - 0.0)
    near = min(near, 1 - near)
    gap = params[ch.TEETH_GAPS] * smoothstep(0.10, 0.0, near)
    tone = (0.92 + 0.12 * noise(table, math.floor(at) * 3.7, params[ch.SEED], 0.0)) * (1 - 0.55 * gap)
    root = smoothstep(-0.20, -0.165, y) if upper else smoothstep(-0.43, -0.46, y)
    r, g, b = colours[ch.TEETH, 0] * tone, colours[ch.TEETH, 1] * tone, colours[ch.TEETH, 2] * tone
    return (r + (0.8 * colours[ch.TONGUE, 0] - r) * root, g + (colours[ch.TONGUE, 1] - g) * root,
            b + (colours[ch.TONGUE, 2] - b) * root)  # fmt: skip
