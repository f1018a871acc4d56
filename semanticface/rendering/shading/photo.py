"""The photo style: per-sample shading of skin, eyes, hair and cloth."""

from __future__ import annotations

import math

import numpy as np

from semanticface.rendering import lighting, raster
from semanticface.rendering.camera import Camera
from semanticface.rendering.conditions import Conditions
from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.accessories import Lenses
from semanticface.rendering.head.appearance import Appearance
from semanticface.rendering.head.mesh import CLOTH, HAIR, N_ATTRIBUTES, PROP, Mesh
from semanticface.rendering.head.rig import EYE_LEFT, EYE_RIGHT, LOWER_TEETH, SKIN, TONGUE, UPPER_TEETH, Movement, rig
from semanticface.rendering.kernels import NOISE_TABLE, kernel, noise, scratch_buffer, smoothstep
from semanticface.rendering.lighting import Lights, illuminate, sample_lights, tone_map
from semanticface.rendering.sensor import simulate_sensor
from semanticface.rendering.shading import antialias, textures
from semanticface.rendering.shading.background import background
from semanticface.rendering.shading.lenses import composite_lenses
from semanticface.rendering.shading.projection import View, cast_shadow, rasterise
from semanticface.rendering.shading.wrinkles import HEIGHT, STEP, WIDTH, X0, Y0, height_map

SHADOW_SIZE = 160


@kernel
def wrinkle_at(wrinkles, x, y):  # type: ignore[no-untyped-def]
    """Height and slope of the wrinkle map at a base-mesh position: (h, dh/dx, dh/dy)."""
    u, v = (x - X0) / STEP - 0.5, (y - Y0) / STEP - 0.5
    i, j = int(np.floor(u)), int(np.floor(v))
    if i < 1 or j < 1 or i + 2 >= WIDTH or j + 2 >= HEIGHT:
        return 0.0, 0.0, 0.0
    fu, fv = u - i, v - j
    a, b, c, d = wrinkles[j, i], wrinkles[j, i + 1], wrinkles[j + 1, i], wrinkles[j + 1, i + 1]
    h = (a * (1 - fu) + b * fu) * (1 - fv) + (c * (1 - fu) + d * fu) * fv
    return h, ((b - a) * (1 - fv) + (d - c) * fv) / STEP, ((c - a) * (1 - fu) + (d - b) * fu) / STEP


