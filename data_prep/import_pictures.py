"""Import pictures with what MediaPipe reads in them into a dataset of faces that training takes as it is.

    python data_prep/import_pictures.py photos --out outputs/photos --consent consent.yaml --mediapipe face.task

PLACE is a folder of pictures and videos, or a single one. A folder's name says who is in it (photos/ann, photos/ben),
unless --subject does. Faces are found and cropped, MediaPipe reads the crop, and words are written from its numbers
(Stage I). Pictures are encoded anew without metadata; of a video, what repeats or rests is thinned out. People never
appear in two splits, and nobody is imported without consent (docs/captures.md): start without the list, and one to be
filled in is printed.

MediaPipe is no part of this package: pip install -c constraints.txt mediapipe, and download its face_landmarker.task.
Version 1.2.2 looks up a server of its maker's (usage statistics); with `unshare -rn` before the command all of this
runs without a network.

Its numbers are labels as good as it is, no better. It has no tongueOut and hardly ever sees cheekPuff: both stay 0 or
near it, in numbers and words, and recipe and report say so. A model that is to know them needs other data too.

More examples:

    # one person, wherever the pictures and videos lie
    python data_prep/import_pictures.py holiday ann.mp4 --out outputs/photos --subject ann --mediapipe face.task

    # blendshapes that were saved before: JSONL, JSON, CSV, or a JSON beside each picture; MediaPipe is not needed
    python data_prep/import_pictures.py --saved results.jsonl --out outputs/saved --consent consent.yaml --subject ann

What is there already is not done again, so a run that was stopped goes on with the same command, and more can be added
later. Exit code: 0 when all went well; 1 when something was left out that is broken or shows no face or several, each
named on standard error; 2 when nothing could be done; 130 when stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from semanticface.cli.import_arguments import add_arguments, add_crop, run, settings_of
from semanticface.cli.scripts import ScriptParser
from semanticface.data.importers.mediapipe import FaceLandmarker, labels, labels_of, read_places
from semanticface.data.importers.mediapipe_saved import read_saved
from semanticface.data.importers.pictures import PictureSettings


def arguments() -> argparse.ArgumentParser:
    parser = ScriptParser(__doc__)
    parser.add_argument("places", type=Path, nargs="*", metavar="PLACE", help="folders, pictures, videos")
    parser.add_argument("--mediapipe", type=Path, metavar="X.task", help="MediaPipe's face_landmarker.task")
    parser.add_argument(
        "--saved", type=Path, metavar="FILE", help="saved blendshapes in place of PLACE and --mediapipe"
    )
    parser.add_argument(
        "--pictures", type=Path, metavar="FOLDER", help="what names in --saved are relative to (default: its folder)"
    )
    parser.add_argument(
        "--subject-column",
        default="subject",
        metavar="KEY",
        help="key or column of --saved that says who is in a picture (default %(default)s)",
    )
    default = PictureSettings(labels={})
    parser.add_argument(
        "--apart", type=float, default=default.apart,
        help="frames of a video of which no coefficient differs by this much are near duplicates (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--neutral", type=float, default=default.neutral,
        help="a frame of which no coefficient is this far from rest is near neutral (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-neutral", type=int, default=default.keep_neutral,
        help="near neutral frames kept of each video (default %(default)s)",
    )  # fmt: skip
    add_arguments(parser)
    add_crop(parser)
    return parser


def main() -> int:
    parser = arguments()
    options = parser.parse_args()
    if options.saved is not None and (options.places or options.mediapipe):
        parser.error("--saved stands in place of PLACE and --mediapipe: give it alone")
    if options.saved is None and not (options.places and options.mediapipe):
        parser.error("give pictures and --mediapipe face_landmarker.task, or --saved FILE")

    def settings() -> PictureSettings:
        video = {"apart": options.apart, "neutral": options.neutral, "keep_neutral": options.keep_neutral}
        known = labels("MediaPipe, as its user saved it") if options.saved else labels_of(options.mediapipe)
        return settings_of(options, known, **video)()

    def read():
        if options.saved is None:
            return read_places(options.places, options.subject), []
        return read_saved(
            options.saved, pictures=options.pictures, column=options.subject_column, subject=options.subject
        )

    with contextlib.ExitStack() as stack:

        def reader():
            return None if options.saved else stack.enter_context(FaceLandmarker(options.mediapipe)).read

        return run(options, settings, read, reader)


if __name__ == "__main__":
    sys.exit(main())
