"""A partial file returns frames unchanged; resuming is tested in ``test_video``."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from semanticface.arkit import NAMES
from semanticface.inference.video import FrameAnswer, PartialFile


def test_intervals_are_restored_and_written(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random(52).astype(np.float32)
    interval = np.sort(rng.integers(0, 101, (52, 2)) / 100, axis=1).astype(np.float32)
    given = [
        FrameAnswer("a", coefficients=values, frame=1, interval=interval, calibrated=True),
        FrameAnswer("b", "no_face", "b: no face", frame=2, time=Fraction(1, 3)),
    ]
    with PartialFile(tmp_path / "x.partial", {}, 2) as partial:
        partial.append([(answer, None) for answer in given])
    first, second = PartialFile(tmp_path / "x.partial", {}, 2)
    np.testing.assert_array_equal(first.interval, interval)
    assert first.calibrated is True
    as_dict = first.to_dict()
    assert list(as_dict)[-3:] == ["interval", "calibrated", "analysis"]
    assert as_dict["interval"] == {name: np.round(pair.astype(float), 2).tolist()
                                for name, pair in zip(NAMES, interval, strict=True)}  # fmt: skip
    assert second.interval is None
    assert "interval" not in second.to_dict()
    assert "calibrated" not in second.to_dict()
