"""MediaPipe's Face Landmarker: its predictions, and pictures and videos labelled with them for a dataset of faces.

Such labels are as good as MediaPipe. Of the 52 actions it has no ``tongueOut`` and hardly ever detects ``cheekPuff``;
both stay at or near 0, in numbers and in words, because training cannot leave an action out. The recipe of the dataset
and of every model trained on it says so (``labels``). MediaPipe reads the very crop that is stored, so the numbers are
those of the face in it.

MediaPipe (Apache-2.0) is not a dependency of this package: it needs ``pip install mediapipe`` and the
``face_landmarker.task`` from its website. It runs with its own defaults, for still pictures and one face.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.data.captures.dataset import ShardWriter
from semanticface.data.captures.report import MAX_THUMBNAILS, Thumbnail, evenly_spaced, thumbnail
from semanticface.data.captures.rows import crop_with_context, make_row
from semanticface.data.captures.take import estimate_rest, select_frames
from semanticface.data.importers.pictures import (
    ImagePart,
    LabelledImage,
    PartResult,
    PictureSettings,
    Reader,
    group_by_person,
    hash_state,
    parse_subject,
    part_key,
)
from semanticface.errors import ConfigError, ModelError, SemanticFaceError
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box
from semanticface.vision.face_tracker import FaceTracker
from semanticface.vision.image_io import SUFFIXES, encode_jpeg
from semanticface.vision.timecode import Clock
from semanticface.vision.video_reader import MAX_FRAMES, Take, open_take
from semanticface.vision.video_reader import SUFFIXES as VIDEO_SUFFIXES

PACKAGE = "mediapipe"
ACTIONS: tuple[str, ...] = tuple(name for name in arkit.NAMES if name in arkit.MEDIAPIPE)
"""The actions it predicts, in the project's order: all but ``tongueOut``."""
UNKNOWN = ("tongueOut",)
"""Actions that MediaPipe lacks."""
WEAK = ("cheekPuff",)
"""Actions that it has but hardly ever detects."""


class FaceLandmarker:
    """MediaPipe with one ``.task`` file; a context manager, to be closed before the program ends.

    Args:
        task: the bundle, such as ``face_landmarker.task``.

    Attributes:
        identity: the package's version and the sha256 of the bundle: the same identity gives the same predictions.

    Raises:
        ConfigError: the package is not installed, or the file is missing.
        ModelError: MediaPipe rejects the file.
    """

    def __init__(self, task: str | Path) -> None:
        path = Path(task)
        self.identity = identity(path)
        from mediapipe import Image as MediaPipeImage
        from mediapipe import ImageFormat
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)), output_face_blendshapes=True, num_faces=1
        )
        try:
            self._landmarker: Any = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(
                f"MediaPipe rejects {path}: {error}. Use the face_landmarker.task that it publishes."
            ) from error
        self._wrap = lambda pixels: MediaPipeImage(image_format=ImageFormat.SRGB, data=pixels)

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def read(self, image: Image.Image) -> np.ndarray | None:
        """Return float32[52] in [0, 1], 0 for ``tongueOut``; None if MediaPipe finds no face."""
        found = self._detect(image).face_blendshapes
        return vector({each.category_name: each.score for each in found[0]}) if found else None

    def locate(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray] | None:
        """Return MediaPipe's 478 landmarks, float32[478, 3] in pixels, and what ``read`` returns; None without a face.

        Depth has the scale of x and grows away from the camera.
        """
        found = self._detect(image)
        if not found.face_landmarks:
            return None
        points = np.array([[point.x, point.y, point.z] for point in found.face_landmarks[0]], np.float32)
        scores = {each.category_name: each.score for each in found.face_blendshapes[0]}
        return points * np.array([image.width, image.height, image.width], np.float32), vector(scores)

    def _detect(self, image: Image.Image) -> Any:
        return self._landmarker.detect(self._wrap(np.ascontiguousarray(image.convert("RGB"))))


def identity(task: str | Path) -> dict[str, str]:
    """Return what MediaPipe's predictions depend on: ``version`` of the package and ``sha256`` of the bundle.

    Raises:
        ConfigError: the package is not installed, or the file is missing.
    """
    try:
        data = Path(task).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{task}: {error.strerror}. Download MediaPipe's face_landmarker.task and give its path."
        ) from error
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "MediaPipe is not installed. Install it with: pip install -c constraints.txt mediapipe"
        ) from error
    return {"version": version, "sha256": hashlib.sha256(data).hexdigest()}


def vector(scores: Mapping[str, float]) -> np.ndarray:
    """Return float32[52] from MediaPipe's scores by name, 0 for ``tongueOut``; ``_neutral`` is ignored.

    Raises:
        ModelError: the names are not MediaPipe's.
    """
    if scores.keys() != set(arkit.MEDIAPIPE):
        odd = min(scores.keys() ^ set(arkit.MEDIAPIPE))
        raise ModelError(f"MediaPipe returned unexpected actions: {odd}. Use its face_landmarker.task.")
    return np.clip(arkit.vector({name: scores[name] for name in ACTIONS}), 0.0, 1.0)


def labels(by: str, **more: Any) -> dict[str, Any]:
    """Return what the recipe says about coefficients from MediaPipe."""
    return {"by": by, "unknown": list(UNKNOWN), "weak": list(WEAK), **more}


def labels_of(task: str | Path) -> dict[str, Any]:
    """Return the same for the installed MediaPipe with this ``.task`` file.

    Raises:
        ConfigError: the package is not installed, or the file is missing.
    """
    known = identity(task)
    return labels(f"MediaPipe {known['version']}", sha256=known["sha256"])


