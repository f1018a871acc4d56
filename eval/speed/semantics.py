"""Speed of describing faces, and of formatting, parsing and checking answers, on one core.

    python eval/speed/semantics.py                                   # two minutes
    python eval/speed/semantics.py --quick                           # a quarter of one
    python eval/speed/semantics.py --take outputs/take_3.csv         # with your own recording

Four kinds of faces: every action active at random (`dense`, the worst case), three in ten active (`sparse`), the
expressions that datasets are rendered from (`sampled`), and a slow take of similar consecutive frames (`take`:
generated, or the Live Link Face CSV given). Figures are operations a second of process time over all threads, so on one
core; the median of `--repeats` rounds, each on new faces. Answers are parsed with full validation.

The goals are 100,000 descriptions and 5,000 parsed answers a second. The last line is one JSON object:
`descriptions_per_second` and `answers_parsed_per_second` on dense faces, `descriptions_per_second_take`, and the same
for the others.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from semanticface.cli.scripts import ScriptParser
from semanticface.errors import SemanticFaceError
from semanticface.formats.tables import read_coefficients
from semanticface.semantics.analysis import describe, describe_many
from semanticface.semantics.answer import format_answer, parse_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.semantics.faithfulness import agreement
from semanticface.utils.files import write_json

JOBS = ("describe", "describe one", "format", "parse", "agreement")
SLOW_EVERY = 20  # one face in so many takes part in the slow jobs


def faces(rows: int) -> dict[str, np.ndarray]:
    """Return random faces by kind, each float64[rows, 52]; a quarter as many of the sampled ones, which are slow."""
    rng = np.random.default_rng(0)
    dense = rng.random((rows, 52))
    sparse = dense * (rng.random((rows, 52)) < 0.3)
    sampled = np.stack([sample_coefficients(rng) for _ in range(rows // 4)]).astype(np.float64)
    keys = rng.random((rows // 60 + 2, 52)) * (rng.random((rows // 60 + 2, 52)) < 0.3)
    at = np.arange(rows) / 60
    low = at.astype(int)
    take = keys[low] + (keys[low + 1] - keys[low]) * (at - low)[:, None]
    return {"dense": dense, "sparse": sparse, "sampled": sampled, "take": take}


def recorded(path: Path) -> np.ndarray:
    """Return the valid rows of a table of coefficients, float64[rows, 52]."""
    rows = [row.coefficients for row in read_coefficients(path) if row.coefficients is not None]
    if len(rows) < 100 * SLOW_EVERY:
        raise SemanticFaceError(f"{path} has {len(rows)} valid rows. Give a take of at least {100 * SLOW_EVERY}.")
    return np.stack(rows).astype(np.float64)


def rates(values: np.ndarray) -> dict[str, float]:
    """Return operations a second of process time on these faces."""
    out = {}

    def timed(job: str, count: int, work: Callable[[], list[Any]]) -> list[Any]:
        start = time.process_time()
        done = work()
        out[job] = count / (time.process_time() - start)
        return done

    subset = values[::SLOW_EVERY]
    analyses = timed("describe", len(values), lambda: describe_many(values))
    timed("describe one", len(subset), lambda: [describe(row) for row in subset])
    texts = timed("format", len(values), lambda: [format_answer(*pair) for pair in zip(values, analyses, strict=True)])
    timed("parse", len(values), lambda: [parse_answer(text) for text in texts])
    pairs = list(zip(analyses[::SLOW_EVERY], subset, strict=True))
    timed("agreement", len(subset), lambda: [agreement(*pair) for pair in pairs])
    return out


def main() -> int:
    parser = ScriptParser(__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="faces of each kind and round (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default %(default)s)")
    parser.add_argument("--take", type=Path, help="a Live Link Face CSV to use as the take")
    parser.add_argument("--quick", action="store_true", help="few faces and three rounds, under a minute")
    parser.add_argument(
        "--out", type=Path, default=Path("outputs/speed/semantics.json"), help="where to write (%(default)s)"
    )
    options = parser.parse_args()
    rows, repeats = (4_000, 3) if options.quick else (options.rows, options.repeats)
    if rows < 100 * SLOW_EVERY or repeats < 1:
        parser.error(f"--rows must be at least {100 * SLOW_EVERY} and --repeats at least 1")
    figures: dict[str, dict[str, int]] = {}
    try:
        kinds = faces(rows * repeats)
        if options.take:
            kinds["take"] = recorded(options.take)
        print(f"{'a second':>10}" + "".join(f"{job:>14}" for job in JOBS))
        for name, values in kinds.items():
            rounds = [rates(part) for part in np.array_split(values, repeats)]
            figures[name] = {job: round(statistics.median(one[job] for one in rounds)) for job in JOBS}
            print(f"{name:>10}" + "".join(f"{value:>14,}" for value in figures[name].values()))
        settings = {"rows": rows, "repeats": repeats, "take": options.take.name if options.take else None}
        versions = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
        write_json(options.out, {"per_second": figures, "settings": settings, "versions": versions})
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    summary = {"descriptions_per_second": figures["dense"]["describe"]}
    summary |= {f"descriptions_per_second_{kind}": figures[kind]["describe"] for kind in figures if kind != "dense"}
    print(json.dumps(summary | {"answers_parsed_per_second": figures["dense"]["parse"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
