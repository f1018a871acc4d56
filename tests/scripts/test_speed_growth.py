"""The growth benchmark measures process trees, reports failures, and takes slopes without start-up."""

import sys

import pytest
from PIL import Image

from semanticface.errors import SemanticFaceError
from tests.helpers.scripts import load_script
from tests.helpers.tiny_models import faces


@pytest.fixture(scope="module")
def growth():
    return load_script("eval/speed/growth.py")


def test_memory_and_time_of_children_count(growth, tmp_path):
    work = "x = bytearray(b'1' * 120_000_000); [i * i for i in range(2_000_000)]; import time; time.sleep(0.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}], check=True)"
    seconds, cpu, peak, own = growth.run_measured([sys.executable, "-c", parent], tmp_path / "log")
    assert seconds > 0.3
    assert cpu > 0.02
    assert 120 < own <= peak < 1000


def test_a_failed_stage_reports_its_output(growth, tmp_path):
    with pytest.raises(SemanticFaceError, match=r"failed with 3[\s\S]*no such face"):
        growth.run_measured(
            [sys.executable, "-c", "import sys; print('no such face', file=sys.stderr); sys.exit(3)"], tmp_path / "log"
        )


def test_exponents_leave_the_start_up_out(growth):
    def cost(rows: int, seconds: float):
        return growth.Cost("render", rows, rows, rows, seconds, seconds, seconds, 1.0, 1.0)

    start = cost(20, 7.0)
    assert growth.exponent([cost(20 + n, 7 + 0.01 * n) for n in (100, 1000, 10_000)], start) == 1.0
    assert growth.exponent([cost(20 + n, 7 + 1e-6 * n * n) for n in (100, 1000)], start) == 2.0
    assert growth.exponent([cost(120, 8.0)], start) is None


def test_a_projected_epoch_is_shown_as_such(growth):
    start = growth.Cost("distil", 20, 240, 16, 20.0, 10.0, 10.0, 900.0, 500.0)
    whole = growth.Cost("distil", 1000, 240, 800, 25.0, 12.0, 50.0, 900.0, 500.0)
    assert "240 of 800" in growth.line(whole, start)
    assert f"{784 / 40:.1f}" in growth.line(whole, start)
    assert "start-up" in growth.line(start, None)


def test_pictures_are_repeated_row_by_row(growth, tmp_path):
    faces(tmp_path / "source")
    source = growth.load_faces(tmp_path / "source", "test")
    growth.write_dataset(tmp_path / "source", tmp_path / "set", 5)
    written = growth.load_faces(tmp_path / "set", "test")
    growth.write_pictures(tmp_path / "source", tmp_path / "pictures", 5)
    files = sorted((tmp_path / "pictures").iterdir())
    assert len(source) == 2 and len(written) == len(files) == 5
    for place, (row, file) in enumerate(zip(written, files, strict=True)):
        original = source[place % 2]
        assert row["coefficients"] == original["coefficients"] and row["box"] == original["box"]
        assert row["picture"].tobytes() == original["picture"].tobytes() == Image.open(file).tobytes()
    assert len(growth.load_faces(tmp_path / "set", "train")) == len(growth.load_faces(tmp_path / "source", "train"))
