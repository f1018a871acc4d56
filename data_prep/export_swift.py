"""Export a dataset of faces to ms-swift: a JSONL per split, and the images as files.

    python data_prep/export_swift.py outputs/captures --out outputs/swift
    python data_prep/export_swift.py outputs/captures --out outputs/published --form published

Each row has `messages` (system, user with <image>, assistant) and `images`, with paths relative to the folder, so run
ms-swift in it (cd outputs/swift; swift sft --dataset train.jsonl …). `subject` says who is in the picture; ms-swift
ignores it. Images are the square crops that training uses, re-encoded without metadata.

--form ours writes the answers as they are, {"analysis": …, "arkit": …} with two decimals. --form published writes them
as SemanticFace was published: numbered prose, then a bare object of 61 numbers, one decimal each, under the names of
Live Link Face. `data_prep/import_swift.py` reads both back.

Captures are exported only if the people in them agreed to the use of their split; their consent.yaml is copied.
`semanticface forget` finds exports and deletes people from them. Exit code: 0 on success; 1 if rows were left out (each
named on standard error); 2 if nothing was exported; 130 if stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from semanticface.cli.scripts import ScriptParser
from semanticface.data.ms_swift_export import FORMS, export_swift
from semanticface.errors import SemanticFaceError

NAMED = 20  # rows left out that are named one by one


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the new folder")
    parser.add_argument("--form", choices=FORMS, default="ours", help="of the answers (default %(default)s)")
    return parser


def main() -> int:
    options = arguments().parse_args()
    try:
        done = export_swift(options.dataset, options.out, options.form)
    except SemanticFaceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    for problem in done.problems[:NAMED]:
        print(problem, file=sys.stderr)
    if len(done.problems) > NAMED:
        print(f"and {len(done.problems) - NAMED} more rows", file=sys.stderr)
    print(f"{options.out}: " + ", ".join(f"{count:,} rows in {split}.jsonl" for split, count in done.rows.items()))
    return 1 if done.problems else 0


if __name__ == "__main__":
    sys.exit(main())
