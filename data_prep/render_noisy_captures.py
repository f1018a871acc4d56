"""Record takes of rendered people twice: with exact labels, and with those that capture software would have written.

    python data_prep/render_noisy_captures.py --out outputs/takes

Writes two folders of faces, `exact` and `captured`: the same pictures of the same people, in order of time. The labels
of the second err as capture software does, one way for each `--seed`: movements read too weakly, some never, some tied
to others, slight ones reported at rest, noise, and everything a few frames late (semanticface/preference/
capture_errors.py). With both, alignment can be tried and measured without a single volunteer: train on `captured`, let
simulated people compare renders, and look at the errors against `exact` (train/configs/prefer_quickstart.yaml).
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
    parser.add_argument("--takes", type=int, default=60, help="people to learn from, a take each (%(default)s)")
    parser.add_argument("--held-out", type=int, default=default.validation, help="people to measure on (%(default)s)")
    parser.add_argument("--frames", type=int, default=default.frames, help="pictures of each take (%(default)s)")
    parser.add_argument("--style", choices=(*STYLES, HELD_OUT_STYLE), default=default.style, help="how (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of expressions, cameras, light and errors (%(default)s)")
    options = parser.parse_args()
    try:
        settings = TakeSettings(
            train=options.takes, validation=options.held_out, frames=options.frames, style=options.style,
            seed=options.seed,
        )  # fmt: skip
        labels = record_takes(options.out, settings, CaptureErrors.draw(options.seed))
        exact = coefficients_of(load_faces(options.out / "exact", "train"))
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print(f"{len(exact):,} pictures of {options.takes} people to learn from, {options.held_out} people to measure on")
    print(f"labels in {options.out / 'captured'} are {np.abs(labels['train'] - exact).mean():.3f} off in the mean")
    return 0


if __name__ == "__main__":
    sys.exit(main())