@kernel
def shade(  # type: ignore[no-untyped-def]
    out, samples, n_samples, triangle_ids, w1, w2, attributes, triangles, part, eye_rotations, eye_centres, wrinkles,
    table, colours, params, directions, light_colours, sky, ground, up, camera_position, shadow, bounds,
    shadow_right, shadow_up, softness, exposure,
):  # fmt: skip
    """Shade ``samples`` (flat indices) of a view into ``out`` (float32[H * W, 3]), in sRGB.

    Each stands for ``n_samples`` samples along the diagonal that starts at it, see ``antialias.interpolate``.
    """
    # 0-2 base-mesh position, 3-5 normal, 6-8 position, 9-12 masks (lips, mouth, lids, ears), 13 openness
    s = np.empty(N_ATTRIBUTES, np.float32)
    block = np.empty(lighting.BLOCK_SIZE, np.float32)
    lane, row_length = 0, triangle_ids.shape[1]
    triangle_ids, w1, w2 = triangle_ids.ravel(), w1.ravel(), w2.ravel()
    for n in range(len(samples)):
        index = samples[n]
        antialias.interpolate(s, index, n_samples, row_length, triangle_ids, w1, w2, attributes, triangles)
        x, y, z = s[0], s[1], s[2]
        qx, qy, qz = s[6], s[7], s[8]
        vx, vy, vz = camera_position[0] - qx, camera_position[1] - qy, camera_position[2] - qz
        inv = 1 / math.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx * inv, vy * inv, vz * inv
        nx, ny, nz = s[3], s[4], s[5]
        part_id = part[triangle_ids[index]]
        openness = s[13]
        gloss, wrap, wet = 0.0, 0.0, 0.0
        cavity = 1.0
        if part_id == SKIN:
            if s[10] > 0.5:
                depth = smoothstep(0.98, 0.55, z)
                tone = (0.9 + 0.3 * noise(table, x * 12, y * 12, z * 12)) * (1 - 0.85 * depth)
                tone *= 0.52
                r, g, b = colours[ch.TONGUE, 0] * tone, colours[ch.TONGUE, 1] * tone, colours[ch.TONGUE, 2] * tone
                gloss, openness, cavity = 0.5 * (1 - depth), 0.35 + 0.3 * (1 - depth), 0.35
            else:
                r, g, b, gloss = textures.skin(table, colours, params, x, y, z, s[9], s[11], s[12])
                wrap = 1.0
                if z > 0.2:
                    h, hx, hy = wrinkle_at(wrinkles, x, y)
                    if h != 0.0 or hx != 0.0 or hy != 0.0:
                        nx, ny = nx - 0.85 * hx, ny - 0.85 * hy
                        dark = min(max(-h * 26.0, 0.0), 0.75)
                        cavity = 1 - 0.62 * dark
                        g, b = g * (1 - 0.14 * dark), b * (1 - 0.14 * dark)
                if s[9] > 0.3:
                    # Lips turn inwards and are dark where they meet.
                    openness = max(openness, 0.12)
                collar_line = (
                    -1.22
                    + params[ch.COLLAR]
                    - 0.35 * smoothstep(0.2, 0.9, z) * (1.0 if params[ch.COLLAR] < 0.05 else 0.2)
                )
                collar_line += 0.9 * smoothstep(0.65, 1.1, abs(x))
                if y < collar_line:
                    part_id = CLOTH
                    wrap = 0.0
        if part_id == CLOTH:
            stripe = smoothstep(0.45, 0.55, abs(((x * 3.0 if params[ch.PATTERN] < 0.25 else y * 4.0) % 1.0) - 0.5) * 2)
            stripe = stripe if params[ch.PATTERN] < 0.45 else 0.0
            weave = 0.85 + 0.3 * noise(table, x * 30, y * 30, z * 30)
            fold = noise(table, x * 2.3, y * 1.4, z * 2.3) - 0.5
            r = (colours[ch.CLOTH, 0] * (1 - stripe) + colours[ch.CLOTH2, 0] * stripe) * weave
            g = (colours[ch.CLOTH, 1] * (1 - stripe) + colours[ch.CLOTH2, 1] * stripe) * weave
            b = (colours[ch.CLOTH, 2] * (1 - stripe) + colours[ch.CLOTH2, 2] * stripe) * weave
            nx, nz = nx + 0.5 * fold, nz + 0.3 * fold
            gloss, openness = 0.05, 0.9
        elif part_id in (EYE_LEFT, EYE_RIGHT):
            side = part_id - EYE_LEFT
            ox, oy, oz = (qx - eye_centres[side, 0]), (qy - eye_centres[side, 1]), (qz - eye_centres[side, 2])
            inv = 1 / max(math.sqrt(ox * ox + oy * oy + oz * oz), 1e-6)
            ox, oy, oz = ox * inv, oy * inv, oz * inv
            m = eye_rotations[side]
            lx = m[0, 0] * ox + m[1, 0] * oy + m[2, 0] * oz
            ly = m[0, 1] * ox + m[1, 1] * oy + m[2, 1] * oz
            lz = m[0, 2] * ox + m[1, 2] * oy + m[2, 2] * oz
            r, g, b, wet = textures.eye(table, colours, params, lx, ly, lz, params[ch.SEED] + side * 9)
            nx, ny, nz = ox, oy, oz
            lid_shadow = 1 - 0.55 * smoothstep(0.10, 0.55, oy) - 0.25 * smoothstep(-0.15, -0.5, oy)
            lid_shadow *= 1 - 0.45 * smoothstep(0.45, 0.95, abs(ox))
            openness, cavity = max(lid_shadow, 0.12), max(lid_shadow, 0.2)
            gloss, wrap = 0.0, 0.4
        elif part_id in (UPPER_TEETH, LOWER_TEETH):
            r, g, b = textures.tooth(table, colours, params, x, y, z, part_id == UPPER_TEETH)
            depth = smoothstep(0.98, 0.72, z)
            cavity = 0.95 - 0.75 * depth
            openness, gloss, wrap = cavity, 0.5, 0.4
        elif part_id == TONGUE:
            tone = 0.8 + 0.4 * noise(table, x * 40, y * 40, z * 40)
            tone *= 1 - 0.25 * smoothstep(0.03, 0.0, abs(x))
            r, g, b = (colours[ch.TONGUE, 0] * tone, colours[ch.TONGUE, 1] * tone, colours[ch.TONGUE, 2] * tone)
            depth = smoothstep(0.9, 0.45, z)
            cavity = 0.72 - 0.6 * depth
            openness, gloss, wrap = cavity, 0.7, 0.6
        elif part_id == HAIR:
            strand = noise(table, x * 46, y * 2.2, params[ch.SEED])
            tone = 0.55 + 0.9 * strand * params[ch.GRAIN] + 0.3 * (1 - params[ch.GRAIN])
            tone *= 0.75 + 0.5 * noise(table, x * 7, y * 1.1, params[ch.SEED] + 7)
            r, g, b = colours[ch.HAIR, 0] * tone, colours[ch.HAIR, 1] * tone, colours[ch.HAIR, 2] * tone
            tilt = (strand - 0.5) * 0.9
            nx, nz = nx + tilt * vz, nz - tilt * vx
            gloss, wrap = 0.35, 0.25
            openness = 0.45 + 0.55 * smoothstep(0.0, 0.12, z)
        elif part_id == PROP:
            grain = noise(table, qx * s[12], qy * s[12], qz * s[12]) if s[11] > 0.0 else 0.5
            tone = 1 + s[11] * (2 * grain - 1)
            r, g, b = x * tone, y * tone, z * tone
            gloss, wrap = s[9], s[10]
        ao = (0.15 + 0.85 * openness) * cavity
        block[lighting.NX + lane], block[lighting.NY + lane], block[lighting.NZ + lane] = nx, ny, nz
        block[lighting.VX + lane], block[lighting.VY + lane], block[lighting.VZ + lane] = vx, vy, vz
        block[lighting.PX + lane], block[lighting.PY + lane], block[lighting.PZ + lane] = qx, qy, qz
        block[lighting.RED + lane], block[lighting.GREEN + lane], block[lighting.BLUE + lane] = r, g, b
        block[lighting.GLOSS + lane], block[lighting.WRAP + lane], block[lighting.WET + lane] = gloss, wrap, wet
        block[lighting.AMBIENT + lane], block[lighting.DIRECT + lane] = ao, 0.35 + 0.65 * ao if part_id == SKIN else ao
        block[lighting.IS_HAIR + lane] = 1.0 if part_id == HAIR else 0.0
        lane += 1
        if lane == lighting.BLOCK or n + 1 == len(samples):
            illuminate(
                block,
                lane,
                directions,
                light_colours,
                sky,
                ground,
                up,
                shadow,
                bounds,
                shadow_right,
                shadow_up,
                softness,
                exposure,
            )
            for k in range(lane):
                target = samples[n + 1 - lane + k]
                out[target, 0], out[target, 1], out[target, 2] = (
                    block[lighting.RED + k],
                    block[lighting.GREEN + k],
                    block[lighting.BLUE + k],
                )
            lane = 0


