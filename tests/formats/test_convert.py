"""Conversion: takes round-trip through JSONL, and rows that a format cannot represent are reported."""

import json
import os

import numpy as np
import pytest

from semanticface import arkit
from semanticface.cli.main import main
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from tests.helpers.glb_reader import load


@pytest.fixture
def take(tmp_path):
    """A take like those of Live Link Face: 60 fps timecodes, 30 rows per second, ten decimals, rotations."""
    rng = np.random.default_rng(7)
    rows = []
    for frame in range(40):
        seconds, ff = divmod(31.652 + 2 * frame, 60)
        values = np.where(rng.random(52) < 0.4, 0.0, rng.uniform(0, 1.0033, 52))
        rows.append(LiveLinkRow(f"13:13:{4 + int(seconds):02d}:{ff:06.3f}", values, rng.uniform(-0.6, 0.6, 9)))
    live_link.write(tmp_path / "take.csv", rows)
    return tmp_path / "take.csv"


def run(*words):
    return main(["convert", *map(str, words)])


def test_a_take_round_trips_through_jsonl(take, tmp_path):
    assert run(take, "--out", tmp_path / "a.jsonl") == 0
    assert run(tmp_path / "a.jsonl", "--out", tmp_path / "S_1_Ann.csv") == 0
    assert (tmp_path / "S_1_Ann.csv").read_bytes() == take.read_bytes()
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert first["timecode"] == "13:13:04:31.652" and first["pose"].keys() == set(arkit.POSE_NAMES)


def test_our_csv_keeps_timecodes_and_six_decimals(take, tmp_path):
    assert run(take, "--to", "csv", "--out", tmp_path / "a.csv") == 0
    assert run(tmp_path / "a.csv", "--to", "livelink", "--out", tmp_path / "b.csv") == 0
    before, after = (list(tables.read_coefficients(path)) for path in (take, tmp_path / "b.csv"))
    assert [row.label for row in after] == [row.label for row in before]
    assert np.allclose([row.coefficients for row in after], [row.coefficients for row in before], atol=6e-7)
    poses = [[row.live_link.pose for row in rows] for rows in (before, after)]
    assert np.allclose(*poses, atol=6e-7)


def test_pictures_become_frames_and_failures_become_gaps(tmp_path, capsys):
    rows = [tables.RowResult(f"{n}.png", coefficients=arkit.vector({"jawOpen": n / 10})) for n in range(4)]
    rows[2] = tables.RowResult("2.png", "no_face", "2.png: no face found.")
    tables.write(tmp_path / "a.jsonl", rows)
    assert run(tmp_path / "a.jsonl", "--to", "livelink", "--out", tmp_path / "b.csv", "--fps", "60") == 1
    found = list(tables.read_coefficients(tmp_path / "b.csv"))
    assert [row.label for row in found] == ["00:00:00:00.000", "00:00:00:01.000", "00:00:00:03.000"]
    assert "2.png: no face found." in capsys.readouterr().err
    assert run(tmp_path / "a.jsonl", "--to", "csv", "--out", tmp_path / "c.csv") == 1
    assert [row.coefficients is None for row in tables.read_coefficients(tmp_path / "c.csv")] == [0, 0, 1, 0]


def test_analyses_of_the_published_format_are_kept(tmp_path):
    from semanticface.semantics.analysis import describe
    from semanticface.semantics.answer import format_answer

    values = arkit.vector({"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8})
    answer = format_answer(values, describe(values))
    row = {"messages": [{"role": "assistant", "content": answer}], "images": ["a.jpg"]}
    (tmp_path / "swift.jsonl").write_text(json.dumps(row) + "\n")
    assert run(tmp_path / "swift.jsonl", "--to", "jsonl", "--out", tmp_path / "ours.jsonl") == 0
    (read,) = tables.read_coefficients(tmp_path / "ours.jsonl")
    assert read.label == "a.jpg" and read.analysis == describe(values) and np.array_equal(read.coefficients, values)


def test_rows_with_partial_timecodes(take, tmp_path, capsys):
    run(take, "--to", "jsonl", "--out", tmp_path / "a.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    lines[1] |= {"timecode": "", "image": "x"}
    lines[2] |= {"timecode": "noon"}
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run(tmp_path / "a.jsonl", "--to", "livelink", "--out", tmp_path / "b.csv") == 1
    errors = capsys.readouterr().err
    assert "a.jsonl, line 2: other rows have a timecode" in errors and "line 3: 'noon' is not a timecode" in errors
    assert len(list(tables.read_coefficients(tmp_path / "b.csv"))) == 38


def test_errors_write_nothing(take, tmp_path, capsys):
    out = tmp_path / "new" / "a.jsonl"
    assert run(take, "--to", "csv", "--out", out) == 2
    assert run(tmp_path / "none.csv", "--to", "jsonl", "--out", out) == 2
    (tmp_path / "bad.jsonl").write_text('{"image": "x"}\n')
    assert run(tmp_path / "bad.jsonl", "--to", "livelink", "--out", out.with_suffix(".csv")) == 2
    errors = capsys.readouterr().err
    assert "end in .csv. Rename it" in errors and "Check the path" in errors and "no row with coefficients" in errors
    assert not list(tmp_path.glob("new/*"))


def test_the_output_must_not_replace_the_input(take, tmp_path, capsys):
    before = take.read_bytes()
    assert run(take, "--to", "csv", "--out", tmp_path / "." / "take.csv") == 2
    assert "is an input of this command" in capsys.readouterr().err and take.read_bytes() == before


@pytest.mark.parametrize("form", ["jsonl", "csv", "livelink", "glb"])
def test_empty_recordings_are_rejected(tmp_path, capsys, form):
    (tmp_path / "empty.csv").write_text(",".join(tables.COLUMNS) + "\n")
    out = tmp_path / f"out.{form.replace('livelink', 'csv')}"
    assert run(tmp_path / "empty.csv", "--to", form, "--out", out) == 2
    assert "empty.csv" in capsys.readouterr().err and not out.exists()


def test_a_name_without_a_known_ending_needs_a_format(take, tmp_path, capsys):
    assert run(take, "--out", tmp_path / "a.txt") == 2
    assert (
        "a.txt: its name says no format. End it in one of .csv, .jsonl, .glb, .vrm, or add --to."
        in capsys.readouterr().err
    )


def test_the_head_cannot_be_written_as_vrm(take, tmp_path, capsys):
    assert run(take, "--to", "glb", "--out", tmp_path / "a.vrm") == 2
    assert "Give an --avatar" in capsys.readouterr().err


def test_a_name_that_is_not_unicode(take, tmp_path):
    odd = take.with_name(os.fsdecode(b"Scene1_1_\xff.csv"))
    try:
        take.rename(odd)
    except OSError:
        pytest.skip("this file system takes Unicode only")
    assert run(odd, "--to", "glb", "--out", tmp_path / "a.glb") == 0
    document, _, _ = load(tmp_path / "a.glb")
    assert document["animations"][0]["name"] == "Scene1_1_?"
