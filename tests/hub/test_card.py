"""Model cards: valid for the Hub, and consistent with recipe and results."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from semanticface import rendering
from semanticface.cli.main import main
from semanticface.data.provenance import Source
from semanticface.errors import ConfigError, PictureError
from semanticface.evaluation import metrics, published
from semanticface.hub import card
from semanticface.hub.card import PICTURE, CardSettings, make_card, write_card
from semanticface.hub.card_example import Example
from semanticface.hub.card_figures import read_figures
from semanticface.hub.card_mark import marked, read_mark
from semanticface.hub.public_recipe import public, public_command
from semanticface.inference import intervals
from semanticface.models.files import NANO
from semanticface.recipe import files_sha256, read_recipe
from tests.helpers.hub_models import RENDERED, adapter_of_base

BENCHMARK = Path(__file__).resolve().parents[2] / "eval" / "results" / "benchmark.json"
EXAMPLE = Example(b"", "A face.", ("picture\n  active  jawOpen 0.30",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An adapter with its card, next to its base."""
    folder = tmp_path_factory.mktemp("made")
    adapter = adapter_of_base(folder)
    settings = CardSettings(repo="ann/tiny", licence="mit", base="ann/tiny-base", datasets=("ann/faces",))
    write_card(str(adapter), settings)
    return adapter


@pytest.fixture
def adapter(made, tmp_path):
    """A copy to modify."""
    shutil.copytree(made.parent, tmp_path / "models")
    return tmp_path / "models" / "start"


@pytest.fixture
def unrendered(monkeypatch):
    """Cards without the slow rendered example."""
    monkeypatch.setattr(card, "rendered_example", lambda *_: EXAMPLE)


def evaluated(path, model, command="python eval/evaluate.py --dataset outputs/faces"):
    """Write results as eval/evaluate.py does, of synthetic answers."""
    rng = np.random.default_rng(4)
    true = rng.uniform(0, 1, (12, 52)).astype(np.float32)
    recipe = {"command": command, "model": "x", "dataset": "outputs/faces", "split": "test", "rows": 12}
    recipe["weights"] = files_sha256(list(model.glob("*.safetensors")))
    result = metrics.score(true, np.clip(true + 0.1, 0, 1), on_head=False)
    readouts = intervals.figures(np.zeros((0, intervals.N_SUMS)))
    path.write_text(json.dumps({"result": result, "readouts": readouts, "recipe": recipe}))
    return result


def text_of(recipe, settings=CardSettings(), figures=()):  # noqa: B008 - frozen
    return make_card("tiny", Path("tiny"), recipe, settings, figures, EXAMPLE)


def test_the_hub_reads_the_front_matter(made):
    read = ModelCard.load(made / "README.md")
    data = read.data
    assert (data.license, data.base_model, data.datasets) == ("mit", "ann/tiny-base", ["ann/faces"])
    assert (data.library_name, data.pipeline_tag) == ("peft", "image-text-to-text")
    assert data.base_model_relation == "adapter" and {"semanticface", "arkit", "lora"} <= set(data.tags)
    assert data.eval_results is None and "model-index" not in read.content
    assert "Not measured" in read.text


def test_figures_come_from_the_files(adapter, tmp_path):
    result = evaluated(tmp_path / "metrics.json", adapter)
    figures = [read_figures(tmp_path / "metrics.json", adapter)]
    text = text_of(read_recipe(adapter), CardSettings(repo="ann/tiny"), figures)
    found = {each.metric_type: each for each in ModelCard(text).data.eval_results}
    assert found["mae"].metric_value == pytest.approx(result["model"]["mae"], abs=1e-4)
    assert found["pearsonr"].metric_value == pytest.approx(result["model"]["correlation"], abs=1e-4)
    assert found["mae"].dataset_split == "test" and ModelCard(text).data.model_name == "tiny"
    assert metrics.table(result) in text and "Not measured" not in text
    assert "`python eval/evaluate.py --dataset outputs/faces`: 12 pictures" in text


def test_the_card_of_nano_and_its_page_show_the_same_tables():
    results = json.loads(BENCHMARK.read_text())
    text = make_card("nano", NANO, read_recipe(NANO), CardSettings(), [read_figures(BENCHMARK, NANO)], EXAMPLE)
    page = (BENCHMARK.parents[2] / "docs" / "nano.md").read_text()
    for table in (published.summary(results), published.readout_table(results)):
        assert table.markdown() in text and table.markdown() in page
    values = {(each.dataset_config, each.metric_type): each.metric_value for each in ModelCard(text).data.eval_results}
    for name, found in results["sets"].items():
        assert values[name, "mae"] == round(found["scopes"]["all"]["figures"]["model"]["mae"][0], 4)
    assert "No picture of a person was used to train it." in text and "calibrated on" in text


