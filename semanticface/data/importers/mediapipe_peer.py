"""MediaPipe's Face Landmarker, asked about the same pictures as our models, so that both can be measured alike.

MediaPipe (Apache-2.0) is no dependency of this package, and its model file does not come with it: ``pip install
mediapipe`` and the ``face_landmarker.task`` that MediaPipe's users download are needed where this is used. It runs with
its own defaults, for still pictures and one face.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface import arkit
from semanticface.errors import ConfigError, ModelError

PACKAGE = "mediapipe"
ACTIONS: tuple[str, ...] = tuple(name for name in arkit.NAMES if name in arkit.MEDIAPIPE)
"""What it answers, in the project's order: all but ``tongueOut``."""


class FaceLandmarker:
    """MediaPipe with one ``.task`` file; a context manager, to be left before the program ends.

    Args:
        task: the bundle, such as ``face_landmarker.task``.

    Attributes:
        identity: the package's version and the sha256 of the bundle: the same identity gives the same answers.

    Raises:
        ConfigError: the package is not installed, or there is no such file.
        ModelError: MediaPipe does not take the file.
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
                f"MediaPipe does not take {path}: {error}. Give the face_landmarker.task that it publishes."
            ) from error
        self._wrap = lambda pixels: MediaPipeImage(image_format=ImageFormat.SRGB, data=pixels)

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def read(self, picture: Image.Image) -> np.ndarray | None:
        """Return float32[52] in [0, 1], 0 at ``tongueOut``, which it does not have; None where it finds no face."""
        found = self._landmarker.detect(self._wrap(np.ascontiguousarray(picture.convert("RGB")))).face_blendshapes
        return vector({each.category_name: each.score for each in found[0]}) if found else None


def identity(task: str | Path) -> dict[str, str]:
    """Return what MediaPipe's answers depend on: ``version`` of the package and ``sha256`` of the bundle.

    Raises:
        ConfigError: the package is not installed, or there is no such file.
    """
    try:
        data = Path(task).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{task}: {error.strerror}. Download MediaPipe's face_landmarker.task and name its place."
        ) from error
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigError(
            "MediaPipe is not installed. Install it with: pip install -c constraints.txt mediapipe"
        ) from error
    return {"version": version, "sha256": hashlib.sha256(data).hexdigest()}


def vector(scores: Mapping[str, float]) -> np.ndarray:
    """Return float32[52] from MediaPipe's scores by name, 0 at ``tongueOut``; ``_neutral`` is left aside.

    Raises:
        ModelError: other names than MediaPipe's.
    """
    if scores.keys() != set(arkit.MEDIAPIPE):
        odd = min(scores.keys() ^ set(arkit.MEDIAPIPE))
        raise ModelError(f"MediaPipe's answer has other actions than expected: {odd}. Use its face_landmarker.task.")
    return np.clip(arkit.vector({name: scores[name] for name in ACTIONS}), 0.0, 1.0)
