"""The rendering benchmark: all renderers draw the same heads from the same camera, and the last line is the summary."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.helpers.scripts import load_script

SCRIPT = Path(__file__).parents[2] / "eval" / "speed" / "render.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_script("eval/speed/render.py")


def test_opengl_projects_points_as_the_camera_does(benchmark: ModuleType) -> None:
    positions, _, _, triangles, camera = benchmark.heads(2, 64, "portrait")[1]
    assert triangles.max() < len(positions)
    clip = np.concatenate([positions, np.ones((len(positions), 1))], 1) @ benchmark.clip_matrix(camera, 64).T
    ndc = clip[:, :3] / clip[:, 3:]
    screen = camera.project(positions)
    np.testing.assert_allclose((ndc[:, 0] + 1) * 32, screen[:, 0], atol=1e-2)
    np.testing.assert_allclose((1 - ndc[:, 1]) * 32, screen[:, 1], atol=1e-2)
    np.testing.assert_allclose(1 / clip[:, 3], screen[:, 2], rtol=1e-4)
    assert np.abs(ndc[:, 2]).max() < 1
    nearer = np.argsort(screen[:, 2])
    assert np.diff(ndc[nearer, 2]).max() < 1e-5


def test_our_rasteriser_does_the_same_job(benchmark: ModuleType) -> None:
    paint, _ = benchmark.triangles_painter(64)
    head = benchmark.heads(1, 64, "crop")[0]
    picture = paint(head)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert np.ptp(picture[20:44, 20:44].astype(int)) > 60, "the middle of a crop shows a shaded face"
    ground = (picture == 153).all(-1)
    assert 0 < ground.mean() < 0.8


def test_the_last_line_is_the_summary(tmp_path: Path) -> None:
    out = tmp_path / "render.json"
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--size", "48"]
    command += ["--count", "1", "--rounds", "1", "--processes", "1"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    figures = json.loads(run.stdout.splitlines()[-1])
    assert {"samples_per_second", "core_scaling", "pyrender_ratio", "moderngl_ratio"} <= set(figures)
    assert figures["samples_per_second"] > 0 and figures["core_scaling"] == 1
    for peer in ("pyrender", "moderngl"):
        missing = f"{peer} is skipped" in run.stdout
        assert (figures[f"{peer}_ratio"] is None) == (figures[f"{peer}_ratio_same_job"] is None) == missing
        assert not missing or "pip install" in run.stdout
    saved = json.loads(out.read_text())
    assert {row["what"] for row in saved["results"]} >= {"photo", "toon", "drawn", "imp", "triangles"}
    assert figures.items() <= saved.items()