def test_results_of_another_model_are_refused(adapter, tmp_path):
    with pytest.raises(ConfigError, match="is about other weights"):
        read_figures(BENCHMARK, adapter)
    evaluated(tmp_path / "metrics.json", NANO)
    with pytest.raises(ConfigError, match=r"is about other weights .*: python eval/evaluate.py"):
        read_figures(tmp_path / "metrics.json", adapter)
    for bad in ("{", "[]", '{"recipe": {"command": "x", "model": "nano"}}', '{"sets": {}, "recipe": {"command": "x"}}'):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(ConfigError, match=r"bad\.json (holds no valid results|is neither)"):
            read_figures(tmp_path / "bad.json", adapter)


def test_the_example_is_a_render_and_the_models_own_answer(made):
    text = (made / "README.md").read_text()
    mark = read_mark(text)
    assert mark.untouched and mark.pictures[PICTURE]["shows"] == "rendered"
    with Image.open(made / PICTURE) as picture:
        assert picture.size == (4 * 320 + 3 * 8, 320) and not picture.getexif() and "comment" not in picture.info
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 1000
    assert f"]({PICTURE})" in text and "photo style" in text and "toon style" in text and "active" in text


def test_the_users_picture_loses_its_metadata(adapter, tmp_path, capsys):
    drawn = Image.fromarray(rendering.render(np.zeros(52, np.float32), size=128).image)
    exif = Image.Exif()
    exif[0x010E] = "taken at home by Ann"
    drawn.save(tmp_path / "me.jpg", exif=exif, comment=b"a secret comment")
    assert b"taken at home" in (tmp_path / "me.jpg").read_bytes()
    words = ["card", str(adapter), "--picture", str(tmp_path / "me.jpg"), "--consent", "CC0, by Ann"]
    assert main(words) == 0
    written = (adapter / PICTURE).read_bytes()
    assert b"taken at home" not in written and b"secret" not in written
    with Image.open(BytesIO(written)) as picture:
        assert picture.size == (2 * 320 + 8, 320) and not picture.getexif()
    text = (adapter / "README.md").read_text()
    assert "CC0, by Ann" in text and read_mark(text).pictures[PICTURE]["shows"] == "CC0, by Ann"
    Image.new("RGB", (64, 64)).save(tmp_path / "nobody.png")
    with pytest.raises(PictureError, match="needs an example with an answer"):
        write_card(str(adapter), CardSettings(picture=tmp_path / "nobody.png"))
    assert (adapter / PICTURE).read_bytes() == written


def test_manual_edits_are_not_lost(adapter, unrendered, capsys, tmp_path):
    readme = adapter / "README.md"
    write_card(str(adapter), CardSettings(repo="ann/tiny"))  # unedited: regenerated
    mine = readme.read_text().replace("# tiny", "# My tiny model")
    readme.write_text(mine)
    assert main(["card", str(adapter)]) == 2
    assert "edited by hand" in capsys.readouterr().err and readme.read_text() == mine
    readme.write_text("# Mine\n")
    assert main(["card", str(adapter)]) == 2
    assert "not written by this command" in capsys.readouterr().err and readme.read_text() == "# Mine\n"
    notes = tmp_path / "notes.md"
    notes.write_text("Trained on a rainy day.\n")
    for _ in range(2):
        assert main(["card", str(adapter), "--force", "--notes", str(notes)]) == 0
        assert "## Notes\n\nTrained on a rainy day.\n" in readme.read_text()
    notes.write_text(mine)  # an earlier card, with its comment
    assert main(["card", str(adapter), "--force", "--notes", str(notes)]) == 0
    assert read_mark(readme.read_text()).untouched
    assert main(["card", str(adapter)]) == 0


