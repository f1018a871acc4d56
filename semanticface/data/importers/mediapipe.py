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
    Reading,
    group_by_person,
    hash_state,
    parse_subject,
    part_key,
)
from semanticface.errors import ConfigError, ModelError, SemanticFaceError
from semanticface.rendering.types import POINTS
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


ARKIT_SCALE: dict[str, tuple[float, float]] = {
    "jawOpen": (1.03, 0.0), "jawLeft": (1.64, 0.0), "jawRight": (0.51, 0.02), "mouthLeft": (1.02, 0.0),
    "mouthRight": (1.66, 0.0), "mouthPucker": (0.74, 0.04), "mouthSmile": (0.82, 0.0), "mouthUpperUp": (0.43, 0.04),
    "mouthLowerDown": (2.84, 0.15), "mouthShrugLower": (1.17, 0.08), "browInnerUp": (0.89, 0.0),
    "browDown": (2.99, 0.02), "browOuterUp": (0.75, -0.08), "eyeBlink": (1.02, -0.04), "eyeWide": (6.8, 0.05),
    "eyeLookUp": (1.0, 0.0), "eyeLookDown": (1.0, 0.0), "eyeLookIn": (1.0, 0.0), "eyeLookOut": (1.0, 0.0),
}  # fmt: skip
"""Scale and offset that turn MediaPipe's numbers into ARKit's, of the actions in which the two agree.

Measured on 6,653 frames of one person that an iPhone recorded with its own coefficients: a correlation of at least 0.7,
and gaze, which that person hardly moved and which is taken as it is. The others say little about ARKit's.
"""
_TRAINED_SCALE = ARKIT_SCALE | {
    "jawOpen": (1.03, 0.03), "mouthRight": (1.66, 0.02), "browOuterUp": (0.75, -0.04), "eyeWide": (4.0, 0.03),
    "mouthLowerDown": (2.4, 0.05),
}  # fmt: skip
"""What models are trained on: as in the pilot, with gentler slopes and offsets where small scores are mostly noise."""


