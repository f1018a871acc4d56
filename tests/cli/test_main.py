"""The command line: outputs, messages, exit codes and import cost."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.cli import describe
from semanticface.cli.main import main
from semanticface.cli.predict_video import SMOOTHING_HELP
from semanticface.evaluation import report
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.tables import read_coefficients
from semanticface.inference import predictor
from semanticface.prompts import load_prompt
from semanticface.recipe import make_recipe, prompt_record, write_recipe
from semanticface.semantics.answer import parse_answer
from semanticface.utils import one_euro
from tests.helpers.tiny_models import answers, fast_vlm

ROOT = Path(__file__).parents[2]


def run(capsys, *arguments):
    """Run a command in this process; return its exit code, standard output and standard error."""
    code = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def usage(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return fast_vlm(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def texts(tmp_path):
    """Five lines: a good answer, a blank line, a truncated answer, a good one with text around it, one without text."""
    good = answers(2)
    path = tmp_path / "answers.jsonl"
    rows = [
        json.dumps({"image": "a.png", "response": good[0]}),
        "",
        json.dumps({"image": "c.png", "text": good[1][:-20]}),
        json.dumps({"text": f"Here it is:\n```json\n{good[1]}\n```"}),
        json.dumps({"image": "e.png", "answer": good[1]}),
    ]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def take(tmp_path):
    """A Live Link take of three rows, the second one short."""
    path = tmp_path / "take.csv"
    rows = [["13:13:04:31.652", "61", *(f"{(i % 10) / 10:.10f}" for i in range(61))] for _ in range(3)]
    rows[1] = rows[1][:20]
    path.write_text("\n".join(",".join(row) for row in [arkit.LIVE_LINK_COLUMNS, *rows]) + "\n")
    return path


@pytest.fixture
def pictures(tmp_path):
    """Three pictures, the second one truncated."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (3, 40, 40, 3), dtype=np.uint8)
    for name, pixels in zip(("a.png", "b.png", "c.jpg"), noise, strict=True):
        Image.fromarray(pixels).save(folder / name)
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:500])
    return folder


def test_parse_to_jsonl_keeps_every_row_in_its_place(capsys, texts, tmp_path):
    out = tmp_path / "out.jsonl"
    code, printed, errors = run(capsys, "parse", texts, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 1
    assert printed == ""
    assert [row["image"] for row in rows] == [
        "a.png", "answers.jsonl:2", "c.png", "answers.jsonl:4", "e.png",
    ]  # fmt: skip
    assert [row["status"] for row in rows] == ["ok", "bad_line", "truncated", "ok", "no_text"]
    for number, row in enumerate(rows, start=1):
        if row["status"] != "ok":
            assert f"{texts}, line {number}: " in row["reason"]
            assert row["reason"] in errors
            assert row["coefficients"] is None
    truth = parse_answer(answers(2)[1])
    assert arkit.vector(rows[3]["coefficients"]) == pytest.approx(truth.coefficients)
    assert rows[3]["analysis"] == truth.analysis.to_dict()
    assert "5 rows, 3 failed" in errors


def test_parse_to_csv(capsys, texts, tmp_path):
    out = tmp_path / "out.csv"
    code, _, _ = run(capsys, "parse", texts, "--out", out)
    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert code == 1
    assert tuple(header) == tables.COLUMNS
    assert [row[0] for row in rows] == ["a.png", "answers.jsonl:2", "c.png", "answers.jsonl:4", "e.png"]
    assert rows[1][1:] == [""] * 52
    assert [float(cell) for cell in rows[0][1:]] == pytest.approx(parse_answer(answers(1)[0]).coefficients.tolist())


def test_parse_to_the_terminal(capsys, texts):
    code, printed, errors = run(capsys, "parse", texts)
    assert code == 1
    assert printed.startswith("a.png\n  ")
    assert "active" in printed and "symmetry" in printed and "suggests" in printed
    assert "truncated" in printed
    assert f"{texts}, line 2: an empty line" in errors
    _, printed, _ = run(capsys, "parse", texts, "--no-emotion")
    assert "suggests" not in printed


def test_parse_all_good_exits_with_0(capsys, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"text": answers(1)[0]}))
    assert run(capsys, "parse", path)[0] == 0


