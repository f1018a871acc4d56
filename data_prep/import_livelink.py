"""Import Live Link Face takes, as the app exports them, into a dataset of faces that training takes as it is.

    python data_prep/import_livelink.py takes/20260314_MySlate_3 --out outputs/captures --consent consent.yaml

TAKE is a take's folder, a folder of many takes of any depth, a ZIP of either, or the CSV of one take; its video and
the app's other files are found beside it. Each row is paired with its video frame by timecode (the app's frame_log.csv,
or the video's own timecode; else from the first row, with a warning). What repeats or rests is thinned out, faces are
cropped, and pictures are encoded anew without metadata. People never appear in two splits. The page report.html in the
new folder shows what was kept and dropped, and why.

Nobody is imported without consent: FILE says who agreed to what, and without it this command prints one to fill in:

    subjects:
      ann:
        reference: form signed on 2026-03-14, binder 7
        uses: [train, evaluate, show]
        until: 2027-12-31

More examples:

    # the app calls every subject by the device's name: say who it is, one person at a time
    python data_prep/import_livelink.py ann.zip --out outputs/captures --consent consent.yaml --subject ann
    python data_prep/import_livelink.py ben.zip --out outputs/captures --consent consent.yaml --subject ben

    # few people: hold one out by name, whatever the hash says
    python data_prep/import_livelink.py takes --out outputs/captures --assign ann=train --assign ben=validation

    # people whose resting face the app reads as an expression
    python data_prep/import_livelink.py takes --out outputs/rested --consent consent.yaml --calibrate rest

Takes that are there already are not done again, so a run that was stopped goes on with the same command, and more takes
can be added later. Exit code: 0 when all went well; 1 when something broken was left out, a take, a frame or a row,
each named on standard error; 2 when nothing could be done; 130 when stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli.import_arguments import add_arguments, tell
from semanticface.cli.scripts import ScriptParser
from semanticface.data.captures.importer import import_takes
from semanticface.data.captures.take import ImportSettings
from semanticface.errors import SemanticFaceError

DEFAULTS = ImportSettings()


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("takes", type=Path, nargs="+", metavar="TAKE", help="folders, ZIPs or CSVs of takes")
    add_arguments(parser, subject="who is recorded in these takes (default: as the app has it)")
    parser.add_argument(
        "--apart",
        type=float,
        default=DEFAULTS.apart,
        help="faces of a take of which no coefficient differs by this much are near duplicates (default %(default)s)",
    )
    parser.add_argument(
        "--neutral",
        type=float,
        default=DEFAULTS.neutral,
        help="a face of which no coefficient is this far from rest is near neutral (default %(default)s)",
    )
    parser.add_argument(
        "--keep-neutral",
        type=int,
        default=DEFAULTS.keep_neutral,
        help="near neutral faces kept of each take, so that rest is learnt too (default %(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        choices=("app", "none", "rest"),
        default=DEFAULTS.calibrate,
        help="app: numbers calibrated by the app where it did so, else as recorded; none: as recorded; rest: each "
        "person's resting face taken off, eyes left alone. Not the default, because it takes the tenth percentile for "
        "rest, which erases an expression that somebody holds all along (default %(default)s)",
    )
    return parser


def main() -> int:
    options = arguments().parse_args()
    try:
        settings = ImportSettings(
            size=options.size,
            calibrate=options.calibrate,
            neutral=options.neutral,
            keep_neutral=options.keep_neutral,
            apart=options.apart,
            splits=options.splits,
            emotion=not options.no_emotion,
        )
        done = import_takes(
            options.takes,
            options.out,
            settings,
            consent=options.consent,
            subject=options.subject,
            assign=dict(options.assign),
        )
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on with the takes that are missing", file=sys.stderr)
        return 130
    return tell(done, options.out, settings.splits)


if __name__ == "__main__":
    sys.exit(main())
