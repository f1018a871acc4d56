"""How fast faces are described and answers are written, read and checked, on one core.

    python eval/benchmarks/semantics.py --out outputs/benchmarks/semantics.json

Faces of three densities: every action active at random (the worst case), three in ten active, and a slow take in which
neighbouring frames are alike (the usual case). Figures are operations a second of process time (that of all threads,
so on one core), the best of ``--repeats`` rounds, each on faces that were not met before. The goals are 20,000
descriptions and 5,000 parsed answers a second.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np

from semanticface.answer import format_answer, parse_answer
from semanticface.errors import SemanticFaceError
from semanticface.files import atomic_open
from semanticface.semantics import agreement, describe_many


def faces(rows: int) -> dict[str, np.ndarray]:
    """Random faces by density, each float64[rows, 52]."""
    rng = np.random.default_rng(0)
    dense = rng.random((rows, 52))
    sparse = dense * (rng.random((rows, 52)) < 0.3)
    keys = rng.random((rows // 60 + 2, 52)) * (rng.random((rows // 60 + 2, 52)) < 0.3)
    at = np.arange(rows) / 60
    low = at.astype(int)
    take = keys[low] + (keys[low + 1] - keys[low]) * (at - low)[:, None]
    return {"dense": dense, "sparse": sparse, "take": take}


def rates(values: np.ndarray, checked: int) -> dict[str, float]:
    """Operations a second of process time on these faces; ``agreement`` on the first ``checked`` of them."""
    seconds = {}
    start = time.process_time()
    words = describe_many(values)
    seconds["describe"] = (time.process_time() - start) / len(values)
    start = time.process_time()
    texts = [format_answer(row, analysis) for row, analysis in zip(values, words, strict=True)]
    seconds["format"] = (time.process_time() - start) / len(values)
    start = time.process_time()
    for text in texts:
        parse_answer(text)
    seconds["parse"] = (time.process_time() - start) / len(values)
    start = time.process_time()
    for row, analysis in zip(values[:checked], words[:checked], strict=True):
        agreement(analysis, row)
    seconds["agreement"] = (time.process_time() - start) / checked
    return {job: 1 / spent for job, spent in seconds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=20_000, help="faces of each density and round (default %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    if options.rows < 100 or options.repeats < 1:
        parser.error("--rows must be at least 100 and --repeats at least 1")
    figures: dict[str, dict[str, int]] = {}
    print(f"{'a second':>10}{'describe':>12}{'format':>12}{'parse':>12}{'agreement':>12}")
    for name, values in faces(options.rows * options.repeats).items():
        rounds = [rates(part, options.rows // 20) for part in np.array_split(values, options.repeats)]
        figures[name] = {job: round(max(one[job] for one in rounds)) for job in rounds[0]}
        print(f"{name:>10}" + "".join(f"{value:>12,}" for value in figures[name].values()))
    if options.out:
        settings = {"rows": options.rows, "repeats": options.repeats}
        versions = {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
        try:
            with atomic_open(options.out) as file:
                json.dump({"per_second": figures, "settings": settings, "versions": versions}, file, indent=2)
        except SemanticFaceError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
