"""Import ms-swift JSONL, the form in which SemanticFace was published, into a dataset of faces ready for training.

    python data_prep/import_swift.py train.jsonl --out outputs/published --consent consent.yaml --subject-column person

Each row has `messages`, whose last assistant message holds the 52 (our JSON, or numbered prose and a bare object under
Live Link's names), and one picture under `images`, next to the JSONL or in --pictures. Faces are found and cropped, or
used as they are (--no-crop); pictures are re-encoded without metadata. An analysis in our form is kept; prose is
dropped and the analysis is written from the numbers. Each person is in one split, and nobody is imported without
consent (docs/captures.md): without a consent list this command prints a template.

More examples:

    # rows that do not name the subject: one person, or one source under one licence
    python data_prep/import_swift.py ann.jsonl --out outputs/published --consent consent.yaml --subject ann

    # pictures that are already square crops of one face, in another folder
    python data_prep/import_swift.py train.jsonl --out outputs/crops --consent consent.yaml --pictures crops --no-crop

Rows are imported in parts of a thousand, and finished parts are skipped: the same command resumes a stopped run. A bad
row is named with its line and shifts no other: `frame` in the dataset is the line. Exit code: 0 on success; 1 if
something broken was left out (each named on standard error); 2 if nothing was imported; 130 if stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli.import_arguments import add_arguments, add_crop, run, settings_from
from semanticface.cli.scripts import ScriptParser
from semanticface.data.importers.ms_swift import LABELS, read_swift
from semanticface.data.importers.pictures import PictureSettings


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="JSONL", help="rows with messages and images")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="what image paths are relative to")
    parser.add_argument(
        "--subject-column",
        default="subject",
        metavar="KEY",
        help="key that says who is in a row's picture (default %(default)s)",
    )
    add_arguments(parser)
    add_crop(parser)
    return parser


def main() -> int:
    options = arguments().parse_args()

    def read():
        return read_swift(
            options.files, pictures=options.pictures, column=options.subject_column, subject=options.subject
        )

    return run(options, lambda: settings_from(options, PictureSettings, labels=LABELS), read)


if __name__ == "__main__":
    sys.exit(main())
