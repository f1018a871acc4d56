"""Procedural paint in base-mesh coordinates: it follows every identity and expression, and needs no textures.

All functions are compiled and work on one point: x, y, z on the base mesh in decimetres around ``rig.ORIGIN``;
``colours`` and ``amounts`` are those of ``appearance.Appearance``; results are linear RGB.
"""

from __future__ import annotations

import math

from semanticface.rendering.head import appearance as look
from semanticface.rendering.kernels import fade, kernel, noise, smooth


@kernel
def brow(table, amounts, x, y):  # type: ignore[no-untyped-def]
    """How much brow hair covers a point, 0 to 1."""
    ax = abs(x)
    if ax > 0.68 or y < 0.36 or y > 0.66:
        return 0.0
    end = 0.125 + 0.425 * amounts[look.BROW_LENGTH]
    t = (ax - 0.115) / (end - 0.115)
    if t < -0.12 or t > 1.02:
        return 0.0
    middle = 0.462 + amounts[look.BROW_LIFT] + amounts[look.BROW_ARCH] * (0.048 * t * (2.1 - 2.05 * t) * 1.9 - 0.012)
    middle += 0.022 * t - 0.035 * t * t
    half = amounts[look.BROW_THICK] * (0.043 - 0.030 * t * t) * smooth(-0.12, 0.10, t)
    d = (y - middle) / max(half, 0.004)
    cover = smooth(1.25, 0.45, abs(d)) * smooth(1.02, 0.80, t) * smooth(-0.12, 0.08, t)
    if cover <= 0.0:
        return 0.0
    lean = ax * 0.8 - (y - middle) * (1.1 - 1.0 * t)
    strand = noise(table, lean * 170, (y - middle) * 26 + t * 6, amounts[look.SEED] + x)
    return cover * amounts[look.BROW_DENSE] * (0.66 + 0.5 * smooth(0.25, 0.75, strand))


@kernel
def hairline(amounts, x, y, z):  # type: ignore[no-untyped-def]
    """Signed height of a point over the hairline, decimetres; positive grows hair."""
    front = 0.985 + amounts[look.HAIRLINE]
    if y < min(front, 0.74) - 0.2 and abs(x) < 1.5 * (z + 0.10):
        return -0.2  # the middle of the face, where no angle is needed to know that it is far below
    turn = abs(math.atan2(x, z + 0.10))
    front += 0.30 * amounts[look.RECEDE] * smooth(0.10, 0.45, turn)
    front += 0.25 * max(amounts[look.RECEDE] - 0.3, 0.0)
    side = 0.30 - 0.32 * amounts[look.SIDEBURN]
    if turn < 1.0:
        line = front + (0.74 - front) * smooth(0.35, 1.0, turn)
    elif turn < 1.36:
        line = 0.74 + (side - 0.74) * smooth(1.0, 1.22, turn)
    else:
        line = side + (0.44 - side) * smooth(1.36, 1.52, turn)
        line += (-0.42 - 0.44) * smooth(1.68, 2.1, turn)
    return y - line


@kernel
def beard(amounts, x, y, z, lips):  # type: ignore[no-untyped-def]
    """How far a point lies where a beard grows, and where this one is let grow: (0 to 1, 0 to 1)."""
    ax = abs(x)
    if y > 0.15 or z < -0.25:
        return 0.0, 0.0
    low = smooth(-1.12, -0.80, y)
    cheek = -0.36 + 0.95 * max(ax - 0.30, 0.0) ** 1.1 if ax > 0.30 else -0.36
    top = smooth(cheek + 0.07, cheek - 0.05, y)
    moustache = smooth(0.33, 0.25, ax) * smooth(-0.12, -0.17, y)
    over = moustache * smooth(-0.40, -0.34, y)
    chin = smooth(0.34, 0.25, ax)
    clean = max(smooth(0.05, 0.25, z), 0.0) * low * (1 - smooth(0.15, 0.5, lips))
    grown = top * (amounts[look.CHIN_BEARD] * chin + amounts[look.JAW_BEARD] * (1 - chin))
    grown = max(grown * (1 - over), amounts[look.MOUSTACHE] * over)
    return max(top, moustache) * clean, grown * clean