def _by_action(scales: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return scales by full name: ``mouthSmile`` stands for both sides."""
    found = {name: scales.get(name) or scales.get(arkit.stem(name)) for name in arkit.NAMES}
    return {name: scale for name, scale in found.items() if scale is not None}


BELIEVED = _by_action(ARKIT_SCALE)
"""``ARKIT_SCALE`` by action."""

_GROUPS = 10
"""Groups of a collection."""

_PITCH_OFFSET = 5.9
"""Degrees that MediaPipe's upright head looks down where the renderer's looks straight ahead; over 60 renders."""


def to_arkit(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return MediaPipe's coefficients [..., 52] as models learn them, and bool[52], which of them mean anything."""
    scales = _by_action(_TRAINED_SCALE)
    scale, offset = (arkit.vector({name: both[k] for name, both in scales.items()}) for k in range(2))
    return np.clip(coefficients * scale + offset, 0.0, 1.0), scale > 0


MESH: dict[str, tuple[int, ...]] = {
    "browRight1": (107, 55), "browRight2": (66, 65), "browRight3": (105, 52), "browRight4": (63, 53),
    "browRight5": (70, 46), "browLeft1": (336, 285), "browLeft2": (296, 295), "browLeft3": (334, 282),
    "browLeft4": (293, 283), "browLeft5": (300, 276),
    "eyeRightOuter": (33,), "eyeRightUpperOuter": (160,), "eyeRightUpperInner": (158,), "eyeRightInner": (133,),
    "eyeRightLowerInner": (153,), "eyeRightLowerOuter": (144,), "irisRight": (468,),
    "eyeLeftOuter": (263,), "eyeLeftUpperOuter": (387,), "eyeLeftUpperInner": (385,), "eyeLeftInner": (362,),
    "eyeLeftLowerInner": (380,), "eyeLeftLowerOuter": (373,), "irisLeft": (473,),
    "noseBridge": (168,), "noseMiddle": (197,), "noseLow": (5,), "noseTip": (4,),
    "noseWingLeft": (358,), "nostrilLeft": (326,), "noseBase": (2,), "nostrilRight": (97,), "noseWingRight": (129,),
    "lipCornerLeft": (291,), "lipUpperLeft2": (270,), "lipUpperLeft1": (267,), "lipUpper": (0,),
    "lipUpperRight1": (37,), "lipUpperRight2": (40,), "lipCornerRight": (61,), "lipLowerRight2": (91,),
    "lipLowerRight1": (181,), "lipLower": (17,), "lipLowerLeft1": (405,), "lipLowerLeft2": (321,),
    "mouthCornerLeft": (308,), "mouthUpperLeft": (311,), "mouthUpper": (13,), "mouthUpperRight": (81,),
    "mouthCornerRight": (78,), "mouthLowerRight": (178,), "mouthLower": (14,), "mouthLowerLeft": (402,),
    "chin": (152,), "jawRight1": (176,), "jawRight2": (149, 150), "jawRight3": (136,), "jawRight4": (58, 132),
    "jawLeft1": (400,), "jawLeft2": (378, 379), "jawLeft3": (365,), "jawLeft4": (288, 361),
}  # fmt: skip
"""Vertices of MediaPipe's face mesh (478, irises included) whose mean lies at one of ``POINTS``; the cheeks have none.

On 60 renders, where both are known, their median distance is 2 % of the face's box.
"""


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
            base_options=BaseOptions(model_asset_path=str(path)),
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            num_faces=1,
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
        found = self._detect(image)
        return None if found is None else _scores(found)

    def measure(self, image: Image.Image) -> Reading | None:
        """Return coefficients, landmarks and pose; None if MediaPipe finds no face."""
        found = self._detect(image)
        if found is None:
            return None
        coefficients = _scores(found)
        turned = matrix_degrees(np.asarray(found.facial_transformation_matrixes[0]))
        pose = arkit.pose_of(turned, arkit.gaze_degrees(coefficients))
        return Reading(coefficients, mesh_points(_mesh(found, image)[:, :2]), pose)

    def locate(self, image: Image.Image) -> tuple[np.ndarray, np.ndarray] | None:
        """Return MediaPipe's 478 landmarks, float32[478, 3] in pixels, and what ``read`` returns; None without a face.

        Depth has the scale of x and grows away from the camera.
        """
        found = self._detect(image)
        return None if found is None else (_mesh(found, image), _scores(found))

    def _detect(self, image: Image.Image) -> Any:
        """Return what MediaPipe found; None if that is no face."""
        found = self._landmarker.detect(self._wrap(np.ascontiguousarray(image.convert("RGB"))))
        return found if found.face_blendshapes else None


def _scores(found: Any) -> np.ndarray:
    return vector({each.category_name: each.score for each in found.face_blendshapes[0]})


def _mesh(found: Any, image: Image.Image) -> np.ndarray:
    points = np.array([(point.x, point.y, point.z) for point in found.face_landmarks[0]], np.float32)
    return points * np.array([image.width, image.height, image.width], np.float32)


def mesh_points(mesh: np.ndarray) -> np.ndarray:
    """Return ``POINTS`` from the vertices of MediaPipe's mesh, float32[478, 2] to float32[70, 2]; NaN without one."""
    out = np.full((len(POINTS), 2), np.nan, np.float32)
    for name, vertices in MESH.items():
        out[POINTS.index(name)] = mesh[list(vertices)].mean(axis=0)
    return out


def matrix_degrees(matrix: np.ndarray) -> tuple[float, float, float]:
    """Return yaw, pitch and roll, as ``arkit.pose_of`` takes them, of a facial transformation matrix [4, 4].

    MediaPipe's axes: x to the right of the picture, y up, z to the camera. Its rotation is a roll after a pitch after a
    yaw, as in ``rendering.camera.rotation_matrix``.
    """
    rotation = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    yaw = np.arctan2(-rotation[2, 0], rotation[2, 2])
    pitch = -np.arcsin(np.clip(rotation[2, 1], -1, 1))
    roll = -np.arctan2(-rotation[0, 1], rotation[1, 1])
    return float(np.degrees(yaw)), float(np.degrees(pitch)) + _PITCH_OFFSET, float(np.degrees(roll))


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


def collect_parts(
    paths: Sequence[Path], subject: str | None = None, *, collection: str | None = None
) -> list[ImagePart]:
    """Return the parts that pictures, folders and videos make: each video, and the pictures of each folder.

    Args:
        paths: folders are searched to any depth.
        subject: who is in all of them; by default the name of the folder that a file is in.
        collection: name of a collection of pictures of unnamed people, each of whom is in one picture. They form ten
            groups by the names of their files, and a group is in one split.

    Raises:
        SemanticFaceError: a path is missing, a folder is empty, or a single file does not say who is in it.
    """
    parts: list[ImagePart] = []
    groups: dict[str, list[LabelledImage]] = defaultdict(list)
    for path in paths:
        found = list(_files(path))
        if not found:
            raise SemanticFaceError(f"{path}: no pictures or videos in this folder. Choose another.")
        pictures: dict[Path, list[Path]] = defaultdict(list)
        for file in found:
            if collection:
                if file.suffix.lower() in VIDEO_SUFFIXES:
                    raise SemanticFaceError(f"{file}: a video is no picture of a collection. Import it on its own.")
                group = hash_state(file.name) % _GROUPS
                groups[f"{collection}#{group}"].append(
                    LabelledImage(str(file), len(groups[f"{collection}#{group}"]) + 1, file)
                )
                continue
            if not subject and path.is_file():
                raise SemanticFaceError(f"{file}: the subject is unknown. Name it: --subject NAME")
            if file.suffix.lower() in VIDEO_SUFFIXES:
                parts.append(video_part(file, parse_subject(subject or file.resolve().parent.name)))
            else:
                pictures[file.parent].append(file)
        for folder, files in pictures.items():
            items = [LabelledImage(str(file), number, file) for number, file in enumerate(files, start=1)]
            parts += group_by_person(folder, {parse_subject(subject or folder.resolve().name): items}, {})
    return parts + [part for who in sorted(groups) for part in group_by_person(paths[0], {who: groups[who]}, {})]


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
            values = np.stack([face.reading.coefficients for face in faces])  # [N, 52]
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
                            face.reading.coefficients,
                            subject=self.subject,
                            take=self.key,
                            frame=face.number,
                            emotion=settings.emotion,
                            timecode=clock.label(face.time),
                            pose=face.reading.pose,
                            points=face.reading.points,
                        )
                    )
                if index in with_thumbnail:
                    small = thumbnail(crop, Box(*face.box.tolist()))
                    out.thumbnails[status].append(Thumbnail(small, f"frame {face.number}", face.reading.coefficients))
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
            reading = reader(crop)
            if reading is None:
                out.leave_out("no face", f"{at}: {settings.labels['by']} finds no face in the crop. Left out.")
                continue
            data = encode_jpeg(crop)
            spool.write(data)
            yield _SpooledFace(frame.number, frame.time, start, len(data), box, reading)
            start += len(data)


@dataclass(frozen=True, slots=True, eq=False)
class _SpooledFace:
    """A crop in the spool file, at bytes ``start`` to ``start + length``, and what was read from it."""

    number: int
    time: Fraction
    start: int
    length: int
    box: np.ndarray
    reading: Reading


def video_part(path: Path, subject: str) -> VideoPart:
    """Return the part that a video makes."""
    status = path.stat()
    key = part_key(f"{path.stem}-{subject}", f"{path.resolve()}\n{subject}")
    return VideoPart(path.name, key, subject, hash_state(str(status.st_size), str(status.st_mtime_ns)), path)
