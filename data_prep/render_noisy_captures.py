"""Render takes twice: with exact labels, and with the noisy labels that capture software would write.

    python data_prep/render_noisy_captures.py --out outputs/takes

Writes two datasets, `exact` and `captured`: the same pictures of the same people, in order of time. The labels of the
second have the errors of capture software, fixed by `--seed`: actions measured too weakly or never, actions coupled to
others, slight activity at rest, noise, and a delay of a few frames (semanticface/experiments/noisy_captures.py). With
both, alignment can be tried and measured without volunteers: train on `captured`, let simulated people compare
renders, and measure against `exact` (train/configs/prefer_quickstart.yaml).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from semanticface.cli.scripts import ScriptParser
from semanticface.data.faces import coefficients_of, load_faces
from semanticface.errors import SemanticFaceError
from semanticface.experiments.noisy_captures import CaptureErrors, TakeSettings, record_takes
from semanticface.rendering import HELD_OUT_STYLE, STYLES


def main() -> int:
    default = TakeSettings()
    parser = ScriptParser(__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/takes"),
        help="folder for `exact` and `captured` (default: %(default)s)",
    )
    parser.add_argument("--takes", type=int, default=60, help="people to train on, a take each (%(default)s)")
    parser.add_argument("--held-out", type=int, default=default.validation, help="people to evaluate on (%(default)s)")
    parser.add_argument("--frames", type=int, default=default.frames, help="pictures of each take (%(default)s)")
    parser.add_argument(
        "--style", choices=(*STYLES, HELD_OUT_STYLE), default=default.style, help="of rendering (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of expressions, cameras, light and errors (%(default)s)")
    options = parser.parse_args()
    try:
        settings = TakeSettings(
            train=options.takes, validation=options.held_out, frames=options.frames, style=options.style,
            seed=options.seed,
        )  # fmt: skip
        labels = record_takes(options.out, settings, CaptureErrors.sample(options.seed))
        exact = coefficients_of(load_faces(options.out / "exact", "train"))
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        return 130
    print(f"{len(exact):,} pictures of {options.takes} people to train on, {options.held_out} people to evaluate on")
    print(f"labels in {options.out / 'captured'} have a mean error of {np.abs(labels['train'] - exact).mean():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
