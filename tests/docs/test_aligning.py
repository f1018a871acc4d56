"""docs/aligning.md: every command works, on a small scale."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semanticface import rendering
from semanticface.preference import learned_judge
from semanticface.preference.files import read_candidates
from semanticface.preference.judges import judge_choices
from semanticface.preference.learned_judge import simulated_judges
from semanticface.preference.rounds import Judges
from semanticface.recipe import read_recipe
from semanticface.serving.pages import annotate
from tests.helpers.pages import ROOT, commands, run

SMALL = {
    "data_prep/render_noisy_captures.py": ["--takes", "5", "--held-out", "1", "--frames", "2", "--style", "drawn"],
    "train/distill.py": ["train.max_steps=2", "train.eval_rows=2"],
    "train/prefer.py": [
        "--set",
        "rounds.max_rounds=1",
        "rounds.eval_rows=2",
        "align.num_train_epochs=1",
        "candidates.tries=1",
    ],
}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train").symlink_to(ROOT / "train")
    Path("outputs").mkdir()
    # The second half of the page needs an adapter and captures.
    Path("outputs/qwen3_vl_4b").symlink_to("takes/adapter")
    Path("outputs/captures").symlink_to("takes/captured")
    picture = rendering.render(np.full(52, 0.3, np.float32), subject=3, size=256, framing="crop").image
    Image.fromarray(picture).save("face.png")


@pytest.mark.slow
def test_every_command_of_the_page(workspace, monkeypatch):
    def judges():
        return simulated_judges("outputs/takes/captured", "outputs/takes/exact")

    def answer(session, *, port, ready, stop):
        """Stand in for the page and the annotator."""
        candidate_sets = read_candidates("outputs/prefer/round-1/candidates.jsonl").candidate_sets
        by_picture, judge = {each.picture: each for each in candidate_sets}, judges().labeler
        while images := session.current:
            (choice,) = judge_choices(judge, [images.question], by_picture, model="m", round=1)
            session.answer(images.question.id, choice.verdict)

    monkeypatch.setattr(annotate, "serve", answer)
    # Ten pictures of one person are too few to train a judge.
    monkeypatch.setattr(learned_judge, "learned_judges", lambda *_, **__: Judges(judges().auditor, judges().auditor))
    done = []
    for arguments in commands("aligning.md"):
        small = next((more for script, more in SMALL.items() if script in arguments), [])
        assert run([*arguments, *small], monkeypatch) == 0, arguments
        done.append(arguments)
    assert len(done) > 7
    assert Path("choices.jsonl").read_text().count('"robin"') > 5
    assert read_recipe("outputs/prefer/adapter")["kind"] == "adapter"
    assert read_recipe("outputs/prefer_quickstart/adapter")["kind"] == "adapter"
