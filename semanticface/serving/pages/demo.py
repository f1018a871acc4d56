"""The page of ``semanticface demo`` and of Spaces: from an image or short clip to analysis, bars and a 3D head.

The page calls the methods of ``Demo``; each reply has everything to display. Uploads are part of the request: images
stay in memory, a clip's temporary file is deleted with its request, and nothing is stored for later requests.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from html import escape
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semanticface import __version__, arkit, assets
from semanticface.errors import PictureError, SemanticFaceError, VideoError
from semanticface.formats import gltf, live_link
from semanticface.formats.convert import convert
from semanticface.formats.gltf_head import animate_head, build_head
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.recording import CoefficientTrack, track
from semanticface.inference.predictor import Prediction, Predictor
from semanticface.inference.video import predict_take
from semanticface.models.files import display_name
from semanticface.semantics.expression import UNCLEAR
from semanticface.semantics.faithfulness import agreement
from semanticface.semantics.movements import RELAXED
from semanticface.serving.pages import local_page
from semanticface.vision import image_io
from semanticface.vision.image_io import load_picture
from semanticface.vision.timecode import UNREAL_RATES, Clock
from semanticface.vision.video_reader import SUFFIXES, Frame, Take, is_video, open_take

if TYPE_CHECKING:
    import gradio
    from PIL import Image

ASSETS = assets.path("demo")
EXAMPLES = (
    ("astronaut.jpg", "photograph"),
    ("photo-1.jpg", "rendered person"),
    ("photo-2.jpg", "rendered person"),
    ("toon-1.jpg", "cartoon"),
    ("toon-2.jpg", "cartoon"),
    ("drawn-1.jpg", "drawing"),
    ("clip.webm", "short clip"),
)
"""Files in ``assets/demo/examples`` and their kinds; their README has the sources."""
MAX_FRAMES = 600
"""Frames read of a clip: 20 seconds at 30 per second."""
MAX_BYTES = image_io.MAX_BYTES
"""Maximum size of an upload."""
RISE, HOLD = 0.4, 1.6
"""Seconds after which a single expression has risen from rest, and after which its animation ends."""

_BATCH_SIZE = 16
_MAX_NAME = 80
_REGION_WORDS = ("eye", "brow", "cheek", "nose", "mouth", "jaw", "tongue")


# --- clips ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClipReading:
    """The predictions of a clip.

    Attributes:
        jsonl: a line per frame, as ``semanticface predict --out X.jsonl`` writes it.
        csv: a Live Link Face recording of the frames with an answer.
        frames: number of frames read.
        failed: number of frames without an answer.
        note: remarks for the user; usually empty.
    """

    jsonl: str
    csv: str
    frames: int
    failed: int
    note: str


class _FirstFrames(Take):
    """The first ``MAX_FRAMES`` frames of a take, under another name, with a callback per frame."""

    def __init__(self, take: Take, name: str, on_frame: Callable[[int, int | None], None]) -> None:
        self._take, self._on_frame = take, on_frame
        count = None if take.count is None else min(take.count, MAX_FRAMES)
        super().__init__(Path(name), take.rate, count, take.identity)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        for frame in islice(self._take.frames(skip), MAX_FRAMES):
            self._on_frame(frame.number, self.count)
            yield dataclasses.replace(frame, reason=frame.reason.replace(str(self._take.path), str(self.path)))
        self.shortfall = self._take.shortfall.replace(str(self._take.path), str(self.path))


def read_clip(path: Path, name: str, predictor: Predictor, on_frame: Callable[[int, int | None], None]) -> ClipReading:
    """Read the first ``MAX_FRAMES`` frames of a video.

    Args:
        path: of the video.
        name: the clip's name in answers and errors.
        predictor: the model.
        on_frame: called with the number of each frame as it is read, and the number of frames if known.

    Raises:
        VideoError: not a readable video, no frame in it, or no face in any frame.
    """
    try:
        take = open_take(path)
        with tempfile.TemporaryDirectory(prefix="semanticface-clip-") as folder:
            rows, recording = Path(folder) / "clip.jsonl", Path(folder) / "clip.csv"
            # Unreal Engine misreads timecodes of other rates.
            clock = Clock(take.timecode_rate if take.timecode_rate in UNREAL_RATES else Fraction(60))
            report = predict_take(
                _FirstFrames(take, name, on_frame), rows, predictor, clock=clock, batch_size=_BATCH_SIZE
            )
            if report.failed == report.frames:
                if "no face found" in report.remarks[0]:  # its fix is for the command line
                    raise VideoError(f"{name}: no face found. Try a clip in which the face is larger and not covered.")
                raise VideoError(f"{name}: {report.remarks[0].removeprefix(f'{name}, ')}")
            convert(rows, recording, "livelink", None, lambda _: None, note=lambda _: None)
            jsonl, csv = rows.read_text(encoding="utf-8"), recording.read_text(encoding="utf-8")
    except VideoError as error:
        raise VideoError(str(error).replace(str(path), name)) from error
    notes = []
    if take.count is not None and take.count > report.frames == MAX_FRAMES:
        notes.append(f"Only the first {MAX_FRAMES} of {take.count} frames were read.")
    if report.failed:
        notes.append(f"{report.failed} of {report.frames} frames have no answer.")
    return ClipReading(jsonl, csv, report.frames, report.failed, " ".join(notes))


# --- the head ---------------------------------------------------------------------------------------------------------


def head_at_rest() -> bytes:
    """Return the head without an animation, a .glb with 52 morph targets under their ARKit names."""
    return _head()[0]


def animated_head(track: CoefficientTrack, name: str) -> bytes:
    """Return the head animated by a track, as a .glb; a single row rises from rest and stays.

    Args:
        track: times [T] in seconds, coefficients [T, 52] and pose [T, 9].
        name: of the animation.
    """
    data, face, joints = _head()
    if len(track.times) == 1:
        values, pose = (np.concatenate([np.zeros_like(each), each, each]) for each in (track.values, track.pose))
        track = dataclasses.replace(track, times=np.array([0.0, RISE, HOLD]), values=values, pose=pose)
    with tempfile.TemporaryDirectory(prefix="semanticface-head-") as folder:
        path = Path(folder) / "head.glb"
        path.write_bytes(data)
        glb = gltf.read(path)
        animate_head(glb, face, joints, track, name)
        glb.write(path)
        return path.read_bytes()


@lru_cache(maxsize=1)
def _head() -> tuple[bytes, int, tuple[int, ...]]:
    head = build_head()
    with tempfile.TemporaryDirectory(prefix="semanticface-head-") as folder:
        path = Path(folder) / "head.glb"
        head.glb.write(path)
        return path.read_bytes(), head.face, head.joints


# --- the page ---------------------------------------------------------------------------------------------------------


class _LockedPredictor(Predictor):
    """Locks the model per batch, so that an image need not wait for the end of another user's clip."""

    def __init__(self, predictor: Predictor, lock: threading.RLock, *, emotion: bool) -> None:
        super().__init__(predictor.bundle, readout=predictor.readout, emotion=emotion)
        self._lock = lock

    def answer(self, *args: Any, **kwargs: Any) -> list[list[Prediction]]:
        with self._lock:
            return super().answer(*args, **kwargs)


