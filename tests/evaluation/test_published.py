"""Published figures: documents show exactly the committed results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from semanticface import arkit
from semanticface.errors import ConfigError
from semanticface.evaluation import published
from semanticface.evaluation.benchmark import (
    FOREIGN,
    HOME,
    MODEL,
    PEER,
    SETS,
    MethodAnswers,
    false_rates,
    headline,
    score_set,
)
from semanticface.evaluation.metrics import BASELINES, FIGURES
from semanticface.evaluation.people import headline as people_headline
from semanticface.evaluation.people import score_people
from semanticface.experiments import ablations, superface
from semanticface.experiments.ablations import VARIANTS
from semanticface.inference.intervals import NumberSummary
from semanticface.models.files import NANO
from semanticface.recipe import files_sha256
from semanticface.semantics.expression_sampler import sample_coefficients

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "eval" / "results" / "benchmark.json"


def results(*, peer=True):
    rng = np.random.default_rng(0)
    true = 0.8 * np.stack([sample_coefficients(rng) for _ in range(12)])
    methods = {MODEL: MethodAnswers(np.clip(0.9 * true + 0.02, 0, 1))}
    if peer:
        theirs = 0.5 * true
        theirs[0] = np.nan
        methods[PEER] = MethodAnswers(theirs, tuple(name for name in arkit.NAMES if name != "tongueOut"))
    interval = np.stack([true - 0.1, true + 0.1], axis=-1).clip(0, 1)
    summary = NumberSummary(np.clip(true + 0.2, 0, 1), true, np.clip(true + 0.1, 0, 1), interval)
    names, summaries = [f"p{i}" for i in range(12)], [summary.row(i) for i in range(12)]
    found = score_set(true, names, methods, mean=true.mean(axis=0), median=np.zeros(52), summaries=summaries)
    sets = dict.fromkeys(SETS, found)
    rest = false_rates({MODEL: true} | ({PEER: true} if peer else {}), names)
    recipe = {"command": "python eval/benchmark.py", "model": "nano"}
    if peer:
        recipe["mediapipe"] = {"version": "1.0", "sha256": "ab"}
    return {"headline": headline(sets, rest), "sets": sets, "rest": rest, "recipe": recipe}


def test_every_mark_is_filled_and_filling_twice_changes_nothing():
    found = results()
    names = ["summary", "tables", "readout", "how", "rest", "actions toon"]
    text = "Read <!-- benchmark:photo_corr -->0.99<!-- /benchmark --> well.\n"
    text += "\n".join(f"<!-- benchmark:{name} -->\nSTALE\n<!-- /benchmark -->" for name in names)
    filled = published.fill(text, found)
    assert published.fill(filled, found) == filled
    assert published.marks(filled) == ["photo_corr", *names]
    assert "STALE" not in filled
    corr = found["headline"]["photo_corr"]
    assert f"Read <!-- benchmark:photo_corr -->{corr:.2f}<!-- /benchmark --> well." in filled
    pucker = f"{found['sets']['toon']['per_action'][MODEL]['mouthPucker']['correlation']:.3f}"
    assert f"| mouthPucker | {pucker} | " in filled
    assert published.fill("no marks, photo_corr 0.99", found) == "no marks, photo_corr 0.99"
    with pytest.raises(ConfigError, match="benchmark:photo_cor -->: not in the results"):
        published.fill("<!-- benchmark:photo_cor -->0.9<!-- /benchmark -->", found)
    for name in ("readout", "actions toon", "photo_corr"):
        with pytest.raises(ConfigError, match=rf"They have .*\b{name}\b"):
            published.fill("<!-- benchmark:unknown --><!-- /benchmark -->", found)


def test_a_changed_figure_is_restored():
    found = results()
    filled = published.fill("<!-- benchmark:summary --><!-- /benchmark -->", found)
    value = f"{found['sets']['drawn']['scopes']['all']['figures'][MODEL]['mae'][0]:.3f}"
    changed = filled.replace(value, "0.001")
    assert changed != filled
    assert published.fill(changed, found) == filled


def test_tables_name_every_method_and_their_scope():
    tables = published.scope_tables(results(), FOREIGN)
    assert [list(table.head) for table in tables] == [
        ["figure", "nano", "constant mean", "constant median"],
        ["figure", "nano", "MediaPipe", "constant mean", "constant median"],
        ["figure", "nano", "MediaPipe", "constant mean", "constant median"],
    ]
    assert tables[0].caption == "All 52 actions, all 12 pictures."
    assert tables[1].caption.startswith("The 51 actions that MediaPipe has, all 12 pictures. nano minus MediaPipe: ")
    assert tables[2].caption.startswith("51 actions, the 11 pictures in which every method finds a face.")
    row = next(row for row in tables[1].rows if row[0].startswith("mean error (MAE)"))
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3}–0\.\d{3}\)", row[1])
    assert "51 actions" in published.how(results())
    assert "91.7 %" in published.summary(results()).markdown()
    readout = published.readout_table(results())
    assert readout.rows[0][1:4] == ["1.000, 1.000, 1.000", "0.200, 0.100, 0.000", "50.0 %"]
    assert readout.rows[0][-2] == "100.0 %"


def test_the_foreign_head_comes_first_in_every_table():
    found = results()
    assert [row[0] for row in published.summary(found).rows][:2] == ["foreign", "take"]
    shared = published.scope_tables(found, "photo")[1]
    assert list(shared.head)[:5] == ["figure", "foreign: nano", "foreign: MediaPipe", "photo: nano", "photo: MediaPipe"]
    assert shared.caption.endswith("*foreign*: 51 actions, 12 pictures.")
    head = published.actions_table(found, "photo").head
    assert list(head[1:5]) == [
        f"{key}, {name}: correlation" for key in ("foreign", "photo") for name in ("nano", "MediaPipe")
    ]
    del found["sets"][FOREIGN]
    assert published.actions_table(found, "photo").head[1] == "nano: correlation"


def test_people_have_their_tables():
    rng = np.random.default_rng(3)
    peer = 0.9 * rng.random((30, 52))
    peer[:10] *= 0.2
    found = results() | {"people": score_people(np.sqrt(peer), peer, np.ones(30, bool))}
    filled = published.fill(
        "<!-- benchmark:rest --><!-- /benchmark --> <!-- benchmark:people --><!-- /benchmark -->", found
    )
    assert "| people, still | 10 |" in filled
    assert "| gaze, up minus down |" in filled
    assert "| jawOpen | 0.9" in filled


def test_without_mediapipe_it_is_not_mentioned():
    alone = results(peer=False)
    names = ["summary", "tables", "readout", "how", "rest", "actions photo"]
    text = "".join(f"<!-- benchmark:{name} --><!-- /benchmark -->" for name in names)
    assert "MediaPipe" not in published.fill(text, alone)
    assert not [name for name in alone["headline"] if name.endswith(PEER)]


def test_documents_show_the_committed_results():
    committed = json.loads(COMMITTED.read_text())
    documents = published.documents(ROOT)
    assert ROOT / "docs" / "benchmark.md" in documents
    for path in documents:
        text = path.read_text(encoding="utf-8")
        shown = published.fill(text, committed)
        assert text == shown, f"{path.name} differs from eval/results/benchmark.json: run the benchmark with --publish"


def test_no_figure_of_the_benchmark_is_outside_marks():
    figure = re.compile(r"(?<![\d.])[01]\.\d{2,3}(?![\d.])|\d+\.\d %")
    assert figure.findall(published.outside("<!-- benchmark:photo_corr -->0.71<!-- /benchmark --> is not 0.72")) == [
        "0.72"
    ]
    for name in ("README.md", "docs/nano.md", "docs/benchmark.md"):
        for paragraph in published.outside((ROOT / name).read_text(encoding="utf-8")).split("\n\n"):
            if "eval/benchmark.py" in paragraph or "MediaPipe" in paragraph:
                assert not figure.findall(paragraph), f"{name}: put these figures between marks: {paragraph}"


def test_the_committed_results_are_of_whole_sets_and_the_packaged_model():
    committed = json.loads(COMMITTED.read_text())
    assert set(HOME) <= set(committed["sets"]) <= set(SETS)
    for name, found in committed["sets"].items():
        assert found["pictures"] >= (300 if name == FOREIGN else 500)
    assert "--quick" not in committed["recipe"]["command"]
    expected = headline(committed["sets"], committed.get("rest"))
    if "people" in committed:
        expected |= people_headline(committed["people"])
    assert committed["headline"] == expected
    weights = files_sha256(list(NANO.glob("*.safetensors")))
    assert committed["recipe"]["weights"] == weights, "evaluate the new nano: python eval/benchmark.py --publish"


def read(name):
    return json.loads((ROOT / "eval" / "results" / name).read_text(encoding="utf-8"))


def test_the_ablations_page_shows_the_committed_runs():
    committed, page = read("ablations.json"), (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    runs = {name: {int(seed): found for seed, found in seeds.items()} for name, seeds in committed["runs"].items()}
    variants = {key: runs[key] for key in VARIANTS}
    personal = {size: runs[f"personal-{size}"] for size in committed["recipe"]["budget"]["personal"]}
    shown = [*ablations.variant_tables(variants, "photo"), *ablations.personal_tables(personal, runs["personal-base"])]
    assert len(shown) == 8
    for table in shown:
        assert table.markdown() in page
    assert all(len(seeds) == 3 for seeds in (*variants.values(), *personal.values()))
    assert committed["headline"] == ablations.headline(variants, "photo", personal, runs["personal-base"])


def test_the_superface_page_and_the_readme_show_the_committed_runs():
    committed, page = read("superface.json"), (ROOT / "docs" / "superface.md").read_text(encoding="utf-8")
    found = committed["headline"]
    assert found == superface.headline(committed["runs"])
    assert found["seeds"] == 3 and found["rounds"] == 3
    for table in superface.tables(committed["runs"]):
        assert table.markdown() in page
    (paragraph,) = [
        each for each in (ROOT / "README.md").read_text("utf-8").split("\n\n") if "eval/superface.py`" in each
    ]
    for key in ("vertex_error_reduction", "win_rate_over_sft", "win_rate_over_pseudo_labels", "region_minus_whole"):
        assert f"{100 * found[key]:.1f}" in paragraph, key


def test_the_readme_shows_what_the_quickstart_measured():
    runs, text = read("quickstart.json"), (ROOT / "README.md").read_text(encoding="utf-8")
    columns = [runs["before"][MODEL], *(runs["after"][key] for key in (MODEL, *dict(BASELINES)))]
    shown = [figure for figure in FIGURES if f"| {figure.label} {figure.arrow} | " in text]
    assert len(shown) == 6
    for figure in shown:
        cells = [figure.text(column[figure.key]) for column in columns]
        assert f"| {figure.label} {figure.arrow} | {' | '.join(cells)} |" in text
