"""The photo look: skin, eyes, hair and cloth shaded like a photograph, one pixel at a time."""

from __future__ import annotations

import math

import numpy as np

from semanticface.rendering.camera import Camera
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import appearance as look
from semanticface.rendering.head import rig as rigs
from semanticface.rendering.head.accessories import Lenses
from semanticface.rendering.head.appearance import Appearance
from semanticface.rendering.head.mesh import CLOTH, HAIR, N_ATTRIBUTES, PROP, Mesh
from semanticface.rendering.head.rig import EYE_RIGHT, LOWER_TEETH, SKIN, TONGUE, UPPER_TEETH
from semanticface.rendering.kernels import TABLE, kernel, noise, scratch, smooth
from semanticface.rendering.sensor import sensor
from semanticface.rendering.shading import raster, textures
from semanticface.rendering.shading.antialias import LASH_ONLY, blend, even_pixels, other_samples, resolve
from semanticface.rendering.shading.background import background
from semanticface.rendering.shading.lenses import look_through
from semanticface.rendering.shading.lighting import (  # fmt: skip
    BLOCK,
    BLOCK_SIZE,
    BLUE,
    DIRECT,
    GLOSS,
    GREEN,
    HAIRY,
    NX,
    NY,
    NZ,
    OPEN,
    QX,
    QY,
    QZ,
    RED,
    VX,
    VY,
    VZ,
    WET,
    WRAP,
    Lights,
    curve,
    illuminate,
    lights,
)
from semanticface.rendering.shading.projection import View, see, shadow_of
from semanticface.rendering.shading.wrinkles import HEIGHT, STEP, WIDTH, X0, Y0, height_map

SHADOW_SIZE = 160


@kernel
def crease(heights, x, y):  # type: ignore[no-untyped-def]
    """Height and slope of the wrinkles at a place on the base mesh: (h, dh/dx, dh/dy)."""
    u, v = (x - X0) / STEP - 0.5, (y - Y0) / STEP - 0.5
    i, j = int(np.floor(u)), int(np.floor(v))
    if i < 1 or j < 1 or i + 2 >= WIDTH or j + 2 >= HEIGHT:
        return 0.0, 0.0, 0.0
    fu, fv = u - i, v - j
    a, b, c, d = heights[j, i], heights[j, i + 1], heights[j + 1, i], heights[j + 1, i + 1]
    h = (a * (1 - fu) + b * fu) * (1 - fv) + (c * (1 - fu) + d * fu) * fv
    return h, ((b - a) * (1 - fv) + (d - c) * fv) / STEP, ((c - a) * (1 - fu) + (d - b) * fu) / STEP