def test_its_usage_examples_run(adapter, unrendered, monkeypatch, capsys):
    monkeypatch.chdir(adapter.parent)
    picture = rendering.render(np.zeros(52, np.float32), size=256).image
    Image.fromarray(picture).save("face.jpg")
    write_card("start", CardSettings())
    text = (adapter / "README.md").read_text()
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(python, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("ok Analysis(")
    (shell,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert main(shell.split()[1:]) == 0
    assert "face.jpg" in capsys.readouterr().out


def test_a_base_on_the_hub_is_named_as_in_the_recipe(made):
    base = {"name": "Qwen/Qwen3-VL-4B-Instruct", "revision": "ebb281ec70b0", "sha256": None, "image_size": 256}
    text = text_of(read_recipe(made) | {"base": base})
    assert ModelCard(text).data.base_model == base["name"] and "commit `ebb281ec70b0`" in text
    assert "For the training data of its base, ask the base's authors" in text


def test_a_comment_survives_any_consent():
    consent = "form --> 7 -- \n <!-- x"
    text = marked("# tiny\n", {"a.jpg": (b"x", consent)})
    assert read_mark(text).untouched and read_mark(text).pictures["a.jpg"]["shows"] == consent
    assert text.count("-->") == 1
    assert not read_mark(text + "more").untouched and not read_mark(text.replace("tiny", "Tiny")).untouched


def test_the_training_section_matches_the_recipe(made):
    recipe, text = read_recipe(made), (made / "README.md").read_text()
    for fact in (
        recipe["prompt"]["sha256"][:16], recipe["base"]["sha256"][:16], "ann/tiny-base", "r 4, lora_alpha 8",
        "max_steps 7, per_device_train_batch_size 2", "seed 3", "8 rows: faces rendered by this project",
        "styles photo 6, toon 3", "0123abcd",
        recipe["versions"]["torch"], "not calibrated",
    ):  # fmt: skip
        assert fact in text, fact


def test_the_training_data_is_described_if_recorded(made):
    recipe = read_recipe(made)
    assert "no real person" in text_of(recipe) and "No picture of a person" in text_of(recipe)
    sources = [RENDERED, Source("takes", "train", "77", 40, 3)]
    people = text_of(recipe | {"trained_on": [source.to_dict() for source in sources]})
    assert "40 rows: pictures of people, 3 of them" in people and "this model is withdrawn" in people
    assert "No picture of a person" not in people
    unrecorded = recipe | {"settings": {"round": 2, "align": {"beta": 0.3}}}
    del unrecorded["trained_on"]
    text = text_of(unrecorded)
    assert "not recorded in the recipe" in text and "round 2 of preference optimisation" in text
    assert "Whether pictures of people were used to train it is not recorded" in text


def test_the_emotion_switch_and_the_law_are_in_every_card(made):
    recipe = read_recipe(made)
    assert "The switch is on" in text_of(recipe)
    off = text_of(recipe | {"emotion": False})
    assert "The switch is off" in off and "2024/1689" in off
    for text in (text_of(recipe), off):
        assert {"2603.14827", "2605.06179"} <= set(re.findall(r"eprint += \{(.*?)\}", text))
        assert "Not intended for** judging anyone" in text


def test_local_paths_are_not_published(made, tmp_path):
    recipe = read_recipe(made)
    here = str(tmp_path / "private" / "faces")
    recipe["settings"] = recipe["settings"] | {"dataset": here, "output": str(tmp_path / "out")}
    recipe["trained_on"] = [Source(here, "train", "0123abcd", 8, 0).to_dict()]
    text = text_of(recipe, CardSettings(base="ann/tiny-base"))
    assert str(tmp_path) not in text and "private" not in text and "`faces`" in text
    command = public_command(f"python eval/evaluate.py --dataset {here} --out={here} --seed 1")
    assert command == "python eval/evaluate.py --dataset faces --out=faces --seed 1"
    given = [
        "file:///data/ann/faces", "~ann/faces", "../ann/faces", "a/../ann/faces", r"C:\ann\faces", r"\\ann\x\faces",
    ]  # fmt: skip
    assert public(given) == ["faces"] * len(given) and public("outputs/faces") == "outputs/faces"


def test_a_card_does_not_contain_the_models_path(made, unrendered):
    text = write_card(str(made.resolve()), CardSettings(), made / "away.md").read_text()
    assert str(made.parent) not in text and f"--model {made.name}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nano"], "--out nano-card/README.md"),
        (["no-such-folder"], "is no folder"),
        (["start", "--repo", "tiny"], "OWNER/NAME"),
        (["start", "--licence", "my own licence"], "has no licence of that id"),
        (["start", "--licence", "gpl-3.0-or-later"], "Did you mean gpl-3.0"),
        (["start", "--consent", "CC0"], "give the picture"),
        (["start", "--notes", "none.md"], "none.md cannot be read"),
        (["start", "--results", "none.json"], "none.json holds no valid results"),
        (["base/README"], "is no folder"),
    ],
)
def test_errors_are_one_line(words, message, adapter, monkeypatch, capsys):
    monkeypatch.chdir(adapter.parent)
    before = (adapter / "README.md").read_bytes()
    assert main(["card", *words]) == 2
    assert message in capsys.readouterr().err
    assert (adapter / "README.md").read_bytes() == before
