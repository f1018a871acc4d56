"""The demo: a picture, webcam frame or short clip in; words, bars and a head that can be turned out.

``build`` makes the page, for this machine and for a Space alike. The page asks few things of the server, and each reply
holds all that it shows: what is uploaded comes in the request itself, pictures stay in memory, a clip is deleted with
the request, and nothing is kept that a later one could ask for.

A short clip, read frame by frame for the demo: what ``predict`` writes of it, as text.

The head that the demo turns and plays: the project's plain head as glTF, at rest, and as somebody's animation.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
from semanticface.formats.gltf_head import build_head
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.recording import CoefficientTrack, track
from semanticface.inference.predictor import Prediction, Predictor, PreparedFace
from semanticface.inference.video import predict_take
from semanticface.models.files import display_name
from semanticface.semantics.expression import UNCLEAR
from semanticface.semantics.faithfulness import agreement
from semanticface.semantics.movements import RELAXED
from semanticface.serving.pages import local_page
from semanticface.vision.image_io import load_picture
from semanticface.vision.timecode import Clock
from semanticface.vision.video_reader import SUFFIXES, Frame, Take, is_video, open_take

if TYPE_CHECKING:
    import gradio
    from PIL import Image

MOST_FRAMES = 600
"""Frames of a clip that are read: 20 seconds at 30 a second."""

_BATCH = 16
_UNREAL = (Fraction(30000, 1001), Fraction(30), Fraction(60000, 1001), Fraction(60))  # rates in which it can count


@dataclass(frozen=True, slots=True)
class ClipReading:
    """What was read of a clip.

    Attributes:
        jsonl: a line for every frame, as ``semanticface predict --out X.jsonl`` writes it.
        csv: a Live Link Face recording of the frames that have an answer.
        frames: how many were read.
        failed: how many of them have no answer.
        note: what is worth knowing, in sentences; mostly empty.
    """

    jsonl: str
    csv: str
    frames: int
    failed: int
    note: str


class _Beginning(Take):
    """The first frames of a take, under another name, with somebody told of each."""

    def __init__(self, take: Take, name: str, told: Callable[[int, int | None], None]) -> None:
        self._take, self._told = take, told
        count = None if take.count is None else min(take.count, MOST_FRAMES)
        super().__init__(Path(name), take.rate, count, take.identity)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        for frame in islice(self._take.frames(skip), MOST_FRAMES):
            self._told(frame.number, self.count)
            yield dataclasses.replace(frame, reason=frame.reason.replace(str(self._take.path), str(self.path)))
        self.shortfall = self._take.shortfall.replace(str(self._take.path), str(self.path))


def read_clip(path: Path, name: str, predictor: Predictor, told: Callable[[int, int | None], None]) -> ClipReading:
    """Read the first ``MOST_FRAMES`` frames of a video.

    Args:
        path: of the video.
        name: by which answers and errors call it.
        predictor: the model.
        told: is given the number of each frame as it is taken up, and how many there are where that is known.

    Raises:
        VideoError: not a video that can be read, no frame in it, or no face in any.
    """
    try:
        take = open_take(path)
        with tempfile.TemporaryDirectory(prefix="semanticface-clip-") as folder:
            rows, recording = Path(folder) / "clip.jsonl", Path(folder) / "clip.csv"
            # Timecodes that Unreal Engine counts right, whatever the clip's own rate.
            clock = Clock(take.timecode_rate if take.timecode_rate in _UNREAL else Fraction(60))
            report = predict_take(_Beginning(take, name, told), rows, predictor, clock=clock, batch_size=_BATCH)
            if report.failed == report.frames:
                if "no face found" in report.remarks[0]:  # its fixes are those of the command line
                    raise VideoError(f"{name}: no face found. Try a clip in which the face is larger and not covered.")
                raise VideoError(f"{name}: {report.remarks[0].removeprefix(f'{name}, ')}")
            convert(rows, recording, "livelink", None, lambda _: None)
            jsonl, csv = rows.read_text(encoding="utf-8"), recording.read_text(encoding="utf-8")
    except VideoError as error:
        raise VideoError(str(error).replace(str(path), name)) from error
    notes = []
    if take.count is not None and take.count > report.frames == MOST_FRAMES:
        notes.append(f"Only the first {MOST_FRAMES} of {take.count} frames were read.")
    if report.failed:
        notes.append(f"{report.failed} of {report.frames} frames have no answer.")
    return ClipReading(jsonl, csv, report.frames, report.failed, " ".join(notes))


RISE, HOLD = 0.4, 1.6
"""Seconds in which a single expression comes up from rest, and after which its animation ends."""


def head_at_rest() -> bytes:
    """The head without an animation, as a .glb with 52 morph targets under their ARKit names."""
    return _built()[0]


def animated_head(track: CoefficientTrack, name: str) -> bytes:
    """The head with a recording as its animation, as a .glb; a single row comes up from rest and stays.

    Args:
        track: what the head does.
        name: of the animation.
    """
    data, face = _built()
    times, values = track.times, track.values
    if len(times) == 1:
        times = np.array([0.0, RISE, HOLD])
        values = np.concatenate([np.zeros_like(values), values, values])
    with tempfile.TemporaryDirectory(prefix="semanticface-head-") as folder:
        path = Path(folder) / "head.glb"
        path.write_bytes(data)
        glb = gltf.read(path)
        glb.animate(name, times, {face: values})
        glb.write(path)
        return path.read_bytes()


@lru_cache(maxsize=1)
def _built() -> tuple[bytes, int]:
    glb, face = build_head()
    with tempfile.TemporaryDirectory(prefix="semanticface-head-") as folder:
        path = Path(folder) / "head.glb"
        glb.write(path)
        return path.read_bytes(), face


MAX_BYTES = 64 * 2**20
"""A larger upload is refused unread; as large as pictures may be anywhere in the project."""
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
"""Files in ``assets/demo/examples`` and what they are; their README says where they come from."""

_LONGEST_NAME = 80
_FIRST_WORDS = ("eye", "brow", "cheek", "nose", "mouth", "jaw", "tongue")


class _InTurn(Predictor):
    """Reads batch after batch, whoever asks: nobody with a picture waits for the whole of another's clip."""

    def __init__(self, predictor: Predictor, turn: threading.RLock, *, emotion: bool) -> None:
        super().__init__(predictor.bundle, readout=predictor.readout, emotion=emotion)
        self._turn = turn

    def answer(self, looks: Sequence[PreparedFace], *settings: Any, **more: Any) -> list[list[Prediction]]:
        with self._turn:
            return super().answer(looks, *settings, **more)