def test_describe(capsys, take, tmp_path):
    out = tmp_path / "take.jsonl"
    code, _, errors = run(capsys, "describe", take, "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 1
    assert [row["status"] for row in rows] == ["ok", "bad_row", "ok"]
    assert f"{take}, line 3: a short row" in errors
    assert rows[0]["image"] == "13:13:04:31.652"
    assert list(rows[0]["analysis"]["muscle_movements"]) == list(arkit.REGIONS)
    assert "emotional_implication" in rows[0]["analysis"]
    run(capsys, "describe", take, "--out", out, "--no-emotion")
    assert "emotional" not in out.read_text()
    code, printed, _ = run(capsys, "describe", out)
    assert printed.count("symmetry") == 2


def test_describe_prints_a_recording_by_segments(capsys, tmp_path):
    faces = [{}] * 20 + [{"jawOpen": 0.9}] * 3 + [{}] * 2 + [{"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8}] * 20
    rows = [
        LiveLinkRow(f"00:00:{n // 30:02d}:{n % 30:02d}.000", arkit.vector(face).astype(float), np.zeros(9))
        for n, face in enumerate(faces)
    ]
    live_link.write(tmp_path / "take.csv", rows)
    code, printed, _ = run(capsys, "describe", tmp_path / "take.csv")
    names = [line for line in printed.splitlines() if line and not line.startswith(" ")]
    assert code == 0 and "smile" in printed
    assert names == ["00:00:00:00.000 to 00:00:00:24.000, 25 frames", "00:00:00:25.000 to 00:00:01:14.000, 20 frames"]
    _, printed, _ = run(capsys, "describe", tmp_path / "take.csv", "--all")
    assert printed.count("symmetry") == len(faces)


def test_describe_more_rows_than_a_block(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(describe, "_BLOCK", 3)
    path = tmp_path / "many.csv"
    rows = [f"f{i}," + ",".join([f"{i / 10}"] * 52) for i in range(8)]
    path.write_text("\n".join([",".join(tables.COLUMNS), *rows]))
    _, printed, _ = run(capsys, "describe", path)
    assert [line for line in printed.splitlines() if line.startswith("f")] == [f"f{i}" for i in range(8)]
    assert "nothing above 0.1" in printed and "eyeBlinkLeft 0.70" in printed


def test_render_numbers_resumes_and_leaves_gaps(capsys, take, tmp_path):
    out = tmp_path / "frames"
    code, _, errors = run(capsys, "render", take, "--out", out, "--size", 48, "--sheet")
    assert code == 1
    assert "line 3: a short row" in errors
    assert sorted(path.name for path in out.glob("*.png")) == ["000001.png", "000003.png", "sheet.png"]
    assert Image.open(out / "000001.png").size == (48, 48)
    assert Image.open(out / "sheet.png").size[0] > 320
    first, third = (out / "000001.png").read_bytes(), out / "000003.png"
    assert first == third.read_bytes()  # equal rows, equal pictures
    (out / "000001.png").write_bytes(b"kept")
    third.unlink()
    assert run(capsys, "render", take, "--out", out, "--size", 48)[0] == 1
    assert (out / "000001.png").read_bytes() == b"kept"
    assert third.read_bytes() == first
    code, _, errors = run(capsys, "render", take, "--out", out, "--size", 64)
    assert code == 2
    assert str(out) in errors and "other settings" in errors


def test_render_output_of_parse_in_another_style(capsys, texts, tmp_path):
    run(capsys, "parse", texts, "--out", tmp_path / "faces.jsonl")
    code, _, errors = run(capsys, "render", tmp_path / "faces.jsonl", "--out", tmp_path / "f", "--style", "drawn")
    assert code == 1
    assert "this row failed (truncated)" in errors
    assert sorted(path.name for path in (tmp_path / "f").glob("*.png")) == ["000001.png", "000004.png"]
    assert Image.open(tmp_path / "f" / "000001.png").size == (256, 256)


def test_render_refuses_folders_with_other_content(capsys, take, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.png").touch()
    code, _, errors = run(capsys, "render", take, "--out", tmp_path / "mine")
    assert code == 2 and "contains something else" in errors
    code, _, errors = run(capsys, "render", take, "--out", tmp_path / "new", "--style", "oil")
    assert code == 2 and "photo, toon, drawn" in errors
    assert not (tmp_path / "new").exists()
    empty = tmp_path / "empty.csv"
    empty.write_text(",".join(tables.COLUMNS))
    code, _, errors = run(capsys, "render", empty, "--out", tmp_path / "new")
    assert code == 2 and "no rows" in errors


def test_predict_to_jsonl_and_csv(capsys, model, pictures, tmp_path):
    gone = tmp_path / "gone.png"
    for name in ("x.jsonl", "x.csv"):
        out = tmp_path / name
        code, _, errors = run(capsys, "predict", gone, pictures, "--model", model, "--no-crop", "--out", out)
        assert code == 1
        assert f"{gone}: no such file" in errors
        assert f"{pictures / 'b.png'}: a damaged or truncated PNG" in errors
        assert "4 rows, 2 failed" in errors
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    named = [str(gone), *(str(pictures / name) for name in ("a.png", "b.png", "c.jpg"))]
    assert [row["image"] for row in rows] == named
    assert [row["status"] for row in rows] == ["missing", "ok", "damaged", "ok"]
    assert list(rows[1]["coefficients"]) == list(arkit.NAMES)
    assert set(rows[1]["analysis"]) >= {"expression_category", "muscle_movements", "symmetry"}
    with (tmp_path / "x.csv").open(newline="") as file:
        header, *cells = csv.reader(file)
    assert header == ["image", *arkit.NAMES]
    assert [row[0] for row in cells] == named
    assert cells[0][1:] == cells[2][1:] == [""] * 52
    assert [float(cell) for cell in cells[1][1:]] == pytest.approx(list(rows[1]["coefficients"].values()), abs=1e-4)


def test_predict_numbers_only(capsys, model, pictures, tmp_path):
    out = tmp_path / "x.jsonl"
    code, _, _ = run(
        capsys, "predict", pictures / "a.png", "--model", model, "--no-crop", "--mode", "numbers", "--out", out
    )
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert code == 0 and row["analysis"] is None and list(row["coefficients"]) == list(arkit.NAMES)


def test_predicted_rotations_reach_the_csv(capsys, model, pictures, tmp_path):
    """With a tiny model whose recipe has the pose."""
    turning = shutil.copytree(model, tmp_path / "turning")
    prompt = load_prompt("distill")
    recipe = make_recipe("base", base=None, prompt=prompt_record(prompt), emotion=True, readout="mean", image_size=32,
                         settings={}, metrics={}, numbers="parallel", pose=True)  # fmt: skip
    write_recipe(turning, recipe)
    out = tmp_path / "x.csv"
    predict = ("predict", pictures / "a.png", "--model", turning, "--no-crop", "--mode", "numbers", "--out", out)
    assert run(capsys, *predict)[0] == 0
    header, row = csv.reader(out.read_text().splitlines())
    rotations = dict(zip(header, row, strict=True))
    assert list(rotations)[-9:] == list(arkit.POSE_NAMES)
    assert all(0 < abs(float(rotations[name])) <= 1 for name in arkit.POSE_NAMES)
    assert run(capsys, "convert", out, "--to", "livelink", "--out", tmp_path / "y.csv")[0] == 0
    (recorded,) = [each.live_link for each in read_coefficients(tmp_path / "y.csv")]
    assert recorded.pose == pytest.approx([float(rotations[name]) for name in arkit.POSE_NAMES], abs=1e-6)


def test_readout_and_mirror_change_the_answer(capsys, pictures, tmp_path):
    """With nano, whose mean, median and answers to a mirror image differ."""
    found = []
    for options in ([], ["--readout", "median"], ["--readout", "median", "--mirror"]):
        out = tmp_path / "x.jsonl"
        command = ["predict", pictures / "a.png", "--no-crop", "--mode", "numbers", "--out", out, *options]
        assert run(capsys, *command)[0] == 0
        (row,) = [json.loads(line) for line in out.read_text().splitlines()]
        assert list(row["interval"]) == list(row["coefficients"]) == list(arkit.NAMES)
        found.append(row)
    mean, median, both = found
    assert mean["interval"] == median["interval"] != both["interval"]
    assert len({tuple(row["coefficients"].values()) for row in found}) == 3
    for row in (median, both):
        assert all(low <= row["coefficients"][name] <= high for name, (low, high) in row["interval"].items())
    code, _, errors = run(capsys, "predict", pictures / "a.png", "--mirror", "--temperature", "1")
    assert code == 2 and "--mirror averages what --temperature would sample" in errors


def test_predict_prints_a_summary_and_writes_a_report(capsys, model, pictures, tmp_path):
    page = tmp_path / "r.html"
    picture = pictures / "a.png"
    code, printed, _ = run(
        capsys, "predict", picture, "--model", model, "--box", "2,2,38,38", "--report", page, "--no-emotion"
    )
    assert code == 0
    assert printed.startswith(f"{picture}\n") and "symmetry" in printed and "suggests" not in printed
    assert "a.png" in page.read_text()
    assert "suggests" not in page.read_text()


@pytest.fixture
def streamed(monkeypatch):
    """Replace the model by a fake; returns how many of its predictions are alive at each picture."""
    made, alive = [], []

    class Fake:
        @classmethod
        def from_pretrained(cls, *_, **__):
            return cls()

        def stream(self, pictures, **_):
            for number, path in enumerate(pictures):
                if path.endswith("stop.png"):
                    raise KeyboardInterrupt
                status, reason = ("ok", "") if number % 3 else ("no_face", f"{path}: no face")
                face = None if reason else np.full(52, 0.5, np.float32)
                prediction = predictor.Prediction(path, status, reason, face, text="x" * 1000)
                made.append(weakref.ref(prediction))
                yield prediction
                del prediction
                alive.append(sum(each() is not None for each in made))

    monkeypatch.setattr(predictor, "Predictor", Fake)
    return alive


@pytest.mark.parametrize("output", ["x.jsonl", "x.csv", None])
def test_predictions_are_not_kept(capsys, streamed, tmp_path, monkeypatch, output):
    monkeypatch.setattr(report, "MAX_PREDICTIONS", 2)
    names = [tmp_path / f"{number}.png" for number in range(30)]
    Image.new("RGB", (40, 40)).save(names[0])
    out = [] if output is None else ["--out", tmp_path / output]
    code, printed, errors = run(capsys, "predict", *names, *out, "--report", tmp_path / "r.html")
    assert code == 1
    assert len(streamed) == 30 and max(streamed) <= 2 + 2  # those in the report, and those being written
    assert [line for line in errors.splitlines() if "no face" in line] == [
        f"semanticface: {name}: no face" for name in names[::3]
    ]
    lines = printed.splitlines() if output is None else (tmp_path / output).read_text().splitlines()
    assert sum(".png" in line and "no_face:" not in line for line in lines) == 30
    assert "30 pictures, 10 without an answer. The first 2 are shown" in (tmp_path / "r.html").read_text()


def test_predict_prints_as_it_goes_and_writes_whole_files(capsys, streamed, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    names = [pictures / "a.png", pictures / "b.png", pictures / "stop.png"]
    Image.new("RGB", (40, 40)).save(names[0])
    code, printed, _ = run(capsys, "predict", *names)
    assert code == 130 and f"{names[1]}\n" in printed
    (tmp_path / "x.jsonl").write_text("kept")
    code, _, _ = run(capsys, "predict", *names, "--out", tmp_path / "x.jsonl")
    assert code == 130
    assert {path.name for path in tmp_path.iterdir()} == {"pictures", "x.jsonl"}
    assert (tmp_path / "x.jsonl").read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["predict"], "PICTURE"),
        (["predict", "a.png", "--box", "1,2,3"], "'1,2,3' is not four numbers such as"),
        (["predict", "a.png", "--box", "9,9,3,3"], "no area"),
        (["predict", "a.png", "--box", "nan,0,1,1"], "no area"),
        (["predict", "a.png", "--box", "0,0,9,9", "--no-crop"], "not allowed with"),
        (["predict", "a.png", "--temperature", "-1"], "from 0 to 10"),
        (["predict", "a.png", "--temperature", "nan"], "from 0 to 10"),
        (["predict", "a.png", "--batch-size", "0"], "from 1 to"),
        (["predict", "a.png", "--seed", "-1"], "from 0 to"),
        (["render", "a.csv"], "--out"),
        (["render", "a.csv", "--out", "x", "--size", "9999"], "from 32 to 2048"),
        (["paint"], "invalid choice"),
    ],
)
def test_usage_errors(capsys, arguments, word):
    assert word in usage(capsys, *arguments)


def test_the_bare_command_prints_its_help(capsys):
    code, printed, errors = run(capsys)
    assert code == 0 and printed.startswith("usage: semanticface") and "predict" in printed and not errors


@pytest.mark.parametrize("command", ["predict", "parse", "describe", "render"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert stopped.value.code == 0
    assert f"semanticface {command} " in printed.split("examples:")[1]


def test_the_help_of_smoothing_shows_the_defaults():
    settings = one_euro.DEFAULTS.items()
    shown = [f"{name} {each.min_cutoff:g},{each.beta:g}" if each else f"{name} off" for name, each in settings]
    assert ", ".join(shown) == SMOOTHING_HELP


@pytest.mark.parametrize(
    ("command", "loaded"),
    [
        (["--help"], ["numpy", "tqdm", "torch", "numba", "transformers", "datasets"]),
        (["parse", "FILE"], ["torch", "numba", "transformers", "datasets"]),
        (["describe", "TAKE"], ["torch", "numba", "transformers", "datasets"]),
    ],
)
def test_light_commands_import_no_heavy_modules(command, loaded, texts, take):
    arguments = [{"FILE": str(texts), "TAKE": str(take)}.get(word, word) for word in command]
    code = (
        "import sys\nfrom semanticface.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        f"print('loaded:', [name for name in {loaded!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr


def test_interrupted_leaves_130_and_no_traceback(capsys, texts, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tables, "read_objects", interrupted)
    assert run(capsys, "parse", texts) == (130, "", "semanticface: interrupted\n")


def test_a_closed_pipe_is_no_error(tmp_path):
    path = tmp_path / "many.jsonl"
    path.write_text((json.dumps({"text": answers(1)[0]}) + "\n") * 2000)
    with subprocess.Popen(
        [sys.executable, "-m", "semanticface", "parse", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL),
    ) as process:
        assert process.stdout.readline() == b"many.jsonl:1\n"
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(), errors) == (0, b"")


def test_the_installed_command():
    done = subprocess.run([Path(sys.executable).parent / "semanticface", "--version"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("semanticface ")


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("command", ["parse", "describe", "predict", "convert --to jsonl"])
def test_an_output_that_is_an_input_is_refused(tmp_path, capsys, command, link):
    taken = tmp_path / "take.jsonl"
    taken.write_text("{}\n")
    out = tmp_path / "same.jsonl" if link else tmp_path / "." / "take.jsonl"
    if link:
        out.hardlink_to(taken)
    name, *options = command.split()
    assert main([name, str(taken), *options, "--out", str(out)]) == 2
    assert "is an input of this command" in capsys.readouterr().err and taken.read_text() == "{}\n"