@kernel
def shade(  # type: ignore[no-untyped-def]
    out, samples, span, front, w1, w2, attributes, triangles, part, turns, centres, heights, table, colours, amounts,
    directions, lamps, sky, ground, up, eye_place, shadow, bounds, right, over, soft, exposure,
):  # fmt: skip
    """Shade the ``samples`` (flat indices) of a view into ``out`` (float32[H * W, 3]), in sRGB.

    Each stands for the ``span`` samples along a diagonal that begins with it, see ``antialias.blend``.
    """
    s = np.empty(N_ATTRIBUTES, np.float32)
    block = np.empty(BLOCK_SIZE, np.float32)
    lane, wide = 0, front.shape[1]
    front, w1, w2 = front.ravel(), w1.ravel(), w2.ravel()
    for n in range(len(samples)):
        at = samples[n]
        blend(s, at, span, wide, front, w1, w2, attributes, triangles)
        x, y, z = s[0], s[1], s[2]
        qx, qy, qz = s[6], s[7], s[8]
        vx, vy, vz = eye_place[0] - qx, eye_place[1] - qy, eye_place[2] - qz
        inv = 1 / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * inv, vy * inv, vz * inv
        nx, ny, nz = s[3], s[4], s[5]
        kind = part[front[at]]
        open_sky = s[13]
        gloss, wrap, wet = 0.0, 0.0, 0.0
        cavity = 1.0
        if kind == SKIN:
            if s[10] > 0.5:
                depth = smooth(0.98, 0.55, z)
                tone = (0.9 + 0.3 * noise(table, x * 12, y * 12, z * 12)) * (1 - 0.85 * depth)
                r, g, b = 0.30 * tone, 0.075 * tone, 0.07 * tone
                gloss, open_sky, cavity = 0.5 * (1 - depth), 0.35 + 0.3 * (1 - depth), 0.35
            else:
                r, g, b, gloss = textures.skin(table, colours, amounts, x, y, z, s[9], s[11], s[12])
                wrap = 1.0
                if z > 0.2:
                    h, hx, hy = crease(heights, x, y)
                    if h != 0.0 or hx != 0.0 or hy != 0.0:
                        nx, ny = nx - 0.85 * hx, ny - 0.85 * hy
                        dark = min(max(-h * 26.0, 0.0), 0.75)
                        cavity = 1 - 0.62 * dark
                        g, b = g * (1 - 0.14 * dark), b * (1 - 0.14 * dark)
                if s[9] > 0.3:
                    # Lips turn inwards: where they meet it is dark.
                    open_sky = max(open_sky, 0.12)
                cloth_line = (
                    -1.22
                    + amounts[look.COLLAR]
                    - 0.35 * smooth(0.2, 0.9, z) * (1.0 if amounts[look.COLLAR] < 0.05 else 0.2)
                )
                cloth_line += 0.9 * smooth(0.65, 1.1, abs(x))
                if y < cloth_line:
                    kind = CLOTH
                    wrap = 0.0
        if kind == CLOTH:
            stripe = smooth(0.45, 0.55, abs(((x * 3.0 if amounts[look.PATTERN] < 0.25 else y * 4.0) % 1.0) - 0.5) * 2)
            stripe = stripe if amounts[look.PATTERN] < 0.45 else 0.0
            weave = 0.85 + 0.3 * noise(table, x * 30, y * 30, z * 30)
            fold = noise(table, x * 2.3, y * 1.4, z * 2.3) - 0.5
            r = (colours[look.CLOTH, 0] * (1 - stripe) + colours[look.CLOTH2, 0] * stripe) * weave
            g = (colours[look.CLOTH, 1] * (1 - stripe) + colours[look.CLOTH2, 1] * stripe) * weave
            b = (colours[look.CLOTH, 2] * (1 - stripe) + colours[look.CLOTH2, 2] * stripe) * weave
            nx, nz = nx + 0.5 * fold, nz + 0.3 * fold
            gloss, open_sky = 0.05, 0.9
        elif kind == 1 or kind == EYE_RIGHT:
            side = kind - 1
            ox, oy, oz = (qx - centres[side, 0]), (qy - centres[side, 1]), (qz - centres[side, 2])
            inv = 1 / max(math.sqrt(ox * ox + oy * oy + oz * oz), 1e-6)
            ox, oy, oz = ox * inv, oy * inv, oz * inv
            m = turns[side]
            lx = m[0, 0] * ox + m[1, 0] * oy + m[2, 0] * oz
            ly = m[0, 1] * ox + m[1, 1] * oy + m[2, 1] * oz
            lz = m[0, 2] * ox + m[1, 2] * oy + m[2, 2] * oz
            r, g, b, wet = textures.eye(table, colours, amounts, lx, ly, lz, amounts[look.SEED] + side * 9)
            nx, ny, nz = ox, oy, oz
            shade_in = 1 - 0.55 * smooth(0.10, 0.55, oy) - 0.25 * smooth(-0.15, -0.5, oy)
            shade_in *= 1 - 0.45 * smooth(0.45, 0.95, abs(ox))
            open_sky, cavity = max(shade_in, 0.12), max(shade_in, 0.2)
            gloss, wrap = 0.0, 0.4
        elif kind in (UPPER_TEETH, LOWER_TEETH):
            r, g, b = textures.tooth(table, colours, amounts, x, y, z, kind == UPPER_TEETH)
            deep = smooth(0.98, 0.72, z)
            cavity = 0.95 - 0.75 * deep
            open_sky, gloss, wrap = cavity, 0.5, 0.4
        elif kind == TONGUE:
            tone = 0.8 + 0.4 * noise(table, x * 40, y * 40, z * 40)
            tone *= 1 - 0.25 * smooth(0.03, 0.0, abs(x))
            r, g, b = colours[look.TONGUE, 0] * tone, colours[look.TONGUE, 1] * tone, colours[look.TONGUE, 2] * tone
            deep = smooth(0.9, 0.45, z)
            cavity = 0.72 - 0.6 * deep
            open_sky, gloss, wrap = cavity, 0.7, 0.6
        elif kind == HAIR:
            strand = noise(table, x * 46, y * 2.2, amounts[look.SEED])
            tone = 0.55 + 0.9 * strand * amounts[look.GRAIN] + 0.3 * (1 - amounts[look.GRAIN])
            tone *= 0.75 + 0.5 * noise(table, x * 7, y * 1.1, amounts[look.SEED] + 7)
            r, g, b = colours[look.HAIR, 0] * tone, colours[look.HAIR, 1] * tone, colours[look.HAIR, 2] * tone
            tilt = (strand - 0.5) * 0.9
            nx, nz = nx + tilt * vz, nz - tilt * vx
            gloss, wrap = 0.35, 0.25
            open_sky = 0.45 + 0.55 * smooth(0.0, 0.12, z)
        elif kind == PROP:
            grain = noise(table, qx * s[12], qy * s[12], qz * s[12]) if s[11] > 0.0 else 0.5
            tone = 1 + s[11] * (2 * grain - 1)
            r, g, b = x * tone, y * tone, z * tone
            gloss, wrap = s[9], s[10]
        ao = (0.15 + 0.85 * open_sky) * cavity
        block[NX + lane], block[NY + lane], block[NZ + lane] = nx, ny, nz
        block[VX + lane], block[VY + lane], block[VZ + lane] = vx, vy, vz
        block[QX + lane], block[QY + lane], block[QZ + lane] = qx, qy, qz
        block[RED + lane], block[GREEN + lane], block[BLUE + lane] = r, g, b
        block[GLOSS + lane], block[WRAP + lane], block[WET + lane] = gloss, wrap, wet
        block[OPEN + lane], block[DIRECT + lane] = ao, 0.35 + 0.65 * ao if kind == SKIN else ao
        block[HAIRY + lane] = 1.0 if kind == HAIR else 0.0
        lane += 1
        if lane == BLOCK or n + 1 == len(samples):
            illuminate(block, lane, directions, lamps, sky, ground, up, shadow, bounds, right, over, soft, exposure)
            for k in range(lane):
                done = samples[n + 1 - lane + k]
                out[done, 0], out[done, 1], out[done, 2] = block[RED + k], block[GREEN + k], block[BLUE + k]
            lane = 0


