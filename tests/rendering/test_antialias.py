"""Adaptive antialiasing, scratch buffers, noise, shadow maps and the rasteriser."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface.rendering import render
from semanticface.rendering.head.mesh import CLOTH, HAIR, MASK, build_mesh
from semanticface.rendering.head.rig import LASHES, SKIN, rig
from semanticface.rendering.kernels import MAX_KEPT_BYTES, NOISE_TABLE, NOISE_VOLUME, falloff, noise, scratch_buffer
from semanticface.rendering.raster import EMPTY, sample_shadow, shadow_bounds, visibility
from semanticface.rendering.sensor import simulate_sensor
from semanticface.rendering.shading import antialias
from semanticface.rendering.shading.antialias import TOLERANCE, find_edge_samples, find_smooth_pixels, resolve
from semanticface.semantics.expression_sampler import sample_coefficients

FOCAL = np.float32(400)


def flat(size: int, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A visibility buffer filled with triangle 0 at one depth, and no lashes."""
    ids = np.zeros((size * factor, size * factor), np.int32)
    return ids, np.full(ids.shape, 0.1, np.float32), np.zeros((size, size), bool)


def smooth_pixels(ids, inv_depth, has_lash, part, factor, fine=(False, False)):
    buffer = np.empty(ids.size, np.int32)
    smooth, starts = find_smooth_pixels(
        buffer, ids, inv_depth, np.array(part, np.uint8), np.array(fine), has_lash, factor, FOCAL
    )
    return smooth, starts.copy()


@pytest.mark.parametrize("factor", [2, 3])
def test_a_smooth_surface_is_shaded_once_per_pixel(factor: int) -> None:
    ids, inv_depth, has_lash = flat(4, factor)
    smooth, starts = smooth_pixels(ids, inv_depth, has_lash, [SKIN], factor)
    assert smooth.all()
    row_length = 4 * factor
    assert starts.tolist() == [y * factor * row_length + x * factor for y in range(4) for x in range(4)]


def test_without_supersampling_every_sample_is_shaded() -> None:
    ids, inv_depth, has_lash = flat(4, 1)
    smooth, starts = smooth_pixels(ids, inv_depth, has_lash, [SKIN], 1)
    assert not smooth.any() and len(starts) == 0
    assert len(find_edge_samples(np.empty(16, np.int32), np.zeros((16, 3), np.float32), ids, smooth, 1)) == 16


@pytest.mark.parametrize("edge", ["background", "another part", "a step in depth", "a lash", "an eye or the mouth"])
def test_a_pixel_with_an_edge_is_shaded_per_sample(edge: str) -> None:
    ids, inv_depth, has_lash = flat(4, 2)
    part, fine = [SKIN, HAIR], [False, False]
    if edge == "background":
        ids[3, 2], inv_depth[3, 2] = EMPTY, 0
    elif edge == "another part":
        ids[3, 2] = 1
    elif edge == "a step in depth":
        inv_depth[3, 2] = 0.11
    elif edge == "a lash":
        has_lash[1, 1] = True
    else:
        ids[2:4, 2:4] = 1
        part, fine = [SKIN, SKIN], [False, True]
    smooth, _ = smooth_pixels(ids, inv_depth, has_lash, part, 2, fine)
    assert not smooth[1, 1] and smooth.sum() == 15
    samples = find_edge_samples(np.empty(64, np.int32), np.zeros((64, 3), np.float32), ids, smooth, 2)
    expected = {8 * y + x for y in (2, 3) for x in (2, 3)} - ({8 * 3 + 2} if edge == "background" else set())
    assert set(samples.tolist()) == expected


def test_pixels_that_differ_from_a_neighbour_are_shaded_per_sample() -> None:
    ids, inv_depth, has_lash = flat(4, 2)
    smooth, starts = smooth_pixels(ids, inv_depth, has_lash, [SKIN], 2)
    out = np.zeros((64, 3), np.float32)
    out[starts] = 0.5
    out[starts[5], 1] += TOLERANCE * 1.01
    samples = find_edge_samples(np.empty(64, np.int32), out, ids, smooth, 2)
    edges = np.argwhere(~smooth).tolist()
    assert sorted(edges) == [[0, 1], [1, 0], [1, 1], [1, 2], [2, 1]]
    assert len(samples) == 4 * 5
    out[starts] = 0.5
    out[starts[5], 1] += TOLERANCE * 0.99
    smooth[:] = True
    assert len(find_edge_samples(np.empty(64, np.int32), out, ids, smooth, 2)) == 0


def test_a_pixel_is_the_mean_of_its_samples() -> None:
    ids, _, _ = flat(2, 2)
    ids[0, 1] = EMPTY
    out = np.random.default_rng(0).random((16, 3), dtype=np.float32)
    background = np.full((2, 2, 3), 0.25, np.float32)
    smooth = np.array([[False, False], [False, True]])
    image = resolve(out, ids, smooth, background, 2)
    np.testing.assert_allclose(image[0, 0], (out[0] + 0.25 + out[4] + out[5]) / 4, rtol=1e-5)
    np.testing.assert_allclose(image[1, 0], out[[8, 9, 12, 13]].mean(0), rtol=1e-5)
    assert np.array_equal(image[1, 1], out[10])


