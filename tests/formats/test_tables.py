"""Coefficient tables: formats, rejections, and that invalid rows keep their positions."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticface import arkit
from semanticface.errors import SemanticFaceError, TableError
from semanticface.formats import recording, tables
from semanticface.formats.tables import RowResult, read_coefficients
from semanticface.semantics.analysis import describe

VALUES = [f"{i / 100:.10f}" for i in range(52)]


def live_link(*rows, header=arkit.LIVE_LINK_COLUMNS):
    return "\n".join([",".join(header), *(",".join(row) for row in rows)]) + "\n"


def take_row(timecode="13:13:04:31.652", values=VALUES, pose=("0.1", "-0.2", "0", *["0.0"] * 6), count="61"):
    return [timecode, count, *values, *pose]


def ours(*rows):
    return "\n".join([",".join(tables.COLUMNS), *(",".join(row) for row in rows)]) + "\n"


def read(tmp_path, text, name="t.csv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(**options))
    return list(read_coefficients(path))


def changed(index, value):
    return [*VALUES[:index], value, *VALUES[index + 1 :]]


@pytest.mark.parametrize("spelling", ["BlendShapeCount", "BlendshapeCount"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_live_link(tmp_path, spelling, end, bom):
    header = ["Timecode", spelling, *arkit.LIVE_LINK_COLUMNS[2:]]
    text = live_link(take_row(), take_row("13:13:04:32.652"), header=header).replace("\n", end)
    rows = read(tmp_path, bom + text.encode())
    assert [row.label for row in rows] == ["13:13:04:31.652", "13:13:04:32.652"]
    assert [row.line for row in rows] == [2, 3]
    assert rows[0].coefficients.dtype == np.float32
    assert np.allclose(rows[0].coefficients, np.arange(52) / 100)
    assert rows[0].error == ""


def test_ours_with_quoted_names(tmp_path):
    (row,) = read(tmp_path, ours(['"a, ""b"" é.png"', *VALUES]))
    assert row.label == 'a, "b" é.png'
    assert row.coefficients[51] == np.float32(0.51)


def test_values_at_the_bounds_and_minus_zero(tmp_path):
    (row,) = read(tmp_path, ours(["a", "-0.0", "1.0000001", "-0.0000001", "1e-3", *VALUES[4:]]))
    assert row.coefficients[:3].tolist() == [0, 1, 0]
    assert not np.signbit(row.coefficients).any()


def test_small_overshoots_are_clipped(tmp_path):
    (row,) = read(tmp_path, live_link(take_row("a", changed(3, "1.0033446550"))))
    assert row.coefficients[3] == 1


@pytest.mark.parametrize(
    ("index", "cell", "word"),
    [
        (0, "nan", "'nan' is not a number"),
        (1, "", "'' is not a number"),
        (2, "inf", "is not a number"),
        (3, "1_0", "is not a number"),
        (4, "0x1", "is not a number"),
        (5, "1e999", "is not a number"),
        (6, "1.03", "outside 0 to 1"),
        (7, "-0.5", "outside 0 to 1"),
        (8, "z" * 500, "'zzz"),
    ],
)
def test_an_invalid_cell_is_named_and_does_not_shift_others(tmp_path, index, cell, word):
    rows = read(tmp_path, live_link(take_row("a"), take_row("b", changed(index, cell)), take_row("c")))
    assert [row.label for row in rows] == ["a", "b", "c"]
    assert [row.coefficients is None for row in rows] == [False, True, False]
    error = rows[1].error
    assert error.startswith(f"{tmp_path / 't.csv'}, line 3, column {index + 3} ({arkit.LIVE_LINK_COLUMNS[index + 2]})")
    assert word in error and "remove the row" in error and len(error) < 300


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (take_row()[:-1], "a short row, 62 cells where the header has 63"),
        ([*take_row(), "0"], "a long row, 64 cells"),
        (take_row(count="many"), "column 2 (BlendShapeCount): 'many' is not a number"),
        (take_row(pose=["x"] * 9), "column 55 (HeadYaw): 'x' is not a number"),
        ([""], "an empty line"),
        (['"unclosed', *take_row()[1:]], "quotation mark"),
        (["x" * tables.MAX_CSV_LINE], "longer than 64 KiB"),
    ],
)
def test_an_invalid_row_does_not_affect_others(tmp_path, row, word):
    rows = read(tmp_path, live_link(take_row("a"), row, take_row("c")))
    assert len(rows) == 3
    assert word in rows[1].error and "line 3" in rows[1].error
    assert rows[1].coefficients is None
    assert rows[2].label == "c" and rows[2].coefficients is not None and rows[2].line == 4


def test_a_row_that_is_not_utf8(tmp_path):
    rows = read(tmp_path, ours(["a", *VALUES]).encode() + b"\xff\xfe," + ",".join(VALUES).encode() + b"\n")
    assert "not UTF-8" in rows[1].error


def test_trailing_blank_lines_are_ignored(tmp_path):
    assert len(read(tmp_path, ours(["a", *VALUES]) + "\n  \n\n")) == 1


def test_last_line_without_line_end(tmp_path):
    assert read(tmp_path, ours(["a", *VALUES]).rstrip("\n"))[0].coefficients is not None


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (["Timecode", *arkit.LIVE_LINK_COLUMNS[3:]], "no column for eyeBlinkLeft (1 of the 52 actions)"),
        (["Timecode", *arkit.NAMES[10:]], "eyeLookUpLeft, eyeSquintLeft, eyeWideLeft, eyeBlinkRight and 2 more (10"),
        ([*arkit.LIVE_LINK_COLUMNS, "jaw_open"], "jawOpen is there twice, in columns 20 (JawOpen) and 64 (jaw_open)"),
        ([*arkit.LIVE_LINK_COLUMNS, "head yaw"], "HeadYaw is there twice"),
        (["Timecode", "a", "b"], "starts with 'Timecode'"),
        ([";".join(tables.COLUMNS)], "separated by ';'"),
        (["\x00\x01\x02"], "not a coefficient table"),
    ],
)
def test_a_wrong_header_is_an_error(tmp_path, header, word):
    with pytest.raises(TableError) as caught:
        read(tmp_path, live_link(take_row(), header=header))
    assert str(tmp_path / "t.csv") in str(caught.value) and "line 1" in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_other_files_are_rejected(tmp_path, name, monkeypatch):
    with pytest.raises(TableError, match="No such file"):
        list(read_coefficients(tmp_path / "gone" / name))
    with pytest.raises(TableError, match="Is a directory"):
        list(read_coefficients(tmp_path))
    for empty in ("", "\n\n"):
        with pytest.raises(TableError, match=r"empty\. Copy or export"):
            read(tmp_path, empty, name)
    if name == "t.csv":
        with pytest.raises(TableError, match="not UTF-8"):
            read(tmp_path, ours(["a", *VALUES]), name, encoding="utf-16")
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    with pytest.raises(TableError, match="more than 2 lines"):
        read(tmp_path, ours(["a", *VALUES], ["b", *VALUES]), name)


GOOD = dict(zip(arkit.NAMES, np.arange(52) / 100, strict=True))


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("{not json", "not valid JSON"),
        ("[1]", "a JSON list. Each line"),
        ("", "an empty line"),
        ('{"coefficients": NaN}', "NaN is not a number"),
        ('{"image": "a", "image": "b"}', "duplicate key"),
        ("[" * 100_000, "not valid JSON"),
        ({"image": "b"}, 'no "coefficients" object'),
        ({"status": "no_face"}, "this row failed (no_face)"),
        ({"coefficients": {**GOOD, "smile": 1}}, "'smile' is unknown in"),
        ({"coefficients": {k: v for k, v in GOOD.items() if k != "jawOpen"}}, "'jawOpen' is missing from"),
        ({"coefficients": {**GOOD, "jawOpen": True}}, "jawOpen: 'True' is not a number"),
        ({"coefficients": {**GOOD, "jawOpen": "0.1"}}, "jawOpen: '0.1' is not a number"),
        ({"coefficients": {**GOOD, "jawOpen": 2}}, "jawOpen: 2 is outside 0 to 1"),
        ({"coefficients": GOOD, "analysis": {"symmetry": "even"}}, "Correct the analysis"),
        ({"coefficients": GOOD, "box": [1, 2, 3]}, "the box is not four numbers"),
        ({"coefficients": GOOD, "box": [1, 2, 3, "4"]}, "box: '4' is not a number"),
    ],
)
def test_invalid_jsonl_rows_keep_their_positions(tmp_path, row, word):
    good = json.dumps({"image": "a", "coefficients": GOOD})
    text = row if isinstance(row, str) else json.dumps(row)
    rows = read(tmp_path, f"{good}\n{text}\n{good}\n", "t.jsonl")
    assert [r.line for r in rows] == [1, 2, 3]
    assert word in rows[1].error and "line 2" in rows[1].error and rows[1].coefficients is None
    assert rows[0].coefficients is not None and rows[2].coefficients is not None


def outcome(name="a", seed=0):
    values = np.random.default_rng(seed).uniform(0, 1, 52).round(2).astype(np.float32)
    return RowResult(name, coefficients=values, analysis=describe(values))


def test_jsonl_round_trip(tmp_path):
    path = tmp_path / "out.jsonl"
    written = [outcome("é\n.png"), RowResult("b", "no_face", "b: no face found"), outcome("c", 2)]
    tables.write(path, written)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["status"] for line in lines] == ["ok", "no_face", "ok"]
    assert list(lines[0]) == ["image", "status", "coefficients", "analysis"]
    assert list(lines[0]["coefficients"]) == list(arkit.NAMES)
    assert lines[1] == {
        "image": "b", "status": "no_face", "reason": "b: no face found", "coefficients": None, "analysis": None,
    }  # fmt: skip
    rows = list(read_coefficients(path))
    assert [row.label for row in rows] == ["é\n.png", "b", "c"]
    assert np.array_equal(rows[0].coefficients, written[0].coefficients)
    assert rows[0].analysis == written[0].analysis
    assert "this row failed (no_face)" in rows[1].error


def test_csv_round_trip(tmp_path):
    path = tmp_path / "out.csv"
    written = [outcome('a, "b".png'), RowResult("b", "no_face", "none"), outcome("two\nlines", 2)]
    tables.write(path, written)
    with path.open(newline="") as file:
        header, first, failed, last = csv.reader(file)
    assert tuple(header) == ("image", *arkit.NAMES)
    assert failed == ["b"] + [""] * 52
    assert [float(cell) for cell in first[1:]] == pytest.approx(written[0].coefficients.tolist())
    assert last[0] == "two lines"
    rows = list(read_coefficients(path))
    assert np.array_equal(rows[2].coefficients, written[2].coefficients)
    assert "the prediction of this picture failed" in rows[1].error


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(0, 1, width=32), min_size=52, max_size=52), suffix=st.sampled_from(tables.SUFFIXES))
def test_numbers_keep_six_decimals(tmp_path_factory, values, suffix):
    path = tmp_path_factory.mktemp("t") / f"x{suffix}"
    tables.write(path, [RowResult("a", coefficients=np.array(values, np.float32))])
    (row,) = read_coefficients(path)
    assert row.coefficients == pytest.approx(np.array(values), abs=1e-6)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), suffix=st.sampled_from(tables.SUFFIXES), headed=st.booleans())
def test_any_bytes_give_row_errors_or_a_table_error(tmp_path_factory, data, suffix, headed):
    path = tmp_path_factory.mktemp("t") / f"x{suffix}"
    path.write_bytes(ours().encode() + data if headed else data)
    try:
        for row in read_coefficients(path):
            assert (row.coefficients is None) == bool(row.error)
    except TableError as error:
        assert path.name in str(error)


def test_names_that_are_not_unicode_are_written(tmp_path):
    name = b"m\xe4rz.png".decode(errors="surrogateescape")
    for suffix in tables.SUFFIXES:
        tables.write(tmp_path / f"x{suffix}", [outcome(name)])
        assert next(iter(read_coefficients(tmp_path / f"x{suffix}"))).coefficients is not None


def test_a_failed_write_leaves_nothing(tmp_path):
    def half():
        yield outcome()
        raise RuntimeError("stop")

    (tmp_path / "x.csv").write_text("before")
    for suffix in tables.SUFFIXES:
        with pytest.raises(RuntimeError):
            tables.write(tmp_path / f"x{suffix}", half())
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]
    assert (tmp_path / "x.csv").read_text() == "before"
    with pytest.raises(SemanticFaceError, match=r"x\.txt: .*Use the suffix \.jsonl or \.csv"):
        tables.write(tmp_path / "x.txt", [])


def test_a_csv_has_rotations_where_they_are_known(tmp_path):
    pose = np.linspace(-0.4, 0.4, 9)
    rows = [
        tables.RowResult("a.jpg", "no_face", "no face"),
        tables.RowResult("b.jpg", coefficients=np.full(52, 0.5, np.float32), pose=pose),
        tables.RowResult("c.jpg", coefficients=np.zeros(52, np.float32)),
    ]
    tables.write(tmp_path / "out.csv", rows)
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    assert header.split(",") == [*tables.COLUMNS, *arkit.POSE_NAMES]
    assert [len(line.split(",")) for line in lines] == [62, 62, 62]
    bad, good, plain = tables.read_coefficients(tmp_path / "out.csv")
    assert bad.error and plain.pose is None and not plain.error
    np.testing.assert_allclose(good.pose, pose, atol=1e-6)
    frames = list(recording.read(tmp_path / "out.csv"))
    np.testing.assert_allclose(frames[1].pose, pose, atol=1e-6)
    tables.write(tmp_path / "out.jsonl", rows)
    np.testing.assert_allclose(list(recording.read(tmp_path / "out.jsonl"))[1].pose, pose, atol=1e-6)


ORDERS = {
    "the app's": arkit.PASCAL_CASE.values(),
    "ours": arkit.NAMES,
    "packets'": arkit.UDP_ORDER,
    "sides swapped": [arkit.NAMES[k] for k in arkit.MIRROR_INDEX],
    "sorted": sorted(arkit.SUFFIXED.values()),
    "spaced": [arkit.SUFFIXED[name].replace("_", " ").title().swapcase() for name in reversed(arkit.NAMES)],
}


def by_name(header, values):
    """Cells of a row for a header in any spelling."""
    return [f"{values[arkit.KEY_OF[arkit.column_key(name)]]:.6f}" for name in header]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"Timecode": "10:00:00:00.000", "BlendShapeCount": "61"}, dict.fromkeys(arkit.POSE_NAMES, "0.25")),
        ({"timecode": "10:00:00:00.000", "BlendshapeCount": "51"}, {}),
        ({"BlendShapeCount": "61.0", "TIMECODE": "10:00:00:00.000"}, {"note": "x", "Confidence": "0.9"}),
        ({"image": "a.png"}, {}),
        ({}, {"": ""}),
    ],
)
def test_columns_are_found_by_name(tmp_path, order, before, after):
    names = list(ORDERS[order])
    values = {name: (17 * k % 100) / 100 for k, name in enumerate(arkit.NAMES)}
    text = "\n".join(
        [",".join([*before, *names, *after]), ",".join([*before.values(), *by_name(names, values), *after.values()])]
    )
    notes = []
    (tmp_path / "t.csv").write_text(text)
    (row,) = read_coefficients(tmp_path / "t.csv", notes.append)
    assert not row.error and row.coefficients.tolist() == [np.float32(values[name]) for name in arkit.NAMES]
    assert (row.live_link is not None) == any(key.lower() == "timecode" for key in before)
    if row.live_link is not None:
        assert row.live_link.timecode == "10:00:00:00.000"
        assert row.live_link.pose.tolist() == [0.25 if "HeadYaw" in after else 0.0] * 9
    unknown = f"{tmp_path / 't.csv'}: 2 columns left out, of another name: note, Confidence."
    assert notes == ([unknown] if "note" in after else [])


@pytest.mark.parametrize("lost", [take_row("b", ["0"] * 52, count="0"), take_row("b", count=" 0.0"), ["b", "0"]])
def test_rows_without_a_face_are_no_error(tmp_path, lost):
    notes = []
    (tmp_path / "t.csv").write_text(live_link(take_row("a"), lost, lost, take_row("c")))
    rows = list(read_coefficients(tmp_path / "t.csv", notes.append))
    assert [row.lost for row in rows] == [False, True, True, False] and [row.line for row in rows] == [2, 3, 4, 5]
    assert rows[1].coefficients is None and "no face" in rows[1].error and "emove" not in rows[1].error
    assert notes == [f"{tmp_path / 't.csv'}: no face in 2 rows (lines 3 to 4). They are a gap."]


def test_apps_overshoot(tmp_path):
    """At the end of a movement any action may, and gaze, which jumps, anywhere; a lone spike is a damaged number."""
    jaw, gaze = arkit.INDEX["jawOpen"], arkit.INDEX["eyeLookInLeft"]
    cells = [list(VALUES) for _ in range(6)]
    for row, value in enumerate(["0.2", "0.9", "1.0421", "1.04", "0.3", "0.1"]):
        cells[row][jaw] = value
    cells[4][gaze] = "1.0533"
    notes = []
    (tmp_path / "t.csv").write_text(live_link(*(take_row(f"{n}", row) for n, row in enumerate(cells))))
    rows = list(read_coefficients(tmp_path / "t.csv", notes.append))
    assert not any(row.error for row in rows)
    assert [row.coefficients[jaw] for row in rows[1:4]] == [np.float32(0.9), 1, 1] and rows[4].coefficients[gaze] == 1
    assert rows[2].live_link.coefficients[jaw] == 1.0421 and rows[4].live_link.coefficients[gaze] == 1.0533
    assert [note.split(",")[0] for note in notes] == [f"{tmp_path / 't.csv'}: 3 values beyond 0 or 1"]
    assert "the farthest 1.0533" in notes[0]
    cells[1][jaw] = cells[3][jaw] = "0.2"
    (tmp_path / "t.csv").write_text(live_link(*(take_row(f"{n}", row) for n, row in enumerate(cells))))
    rows = list(read_coefficients(tmp_path / "t.csv", notes.append))
    assert [bool(row.error) for row in rows] == [False, False, True, False, False, False]
    assert "line 4, column 20 (JawOpen): 1.0421 is outside 0 to 1, next to 0.2 and 0.2" in rows[2].error


def test_an_overshoot_survives_jsonl(tmp_path):
    row = {"image": "a", "coefficients": {**GOOD, "jawOpen": 1.0533}}
    notes = []
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = recording.read(tmp_path / "t.jsonl", notes.append)
    assert found.values[arkit.INDEX["jawOpen"]] == 1.0533 and found.coefficients[arkit.INDEX["jawOpen"]] == 1
    assert len(notes) == 1 and "1 value beyond 0 or 1" in notes[0]
