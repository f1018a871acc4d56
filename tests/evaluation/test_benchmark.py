"""The benchmark: scoring several methods on the same pictures, and the whole command on a tiny model."""

import json

import numpy as np
import pytest
from PIL import Image

from semanticface import arkit
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.data.importers.pictures import Reading
from semanticface.data.rendered import RenderSettings
from semanticface.evaluation import benchmark, metrics, published
from semanticface.evaluation.benchmark import MODEL, PEER, MethodAnswers, score_set
from semanticface.formats import live_link, tables
from semanticface.inference.intervals import NumberSummary
from semanticface.semantics import take_sampler
from semanticface.semantics.analysis import describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement, claims
from tests.helpers.scripts import load_script
from tests.helpers.tiny_models import fast_vlm

FEWER = tuple(name for name in arkit.NAMES if name != "tongueOut")
MEAN, MEDIAN = np.full(52, 0.1), np.zeros(52)


def faces(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([sample_coefficients(rng) for _ in range(count)])


def test_a_method_with_all_actions_is_scored_as_in_metrics():
    true, answers = faces(12), np.round(0.7 * faces(12), 2)
    analyses = [describe(row) for row in answers[:6]] + [None] * 6
    methods = {MODEL: MethodAnswers(answers, analyses=analyses)}
    found = score_set(true, [f"p{i // 2}" for i in range(12)], methods, mean=MEAN, median=MEDIAN)
    assert (found["pictures"], found["people"], found["answered"]) == (12, 6, {MODEL: 12})
    assert set(found["scopes"]) == {"all"}
    scored = metrics.score(true, answers, analyses=analyses, train_mean=MEAN, train_median=MEDIAN)
    assert (found["scopes"]["all"]["actions"], found["scopes"]["all"]["pictures"]) == (52, 12)
    for method, figures in found["scopes"]["all"]["figures"].items():
        assert set(figures) == {figure.key for figure in metrics.FIGURES}
        for key, value in figures.items():
            if value is None:
                assert scored[method][key] is None, (method, key)
            else:
                assert value[0] == pytest.approx(scored[method][key], abs=1e-5), (method, key)
                assert value[1] <= value[0] <= value[2] or key in ("rmse", "correlation", "f1"), (method, key)
    for name, figures in found["per_action"][MODEL].items():
        for key, value in figures.items():
            assert value == pytest.approx(scored["model"]["per_action"][name][key], abs=1e-5), (name, key)
    json.dumps(found, allow_nan=False)


def test_a_peer_with_fewer_actions_and_missed_faces():
    true = faces(40)
    ours, theirs = np.clip(true + 0.1, 0, 1), 0.5 * true
    theirs[:, arkit.INDEX["tongueOut"]] = 1.0  # does not count
    theirs[:10] = np.nan
    methods = {MODEL: MethodAnswers(ours), PEER: MethodAnswers(theirs, FEWER)}
    found = score_set(true, [str(i) for i in range(40)], methods, mean=MEAN, median=MEDIAN)
    assert found["answered"] == {MODEL: 40, PEER: 30}
    counts = {name: (scope["actions"], scope["pictures"]) for name, scope in found["scopes"].items()}
    assert counts == {"all": (52, 40), "shared": (51, 40), "found": (51, 30)}
    assert PEER not in found["scopes"]["all"]["figures"]
    shared, alone = (found["scopes"][name]["figures"][PEER] for name in ("shared", "found"))
    assert alone["correlation"][0] == pytest.approx(1, abs=1e-4)
    assert shared["correlation"][0] < 0.95  # its mean answer carries no information
    kept = [arkit.INDEX[name] for name in FEWER]
    filled = 0.5 * true[:, kept]
    filled[:10] = filled[10:].mean(axis=0)
    assert shared["mae"][0] == pytest.approx(np.abs(filled - true[:, kept]).mean(), abs=1e-5)
    assert alone["mae"][0] == pytest.approx(np.abs(0.5 * true[10:, kept]).mean(), abs=1e-5)
    assert (shared["valid_share"][0], alone["valid_share"][0]) == (0.75, 1)
    assert "tongueOut" not in found["per_action"][PEER]
    lead = found["scopes"]["shared"]["lead"]["mae"]
    assert lead[0] == pytest.approx(found["scopes"]["shared"]["figures"][MODEL]["mae"][0] - shared["mae"][0], abs=2e-5)
    # The tongue counts in the vertex error of all actions only.
    own = found["scopes"]["shared"]["figures"][MODEL]["vertex_error"][0]
    everything = found["scopes"]["all"]["figures"][MODEL]["vertex_error"][0]
    assert own < everything


def test_a_method_without_answers_counts_as_a_face_at_rest():
    true = faces(5)
    nothing = np.full((5, 52), np.nan)
    found = score_set(true, list("abcde"), {MODEL: MethodAnswers(nothing)}, mean=MEAN, median=MEDIAN)
    assert set(found["scopes"]) == {"all"}
    figures = found["scopes"]["all"]["figures"][MODEL]
    assert (figures["mae"][0], figures["correlation"][0]) == (pytest.approx(true.mean(), abs=1e-5), 0)
    with pytest.raises(ValueError, match=r"have shape .*, the ground truth"):
        score_set(true, list("abcde"), {MODEL: MethodAnswers(nothing[:4])}, mean=MEAN, median=MEDIAN)


def test_summaries_give_the_gain_of_the_median_and_the_coverage():
    true = np.full((2, 52), 0.2)
    interval = np.stack([np.full((2, 52), 0.1), np.full((2, 52), 0.5)], axis=-1)
    interval[0, :13] += 0.3  # a quarter of the first picture's intervals are too high
    summary = NumberSummary(np.full((2, 52), 0.4), np.full((2, 52), 0.3), np.full((2, 52), 0.25), interval)
    found = score_set(
        true, ["a", "b"], {MODEL: MethodAnswers(true)}, mean=MEAN, median=MEDIAN, summaries=[summary.row(0), None]
    )["readout"]
    assert found["median_mae_gain"] == pytest.approx(0.75)
    assert found["interval_coverage"] == pytest.approx(0.75)


def test_worst_and_typical_rows():
    errors = np.array([0.3, np.nan, 0.1, 0.5, 0.2, 0.21, np.nan])
    worst, typical = benchmark.worst_and_typical(errors, 3)
    assert set(worst[:2].tolist()) == {1, 6}
    assert worst[2] == 3
    assert typical.tolist() == [5, 4, 0]
    worst, typical = benchmark.worst_and_typical(np.full(2, np.nan), 3)
    assert (len(worst), len(typical)) == (2, 0)
    predicted = arkit.vector({"jawOpen": 0.5, "mouthClose": 0.1})
    assert benchmark.largest_errors(arkit.vector({"mouthClose": 0.9}), predicted, 2) == (
        "mouthClose 0.10 for 0.90, jawOpen 0.50 for 0.00"
    )


@pytest.fixture(scope="module")
def script():
    return load_script("eval/benchmark.py")


class Peer:
    """A fake MediaPipe: answers 0.3 throughout, and finds no face in every third picture."""

    calls = 0

    def __init__(self, task):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, picture):
        Peer.calls += 1
        assert picture.size == (64, 64)
        return None if Peer.calls % 3 == 0 else np.full(52, 0.3, np.float32)

    def measure(self, picture):
        found = self.read(picture)
        return None if found is None else Reading(found, np.zeros((70, 2), np.float32), np.full(9, 0.1, np.float32))