@kernel
def skin(table, colours, amounts, x, y, z, lips, lid, ear):  # type: ignore[no-untyped-def]
    """Skin with everything on it: (r, g, b, gloss)."""
    seed = amounts[look.SEED]
    broad = noise(table, x * 3.1 + seed, y * 3.1, z * 3.1)
    mid = noise(table, x * 11 + seed, y * 11, z * 11)
    fine = noise(table, x * 46, y * 46 + seed, z * 46)
    ax = abs(x)
    flush = 0.55 * fade((ax - 0.38) ** 2 / 0.035 + y * y / 0.04) if z > 0.4 else 0.0
    flush += 0.7 * fade(x * x / 0.018 + (y + 0.01) ** 2 / 0.02) if z > 0.9 else 0.0
    flush += 0.55 * ear + 0.25 * lid
    flush = flush * 0.55 + amounts[look.BLOTCH] * ((mid - 0.5) * 0.55 + (broad - 0.5) * 0.5)
    flush = min(max(flush, -0.3), 1.0) * 0.6
    shade = 1.0 + (broad - 0.5) * 0.14 + amounts[look.PORES] * (fine - 0.5) * 0.22
    r = (colours[look.SKIN, 0] + (colours[look.BLOOD, 0] - colours[look.SKIN, 0]) * flush) * shade
    g = (colours[look.SKIN, 1] + (colours[look.BLOOD, 1] - colours[look.SKIN, 1]) * flush) * shade
    b = (colours[look.SKIN, 2] + (colours[look.BLOOD, 2] - colours[look.SKIN, 2]) * flush) * shade
    gloss = amounts[look.SHINE] * (0.5 + 0.5 * fade(x * x / 0.06) * (1.0 if z > 0.7 else 0.3))
    if amounts[look.SPOTS] > 0.0:
        k = amounts[look.SPOTS] * smooth(0.60, 0.66, noise(table, x * 5.5 + seed, y * 5.5, z * 5.5) * 0.75 + mid * 0.25)
        k *= 0.35 + 0.65 * smooth(0.15, 0.55, abs(x) + 0.8 * abs(y - 0.1))
        r, g, b = (
            r + (colours[look.SPOT, 0] - r) * k,
            g + (colours[look.SPOT, 1] - g) * k,
            b + (colours[look.SPOT, 2] - b) * k,
        )
    if amounts[look.FRECKLES] > 0.0 and z > 0.3:
        dot = smooth(0.66, 0.82, noise(table, x * 27 + 3 * seed, y * 27, z * 27))
        k = dot * amounts[look.FRECKLES] * 0.55 * smooth(0.35, 0.05, abs(y - 0.06)) * smooth(0.05, 0.35, 1 - ax)
        r, g, b = r * (1 - 0.35 * k), g * (1 - 0.55 * k), b * (1 - 0.65 * k)
    if amounts[look.MOLES] > 0.0:
        mole = smooth(0.952, 0.962, noise(table, x * 9 + 7 * seed, y * 9 + 5, z * 9))
        r, g, b = r * (1 - 0.65 * mole), g * (1 - 0.75 * mole), b * (1 - 0.75 * mole)
    if amounts[look.BLEMISHES] > 0.0 and z > 0.0:
        spot = noise(table, x * 16 + 11 * seed, y * 16 + 3, z * 16)
        k = amounts[look.BLEMISHES] * smooth(0.80, 0.90, spot) * smooth(0.40, 0.60, broad)
        g, b = g * (1 - 0.45 * k), b * (1 - 0.40 * k)
    if amounts[look.BLUSH] > 0.0 and z > 0.3:
        slant = y - 0.05 - 0.3 * (ax - 0.46)
        k = 0.6 * amounts[look.BLUSH] * fade((ax - 0.46) ** 2 / 0.02 + slant * slant / 0.012)
        g, b = g * (1 - 0.35 * k), b * (1 - 0.28 * k)
    if z > 0.5 and 0.16 < y < 0.5:
        ex, ey = (ax - 0.308) / 0.17, (y - 0.345) / 0.075
        e = ex * ex + ey * ey
        if amounts[look.SHADOW_MAKEUP] > 0.0 and ey > -0.2:
            k = amounts[look.SHADOW_MAKEUP] * smooth(2.6, 0.9, e)
            r += (colours[look.LID, 0] - r) * k
            g += (colours[look.LID, 1] - g) * k
            b += (colours[look.LID, 2] - b) * k
        if amounts[look.LINER] > 0.0:
            lx, ly = (ax - 0.308) / 0.145, (y - 0.335) / 0.050
            k = 0.9 * amounts[look.LINER] * smooth(1.30, 1.05, lx * lx + ly * ly)
            r, g, b = r * (1 - k), g * (1 - k), b * (1 - k)
        # Thin skin around the eyes shows blood and shadow, most of all under them.
        k = (0.16 + amounts[look.EYE_BAGS] * smooth(0.3, -0.6, ey)) * smooth(2.6, 0.8, e)
        r, g, b = r * (1 - 0.7 * k), g * (1 - k), b * (1 - 0.8 * k)
    stub = amounts[look.STUBBLE] + 2.0 * amounts[look.BEARD]
    if stub > 0.0:
        area, grown = beard(amounts, x, y, z, lips)
        if area > 0.0:
            grain = noise(table, x * 75, y * 75, z * 75 + seed)
            strand = noise(table, x * 60, y * 16, z * 60 + seed)
            k = area * (0.38 * amounts[look.STUBBLE] * (0.6 + 0.8 * grain))
            full = smooth(0.25, 0.75, grown + 0.5 * (strand - 0.5)) * amounts[look.BEARD] * (0.75 + 0.4 * strand)
            k = min(max(k, full), 0.97)
            tone = 0.75 + 0.5 * strand
            r += (colours[look.HAIR, 0] * tone - r) * k
            g += (colours[look.HAIR, 1] * tone - g) * k
            b += (colours[look.HAIR, 2] * tone - b) * k
            gloss *= 1 - 0.8 * k
    if lips > 0.02:
        k = smooth(0.5 - 0.42 * (1.2 - amounts[look.LIP_EDGE]), 0.62, lips)
        line = 0.86 + 0.22 * noise(table, x * 75, y * 9, seed)
        r += (colours[look.LIPS, 0] * line - r) * k
        g += (colours[look.LIPS, 1] * line - g) * k
        b += (colours[look.LIPS, 2] * line - b) * k
        gloss += (1.2 * amounts[look.LIP_GLOSS] - gloss) * k
    if z > 0.3:
        k = min(brow(table, amounts, x, y), 0.96)
        if k > 0.0:
            r += (colours[look.BROW, 0] - r) * k
            g += (colours[look.BROW, 1] - g) * k
            b += (colours[look.BROW, 2] - b) * k
            gloss *= 1 - 0.7 * k
    if amounts[look.CROP] > 0.0 and y > -0.6:
        over = hairline(amounts, x, y, z)
        if over > -0.1:
            grain = noise(table, x * 62, y * 62, z * 62)
            strand = noise(table, x * 40, y * 12, z * 12 + seed)
            k = smooth(-0.045, 0.05, over + 0.09 * (strand - 0.5)) * (1 - ear)
            k *= min(amounts[look.CROP] * (0.8 + 0.35 * grain), 0.97)
            tone = 0.7 + 0.6 * strand
            r += (colours[look.HAIR, 0] * tone - r) * k
            g += (colours[look.HAIR, 1] * tone - g) * k
            b += (colours[look.HAIR, 2] * tone - b) * k
            gloss *= 1 - 0.6 * k
    return r, g, b, gloss