def collect_parts(paths: Sequence[Path], subject: str | None = None) -> list[ImagePart]:
    """Return the parts that pictures, folders and videos make: each video, and the pictures of each folder.

    Args:
        paths: folders are searched to any depth.
        subject: who is in all of them; by default the name of the folder that a file is in.

    Raises:
        SemanticFaceError: a path is missing, a folder is empty, or a single file does not say who is in it.
    """
    parts: list[ImagePart] = []
    for path in paths:
        found = list(_files(path))
        if not found:
            raise SemanticFaceError(f"{path}: no pictures or videos in this folder. Choose another.")
        pictures: dict[Path, list[Path]] = defaultdict(list)
        for file in found:
            if not subject and path.is_file():
                raise SemanticFaceError(f"{file}: the subject is unknown. Name it: --subject NAME")
            if file.suffix.lower() in VIDEO_SUFFIXES:
                parts.append(video_part(file, parse_subject(subject or file.resolve().parent.name)))
            else:
                pictures[file.parent].append(file)
        for folder, files in pictures.items():
            items = [LabelledImage(str(file), number, file) for number, file in enumerate(files, start=1)]
            parts += group_by_person(folder, {parse_subject(subject or folder.resolve().name): items}, {})
    return parts


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise SemanticFaceError(f"{path}: no such file or folder. Check the path.")
    for name, folders, files in os.walk(path):
        folders[:] = sorted(each for each in folders if each[0] != ".")
        for file in sorted(files):
            if file[0] != "." and Path(file).suffix.lower() in (*SUFFIXES, *VIDEO_SUFFIXES):
                yield Path(name) / file


@dataclass(frozen=True, slots=True)
class VideoPart:
    """A video of one person: every frame is predicted, then frames are selected as in takes.

    Attributes:
        name: for messages and pages.
        key: base name of its files.
        subject: who is in it.
        state: hash of the file's size and time.
        path: the file.
    """

    name: str
    key: str
    subject: str
    state: int
    path: Path

    def write(self, writer: ShardWriter, settings: PictureSettings, reader: Reader | None) -> PartResult:
        """Write the rows of the selected frames."""
        if reader is None:
            raise SemanticFaceError(f"{self.path}: a video has no saved coefficients. Import it with --mediapipe.")
        out = PartResult(paired="Read from the frames")
        take = open_take(self.path)
        # The spool never has a name, so no image is left behind, however this ends.
        with tempfile.TemporaryFile() as spool:
            faces = list(self._predict(take, settings, reader, out, spool))
            if take.shortfall:
                out.remarks.append(take.shortfall)
                out.broken = True
            if not faces:
                return out
            values = np.stack([face.values for face in faces])  # [N, 52]
            statuses = select_frames(values, estimate_rest(values), settings)
            clock = Clock(take.timecode_rate)
            indices = {status: [i for i, each in enumerate(statuses) if each == status] for status in MAX_THUMBNAILS}
            with_thumbnail = {
                i for status, most in MAX_THUMBNAILS.items() for i in evenly_spaced(indices[status], most)
            }
            for index, (face, status) in enumerate(zip(faces, statuses, strict=True)):
                out.counts[status] += 1
                if status != "kept" and index not in with_thumbnail:
                    continue
                spool.seek(face.start)
                with Image.open(io.BytesIO(spool.read(face.length)), formats=("JPEG",)) as opened:
                    crop = opened.convert("RGB")
                if status == "kept":
                    writer.add(
                        make_row(
                            crop,
                            face.box,
                            face.values,
                            subject=self.subject,
                            take=self.key,
                            frame=face.number,
                            emotion=settings.emotion,
                            timecode=clock.label(face.time),
                        )
                    )
                if index in with_thumbnail:
                    small = thumbnail(crop, Box(*face.box.tolist()))
                    out.thumbnails[status].append(Thumbnail(small, f"frame {face.number}", face.values))
        return out

    def _predict(
        self, take: Take, settings: PictureSettings, reader: Reader, out: PartResult, spool: Any
    ) -> Iterator[_SpooledFace]:
        tracker = FaceTracker()
        start = 0
        for frame in tqdm(take.frames(), total=take.count, unit="frame", leave=False, desc=self.name):
            at = f"{self.path}, frame {frame.number}"
            if frame.number > MAX_FRAMES:
                break
            if frame.picture is None:
                out.leave_out("damaged frame", f"{at}: {frame.reason}")
                continue
            face: Box | None = Box(0, 0, *frame.picture.size)
            if settings.crop == "find":
                seen = tracker.update(frame.picture, float(frame.time))
                face = seen.box
                if seen.note:
                    out.remarks.append(f"{at}: {seen.note}")
            if face is None:
                out.leave_out("no face", f"{at}: no face found. Left out.")
                continue
            crop, box = crop_with_context(frame.picture, face, settings.size, settings.context)
            values = reader(crop)
            if values is None:
                out.leave_out("no face", f"{at}: {settings.labels['by']} finds no face in the crop. Left out.")
                continue
            data = encode_jpeg(crop)
            spool.write(data)
            yield _SpooledFace(frame.number, frame.time, start, len(data), box, values)
            start += len(data)


@dataclass(frozen=True, slots=True, eq=False)
class _SpooledFace:
    """A crop in the spool file, at bytes ``start`` to ``start + length``, and its coefficients."""

    number: int
    time: Fraction
    start: int
    length: int
    box: np.ndarray
    values: np.ndarray


def video_part(path: Path, subject: str) -> VideoPart:
    """Return the part that a video makes."""
    status = path.stat()
    key = part_key(f"{path.stem}-{subject}", f"{path.resolve()}\n{subject}")
    return VideoPart(path.name, key, subject, hash_state(str(status.st_size), str(status.st_mtime_ns)), path)
