"""Import Live Link Face takes, as the app exports them, into a dataset of faces ready for training.

    python data_prep/import_livelink.py takes/20260314_MySlate_3 --out outputs/captures --consent consent.yaml

TAKE is a take's folder, a folder of many takes of any depth, a ZIP of either, or the CSV of one take, with its video
and the app's other files next to it. Each row is paired with its video frame by timecode (the app's frame_log.csv, or
the video's own timecode; else from the first row, with a warning). Near duplicates and faces at rest are dropped, faces
are cropped, and pictures are re-encoded without metadata. Each person is in one split. The page report.html in the new
folder shows what was kept and dropped, and why.

Nobody is imported without consent: FILE says who agreed to what. Without it this command prints a template:

    subjects:
      ann:
        reference: form signed on 2026-03-14, binder 7
        uses: [train, evaluate, show]
        until: 2027-12-31

More examples:

    # the app names every subject after the device: name the person, one at a time
    python data_prep/import_livelink.py ann.zip --out outputs/captures --consent consent.yaml --subject ann
    python data_prep/import_livelink.py ben.zip --out outputs/captures --consent consent.yaml --subject ben

    # few people: choose the splits by name
    python data_prep/import_livelink.py takes --out outputs/captures --assign ann=train --assign ben=validation

    # people whose resting face the app takes for an expression
    python data_prep/import_livelink.py takes --out outputs/rested --consent consent.yaml --calibrate rest

Takes that are already imported are skipped: the same command resumes a stopped run, and takes can be added later. Exit
code: 0 on success; 1 if something broken was left out (a take, a frame or a row, each named on standard error); 2 if
nothing was imported; 130 if stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli.import_arguments import add_arguments, add_selection, print_result, settings_from
from semanticface.cli.scripts import ScriptParser
from semanticface.data.captures.importer import import_takes
from semanticface.data.captures.take import ImportSettings
from semanticface.errors import SemanticFaceError


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("takes", type=Path, nargs="+", metavar="TAKE", help="folders, ZIPs or CSVs of takes")
    add_arguments(parser, subject="who is recorded in these takes (default: as in the app)")
    add_selection(parser, "take")
    parser.add_argument(
        "--calibrate",
        choices=("app", "none", "rest"),
        default=ImportSettings().calibrate,
        help="app: the app's calibrated coefficients if there are any, else the recorded ones; none: the recorded "
        "ones; rest: subtract each person's resting face, except for the eyes. Not the default, because rest is the "
        "tenth percentile, which erases an expression that somebody holds throughout (default %(default)s)",
    )
    return parser


def main() -> int:
    options = arguments().parse_args()
    try:
        settings = settings_from(options, ImportSettings)
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
        print("stopped; the same command resumes with the missing takes", file=sys.stderr)
        return 130
    return print_result(done, options.out, settings.splits)


if __name__ == "__main__":
    sys.exit(main())