def write_take(path, rows=20):
    """Write a Live Link Face recording whose row k has jawOpen k / 100 and a tongue."""
    at = [arkit.INDEX[name] for name in ("jawOpen", "tongueOut")]
    recorded = []
    for k in range(rows):
        values = np.zeros(52)
        values[at] = k / 100, 0.5
        recorded.append(live_link.LiveLinkRow(f"00:00:00:{k:02d}.000", values, np.zeros(9)))
    live_link.write(path, recorded)
    return path


def test_only_the_held_out_blocks_of_a_take_are_measured(tmp_path):
    found = benchmark.held_out_expressions(write_take(tmp_path / "take.csv", 40))
    assert found.shape == (12, 52)
    rows = np.round(100 * found[:, arkit.INDEX["jawOpen"]]).astype(int)
    assert sorted(rows.tolist()) == [*range(8, 12), *range(20, 24), *range(32, 36)]
    assert {row // 4 for row in rows[:6].tolist()} == set(take_sampler.HELD_OUT_BLOCKS)


def test_false_rates_count_what_fires_at_rest():
    ours, theirs = np.zeros((4, 52)), np.full((4, 52), 0.1)
    ours[:2, 0] = 0.2
    ours[3] = np.nan
    theirs[:, arkit.INDEX["tongueOut"]] = 1  # does not count
    found = benchmark.false_rates({MODEL: ours, PEER: theirs}, list("abcd"), actions={PEER: FEWER})
    assert found["answered"] == {MODEL: 3, PEER: 4}
    assert found["false_rate"][MODEL][0] == pytest.approx(2 / (3 * 52), abs=1e-5)
    assert found["false_rate"][PEER] == [0, 0, 0]
    assert found["per_action"][MODEL][arkit.NAMES[0]] == pytest.approx(2 / 3, abs=1e-5)
    assert "tongueOut" not in found["per_action"][PEER]
    assert benchmark.false_rates({MODEL: ours[3:]}, ["a"])["false_rate"] == {MODEL: None}


def test_actions_that_a_set_does_not_show_are_not_scored():
    true = faces(20)
    answers = true.copy()
    answers[:, arkit.INDEX["tongueOut"]] = 1 - true[:, arkit.INDEX["tongueOut"]]
    methods = {MODEL: MethodAnswers(answers), PEER: MethodAnswers(0.5 * true, FEWER)}
    found = score_set(true, ["head"] * 20, methods, mean=MEAN, median=MEDIAN, scored=FEWER)
    assert {name: scope["actions"] for name, scope in found["scopes"].items()} == {"all": 51, "shared": 51}
    value, low, high = found["scopes"]["shared"]["figures"][PEER]["mae"]
    assert low < value < high  # one person: pictures are resampled
    assert found["scopes"]["all"]["figures"][MODEL]["mae"][0] == 0
    assert "tongueOut" not in found["per_action"][MODEL]


def test_words_are_counted_claim_by_claim_beside_those_of_the_rules():
    true = np.stack([arkit.vector({"jawOpen": 0.9}), arkit.vector({"browInnerUp": 0.5})])
    answers = np.stack([arkit.vector({"jawOpen": 0.9}), arkit.vector({"jawOpen": 0.9}), true[0] * np.nan])
    right, wrong = describe(answers[0]), describe(np.zeros(52))
    method = MethodAnswers(answers, analyses=[right, wrong, None])
    found = benchmark.words_of(np.stack([*true, true[0]]), method)
    n_right, n_wrong = (len(claims(each)) for each in (right, wrong))
    assert found["claims"] == (n_right + n_wrong) / 2 and found["rules_claims"] == n_right
    false = sum(not agreement(wrong, answers[1]).holds.count(claim) for claim in claims(wrong))
    assert found["own_hold"] == pytest.approx(1 - false / (n_right + n_wrong), abs=1e-5)
    assert 0.5 < found["true"] < 1 and 0.5 < found["rules_true"] < 1
    line = benchmark.headline({key: {"scopes": {}, "words": found} for key in ("photo", "foreign")})
    assert line["own_words_hold"] == found["own_hold"]
    assert line["words_true_photo"] == line["words_true_foreign"] == found["true"]
    results = {"sets": {"photo": {"words": found}, "toon": {}}}
    ((name, own, *_),) = published.words_table(results).rows
    assert (name, own) == ("photo", f"{100 * found['own_hold']:.1f} %")
    silent = benchmark.words_of(true[:1], MethodAnswers(answers[:1], analyses=[None]))
    assert set(silent.values()) == {None}


@pytest.mark.slow
def test_the_whole_command(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "QUICK_ROWS", 4)
    monkeypatch.setattr(script, "SIZE", 64)
    monkeypatch.setattr(script, "LABELS_FOR_CONSTANTS", 10)
    monkeypatch.setattr(script, "FaceLandmarker", Peer)
    monkeypatch.setattr(script, "identity", lambda task: {"version": "9", "sha256": "ab" * 32})
    model = fast_vlm(tmp_path / "tiny")
    arguments = ["--model", str(model), "--mediapipe", str(tmp_path / "face.task"), "--quick", "--mode", "numbers"]
    take = write_take(tmp_path / "take.csv")
    people = tmp_path / "people"
    people.mkdir()
    for i in range(3):
        Image.new("RGB", (64, 64), (200, 40 * i, 90)).save(people / f"{i}.png")
    arguments += ["--take", str(take), "--people", str(people), "--workers", "1", "--out", str(tmp_path / "out")]
    assert script.main(arguments) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = ["foreign_corr", "foreign_mae", "take_corr", "take_mae", "photo_corr", "photo_mae", "toon_corr"]
    names += ["drawn_corr", "shifted_corr", "rest_false_rate", "people_rest_false_rate", "people_gaze_up"]
    names += ["head_degrees", "gaze_degrees", "head_degrees_foreign", "gaze_degrees_foreign"]
    names += ["gaze_mae_turned", "gaze_mae_frontal"]
    others = {"median_mae_gain", "interval_coverage", "people_agreement"}
    assert set(line) == {*names, *(f"{name}_mediapipe" for name in names), *others}
    assert line["rest_false_rate_mediapipe"] == 1
    assert line["head_degrees"] is None and line["head_degrees_foreign_mediapipe"] > 1

    (out,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith("tiny-numbers-"))
    results = json.loads((out / "benchmark.json").read_text())
    assert results["headline"] == line
    assert results["recipe"]["command"] == (
        "python eval/benchmark.py --model tiny --mode numbers --mediapipe face.task --take take.csv --people people "
        "--quick"
    )
    assert {key: found["pictures"] for key, found in results["sets"].items()} == {
        key: 2 if key == "foreign" else 4 for key in benchmark.SETS
    }
    assert sum(found["answered"][PEER] for found in (*results["sets"].values(), results["rest"])) == 24 - 7
    assert str(people) not in (out / "benchmark.json").read_text()
    expressions = benchmark.held_out_expressions(take)
    for key in ("foreign", "take"):
        (folder,) = (tmp_path / "out" / "pictures").glob(f"{key}-?-*-????????")
        shown = load_faces(folder, "test")
        rows = expressions[: len(shown)].copy()
        if key == "foreign":
            rows[:, arkit.INDEX["tongueOut"]] = 0
        assert np.array_equal(coefficients_of(shown), rows)
        assert all(row["camera"]["yaw"] != 0 for row in shown)
    assert [row.label for row in tables.read_coefficients(out / "toon.jsonl")] == [f"toon/{i}" for i in range(4)]
    assert published.summary(results).markdown() in (out / "benchmark.md").read_text()
    page = (out / "index.html").read_text()
    assert page.count("<article") == 22
    assert "MediaPipe finds no face." in page

    # Neither the pictures nor MediaPipe's answers are made again.
    rendered = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pictures").rglob("*.arrow")}
    assert len({path.parts[-3] for path in rendered}) == 8
    assert script.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "pictures").rglob("*.arrow")} == rendered
    assert Peer.calls == 26 + 2 * 3  # people are read each time
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {k: v for k, v in again.items() if "people" not in k} == {k: v for k, v in line.items() if "people" not in k}