@kernel
def lashes(out, front, at, place, colours, amounts, background, factor):  # type: ignore[no-untyped-def]
    """Blend lash strands over the samples ``at``: thin hairs that thin out towards their tips."""
    wide = front.shape[1]
    red, green, blue = curve(colours[look.LASH, 0]), curve(colours[look.LASH, 1]), curve(colours[look.LASH, 2])
    for n in range(len(at)):
        y, x = at[n] // wide, at[n] % wide
        dx, dy, dz = place[n, 0], place[n, 1], place[n, 2]
        way = smooth(0.145, 0.235, math.sqrt(dx * dx + dy * dy + dz * dz))
        strand = 0.5 + 0.5 * math.sin(math.atan2(dx, dz) * 95.0 + 2 * math.sin(way * 5))
        full = smooth(0.05 + 0.85 * way, 0.30 + 0.85 * way, strand) if way > 0.25 else 1.0
        upper = dy > 0.0
        alpha = full * (1 - way) * ((0.3 + amounts[look.LASH_AMOUNT]) if upper else 0.35 * amounts[look.LASH_AMOUNT])
        alpha = min(alpha, 1.0)
        if front[y, x] == raster.NOTHING:
            front[y, x] = LASH_ONLY
            for k in range(3):
                out[at[n], k] = background[y // factor, x // factor, k]
        out[at[n], 0] += (red - out[at[n], 0]) * alpha
        out[at[n], 1] += (green - out[at[n], 1]) * alpha
        out[at[n], 2] += (blue - out[at[n], 2]) * alpha


def draw(
    mesh: Mesh,
    paint_of: Appearance,
    centres: np.ndarray,
    coefficients: np.ndarray,
    camera: Camera,
    *,
    shot: int | None,
    size: int,
    supersample: int,
    conditions: Conditions,
    scene: Lights | None = None,
    lenses: Lenses | None = None,
) -> np.ndarray:
    """Shade a mesh as a photograph.

    Args:
        mesh: head, clothes and hair.
        paint_of: colours of the subject.
        centres: float32[2, 3], middles of the eyeballs, left first.
        coefficients: float32[52]; they turn the eyes and fold the skin.
        camera: where it is seen from.
        shot: seed of light, background and sensor.
        size: of the picture in pixels.
        supersample: samples a pixel along each side.
        conditions: of light and sensor.
        scene: light in place of the shot's; *optional*.
        lenses: glass before the eyes; *optional*.

    Returns:
        uint8[size, size, 3].
    """
    scene = scene or lights(shot, conditions)
    view = see(mesh, camera, size, supersample)
    behind = background(shot, size)
    lashed = np.zeros((size, size), bool)
    lashed[view.lash_at // (size * supersample) // supersample, view.lash_at % (size * supersample) // supersample] = (
        True
    )
    out, samples = scratch("shaded", (view.front.size, 3)), scratch("samples", (view.front.size,), np.int32)
    even, starts = even_pixels(
        samples, view.front, view.near, view.part, mesh.fine, lashed, supersample, np.float32(camera.focal)
    )
    arguments = _arguments(view, mesh, paint_of, centres, coefficients, scene)
    shade(out, starts, supersample, *arguments)
    shade(out, other_samples(samples, out, view.front, even, supersample), 1, *arguments)
    colours, amounts = paint_of.colours, paint_of.amounts
    lashes(out, view.front, view.lash_at, view.lash_from, colours, amounts, behind, supersample)
    picture = resolve(out, view.front, even, behind, supersample)
    if lenses is not None and shot is not None:
        look_through(picture, lenses, view, scene, shot, conditions)
    return sensor(picture, shot, conditions)


def _arguments(
    view: View, mesh: Mesh, paint_of: Appearance, centres: np.ndarray, coefficients: np.ndarray, scene: Lights
) -> tuple[object, ...]:
    """What ``shade`` reads, in its order, after the samples."""
    turn = view.camera.turn
    directions = (scene.directions @ turn).astype(np.float32)
    shadow = shadow_of(mesh, directions[0], SHADOW_SIZE, scene.pattern)
    heights = height_map(coefficients, paint_of.folds, paint_of.resting)
    camera_place = (np.array([0, 0, view.camera.distance], np.float32) @ turn).astype(np.float32)
    return (
        view.front, view.w1, view.w2, mesh.attributes, view.triangles, view.part, rigs.rig().eye_turns(coefficients),
        centres, heights, TABLE, paint_of.colours, paint_of.amounts, directions, scene.colours, scene.sky,
        scene.ground, turn[1].copy(), camera_place, shadow.depth, shadow.bounds, shadow.right, shadow.up,
        np.float32(scene.soft), np.float32(scene.exposure),
    )  # fmt: skip