@pytest.mark.parametrize("style", ["photo", "toon", "imp"])
def test_adaptive_sampling_hardly_changes_the_image(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"style": style, "size": 160, "supersample": 2, "framing": "crop"}
    seeds = range(4)
    # Compare before sensor effects and JPEG, which blur some differences and amplify others.
    monkeypatch.setattr(
        "semanticface.rendering.shading.photo.simulate_sensor",
        lambda image, shot, conditions: simulate_sensor(image, None),
    )
    monkeypatch.setattr("semanticface.rendering.shading.toon.degrade_drawing", lambda image, shot, conditions: image)
    faces = [sample_coefficients(np.random.default_rng([seed, 61])) for seed in seeds]
    adaptive = [render(c, subject=k, shot=k, **options).image for k, c in zip(seeds, faces, strict=True)]  # type: ignore[arg-type]

    def none_smooth(samples, ids, inv_depth, part, fine, has_lash, factor, focal):
        return np.zeros(has_lash.shape, bool), samples[:0]

    monkeypatch.setattr(antialias, "find_smooth_pixels", none_smooth)
    for k, image in zip(seeds, adaptive, strict=True):
        full = render(faces[k], subject=k, shot=k, **options).image  # type: ignore[arg-type]
        change = np.abs(image.astype(int) - full)
        assert 0 < change.mean() < 1.0
        assert (change.max(-1) > 12).mean() < 0.005


def test_images_do_not_depend_on_earlier_or_concurrent_renders() -> None:
    c = np.full(52, 0.2)

    def draw(style: str, size: int = 96) -> bytes:
        return render(c, style=style, subject=5, shot=9, size=size).image.tobytes()

    first = {style: draw(style) for style in ("photo", "toon", "imp")}
    draw("photo", 40)
    draw("toon", 130)
    assert {style: draw(style) for style in first} == first
    with ThreadPoolExecutor(4) as pool:
        styles = list(first) * 4
        assert list(pool.map(draw, styles)) == [first[style] for style in styles]


def test_lips_and_mouth_are_always_shaded_per_sample() -> None:
    r = rig()
    mesh = build_mesh(r.average.vertices, r.average, "bob", 1)
    masks = mesh.attributes[:, MASK][mesh.triangles].max(1)
    assert mesh.fine[(masks[:, :2] > 0.5).any(1)].all()
    small = ~np.isin(mesh.part, (SKIN, CLOTH, HAIR))
    assert mesh.fine[small].all() and not mesh.fine[np.isin(mesh.part, (CLOTH, HAIR))].any()
    assert mesh.fine[~small].mean() < 0.2
    assert (mesh.part[mesh.n_opaque :] == LASHES).all() and not (mesh.part[: mesh.n_opaque] == LASHES).any()


def test_scratch_buffers_are_reused_per_thread_and_name_unless_huge() -> None:
    one = scratch_buffer("test", (3, 4))
    assert one.shape == (3, 4) and np.shares_memory(one, scratch_buffer("test", (2, 2)))
    assert not np.shares_memory(one, scratch_buffer("test 2", (3, 4)))
    with ThreadPoolExecutor(1) as pool:
        assert not np.shares_memory(one, pool.submit(scratch_buffer, "test", (3, 4)).result())
    huge = scratch_buffer("test", (MAX_KEPT_BYTES + 1,), np.uint8)
    assert not np.shares_memory(huge, scratch_buffer("test", (MAX_KEPT_BYTES + 1,), np.uint8))


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.floats(-90, 90, width=32)] * 3))
def test_noise_is_the_trilinear_mean_of_its_corners(place: tuple[float, float, float]) -> None:
    low = np.floor(place).astype(int)
    fraction = np.array(place) - low
    expected = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, fraction, 1 - fraction))
        expected += weight * NOISE_VOLUME[tuple((low + corner) % 32)]
    assert noise(NOISE_TABLE, *place) == pytest.approx(expected, abs=1e-5)


@given(st.floats(0, 60))
def test_falloff_is_nearly_exponential(x: float) -> None:
    assert falloff(x) == pytest.approx(math.exp(-x), abs=3e-4)


def test_shadow_bounds_never_change_the_shadow() -> None:
    rng = np.random.default_rng(1)
    depth = rng.random((24, 24), dtype=np.float32)
    depth[8:16, 8:16] = 0.5
    open_bounds = np.empty((24, 24, 2), np.float32)
    open_bounds[..., 0], open_bounds[..., 1] = -np.inf, np.inf
    bounds = shadow_bounds(depth)
    for u, v, d in rng.uniform([-1, -1, -0.2], [25, 25, 1.2], (500, 3)):
        assert sample_shadow(depth, bounds, u, v, d) == pytest.approx(
            float(sample_shadow(depth, open_bounds, u, v, d)), abs=1e-6
        )
    assert sample_shadow(depth, bounds, 12.0, 12.0, 0.6) == 1 and sample_shadow(depth, bounds, 12.0, 12.0, 0.4) == 0


def test_the_front_triangle_is_visible_with_its_weights() -> None:
    screen = np.array([[0, 0, 0.5], [0, 8, 0.5], [8, 0, 0.5], [0, 0, 0.25], [0, 8, 0.25], [8, 0, 0.25]], np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5], [3, 5, 4]], np.int32)
    ids, w1, w2, inv_depth = visibility(screen, triangles, np.zeros(3, bool), 8, 8, "test")
    inside = np.add.outer(np.arange(8), np.arange(8)) < 7
    visible = ids[inside]
    assert set(visible.tolist()) == {0} and (inv_depth[inside] == 0.5).all()
    assert w1[2, 1] == pytest.approx(2.5 / 8) and w2[2, 1] == pytest.approx(1.5 / 8)
    back, *_ = visibility(screen, triangles[2:], np.zeros(1, bool), 8, 8, "test")
    assert (back == EMPTY).all()
    both, *_ = visibility(screen, triangles[2:], np.ones(1, bool), 8, 8, "test")
    assert (both[inside] == 0).all()