def test_people_of_the_sets_are_in_no_training_set():
    assert RenderSettings().subjects < benchmark.FIRST_SUBJECT
    assert benchmark.FIRST_SUBJECT + benchmark.SUBJECTS <= 9_000_000  # where the speed benchmarks start


def test_errors_are_one_line(script, tmp_path, capsys):
    assert script.main(["--quick", "--mediapipe", str(tmp_path / "gone.task"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmark: ")
    assert "gone.task: No such file" in line
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        script.main(["--quick", "--publish"])
    assert "--publish needs the whole sets" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        script.main(["--people", str(tmp_path)])
    assert "give --mediapipe" in capsys.readouterr().err


def test_without_a_take_expressions_have_its_statistics(script, monkeypatch):
    asked = {}
    monkeypatch.setattr(script, "render_benchmark_set", lambda pictures, key, rows, **_: asked.update({key: rows}))
    monkeypatch.setattr(script, "render_expressions", lambda pictures, key, rows, **_: asked.update({key: rows}))
    assert list(script._folders(script._options(["--quick"]))) == [*benchmark.SETS, "gaze", "rest"]
    foreign, take = asked["foreign"], asked["take"]
    assert foreign.shape == (60, 52) and take.shape == (100, 52) and asked["rest"].max() == 0
    tongue = arkit.INDEX["tongueOut"]
    assert foreign[:, tongue].max() == 0
    assert np.array_equal(np.delete(foreign, tongue, 1), np.delete(take[:60], tongue, 1))
    assert take.min() >= 0 and take.max() <= 1 and (take > 0.05).sum(1).mean() > 5