class Demo:
    """What the page may ask; every reply is plain values for JSON.

    Args:
        predictor: the model, with emotion where the page may ask for it.
        name: of the model, to be shown.
        emotion: False leaves emotion out, whatever the page asks for.
    """

    def __init__(self, predictor: Predictor, name: str, *, emotion: bool = True) -> None:
        self.name = name
        self.emotion = emotion and predictor.bundle.recipe["emotion"]
        turn = threading.RLock()
        self._predictors = {
            wanted: _InTurn(predictor, turn, emotion=wanted and self.emotion) for wanted in (True, False)
        }
        self._progress: dict[str, tuple[int, int | None]] = {}

    def setup(self) -> dict[str, Any]:
        """Return what the page needs to know before anything was read."""
        parameters = sum(each.numel() for each in self._predictors[False].bundle.model.parameters())
        return {
            "version": __version__,
            "model": self.name,
            "parameters": parameters,
            "emotion": self.emotion,
            "max_bytes": MAX_BYTES,
            "max_frames": MOST_FRAMES,
            "accept": ",".join(("image/png", "image/jpeg", "image/webp", "video/*", *SUFFIXES)),
            "relaxed": RELAXED,
            "unclear": UNCLEAR,
            "regions": {
                region: [_action(action) for action in arkit.ACTIONS if action.region == region]
                for region in arkit.REGIONS
            },
            "examples": [{"file": file, "kind": kind} for file, kind in EXAMPLES],
        }

    def head(self) -> str:
        """Return the head at rest, a .glb in base64."""
        return base64.b64encode(head_at_rest()).decode()

    def read(self, name: str, data: str, whole: bool, emotion: bool, job: str) -> dict[str, Any]:
        """Read a picture or a clip.

        Args:
            name: of the file.
            data: its content in base64.
            whole: take the whole picture for the face, as where none was found.
            emotion: say what the face suggests that somebody feels.
            job: by which ``progress`` tells how far a clip is.

        Returns:
            ``status`` ``ok``, with ``kind`` ``picture`` or ``clip``, the downloads ``jsonl`` and ``csv`` as text,
            ``note`` and ``seconds``; else ``status`` as a short code, with a sentence in ``reason``.
        """
        began = time.perf_counter()
        name = _shown(name)
        predictor = self._predictors[emotion and self.emotion]
        try:
            content = _content(data, name)
            answer = self._picture_or_clip(content, name, predictor, whole, job)
        except PictureError as error:
            return {"status": error.code, "reason": _friendly(error, name)}
        except SemanticFaceError as error:
            return {"status": "unreadable", "reason": str(error)}
        return {"status": "ok", "name": name, **answer, "seconds": round(time.perf_counter() - began, 3)}

    def progress(self, job: str) -> list[int | None]:
        """Return how many frames of a clip were taken up, and of how many where that is known."""
        return list(self._progress.get(job, (0, None)))

    def animation(self, name: str, jsonl: str) -> dict[str, str]:
        """Return the head animated by what was read, a .glb in base64 under ``data``; or the ``reason`` why not."""
        with tempfile.TemporaryDirectory(prefix="semanticface-demo-") as folder:
            path = Path(folder) / "answer.jsonl"
            path.write_text(jsonl, encoding="utf-8")
            try:
                glb = animated_head(track(path, None, lambda _: None), Path(_shown(name)).stem)
            except SemanticFaceError as error:
                return {"reason": str(error).replace(str(path), _shown(name))}
        return {"data": base64.b64encode(glb).decode()}

    def _picture_or_clip(
        self, content: bytes, name: str, predictor: Predictor, whole: bool, job: str
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
        return self._picture(picture, name, predictor, whole)

    def _picture(self, picture: Image.Image, name: str, predictor: Predictor, whole: bool) -> dict[str, Any]:
        (said,) = predictor([picture], crop="none" if whole else "auto")
        said = dataclasses.replace(said, image=name)
        if said.coefficients is None:
            raise PictureError(said.status, said.reason)
        jsonl = json.dumps(said.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"
        # Rotations of head and eyes are not predicted and stay 0, as in every recording that predict writes.
        row = LiveLinkRow("00:00:00:00.000", said.coefficients.astype(float), np.zeros(len(arkit.POSE_NAMES)))
        csv = f"{live_link.HEADER}\n{live_link.format_row(row)}\n"
        return {"kind": "picture", "jsonl": jsonl, "csv": csv, "note": said.note, "checked": _checked(said)}

    def _clip(self, path: Path, name: str, predictor: Predictor, job: str) -> dict[str, Any]:
        def told(number: int, count: int | None) -> None:
            self._progress[job] = number, count

        try:
            reading = read_clip(path, name, predictor, told)
        finally:
            self._progress.pop(job, None)
        return {"kind": "clip", "jsonl": reading.jsonl, "csv": reading.csv, "note": reading.note}


def build(model: str = "nano", *, emotion: bool = True, device: str | None = None) -> gradio.Blocks:
    """Return the page, with the model loaded; launch it with ``local_page.launch_options()``.

    Args:
        model: ``nano``, a folder or a hub id.
        emotion: False leaves emotion out, and the page's switch for it.
        device: such as ``cpu`` or ``cuda``; None takes a GPU where there is one.

    Raises:
        SemanticFaceError: Gradio is not installed, or the model cannot be loaded.
    """
    local_page.check_installed("demo")
    import gradio

    predictor = Predictor.from_pretrained(model, device=device, emotion=emotion)
    demo = Demo(predictor, display_name(model), emotion=emotion)
    # Done now, not while somebody waits for the page: the head is built, and a model's first answer is its slowest.
    head_at_rest()
    first = (ASSETS / "examples" / EXAMPLES[0][0]).read_bytes()
    demo.read(EXAMPLES[0][0], base64.b64encode(first).decode(), False, emotion, "")
    # The page's own scripts, three.js and the examples; nothing else of this machine can be asked for.
    gradio.set_static_paths([ASSETS])
    html, css, script = ((ASSETS / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    html = html.replace("%STYLE%", css).replace("%ASSETS%", escape(f"gradio_api/file={ASSETS.as_posix()}"))
    with gradio.Blocks(analytics_enabled=False, title="SemanticFace", fill_width=True) as blocks:
        gradio.HTML(html_template=html, js_on_load=script, apply_default_css=False)
        for function in (demo.setup, demo.head, demo.read, demo.progress, demo.animation):
            gradio.api(function, api_name=function.__name__, queue=False)
    return blocks


def _action(action: arkit.Action) -> dict[str, Any]:
    """Return what the page shows of an action: its name, in words without its region and side, and its partner."""
    base = action.name if action.side == "both" else action.name.removesuffix("Left").removesuffix("Right")
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in base).split()
    shown = " ".join(words[1:] if words[0] in _FIRST_WORDS else words) or "sideways"
    return {"name": action.name, "words": shown, "side": action.side, "mirror": action.mirror, "facs": action.facs}


def _checked(said: Prediction) -> dict[str, Any] | None:
    """Return how far the words hold for the numbers."""
    if said.analysis is None or said.coefficients is None:
        return None
    found = agreement(said.analysis, said.coefficients)
    wrong = list(dict.fromkeys(claim.text for claim in found.contradicts))
    return {"holds": len(found.holds), "claims": len(found.holds) + len(found.contradicts), "wrong": wrong}


def _content(data: str, name: str) -> bytes:
    if len(data) > (MAX_BYTES + 2) // 3 * 4:
        raise PictureError(
            "file_too_large",
            f"{name}: larger than {MAX_BYTES // 2**20} MiB. Give a smaller file.",
        )
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:
        raise PictureError("damaged", f"{name}: did not arrive whole. Choose it again.") from error


def _shown(name: str) -> str:
    """Return the last part of a file's name, without what cannot be printed, cut to what fits a sentence."""
    plain = "".join(letter for letter in name.replace("\\", "/").rsplit("/", 1)[-1] if letter.isprintable()).strip()
    stem, dot, suffix = plain.rpartition(".")
    return f"{(stem if dot else suffix)[:_LONGEST_NAME] or 'picture'}{dot}{suffix[:8] if dot else ''}"


def _friendly(error: PictureError, name: str) -> str:
    if error.code == "no_face":
        return f"{name}: no face found. Try a picture in which the face is larger and not covered."
    return str(error)