@kernel
def blend_lashes(out, triangle_ids, index, offsets, colours, params, background, factor):  # type: ignore[no-untyped-def]
    """Blend lash strands, thinner towards their tips, over the given samples (flat indices)."""
    row_length = triangle_ids.shape[1]
    red, green, blue = tone_map(colours[ch.LASH, 0]), tone_map(colours[ch.LASH, 1]), tone_map(colours[ch.LASH, 2])
    for n in range(len(index)):
        y, x = index[n] // row_length, index[n] % row_length
        dx, dy, dz = offsets[n, 0], offsets[n, 1], offsets[n, 2]
        along = smoothstep(0.145, 0.235, math.sqrt(dx * dx + dy * dy + dz * dz))
        strand = 0.5 + 0.5 * math.sin(math.atan2(dx, dz) * 95.0 + 2 * math.sin(along * 5))
        full = smoothstep(0.05 + 0.85 * along, 0.30 + 0.85 * along, strand) if along > 0.25 else 1.0
        upper = dy > 0.0
        alpha = full * (1 - along) * ((0.3 + params[ch.LASH_AMOUNT]) if upper else 0.35 * params[ch.LASH_AMOUNT])
        alpha = min(alpha, 1.0)
        if triangle_ids[y, x] == raster.EMPTY:
            triangle_ids[y, x] = antialias.LASH_ONLY
            for k in range(3):
                out[index[n], k] = background[y // factor, x // factor, k]
        out[index[n], 0] += (red - out[index[n], 0]) * alpha
        out[index[n], 1] += (green - out[index[n], 1]) * alpha
        out[index[n], 2] += (blue - out[index[n], 2]) * alpha


def draw(
    mesh: Mesh, appearance: Appearance, eye_centres: np.ndarray, coefficients: np.ndarray, camera: Camera, *,
    shot: int | None, size: int, supersample: int, conditions: Conditions, lights: Lights | None = None,
    lenses: Lenses | None = None, movement: Movement | None = None,
) -> np.ndarray:  # fmt: skip
    """Shade a mesh as a photograph.

    Args:
        mesh: head, clothes and hair.
        appearance: colours and texture parameters.
        eye_centres: float32[2, 3], centres of the eyeballs, left first.
        coefficients: float32[52]; they rotate the eyes and wrinkle the skin.
        camera: the view.
        shot: seed of light, background and sensor.
        size: side of the image in pixels.
        supersample: samples per pixel along each side.
        conditions: of light and sensor.
        lights: replace those of the shot; *optional*.
        lenses: of glasses; *optional*.
        movement: how this head's eyes turn; *optional*.

    Returns:
        uint8[size, size, 3].
    """
    lights = lights or sample_lights(shot, conditions)
    view = rasterise(mesh, camera, size, supersample)
    background_image = background(shot, size)
    has_lash = np.zeros((size, size), bool)
    row, column = np.divmod(view.lash_samples, size * supersample)
    has_lash[row // supersample, column // supersample] = True
    out = scratch_buffer("shaded", (view.triangle_ids.size, 3))
    samples = scratch_buffer("samples", (view.triangle_ids.size,), np.int32)
    focal = np.float32(camera.focal)
    smooth, first_samples = antialias.find_smooth_pixels(
        samples, view.triangle_ids, view.inv_depth, view.part, mesh.fine, has_lash, supersample, focal
    )
    rotations = rig().eye_rotations(coefficients, movement)
    inputs = _shading_inputs(view, mesh, appearance, eye_centres, rotations, coefficients, lights)
    shade(out, first_samples, supersample, *inputs)
    shade(out, antialias.find_edge_samples(samples, out, view.triangle_ids, smooth, supersample), 1, *inputs)
    colours, params = appearance.colours, appearance.params
    blend_lashes(
        out, view.triangle_ids, view.lash_samples, view.lash_offsets, colours, params, background_image, supersample
    )
    image = antialias.resolve(out, view.triangle_ids, smooth, background_image, supersample)
    if lenses is not None and shot is not None:
        composite_lenses(image, lenses, view, lights, shot, conditions)
    return simulate_sensor(image, shot, conditions)


def _shading_inputs(
    view: View, mesh: Mesh, appearance: Appearance, eye_centres: np.ndarray, eye_rotations: np.ndarray,
    coefficients: np.ndarray, lights: Lights,
) -> tuple[object, ...]:  # fmt: skip
    """The arguments of ``shade`` after the samples, in order."""
    rotation = view.camera.rotation
    directions = (lights.directions @ rotation).astype(np.float32)
    shadow = cast_shadow(mesh, directions[0], SHADOW_SIZE, lights.shadow_pattern)
    wrinkles = height_map(coefficients, appearance.wrinkle_depth, appearance.resting_wrinkles)
    camera_position = (np.array([0, 0, view.camera.distance], np.float32) @ rotation).astype(np.float32)
    return (
        view.triangle_ids, view.w1, view.w2, mesh.attributes, view.triangles, view.part,
        eye_rotations, eye_centres, wrinkles, NOISE_TABLE, appearance.colours, appearance.params,
        directions, lights.colours, lights.sky, lights.ground, rotation[1].copy(), camera_position, shadow.depth,
        shadow.bounds, shadow.right, shadow.up, np.float32(lights.softness), np.float32(lights.exposure),
    )  # fmt: skip
