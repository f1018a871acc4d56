"""Import pictures labelled by MediaPipe into a dataset of faces ready for training.

    python data_prep/import_pictures.py photos --out outputs/photos --consent consent.yaml --mediapipe face.task

PATH is a folder of pictures and videos, or a single one. A folder is named after the person in it (photos/ann,
photos/ben), unless --subject names them. Faces are found and cropped, MediaPipe predicts the coefficients of the crop,
and the analysis is written from them (Stage I). Pictures are re-encoded without metadata; near duplicates and faces at
rest are dropped from videos. Each person is in one split, and nobody is imported without consent (docs/captures.md):
without a consent list this command prints a template.

MediaPipe is not part of this package: pip install -c constraints.txt mediapipe, and download its face_landmarker.task.
Version 1.2.2 looks up a server of its vendor (usage statistics); `unshare -rn` before the command runs everything
without a network.

Such labels are as good as MediaPipe. It has no tongueOut and hardly ever detects cheekPuff: both stay at or near 0, in
numbers and words, and recipe and report say so. A model that must know them needs other data too.

More examples:

    # one person, in several folders and videos
    python data_prep/import_pictures.py holiday ann.mp4 --out outputs/photos --subject ann --mediapipe face.task

    # a collection of portraits of unnamed people, one in each picture; the consent list names the collection
    python data_prep/import_pictures.py portraits --out outputs/people --collection portraits --mediapipe face.task

    # saved blendshapes: JSONL, JSON, CSV, or a folder with a JSON per picture; MediaPipe is not needed
    python data_prep/import_pictures.py --saved results.jsonl --out outputs/saved --consent consent.yaml --subject ann

What is already imported is skipped: the same command resumes a stopped run, and more can be added later. Exit code: 0
on success; 1 if a picture was left out because it is broken or shows no face or several (each named on standard error);
2 if nothing was imported; 130 if stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from semanticface.cli.import_arguments import add_arguments, add_crop, add_selection, run, settings_from
from semanticface.cli.scripts import ScriptParser
from semanticface.data.importers.mediapipe import FaceLandmarker, collect_parts, labels, labels_of
from semanticface.data.importers.mediapipe_saved import read_saved
from semanticface.data.importers.pictures import PictureSettings


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help="folders, pictures, videos")
    parser.add_argument("--mediapipe", type=Path, metavar="X.task", help="MediaPipe's face_landmarker.task")
    parser.add_argument(
        "--collection", metavar="NAME", help="pictures of unnamed people, each in one picture: the collection's name"
    )
    parser.add_argument("--saved", type=Path, metavar="FILE", help="saved blendshapes instead of PATH and --mediapipe")
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="what image paths in --saved are relative to (default: its folder)",
    )
    parser.add_argument(
        "--subject-column",
        default="subject",
        metavar="KEY",
        help="key or column of --saved that says who is in a picture (default %(default)s)",
    )
    add_selection(parser, "video")
    add_arguments(parser)
    add_crop(parser)
    return parser


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.saved is not None and (options.paths or options.mediapipe):
        parser.error("--saved replaces PATH and --mediapipe: give it alone")
    if options.saved is None and not (options.paths and options.mediapipe):
        parser.error("give pictures and --mediapipe face_landmarker.task, or --saved FILE")
    if options.collection is not None and (options.saved or options.subject):
        parser.error("--collection is for pictures of many unnamed people: give it without --saved and --subject")

    def settings() -> PictureSettings:
        known = labels("MediaPipe, saved by its user") if options.saved else labels_of(options.mediapipe)
        return settings_from(options, PictureSettings, labels=known)

    def read():
        if options.saved is None:
            return collect_parts(options.paths, options.subject, collection=options.collection), []
        return read_saved(
            options.saved, pictures=options.pictures, column=options.subject_column, subject=options.subject
        )

    with contextlib.ExitStack() as stack:

        def reader():
            return None if options.saved else stack.enter_context(FaceLandmarker(options.mediapipe)).measure

        return run(options, settings, read, reader)


if __name__ == "__main__":
    sys.exit(main())
