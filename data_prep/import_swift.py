"""Import ms-swift JSONL, the form in which SemanticFace was published, into a dataset of faces that training takes.

    python data_prep/import_swift.py train.jsonl --out outputs/published --consent consent.yaml --subject-column person

Each row has `messages`, whose last answer of the assistant holds the 52 (our JSON, or numbered prose and a bare object
under Live Link's names), and one picture under `images`, beside the JSONL or in --pictures. Faces are found and
cropped, or taken as they are (--no-crop); pictures are encoded anew without metadata. Words in our form are kept with
their numbers; prose is left behind and words are written anew. People never appear in two splits, and nobody is
imported without consent (docs/captures.md): start without the list, and one to be filled in is printed.

More examples:

    # rows that do not say who is in them: one person, or one source under one licence
    python data_prep/import_swift.py ann.jsonl --out outputs/published --consent consent.yaml --subject ann

    # pictures that are square crops of one face already, in another folder
    python data_prep/import_swift.py train.jsonl --out outputs/crops --consent consent.yaml --pictures crops --no-crop

What is there already is not done again, a thousand rows at a time, so a run that was stopped goes on with the same
command. A bad row is named with its line and shifts no other: `frame` in the dataset is the line. Exit code: 0 when all
went well; 1 when something broken was left out, each named on standard error; 2 when nothing could be done; 130 when
stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli.import_arguments import add_arguments, add_crop, run, settings_of
from semanticface.cli.scripts import ScriptParser
from semanticface.data.importers.ms_swift import LABELS, read_swift


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="JSONL", help="rows with messages and images")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="what names of pictures are relative to")
    parser.add_argument(
        "--subject-column",
        default="subject",
        metavar="KEY",
        help="says who is in a row's picture (default %(default)s)",
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

    return run(options, settings_of(options, LABELS), read)


if __name__ == "__main__":
    sys.exit(main())
