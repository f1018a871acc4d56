"""How well a learned judge predicts choices about new people, by the number of choices it was trained on.

    python eval/speed/judge.py                     # a minute of one core, when nothing else runs
    python eval/speed/judge.py --quick             # a quarter of that

A simulated person, with the usual noise, chooses between nano's samples for rendered faces of people nano was not
trained on. A judge is trained on some choices, starting from nano's readings of the pictures, or from readings with the
errors of capture software (``noisy_captures``). Accuracy is the proportion of right winners among the choices that name
one, about a held-out quarter of the people. Also printed: the simulated person's own accuracy (the limit), that of the
readings alone, and each judge's accuracy against the faces that are really nearer.

The last line is one JSON object: `accuracy_250`, `accuracy_1000`, `accuracy_4000` (as many as fit), `accuracy_reading`,
`accuracy_teacher`, and `accuracy_captured_…` for the captured readings.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from semanticface.cli.scripts import ScriptParser
from semanticface.errors import SemanticFaceError
from semanticface.experiments.noisy_captures import CaptureErrors
from semanticface.inference.predictor import Predictor
from semanticface.preference.judge_network import JudgeSettings
from semanticface.preference.judges import SimulatedJudge, judge_choices, question_faces
from semanticface.preference.learned_judge import LearnedJudge, image_features, train_judge
from semanticface.preference.regions import HALVES, distance
from semanticface.preference.types import Candidate, CandidateSet, Choice, Question
from semanticface.recipe import versions
from semanticface.rendering import STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm

FIRST_SUBJECT = 1_000_000
"""Subjects from here on are in no dataset that nano was trained on."""
CANDIDATES = 4
SIZES = (250, 1000, 4000)


def accuracy(
    judge: LearnedJudge, choices: list[Choice], candidate_sets: dict[str, CandidateSet], nearer: np.ndarray
) -> list[float]:
    """Return the accuracy on choices that name a winner, and on the nearer faces (bool[n]: is it the left one)."""
    probs = judge.probabilities([each.question for each in choices], candidate_sets)
    left = probs[:, 0] > probs[:, 1]
    named = np.array([each.verdict in ("a", "b") for each in choices])
    chose_left = np.array([each.verdict == "a" for each in choices])
    return [float((left == chose_left)[named].mean()), float((left == nearer).mean())]


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--pictures", type=int, default=900, help="rendered faces (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="90 pictures, at most 250 choices")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed/judge.json"), help="output file (%(default)s)")
    options = parser.parse_args()
    count = 90 if options.quick else options.pictures
    if count < 60:
        parser.error("--pictures must be at least 60")
    try:
        rows = measure(count, options.seed)
        write_json(options.out, {"rows": rows, "pictures": count, "seed": options.seed, "versions": versions()})
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'':24}{'right winners':>16}{'really nearer':>16}{'log loss':>10}{'ECE':>8}")
    for name, row in rows.items():
        rest = "".join(f"{value:{width}.3f}" for value, width in zip(row[2:], (10, 8), strict=False))
        print(f"{name.replace('_', ' '):24}{row[0]:16.3f}{row[1]:16.3f}{rest}")
    print(json.dumps({f"accuracy_{name}": round(row[0], 4) for name, row in rows.items()}))
    return 0


def measure(count: int, seed: int) -> dict[str, list[float]]:
    """Return for each judge its accuracy on choices and on nearer faces, log loss and calibration error."""
    rng = np.random.default_rng([seed, 22])
    faces = np.array([sample_coefficients(rng) for _ in range(count)])
    names = [f"picture {n}" for n in range(count)]
    crops = {}
    for n, name in enumerate(tqdm(names, desc="rendering", unit="face")):
        drawn = render(faces[n], style=STYLES[n % 3], subject=FIRST_SUBJECT + n, shot=n, size=128, framing="crop")
        crops[name] = Image.fromarray(drawn.image)
    predictor = Predictor.from_pretrained("nano", mode="numbers")
    features = image_features(predictor, crops)
    stream = predictor.stream(crops.values(), crop="none", temperature=1.0, answers=CANDIDATES, seed=seed)
    sampled = iter(list(tqdm(stream, desc="sampling", total=count * CANDIDATES, unit="answer")))
    candidate_sets = {}
    for n, name in enumerate(names):
        found = [each.coefficients for each in (next(sampled) for _ in range(CANDIDATES)) if each.status == "ok"]
        candidates = [Candidate(f"model-{k}", "model", face) for k, face in enumerate(found) if face is not None]
        candidate_sets[name] = CandidateSet(name, n, f"person {n}", tuple(candidates))
    questions = [
        Question(f"{name} {region} {a.id} {b.id}", name, region, a.id, b.id)
        for name in names
        for region in HALVES
        for nth, a in enumerate(candidate_sets[name].candidates)
        for b in candidate_sets[name].candidates[:nth]
    ]
    teacher = SimulatedJudge(dict(zip(names, faces, strict=True)), seed=seed)
    asked = [questions[k] for k in rng.permutation(len(questions))]
    choices = judge_choices(teacher, asked, candidate_sets, model="nano", round=1)
    training = set(names[count // 4 :])
    pool = [each for each in choices if each.question.picture in training]
    held_out = [each for each in choices if each.question.picture not in training]
    nearer = np.zeros(len(held_out), bool)
    left, right = question_faces([each.question for each in held_out], candidate_sets)
    true = np.array([faces[candidate_sets[each.question.picture].row] for each in held_out])
    for region in HALVES:
        here = np.array([each.question.region == region for each in held_out])
        nearer[here] = distance(left[here], true[here], region) < distance(right[here], true[here], region)
    named = np.array([each.verdict in ("a", "b") for each in held_out])
    chose_left = np.array([each.verdict == "a" for each in held_out])
    rows = {"teacher": [float((nearer == chose_left)[named].mean()), 1.0]}
    capture = CaptureErrors.sample(seed)
    captured = {
        name: dataclasses.replace(each, reading=capture.corrupt(each.reading[None])[0])
        for name, each in features.items()
    }
    for prefix, pictures in (("", features), ("captured_", captured)):
        # The learning rate is so small that the readings stay as they are.
        settings = JudgeSettings(epochs=1, learning_rate=1e-6)
        untrained = train_judge(pool[: SIZES[0]], candidate_sets, pictures, settings, name="untrained")
        rows[f"{prefix}reading"] = accuracy(untrained, held_out, candidate_sets, nearer)
        for size in (each for each in SIZES if each <= len(pool)):
            judge = train_judge(pool[:size], candidate_sets, pictures, JudgeSettings(seed=seed), name=f"of {size}")
            metrics = judge.metrics
            assert metrics is not None
            row = accuracy(judge, held_out, candidate_sets, nearer)
            rows[f"{prefix}{size}"] = [*row, metrics.log_loss, metrics.ece]
    return rows


if __name__ == "__main__":
    sys.exit(main())
