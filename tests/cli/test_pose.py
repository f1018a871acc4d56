"""``semanticface pose``: every output, and words that mean nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from semanticface.cli.main import main
from semanticface.formats.recording import read


def test_bars(capsys):
    assert main(["pose", "left brow raised, head turned to the left, purple"]) == 0
    printed = capsys.readouterr()
    assert "browOuterUpLeft" in printed.out
    assert "HeadYaw" in printed.out
    assert "purple" in printed.err


@pytest.mark.parametrize("suffix", ["csv", "json", "glb", "png"])
def test_outputs(tmp_path, suffix):
    out = tmp_path / f"face.{suffix}"
    assert main(["pose", "wide smile, head turned to the left", "--out", str(out)]) == 0
    if suffix == "csv":
        (row,) = read(out)
        assert row.pose[0] < 0
        assert np.count_nonzero(row.values) == 2
    elif suffix == "json":
        assert json.loads(out.read_text())["coefficients"]["mouthSmileLeft"] > 0.5
    elif suffix == "png":
        assert Image.open(out).size == (512, 512)
    else:
        assert out.read_bytes()[:4] == b"glTF"


@pytest.mark.parametrize(("text", "out"), [("purple ears", "x.csv"), ("smile", "x.gif")])
def test_refusals_write_nothing(tmp_path, capsys, text, out):
    assert main(["pose", text, "--out", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err
    assert not list(tmp_path.iterdir())