class Demo:
    """The functions that the page calls; replies are JSON values.

    Args:
        predictor: the model.
        name: the model's displayed name.
        emotion: False omits the emotion, whatever the page requests.
    """

    def __init__(self, predictor: Predictor, name: str, *, emotion: bool = True) -> None:
        self.name = name
        self.emotion = emotion and predictor.bundle.recipe["emotion"]
        lock = threading.RLock()
        self._predictors = {
            each: _LockedPredictor(predictor, lock, emotion=each and self.emotion) for each in (True, False)
        }
        self._progress: dict[str, tuple[int, int | None]] = {}

    def setup(self) -> dict[str, Any]:
        """Return what the page needs on loading."""
        parameters = sum(each.numel() for each in self._predictors[False].bundle.model.parameters())
        return {
            "version": __version__,
            "model": self.name,
            "parameters": parameters,
            "emotion": self.emotion,
            "max_bytes": MAX_BYTES,
            "max_frames": MAX_FRAMES,
            "accept": ",".join(("image/png", "image/jpeg", "image/webp", "video/*", *SUFFIXES)),
            "relaxed": RELAXED,
            "unclear": UNCLEAR,
            "regions": {
                region: [_action(action) for action in arkit.ACTIONS if action.region == region]
                for region in arkit.REGIONS
            },
            "rotations": list(arkit.POSE_NAMES),
            "examples": [{"file": file, "kind": kind} for file, kind in EXAMPLES],
        }

    def head(self) -> str:
        """Return the head at rest, a .glb in base64."""
        return base64.b64encode(head_at_rest()).decode()

    def read(self, name: str, data: str, whole_image: bool, emotion: bool, job: str) -> dict[str, Any]:
        """Read a picture or a clip.

        Args:
            name: of the file.
            data: its content in base64.
            whole_image: use the whole picture as the face, without detection.
            emotion: include the emotional implication.
            job: the id under which ``progress`` reports a clip.

        Returns:
            ``status`` ``ok``, with ``kind`` ``picture`` or ``clip``, the downloads ``jsonl`` and ``csv`` as text,
            ``note`` and ``seconds``; otherwise ``status`` is an error code, with a sentence in ``reason``.
        """
        started = time.perf_counter()
        name = _display_name(name)
        predictor = self._predictors[emotion and self.emotion]
        try:
            answer = self._picture_or_clip(_decode(data, name), name, predictor, whole_image, job)
        except PictureError as error:
            return {"status": error.code, "reason": _reason(error, name)}
        except SemanticFaceError as error:
            return {"status": "unreadable", "reason": str(error)}
        return {"status": "ok", "name": name, **answer, "seconds": round(time.perf_counter() - started, 3)}

    def progress(self, job: str) -> list[int | None]:
        """Return the number of frames read of a clip, and their total if known."""
        return list(self._progress.get(job, (0, None)))

    def animation(self, name: str, jsonl: str) -> dict[str, str]:
        """Return the head animated by answers, a .glb in base64 under ``data``; or the ``reason`` why not."""
        with tempfile.TemporaryDirectory(prefix="semanticface-demo-") as folder:
            path = Path(folder) / "answer.jsonl"
            path.write_text(jsonl, encoding="utf-8")
            try:
                glb = animated_head(track(path, None, lambda _: None), Path(_display_name(name)).stem)
            except SemanticFaceError as error:
                return {"reason": str(error).replace(str(path), _display_name(name))}
        return {"data": base64.b64encode(glb).decode()}

    def _picture_or_clip(
        self, content: bytes, name: str, predictor: Predictor, whole_image: bool, job: str
    ) -> dict[str, Any]:
        try:
            picture = load_picture(content, name=name)
        except PictureError:
            with tempfile.TemporaryDirectory(prefix="semanticface-demo-") as folder:
                suffix = Path(name).suffix.lower()
                path = Path(folder) / f"upload{suffix if suffix in SUFFIXES else ''}"
                path.write_bytes(content)
                if not is_video(path):
                    raise
                return self._clip(path, name, predictor, job)
        return self._picture(picture, name, predictor, whole_image)

    def _picture(self, picture: Image.Image, name: str, predictor: Predictor, whole_image: bool) -> dict[str, Any]:
        (prediction,) = predictor([picture], crop="none" if whole_image else "auto")
        prediction = dataclasses.replace(prediction, image=name)
        if prediction.coefficients is None:
            raise PictureError(prediction.status, prediction.reason)
        jsonl = json.dumps(prediction.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"
        row = LiveLinkRow(
            "00:00:00:00.000",
            prediction.coefficients.astype(float),
            np.zeros(arkit.N_POSE) if prediction.pose is None else prediction.pose.astype(float),
        )
        csv = f"{live_link.HEADER}\n{live_link.format_row(row)}\n"
        return {"kind": "picture", "jsonl": jsonl, "csv": csv, "note": prediction.note, "checked": _checked(prediction)}

    def _clip(self, path: Path, name: str, predictor: Predictor, job: str) -> dict[str, Any]:
        def on_frame(number: int, count: int | None) -> None:
            self._progress[job] = number, count

        try:
            reading = read_clip(path, name, predictor, on_frame)
        finally:
            self._progress.pop(job, None)
        return {"kind": "clip", "jsonl": reading.jsonl, "csv": reading.csv, "note": reading.note}


def build(model: str = "nano", *, emotion: bool = True, device: str | None = None) -> gradio.Blocks:
    """Return the page with its model loaded; launch it with ``local_page.launch_options()``.

    Args:
        model: ``nano``, a folder or a hub id.
        emotion: False omits the emotion, and its switch on the page.
        device: such as ``cpu`` or ``cuda``; None uses a GPU if there is one.

    Raises:
        SemanticFaceError: Gradio is not installed, or the model cannot be loaded.
    """
    local_page.check_installed("demo")
    import gradio

    predictor = Predictor.from_pretrained(model, device=device, emotion=emotion)
    demo = Demo(predictor, display_name(model), emotion=emotion)
    # Warm up: the head is built once, and a model's first answer is its slowest.
    head_at_rest()
    first = (ASSETS / "examples" / EXAMPLES[0][0]).read_bytes()
    demo.read(EXAMPLES[0][0], base64.b64encode(first).decode(), False, emotion, "")
    # The page's scripts, three.js and the examples: the only files that are served.
    gradio.set_static_paths([ASSETS])
    html, css, script = ((ASSETS / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    html = html.replace("%STYLE%", css).replace("%ASSETS%", escape(f"gradio_api/file={ASSETS.as_posix()}"))
    with gradio.Blocks(analytics_enabled=False, title="SemanticFace", fill_width=True) as blocks:
        gradio.HTML(html_template=html, js_on_load=script, apply_default_css=False)
        for function in (demo.setup, demo.head, demo.read, demo.progress, demo.animation):
            gradio.api(function, api_name=function.__name__, queue=False)
    return blocks


def _action(action: arkit.Action) -> dict[str, Any]:
    """Return an action for the page: its name, a label without region and side, and its mirror."""
    base = action.name if action.side == "both" else arkit.stem(action.name)
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in base).split()
    label = " ".join(words[1:] if words[0] in _REGION_WORDS else words) or "sideways"
    return {"name": action.name, "words": label, "side": action.side, "mirror": action.mirror, "facs": action.facs}


def _checked(prediction: Prediction) -> dict[str, Any] | None:
    """Return how many claims of the analysis agree with the coefficients."""
    if prediction.analysis is None or prediction.coefficients is None:
        return None
    found = agreement(prediction.analysis, prediction.coefficients)
    wrong = list(dict.fromkeys(claim.text for claim in found.contradicts))
    return {"holds": len(found.holds), "claims": len(found.holds) + len(found.contradicts), "wrong": wrong}


def _decode(data: str, name: str) -> bytes:
    if len(data) > (MAX_BYTES + 2) // 3 * 4:
        raise PictureError("file_too_large", f"{name}: larger than {MAX_BYTES // 2**20} MiB. Choose a smaller file.")
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise PictureError("damaged", f"{name}: the upload was incomplete. Choose it again.") from error


def _display_name(name: str) -> str:
    """Return the last part of a file's name, printable and shortened."""
    plain = "".join(letter for letter in name.replace("\\", "/").rsplit("/", 1)[-1] if letter.isprintable()).strip()
    stem, dot, suffix = plain.rpartition(".")
    return f"{(stem if dot else suffix)[:_MAX_NAME] or 'picture'}{dot}{suffix[:8] if dot else ''}"


def _reason(error: PictureError, name: str) -> str:
    if error.code == "no_face":
        return f"{name}: no face found. Try a picture in which the face is larger and not covered."
    return str(error)
