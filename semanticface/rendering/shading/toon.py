"""The toon style: cel shading, ink outlines, simple palettes and cartoon proportions on the same head."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from semanticface.rendering import raster
from semanticface.rendering.camera import Camera
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.appearance import Appearance, appearance_of, linear
from semanticface.rendering.head.cartoon_warp import CartoonWarp, cartoon_warp
from semanticface.rendering.head.mesh import CLOTH, HAIR, N_ATTRIBUTES, PROP, Mesh
from semanticface.rendering.head.rig import EYE_LEFT, EYE_RIGHT, LOWER_TEETH, SKIN, TONGUE, UPPER_TEETH, Identity, rig
from semanticface.rendering.kernels import NOISE_TABLE, kernel, noise, scratch_buffer, smoothstep
from semanticface.rendering.lighting import SHADOW_EXTENT, sample_lights
from semanticface.rendering.sensor import blur, degrade_drawing
from semanticface.rendering.shading import antialias, textures
from semanticface.rendering.shading.background import background
from semanticface.rendering.shading.photo import wrinkle_at
from semanticface.rendering.shading.projection import cast_shadow, rasterise
from semanticface.rendering.shading.wrinkles import height_map

# Fantasy skins; greens, teals and purples are reserved for the imp.
_FANTASY_SKINS = np.array(
    [(255, 196, 206), (158, 196, 240), (250, 222, 120), (196, 200, 210), (255, 170, 120), (236, 236, 240)], float
)
SHADOW_SIZE, SHADOW_BIAS = 128, 0.05
_MOUTH_INSIDE = PROP + 1  # of the mouth; used in cel_shade only
INK_GROUPS = np.array([1, 2, 2, 3, 3, 4, 1, 5, 6, 8, 7], np.uint8)
"""Outline group of each part; ink separates neighbouring pixels of different groups."""


@dataclass(frozen=True, slots=True, eq=False)
class ToonStyle:
    """How a subject is drawn.

    Attributes:
        appearance: colours and texture parameters, as in the photo style.
        warp: cartoon proportions.
        light_bands: float32[3], the two thresholds of the light bands and their softness.
        shadow_tint: float32[3], multiplies the colour of the shaded side.
        ink: float32[3], sRGB colour of lines.
        outline_width: in pixels of a 224 px image; 0 draws none.
        lip_strength: how strongly lips are coloured, 0 to 1.
        wrinkle_strength: how strongly wrinkles are inked.
        highlight: strength of specular highlights.
    """

    appearance: Appearance
    warp: CartoonWarp
    light_bands: np.ndarray
    shadow: np.ndarray
    ink: np.ndarray
    outline_width: float
    lip_strength: float
    wrinkle_strength: float
    highlight: float


def toon_style(subject: int | None, identity: Identity) -> ToonStyle:
    """Sample the style of a subject; ``None`` is the plain one."""
    rng = np.random.default_rng([41] if subject is None else [subject, 41])
    plain = appearance_of(subject, identity)
    colours, params = plain.colours.copy(), plain.params.copy()
    if subject is not None:
        if rng.random() < 0.28:
            skin = _FANTASY_SKINS[rng.integers(len(_FANTASY_SKINS))] * rng.uniform(0.85, 1.0, 3)
            colours[ch.SKIN] = linear(skin)
            colours[ch.LIPS] = linear(skin * [0.85, 0.55, 0.6])
            colours[ch.LID] = linear(skin * 0.85)
        if rng.random() < 0.45:
            hair = rng.dirichlet([0.7, 0.7, 0.7]) * rng.uniform(150, 480)
            colours[ch.HAIR] = colours[ch.BROW] = linear(np.clip(hair, 8, 245))
        if rng.random() < 0.5:
            colours[ch.IRIS] = linear(np.clip(rng.dirichlet([0.8] * 3) * 380, 10, 235))
            colours[ch.IRIS_RING] = colours[ch.IRIS] * 0.2
    grey = colours[ch.SKIN].mean()
    colours[ch.SKIN] = np.clip(grey + (colours[ch.SKIN] - grey) * rng.uniform(1.0, 1.35), 0.01, 1)
    colours[ch.SCLERA] = linear(np.array([246, 246, 248]))
    colours[ch.TEETH] = linear(np.array([248, 246, 240]))
    for index in (ch.BLOTCH, ch.PORES, ch.MOLES, ch.VEINS, ch.STUBBLE, ch.BLEMISHES, ch.SPOTS):
        params[index] = 0
    flat, painted = False, True
    if subject is not None:
        extra = np.random.default_rng([subject, 43])
        flat, painted = extra.random() < 0.25, extra.random() < 0.7
        params[ch.BLUSH] = extra.uniform(0.2, 1.0) if extra.random() < 0.45 else 0.0
    params[ch.BROW_THICK] *= rng.uniform(1.0, 1.7)
    params[ch.IRIS_SIZE] = rng.uniform(0.46, 0.62)
    params[ch.PUPIL] = rng.uniform(0.35, 0.6)
    eyes = 0.42 if subject is None else rng.uniform(0.0, 1.0)
    widths = (0.9, 1.03, 1.05) if subject is None else tuple(rng.normal([0.93, 1.03, 1.04], [0.11, 0.06, 0.08]))
    shape = cartoon_warp(
        identity, eyes=eyes, mouth=float(np.clip(rng.normal(0.08 if painted else -0.2, 0.14), -0.35, 0.4)),
        nose=float(np.clip(rng.normal(-0.15, 0.28), -0.5, 0.6)), cheeks=rng.normal(0.05, 0.12),
        chin=rng.normal(0, 0.15), widths=widths, stretch=1.0 if subject is None else float(rng.normal(1.0, 0.07)),
    )  # fmt: skip
    if subject is None:
        light_bands, outline_width, ink = np.array([0.02, 0.6, 0.03]), 1.3, np.array([0.12, 0.09, 0.10])
        shadow = np.array([0.66, 0.55, 0.62])
    else:
        softness = 0.02 + 0.5 * rng.random() ** 3
        light_bands = np.array([rng.uniform(-0.25, 0.3), rng.uniform(0.45, 0.9), softness])
        outline_width = 0.0 if rng.random() < 0.12 else rng.uniform(0.8, 2.2)
        ink = np.clip(rng.normal(0.08, 0.06, 3), 0, 0.35)
        shadow = rng.uniform(0.45, 0.85) * np.clip(rng.normal(1, 0.12, 3), 0.6, 1.3)
    if flat:  # all in the light, without highlights
        light_bands[:2] = -2.0, 2.0
    lip_strength = 0.75 if subject is None else float(rng.beta(1.5, 1.0))
    return ToonStyle(
        Appearance(colours.astype(np.float32), params, plain.resting_wrinkles * 0.6, plain.wrinkle_depth, plain.hair,
        plain.hair_seed, plain.beard_length), shape, light_bands.astype(np.float32), shadow.astype(np.float32),
        ink.astype(np.float32),
        float(outline_width), lip_strength=lip_strength if painted else 0.0,
        wrinkle_strength=float(rng.uniform(0.55, 1.0)), highlight=float(rng.random()),
    )  # fmt: skip


@kernel
def _srgb(x):  # type: ignore[no-untyped-def]
    x = min(max(x, 0.0), 1.0)
    return 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055


@kernel
def _mix(r, g, b, other, k):  # type: ignore[no-untyped-def]
    return r + (other[0] - r) * k, g + (other[1] - g) * k, b + (other[2] - b) * k


@kernel
def cel_shade(  # type: ignore[no-untyped-def]
    out, group, samples, n_samples, triangle_ids, w1, w2, attributes, triangles, part, groups, eye_rotations,
    eye_centres, wrinkles, table, colours, params, light, tint, light_bands, shadow_tint, ink, lip_strength,
    wrinkle_strength, highlight, shadow, bounds, shadow_right, shadow_up,
):  # fmt: skip
    """Fill ``samples`` of ``out`` (float32[H * W, 3] sRGB) and ``group`` (uint8[H * W]) with flat colour.

    ``samples`` and ``n_samples`` are as in ``photo.shade``.
    """
    texels = shadow.shape[0] / 2 / SHADOW_EXTENT
    half = shadow.shape[0] / 2 - 0.5
    row_length = triangle_ids.shape[1]
    triangle_ids, w1, w2 = triangle_ids.ravel(), w1.ravel(), w2.ravel()
    s = np.empty(N_ATTRIBUTES, np.float32)
    for index in samples:
        antialias.interpolate(s, index, n_samples, row_length, triangle_ids, w1, w2, attributes, triangles)
        part_id = part[triangle_ids[index]]
        x, y, z, qx, qy, qz = s[0], s[1], s[2], s[6], s[7], s[8]
        line, flat, gloss = 0.0, 0.0, 0.0
        # Blend normals towards a sphere's, so that the shadow edge is as smooth as a drawn line.
        nx, ny, nz = s[3] + 0.6 * qx, s[4] + 0.5 * (qy - 0.3), s[5] + 0.5 * qz
        if part_id == SKIN and s[10] > 0.5:
            r, g, b = 0.11, 0.012, 0.016
            flat = 1.0
            part_id = _MOUTH_INSIDE
        elif part_id == SKIN:
            collar_line = -1.15 + 0.9 * smoothstep(0.65, 1.1, abs(x)) - 0.3 * smoothstep(0.2, 0.9, z)
            if y < collar_line:
                part_id = CLOTH
            else:
                r, g, b = colours[ch.SKIN, 0], colours[ch.SKIN, 1], colours[ch.SKIN, 2]
                ax = abs(x)
                if z > 0.3:
                    h, _, _ = wrinkle_at(wrinkles, x, y)
                    line = max(line, 0.8 * wrinkle_strength * smoothstep(0.0035, 0.0085, -h))
                    blush = params[ch.BLUSH] * smoothstep(1.0, 0.2, (ax - 0.42) ** 2 / 0.02 + (y - 0.0) ** 2 / 0.012)
                    g, b = g * (1 - 0.25 * blush), b * (1 - 0.18 * blush)
                k = smoothstep(0.42, 0.56, s[9])
                k *= lip_strength
                r, g, b = _mix(r, g, b, colours[ch.LIPS], k)
                line = max(line, 0.9 * smoothstep(0.26, 0.12, s[13]) * (1 - 0.8 * s[12]) if z > 0.4 else 0.0)
                if z > 0.5 and 0.16 < y < 0.5 and params[ch.SHADOW_MAKEUP] > 0:
                    ex, ey = (ax - 0.308) / 0.17, (y - 0.345) / 0.075
                    k = params[ch.SHADOW_MAKEUP] * smoothstep(1.8, 1.3, ex * ex + ey * ey) * smoothstep(0.0, 0.02, ey)
                    r, g, b = _mix(r, g, b, colours[ch.LID], k)
                if params[ch.BEARD] > 0:
                    k = smoothstep(0.4, 0.5, textures.beard(params, x, y, z, s[9])[1])
                    r, g, b = _mix(r, g, b, colours[ch.HAIR], k)
                if z > 0.3:
                    k = smoothstep(0.22, 0.36, textures.brow(table, params, x, y) / max(params[ch.BROW_DENSE], 0.1))
                    r, g, b = _mix(r, g, b, colours[ch.BROW], k)
                if params[ch.CROP] > 0 and y > -0.6:
                    k = smoothstep(-0.01, 0.015, textures.hairline(params, x, y, z)) * (1 - s[12])
                    k *= min(params[ch.CROP] * 1.4, 1.0)
                    r, g, b = _mix(r, g, b, colours[ch.HAIR], k)
                gloss = 0.15
        if part_id == CLOTH:
            r, g, b = colours[ch.CLOTH, 0], colours[ch.CLOTH, 1], colours[ch.CLOTH, 2]
            if params[ch.PATTERN] < 0.3 and (y * 5.0) % 1.0 < 0.4:
                r, g, b = colours[ch.CLOTH2, 0], colours[ch.CLOTH2, 1], colours[ch.CLOTH2, 2]
        elif part_id in (EYE_LEFT, EYE_RIGHT):
            side = part_id - EYE_LEFT
            ox, oy, oz = qx - eye_centres[side, 0], qy - eye_centres[side, 1], qz - eye_centres[side, 2]
            inv = 1 / max(math.sqrt(ox * ox + oy * oy + oz * oz), 1e-6)
            ox, oy, oz = ox * inv, oy * inv, oz * inv
            m = eye_rotations[side]
            lx = m[0, 0] * ox + m[1, 0] * oy + m[2, 0] * oz
            ly = m[0, 1] * ox + m[1, 1] * oy + m[2, 1] * oz
            lz = m[0, 2] * ox + m[1, 2] * oy + m[2, 2] * oz
            d = math.sqrt(lx * lx + ly * ly) / params[ch.IRIS_SIZE] if lz > 0 else 9.0
            r, g, b = colours[ch.SCLERA, 0], colours[ch.SCLERA, 1], colours[ch.SCLERA, 2]
            if d < 1.06:
                up = 0.55 + 0.75 * smoothstep(0.5, -0.9, ly / params[ch.IRIS_SIZE])
                r, g, b = colours[ch.IRIS, 0] * up, colours[ch.IRIS, 1] * up, colours[ch.IRIS, 2] * up
                k = smoothstep(0.86, 0.94, d)
                r, g, b = _mix(r, g, b, colours[ch.IRIS_RING], k)
                if d < params[ch.PUPIL]:
                    r, g, b = 0.005, 0.005, 0.008
                k = smoothstep(0.98, 1.06, d)
                r, g, b = _mix(r, g, b, colours[ch.SCLERA], k)
                spot = (lx - params[ch.IRIS_SIZE] * 0.32) ** 2 + (ly - params[ch.IRIS_SIZE] * 0.38) ** 2
                if spot < (0.20 * params[ch.IRIS_SIZE]) ** 2:
                    r, g, b = 1.0, 1.0, 1.0
            k = 0.35 * smoothstep(0.12, 0.22, oy)
            r, g, b = r * (1 - k), g * (1 - k), b * (1 - 0.8 * k)
            flat = 1.0
        elif part_id in (UPPER_TEETH, LOWER_TEETH):
            depth = 0.65 * smoothstep(0.95, 0.70, z)
            gap = abs(math.atan2(x, z - 0.62) / 0.30 - round(math.atan2(x, z - 0.62) / 0.30))
            tone = (1 - depth) * (1 - 0.25 * smoothstep(0.08, 0.0, gap))
            r, g, b = (colours[ch.TEETH, 0] * tone, colours[ch.TEETH, 1] * tone, colours[ch.TEETH, 2] * tone)
            flat = 1.0
        elif part_id == TONGUE:
            tone = 1 - 0.6 * smoothstep(0.9, 0.5, z) - 0.2 * smoothstep(0.025, 0.0, abs(x))
            r, g, b = (colours[ch.TONGUE, 0] * tone, colours[ch.TONGUE, 1] * tone, colours[ch.TONGUE, 2] * tone)
            flat = 1.0
        elif part_id == HAIR:
            tone = 0.82 + 0.3 * smoothstep(0.4, 0.6, noise(table, x * 9, y * 0.8, params[ch.SEED]))
            r, g, b = colours[ch.HAIR, 0] * tone, colours[ch.HAIR, 1] * tone, colours[ch.HAIR, 2] * tone
            gloss = 0.6
        elif part_id == PROP:
            r, g, b = x, y, z
        if flat == 0.0:
            inv = 1 / max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
            n_dot_l = (nx * light[0] + ny * light[1] + nz * light[2]) * inv
            if part_id != HAIR:
                mx, my, mz = qx + 0.03 * s[3], qy + 0.03 * s[4], qz + 0.03 * s[5]
                lit = raster.sample_shadow(
                    shadow,
                    bounds,
                    (mx * shadow_right[0] + my * shadow_right[1] + mz * shadow_right[2]) * texels + half,
                    (mx * shadow_up[0] + my * shadow_up[1] + mz * shadow_up[2]) * texels + half,
                    mx * light[0] + my * light[1] + mz * light[2] + SHADOW_BIAS,
                )
                n_dot_l = min(n_dot_l, lit * 3.0 - 1.2)
            softness = light_bands[2]
            light_amount = smoothstep(light_bands[0] - softness, light_bands[0] + softness, n_dot_l)
            mr = shadow_tint[0] + (1 - shadow_tint[0]) * light_amount
            mg = shadow_tint[1] + (1 - shadow_tint[1]) * light_amount
            mb = shadow_tint[2] + (1 - shadow_tint[2]) * light_amount
            specular = 0.16 * highlight * smoothstep(light_bands[1] - softness, light_bands[1] + softness, n_dot_l)
            if gloss > 0.3:
                band = smoothstep(0.13, 0.05, abs(y - 0.45)) * light_amount
                specular += 0.35 * highlight * band * smoothstep(0.35, 0.6, noise(table, x * 12, 0.0, params[ch.SEED]))
            specular *= min(1.0, 0.1 + 1.6 * (r + g + b) / 3)
            r, g, b = r * mr * tint[0] + specular, g * mg * tint[1] + specular, b * mb * tint[2] + specular
        group[index] = groups[part_id]
        out[index, 0] = _srgb(r) * (1 - line) + ink[0] * line
        out[index, 1] = _srgb(g) * (1 - line) + ink[1] * line
        out[index, 2] = _srgb(b) * (1 - line) + ink[2] * line


@kernel
def draw_outlines(out, group, inv_depth, reach, depth_step, ink):  # type: ignore[no-untyped-def]
    """Ink every pixel within ``reach`` of another group or of a depth step of ``depth_step`` decimetres."""
    height, width = group.shape
    for y in range(height):
        for x in range(width):
            is_edge = 0.0
            own_group, own_inv_depth = group[y, x], inv_depth[y, x]
            for k in range(4):
                for step in range(1, reach + 1):
                    i = x + (step if k == 0 else -step if k == 1 else 0)
                    j = y + (step if k == 2 else -step if k == 3 else 0)
                    if i < 0 or j < 0 or i >= width or j >= height:
                        break
                    in_front = own_group > 0 and own_inv_depth > inv_depth[j, i]
                    if group[j, i] != own_group or (
                        in_front and 1 / inv_depth[j, i] - 1 / own_inv_depth > depth_step * (0.6 + 0.4 * step)
                    ):
                        is_edge = 1.0
            if is_edge > 0.0:
                for n_dot_l in range(3):
                    out[y, x, n_dot_l] = ink[n_dot_l]


@kernel
def draw_lashes(out, index, offsets, ink, amount):  # type: ignore[no-untyped-def]
    """Draw upper lashes as one solid shape and hint at lower ones, over the given samples (flat indices)."""
    for n in range(len(index)):
        dx, dy, dz = offsets[n, 0], offsets[n, 1], offsets[n, 2]
        along = smoothstep(0.145, 0.235, math.sqrt(dx * dx + dy * dy + dz * dz))
        limit = (0.25 + 0.6 * amount * smoothstep(-0.1, 0.12, dx)) if dy > 0.0 else 0.05
        alpha = smoothstep(limit + 0.1, limit, along)
        for n_dot_l in range(3):
            out[index[n], n_dot_l] += (ink[n_dot_l] - out[index[n], n_dot_l]) * alpha


def draw(
    mesh: Mesh, style: ToonStyle, identity: Identity, coefficients: np.ndarray, camera: Camera, *, shot: int | None,
    size: int, supersample: int, conditions: Conditions,
) -> np.ndarray:  # fmt: skip
    """Cel-shade a warped mesh; arguments as in ``photo.draw``; uint8[size, size, 3]."""
    side = size * supersample
    lights = sample_lights(shot, conditions)
    view = rasterise(mesh, camera, size, supersample)
    out, group = scratch_buffer("inked", (side, side, 3)), scratch_buffer("groups", (side, side), np.uint8)
    raster.upsample(out, background(shot, size), supersample)
    group[:] = 0
    shadow = cast_shadow(mesh, lights.directions[0] @ view.camera.rotation, SHADOW_SIZE, lights.shadow_pattern)
    tint = lights.colours[ch.SKIN] / lights.colours[ch.SKIN].mean()
    tint = (1 + 0.5 * (tint - 1)) * np.clip(lights.exposure * 0.9, 0.7, 1.1)
    appearance = style.appearance
    wrinkles = height_map(coefficients, appearance.wrinkle_depth, appearance.resting_wrinkles)
    samples = scratch_buffer("samples", (side * side,), np.int32)
    no_lashes = np.zeros((size, size), bool)
    focal = np.float32(camera.focal)
    smooth, first_samples = antialias.find_smooth_pixels(
        samples, view.triangle_ids, view.inv_depth, view.part, mesh.fine, no_lashes, supersample, focal
    )
    inputs = (
        view.triangle_ids, view.w1, view.w2, mesh.attributes, view.triangles, view.part, INK_GROUPS,
        rig().eye_rotations(coefficients, identity.movement), style.warp(identity.eye_centres), wrinkles, NOISE_TABLE,
        appearance.colours, appearance.params, shadow.light, tint.astype(np.float32), style.light_bands, style.shadow,
        style.ink,
        np.float32(style.lip_strength), np.float32(style.wrinkle_strength), np.float32(style.highlight), shadow.depth,
        shadow.bounds, shadow.right, shadow.up,
    )  # fmt: skip
    colours, groups = out.reshape(-1, 3), group.ravel()
    cel_shade(colours, groups, first_samples, supersample, *inputs)
    edge_samples = antialias.find_edge_samples(samples, colours, view.triangle_ids, smooth, supersample)
    cel_shade(colours, groups, edge_samples, 1, *inputs)
    antialias.copy_first_samples(out, group, smooth, supersample)
    if style.outline_width > 0:
        reach = max(1, round(style.outline_width * side / 448))
        draw_outlines(out, group, view.inv_depth, reach, np.float32(0.16), style.ink)
    amount = np.float32(appearance.params[ch.LASH_AMOUNT])
    draw_lashes(colours, view.lash_samples, view.lash_offsets, style.ink, amount)
    out = raster.downsample(out, supersample)
    if supersample == 1:
        out = blur(out, np.float32(0.12))
    return degrade_drawing((np.clip(out, 0, 1) * 255 + 0.5).astype(np.uint8), shot, conditions)
