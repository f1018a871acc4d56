"""Stage I on tables and datasets: rows keep their places, invalid ones have a reason, output is complete or absent."""

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

from semanticface import arkit
from semanticface.data.describe import describe_dataset, describe_table
from semanticface.errors import DatasetError, SemanticFaceError, TableError
from semanticface.semantics.analysis import describe
from semanticface.semantics.answer import parse_answer

SCRIPT = Path(__file__).parents[2] / "data_prep" / "describe.py"
FACES = np.round(np.random.default_rng(0).random((4, 52)), 2)


def live_link(path: Path) -> Path:
    """A take of four frames; the third is truncated."""
    lines = [",".join(arkit.LIVE_LINK_COLUMNS)]
    for frame, row in enumerate(FACES):
        cells = [f"10:00:00:{frame:02}.000", "61", *(f"{value:.10f}" for value in row), *["0.1"] * 9]
        lines.append(",".join(cells[:20] if frame == 2 else cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("emotion", [True, False])
def test_a_take_keeps_its_rows_in_place(tmp_path, emotion):
    total, failures = describe_table(live_link(tmp_path / "take.csv"), tmp_path / "out.jsonl", emotion=emotion)
    rows = rows_of(tmp_path / "out.jsonl")
    assert total == len(rows) == 4
    assert [row["status"] for row in rows] == ["ok", "ok", "bad_row", "ok"]
    assert [failure.where for failure in failures] == [f"{tmp_path / 'take.csv'}, line 4"]
    assert rows[2]["answer"] is rows[2]["analysis"] is rows[2]["coefficients"] is None
    assert "line 4" in rows[2]["reason"]
    for index in (0, 1, 3):
        answer = parse_answer(rows[index]["answer"])
        assert np.allclose(answer.coefficients, FACES[index])
        assert answer.analysis == describe(FACES[index], emotion=emotion)
        assert rows[index]["analysis"] == answer.analysis.to_dict()


def test_our_own_csv_is_read(tmp_path):
    lines = [",".join(("image", *arkit.NAMES)), ",".join(["a.png", *map(str, FACES[0])])]
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    assert describe_table(tmp_path / "faces.csv", tmp_path / "out.jsonl") == (1, [])
    assert rows_of(tmp_path / "out.jsonl")[0]["image"] == "a.png"


def test_an_invalid_table_writes_nothing(tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    for source in ("bad.csv", "missing.csv"):
        with pytest.raises(TableError):
            describe_table(tmp_path / source, tmp_path / "out.jsonl")
    with pytest.raises(SemanticFaceError):
        describe_table(tmp_path / "bad.csv", tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_a_dataset_gets_its_columns_and_the_source_is_unchanged(tmp_path):
    coefficients = FACES.tolist()
    coefficients[1][5] = 1.5
    coefficients[2] = None
    whole = datasets.Dataset.from_dict({"coefficients": coefficients, "subject": list("abcd"), "answer": ["old"] * 4})
    datasets.DatasetDict(train=whole, test=whole.select([0, 3])).save_to_disk(str(tmp_path / "in"))
    before = sorted(tmp_path.rglob("*"))
    total, failures = describe_dataset(tmp_path / "in", tmp_path / "out", emotion=False)
    after = sorted(path for path in tmp_path.rglob("*") if (tmp_path / "out") not in (path, *path.parents))
    assert after == before
    assert total == 6 and [failure.where.split(", ")[1:] for failure in failures] == [
        ["train", "row 1"],
        ["train", "row 2"],
    ]
    made = datasets.load_from_disk(str(tmp_path / "out"))
    train = made["train"]
    assert train["subject"] == list("abcd")
    assert train["status"] == ["ok", "bad_row", "bad_row", "ok"]
    assert "0 to 1" in train[1]["reason"] and train[1]["answer"] is None
    for row in (train[0], train[3], *made["test"]):
        answer = parse_answer(row["answer"])
        assert answer.analysis == describe(np.array(row["coefficients"]), emotion=False)
        assert json.loads(row["analysis"]) == answer.analysis.to_dict()


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="empty"):
        describe_dataset(tmp_path / "empty", tmp_path / "out")
    datasets.Dataset.from_dict({"x": [1]}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(DatasetError, match="coefficients"):
        describe_dataset(tmp_path / "other", tmp_path / "out")
    with pytest.raises(DatasetError, match="exists"):
        describe_dataset(tmp_path / "other", tmp_path / "empty")
    assert not (tmp_path / "out").exists()


def test_the_script_names_invalid_rows_and_exits_with_1(tmp_path):
    def run(source: Path, target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), str(source), str(tmp_path / target)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run(live_link(tmp_path / "take.csv"), "out.jsonl")
    assert done.returncode == 1 and "line 4" in done.stderr and "3 of 4 rows" in done.stdout
    done = run(tmp_path / "nothing.csv", "none.jsonl")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "nothing.csv" in done.stderr
    assert not (tmp_path / "none.jsonl").exists()
