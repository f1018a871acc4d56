"""Add Stage I, the explanation in words and the answer a model learns to write, to any dataset of coefficients.

    python data_prep/describe.py takes/take_3.csv outputs/take_3.jsonl
    python data_prep/describe.py outputs/faces outputs/faces_described --no-emotion

SOURCE is a Live Link Face CSV (63 columns), a CSV of `image` and the 52 camelCase actions, a JSONL written by
`semanticface predict`, or a folder made by `save_to_disk` with a column `coefficients`. TARGET is a JSONL file for the
first three and a new folder for the last; both get an `answer` and an `analysis` for each row, in the same order.

A row that cannot be described stays in its place, with a reason, and is named on standard error. Exit code: 0 when
every row was described, 1 when some were not, 2 when nothing could be done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.describe_set import describe_dataset, describe_table
from semanticface.errors import SemanticFaceError

NAMED = 20  # failed rows named one by one


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="CSV, JSONL or dataset folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="JSONL file or new dataset folder")
    parser.add_argument("--no-emotion", action="store_true", help="leave out what a face suggests a person feels")
    options = parser.parse_args()
    describe = describe_dataset if options.source.is_dir() else describe_table
    try:
        total, failures = describe(options.source, options.target, emotion=not options.no_emotion)
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    for failure in failures[:NAMED]:
        print(
            failure.reason if failure.where in failure.reason else f"{failure.where}: {failure.reason}", file=sys.stderr
        )
    if len(failures) > NAMED:
        print(f"and {len(failures) - NAMED} more rows; see `reason` in {options.target}", file=sys.stderr)
    print(f"{options.target}: {total - len(failures)} of {total} rows described")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
