"""How well a learned judge foretells choices about people it has not met, by the number of choices it learned from.

    python eval/speed/judge.py                     # a minute of one core, when nothing else runs
    python eval/speed/judge.py --quick             # a quarter of that

Nobody is asked: a simulated person chooses between nano's samples for rendered faces of people nano has not seen, with
the usual noise. A judge learns from some choices, starting from nano's readings of the pictures, or from readings that
err as capture software does (``capture_errors``). Figures are shares of right winners on the choices about a quarter of
the people, who are never learned from, where the simulated person names one. Beside them: how often that person is
right (the limit), the readings alone, and each judge against the faces that are really nearer.

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
from semanticface.preference.judges import SimulatedJudge, decide, shown
from semanticface.preference.learned_judge import LearnedJudge, learn, look
from semanticface.preference.regions import HALVES, distance
from semanticface.preference.types import Candidate, CandidateSet, Choice, Question
from semanticface.recipe import versions
from semanticface.rendering import STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm

FIRST_STRANGER = 1_000_000
"""Seeds of people from here on are in no dataset that nano learned from."""
CANDIDATES = 4
SIZES = (250, 1000, 4000)


def accuracy(
    judge: LearnedJudge, choices: list[Choice], slates: dict[str, CandidateSet], nearer: np.ndarray
) -> list[float]:
    """Share of right winners: of the choices that name one, and of the faces that are nearer (bool[n]: the left)."""
    shares = judge.probabilities([each.question for each in choices], slates)
    left = shares[:, 0] > shares[:, 1]
    named = np.array([each.verdict in ("a", "b") for each in choices])
    said = np.array([each.verdict == "a" for each in choices])
    return [float((left == said)[named].mean()), float((left == nearer).mean())]


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--pictures", type=int, default=900, help="rendered faces (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="90 pictures, 250 choices at most")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/speed/judge.json"), help="where to write (%(default)s)"
    )
    options = parser.parse_args()
    count = 90 if options.quick else options.pictures
    if count < 60:
        parser.error("--pictures must be at least 60")
    try:
        rows = measured(count, options.seed)
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


def measured(count: int, seed: int) -> dict[str, list[float]]:
    """Return for each judge the share of right winners, that of nearer faces, log loss and calibration error."""
    rng = np.random.default_rng([seed, 22])
    faces = np.array([sample_coefficients(rng) for _ in range(count)])
    names = [f"picture {n}" for n in range(count)]
    crops = {}
    for n, name in enumerate(tqdm(names, desc="rendering", unit="face")):
        drawn = render(faces[n], look=STYLES[n % 3], subject=FIRST_STRANGER + n, shot=n, size=128, framing="crop")
        crops[name] = Image.fromarray(drawn.image)
    predictor = Predictor.from_pretrained("nano", mode="numbers")
    sights = look(predictor, crops)
    stream = predictor.stream(crops.values(), crop="none", temperature=1.0, answers=CANDIDATES, seed=seed)
    sampled = iter(list(tqdm(stream, desc="sampling", total=count * CANDIDATES, unit="answer")))
    slates = {}
    for n, name in enumerate(names):
        found = [each.coefficients for each in (next(sampled) for _ in range(CANDIDATES)) if each.status == "ok"]
        candidates = [Candidate(f"model-{k}", "model", face) for k, face in enumerate(found) if face is not None]
        slates[name] = CandidateSet(name, n, f"person {n}", tuple(candidates))
    questions = [
        Question(f"{name} {area} {a.id} {b.id}", name, area, a.id, b.id)
        for name in names
        for area in HALVES
        for place, a in enumerate(slates[name].candidates)
        for b in slates[name].candidates[:place]
    ]
    teacher = SimulatedJudge(dict(zip(names, faces, strict=True)), seed=seed)
    choices = decide(teacher, [questions[k] for k in rng.permutation(len(questions))], slates, model="nano", round=1)
    met = set(names[count // 4 :])
    pool = [each for each in choices if each.question.picture in met]
    held_out = [each for each in choices if each.question.picture not in met]
    nearer = np.zeros(len(held_out), bool)
    left, right = shown([each.question for each in held_out], slates)
    true = np.array([faces[slates[each.question.picture].row] for each in held_out])
    for area in HALVES:
        here = np.array([each.question.area == area for each in held_out])
        nearer[here] = distance(left[here], true[here], area) < distance(right[here], true[here], area)
    named = np.array([each.verdict in ("a", "b") for each in held_out])
    said = np.array([each.verdict == "a" for each in held_out])
    rows = {"teacher": [float((nearer == said)[named].mean()), 1.0]}
    capture = CaptureErrors.draw(seed)
    captured = {
        name: dataclasses.replace(sight, reading=capture.corrupt(sight.reading[None])[0])
        for name, sight in sights.items()
    }
    for told, seen in (("", sights), ("captured_", captured)):
        # A step this small leaves the readings as they are.
        untaught = learn(pool[: SIZES[0]], slates, seen, JudgeSettings(epochs=1, learning_rate=1e-6), name="untaught")
        rows[f"{told}reading"] = accuracy(untaught, held_out, slates, nearer)
        for size in (each for each in SIZES if each <= len(pool)):
            judge = learn(pool[:size], slates, seen, JudgeSettings(seed=seed), name=f"of {size}")
            assert judge.figures is not None
            figures = judge.figures
            rows[f"{told}{size}"] = [*accuracy(judge, held_out, slates, nearer), figures.log_loss, figures.ece]
    return rows


if __name__ == "__main__":
    sys.exit(main())