@kernel
def eye(table, colours, amounts, x, y, z, seed):  # type: ignore[no-untyped-def]
    """An eyeball in eye space (unit sphere, pupil at +z): (r, g, b, wet) with ``wet`` 1 on the cornea."""
    r2 = math.sqrt(x * x + y * y) if z > 0 else 1.5
    size = amounts[look.IRIS_SIZE]
    t = r2 / size
    if t > 1.12:
        vein = amounts[look.VEINS] * smooth(0.45, 1.0, r2)
        line = abs(noise(table, x * 9 + seed, y * 9, z * 3) - 0.5)
        red = vein * (0.35 + 0.9 * smooth(0.06, 0.0, line))
        red = min(red, 0.8)
        return (colours[look.SCLERA, 0] * (1 - 0.05 * red), colours[look.SCLERA, 1] * (1 - 0.30 * red),
                colours[look.SCLERA, 2] * (1 - 0.28 * red), 0.35)  # fmt: skip
    angle = math.atan2(y, x)
    streak = noise(table, math.cos(angle) * 7 + seed, math.sin(angle) * 7, t * 2.2)
    fine = noise(table, math.cos(angle) * 19, math.sin(angle) * 19 + seed, t * 3)
    tone = 0.62 + 0.55 * streak + 0.4 * fine
    tone *= 1.0 + 0.35 * smooth(0.75, amounts[look.PUPIL], t)
    ring = smooth(0.72, 0.98, t)
    r = colours[look.IRIS, 0] * tone * (1 - ring) + colours[look.IRIS_RING, 0] * ring
    g = colours[look.IRIS, 1] * tone * (1 - ring) + colours[look.IRIS_RING, 1] * ring
    b = colours[look.IRIS, 2] * tone * (1 - ring) + colours[look.IRIS_RING, 2] * ring
    pupil = smooth(amounts[look.PUPIL] + 0.05, amounts[look.PUPIL] - 0.04, t)
    r, g, b = r * (1 - pupil) + 0.004 * pupil, g * (1 - pupil) + 0.004 * pupil, b * (1 - pupil) + 0.004 * pupil
    white = smooth(0.96, 1.12, t)
    return (r + (colours[look.SCLERA, 0] - r) * white, g + (colours[look.SCLERA, 1] - g) * white,
            b + (colours[look.SCLERA, 2] - b) * white, 1.0)  # fmt: skip


@kernel
def tooth(table, colours, amounts, x, y, z, upper):  # type: ignore[no-untyped-def]
    """A row of teeth: (r, g, b). Gaps by the way along the arch, gums towards the root."""
    turn = math.atan2(x, z - 0.62)
    step = 0.30 if upper else 0.235
    at = turn / step
    near = abs(at - math.floor(at) - 0.0)
    near = min(near, 1 - near)
    gap = amounts[look.TEETH_GAPS] * smooth(0.10, 0.0, near)
    tone = (0.92 + 0.12 * noise(table, math.floor(at) * 3.7, amounts[look.SEED], 0.0)) * (1 - 0.55 * gap)
    root = smooth(-0.20, -0.165, y) if upper else smooth(-0.43, -0.46, y)
    r, g, b = colours[look.TEETH, 0] * tone, colours[look.TEETH, 1] * tone, colours[look.TEETH, 2] * tone
    return r + (0.45 - r) * root, g + (0.14 - g) * root, b + (0.13 - b) * root
