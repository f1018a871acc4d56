"""How often Stage I accepts true analyses, and how often false ones.

    python eval/speed/stage1.py                    # 2,000 faces; ten seconds
    python eval/speed/stage1.py --quick            # 300

Faces are sampled as for datasets. The rule-based analysis of each is reworded without changing its meaning, and then
damaged by one mistake per text; ``analysis_prompt.judge`` accepts or rejects each. The synonyms are those of three
speakers: everyday English, FACS coders' terms, and words that ``agreement`` does not know.

Mistakes: the analysis of another face; of the mirrored face (if the sides differ by 0.2 or more somewhere); left and
right exchanged in one region (if its sides differ as much); a grade one or two steps off; a movement of 0.2 or more of
another face in a region at rest; a region with an action of 0.4 or more described as at rest, or not described; one
whose strongest action is between 0.2 and 0.39 not described.

A grade one step off may be true, because bounds are widened by 0.05 on both sides. Prints a table; the last line is one
JSON object with the accepted share by kind.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semanticface.arkit import ACTIONS, REGIONS, mirror
from semanticface.cli.arguments import positive
from semanticface.cli.scripts import ScriptParser
from semanticface.errors import SemanticFaceError
from semanticface.llm.analysis_prompt import judge
from semanticface.semantics.analysis import describe
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.movements import PAIR_LEFT, PAIR_RIGHT, RELAXED
from semanticface.semantics.phrasing import GRADES
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm

SPEAKERS = {
    "everyday": {
        "barely": "hardly", "slightly": "a little", "clearly": "noticeably", "strongly": "very", "fully": "completely",
        "raised": "lifted", "lowered": "drooping", "narrowed": "squinted", "wrinkled": "scrunched up",
    },
    "facs": {
        "barely": "trace of", "clearly": "moderately", "strongly": "severely", "fully": "maximally",
        "raised": "elevated", "lowered": "depressed", "pulled up": "turned upwards", "pressed together": "compressed",
    },
    "untaught": {
        "barely": "just about", "slightly": "a touch", "clearly": "plainly", "strongly": "hard", "fully": "utterly",
        "raised": "hiked", "lowered": "sunken", "narrowed": "slitted", "stretched": "elongated",
    },
}  # fmt: skip
WORDS = tuple(adverb for adverb, _, _ in GRADES)
OTHER_SIDE = {"left": "right", "right": "left"}
NOTHING = "as ever"  # makes no claim about any muscle


def variants(face: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (kind, analysis dict) pairs about a [52] face; ``other`` is the face that mistakes come from."""
    true, false = describe(face).to_dict(), describe(other).to_dict()
    moves = true["muscle_movements"]

    def changed(region: str, text: str) -> dict[str, Any]:
        return true | {"muscle_movements": moves | {region: text}}

    def pick(regions: list[str]) -> list[str]:
        return [regions[rng.integers(len(regions))]] if regions else []

    strongest, other_strongest = _strongest(face), _strongest(other)
    yield "true: rules", true
    for speaker, synonyms in SPEAKERS.items():
        yield f"true: {speaker}", json.loads(_replaced(json.dumps(true), synonyms))
    yield "false: another face", false
    gaps = np.abs(face[PAIR_LEFT] - face[PAIR_RIGHT])
    if gaps.max() >= 0.2:
        yield "false: mirrored", describe(mirror(face)).to_dict()
    lopsided = {ACTIONS[index].region for index, gap in zip(PAIR_LEFT, gaps, strict=True) if gap >= 0.2} - {"gaze"}
    for region in pick(sorted(region for region in lopsided if _replaced(moves[region], OTHER_SIDE) != moves[region])):
        yield "false: sides exchanged", changed(region, _replaced(moves[region], OTHER_SIDE))
    graded = [(region, found) for region in REGIONS for found in re.finditer("|".join(WORDS), moves[region])]
    if graded:
        region, found = graded[rng.integers(len(graded))]
        index = WORDS.index(found[0])
        for steps in (1, 2):
            grade = WORDS[index + steps if index + steps < len(WORDS) else index - steps]
            text = moves[region][: found.start()] + grade + moves[region][found.end() :]
            yield f"false: grade {steps} off", changed(region, text)
    for region in pick([region for region in REGIONS if strongest[region] < 0.095 and other_strongest[region] >= 0.2]):
        yield "false: rest moves", changed(region, false["muscle_movements"][region])
    for region in pick([region for region in REGIONS if strongest[region] >= 0.4]):
        yield "false: clear at rest", changed(region, RELAXED[region])
        yield "false: clear unsaid", changed(region, NOTHING)
    for region in pick([region for region in REGIONS if 0.2 <= strongest[region] < 0.395]):
        yield "false: slight unsaid", changed(region, NOTHING)


def _strongest(face: np.ndarray) -> dict[str, float]:
    return {region: max(float(face[each.index]) for each in ACTIONS if each.region == region) for region in REGIONS}


def _replaced(text: str, synonyms: dict[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(synonyms)})\b", lambda found: synonyms[found[0]], text)


def count(rows: int) -> dict[str, Counter[str]]:
    """Return the number of texts by kind and verdict code, over ``rows`` faces."""
    rng = np.random.default_rng(0)
    faces = [np.round(sample_coefficients(rng), 2) for _ in range(rows)]
    out: dict[str, Counter[str]] = {}
    for face, other in tqdm(zip(faces, faces[1:] + faces[:1], strict=True), total=rows, unit="face"):
        for kind, analysis in variants(face, other, rng):
            out.setdefault(kind, Counter())[judge(json.dumps(analysis), face).code] += 1
    return dict(sorted(out.items(), reverse=True))


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--rows", type=positive, default=2000, help="faces (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="300 faces")
    parser.add_argument("--out", type=Path, default=Path("outputs/speed/stage1.json"), help="(default: %(default)s)")
    options = parser.parse_args()
    rows = 300 if options.quick else options.rows
    counts = count(rows)
    shares = {kind: found["ok"] / found.total() for kind, found in counts.items()}
    print(f"{'analysis':>24}{'texts':>8}{'accepted':>9}{'contradict':>12}{'omit':>7}")
    for kind, found in counts.items():
        columns = f"{found.total():>8,}{shares[kind]:>9.1%}{found['contradicts']:>12,}{found['omits']:>7,}"
        print(f"{kind:>24}{columns}")
    try:
        write_json(options.out, {"counts": counts, "faces": rows})
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({re.sub(r"\W+", "_", kind): round(share, 4) for kind, share in shares.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
