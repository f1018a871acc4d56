"""Predictions shown: each row's picture beside the head drawn from its numbers, as a sheet or as a video.

A row whose picture is not there, and a picture without an answer, get a grey panel that says why, in their own place.
Heads are drawn on several threads: the renderer's loops run beside each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semanticface.errors import PictureError, SemanticFaceError, TableError, VideoError
from semanticface.evaluation.compare_sources import ShownRow, find_take, frames_of, locate, read_rows
from semanticface.rendering import STYLES, render
from semanticface.utils.files import atomic_path
from semanticface.utils.prefetch import prefetch
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import crop_face
from semanticface.vision.face_detector import detect_faces
from semanticface.vision.image_io import load_picture
from semanticface.vision.video_reader import Take
from semanticface.vision.video_writer import write_video

SHEETS, FILMS = (".png", ".jpg", ".jpeg"), (".mp4",)

_INK, _PAPER, _GREY, _BLACK = (40, 40, 40), (255, 255, 255), (226, 226, 226), (0, 0, 0)
_MARGIN = 10
_COLUMNS = 4
_WIDEST = 2  # heads wide: what is wider gets black bars
_THREADS = min(8, os.cpu_count() or 1)
_FRAMES_AHEAD = 4
_LONG_WORD = 24  # letters: a longer one is a path or a name, which is cut anywhere


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What stands beside each other at one moment.

    Attributes:
        name: of the picture, for the caption.
        picture: the input; None where ``missing`` says why.
        missing: why there is no picture.
        row: what was predicted; None where the file has nothing for this picture.
        time: seconds from the first.
    """

    name: str
    picture: Image.Image | None
    missing: str
    row: ShownRow | None
    time: Fraction = Fraction(0)

    @property
    def why_no_head(self) -> str:
        """Why nothing can be drawn beside the picture, in a sentence."""
        if self.row is None:
            return "no row for this frame"
        return self.row.reason.removeprefix(f"{self.row.name}: ")


@dataclass(frozen=True, slots=True)
class ComparedFrame:
    """What became of it: rows (or frames) shown, how many of them lack picture or head."""

    shown: int
    lacking: int


class Show:
    """A predictions file, ready to be shown.

    Args:
        file: what ``recording.read`` reads.
        complain: is told, in a sentence, of each row that cannot be shown whole and of what is not certain.
        video: that the rows are of; found by the file where it names it.
        folder: where pictures lie, if neither where the file says nor beside it.
        style: one of ``face.STYLES``.

    Raises:
        TableError: no such file, no rows, or rows whose frames cannot be known.
        SemanticFaceError: an unknown look, a video that cannot be found or read.
    """

    def __init__(
        self,
        file: Path,
        complain: Callable[[str], None],
        *,
        video: Path | None = None,
        folder: Path | None = None,
        style: str = "photo",
    ) -> None:
        if style not in STYLES:
            raise SemanticFaceError(f"{style}: no such look. Choose one of {', '.join(STYLES)}.")
        self._file, self._complain, self._folder, self._look = file, complain, folder, style
        self._rows = read_rows(file)
        if not self._rows:
            raise TableError(f"{file}: no rows below the header. Give a file with coefficients.")
        self.take = find_take(file, self._rows, video, folder)
        """The video or folder of frames that the rows are of; None for rows of single pictures."""
        self._frames = None if self.take is None else frames_of(file, self._rows, self.take, complain)
        self._names: dict[Path, str] = {}  # of pictures that were found: without their folders, two may be alike

    def inputs(self) -> list[Path]:
        """Return the pictures, or the video, that are read: what is written must be none of them."""
        if self.take is not None:
            return [self.take.path]
        found = (locate(row.name, self._file, self._folder) for row in self._rows)
        return [path for path in found if path is not None]

    def sheet(self, out: Path, *, size: int = 224, most: int = 24) -> ComparedFrame:
        """Write a picture of up to ``most`` rows, spread evenly over the file: input, head, name and words of each.

        The input is cut to where the model looked; where the file does not say, to the face found in it.

        Args:
            out: ends in one of ``SHEETS``.
            size: pixels a side of each picture.
            most: rows.

        Raises:
            SemanticFaceError: no room to write, or a video that cannot be read.
        """
        places = np.linspace(0, len(self._rows) - 1, min(most, len(self._rows))).round().astype(int).tolist()
        scenes = self._of_pictures(places, size) if self._frames is None else self._of_frames(places, size)
        cells, lacking = [], 0
        for scene, head in self._with_heads(tqdm(scenes, total=len(places), unit="row"), size):
            lacking += self._lacks(scene)
            cells.append(_cell(scene, head, size))
        with atomic_path(out) as temporary:
            _grid(cells).save(temporary, quality=92)
        return ComparedFrame(len(cells), lacking)

    def film(self, out: Path, *, size: int = 360, rate: Fraction = Fraction(1)) -> ComparedFrame:
        """Write a video: every frame (or picture) of the input on the left, its head on the right, a caption below.

        Times are those of the input video. It has no sound.

        Args:
            out: ends in one of ``FILMS``.
            size: pixels a side of the head, and the height of the input.
            rate: pictures a second, of rows that are not of a video.

        Raises:
            SemanticFaceError: no room to write, or a video that cannot be read.
        """
        size += size % 2
        scenes = self._slides(rate, size) if self.take is None else self._moments(self.take, size)
        total = len(self._rows) if self.take is None else self.take.count
        width = size if self.take is None else self._width(self.take, size)
        shown, lacking = 0, 0
        with write_video(out, rate if self.take is None else self.take.rate) as film:
            for scene, head in self._with_heads(tqdm(scenes, total=total, unit="frame"), size):
                film.add(scene.time, _side_by_side(scene, head, size, width))
                lacking += self._lacks(scene)
                shown += 1
        if self._frames is not None:
            beyond = sum(frame is None or frame > shown for frame in self._frames)
            if beyond:
                self._complain(f"{self._file}: {beyond} rows are of no frame of {self.take and self.take.path}")
            lacking += beyond
        if self.take is not None and self.take.shortfall:
            self._complain(self.take.shortfall)
        return ComparedFrame(shown, lacking)

    # --- what stands beside each other ----------------------------------------------------------------------------

    def _of_pictures(self, places: Sequence[int], size: int | None, rate: Fraction = Fraction(1)) -> Iterator[Scene]:
        """Yield rows with their pictures, cut to the face where a size is given."""
        for place in places:
            row = self._rows[place]
            picture, missing = self._picture(row)
            if picture is not None and size is not None:
                picture = _face(picture, row, size)
            yield Scene(row.name, picture, missing, row, place / rate)

    def _picture(self, row: ShownRow) -> tuple[Image.Image | None, str]:
        path = locate(row.name, self._file, self._folder)
        if path is None or path.is_dir():
            return None, f"{row.name}: not found. Say where the pictures are: --pictures DIR"
        if (other := self._names.setdefault(path, row.name)) != row.name:
            return None, f"{row.name}: {path} is taken for {other}. Say where their folders are: --pictures DIR"
        try:
            return load_picture(path), ""
        except PictureError as error:
            return None, str(error)

    def _of_frames(self, places: Sequence[int], size: int) -> Iterator[Scene]:
        """Yield rows with the faces cut from their frames."""
        assert self.take is not None and self._frames is not None
        wanted = {frame for place in places if (frame := self._frames[place]) is not None}
        scenes: dict[int, Scene] = {}
        by_frame: dict[int, list[int]] = {}
        for place in places:
            row, frame = self._rows[place], self._frames[place]
            scenes[place] = Scene(_stamp(row), None, f"no frame {frame or ''} in {self.take.path}", row)
            if frame is not None:
                by_frame.setdefault(frame, []).append(place)
        if wanted:
            first = min(wanted) - 1
            frames = islice(self.take.frames(first), first, max(wanted))
            for frame_seen in tqdm(frames, total=max(wanted) - first, unit="frame", desc="looking", leave=False):
                for place in by_frame.get(frame_seen.number, []):
                    row = self._rows[place]
                    picture = frame_seen.picture and _face(frame_seen.picture, row, size)
                    scenes[place] = Scene(_stamp(row), picture, frame_seen.reason, row)
        yield from (scenes[place] for place in places)

    def _slides(self, rate: Fraction, size: int) -> Iterator[Scene]:
        for scene in self._of_pictures(range(len(self._rows)), None, rate):
            yield _shrunk(scene, size)

    def _moments(self, take: Take, size: int) -> Iterator[Scene]:
        """Yield every frame of the video with its row."""
        assert self._frames is not None
        row_of: dict[int, ShownRow] = {}
        for row, frame in zip(self._rows, self._frames, strict=True):
            if frame is not None and row_of.setdefault(frame, row) is not row:
                self._complain(f"{self._file}: {row.name}: another row is of frame {frame} too. The first is shown.")
        for frame_seen in prefetch(take.frames(), depth=_FRAMES_AHEAD):
            row_seen = row_of.get(frame_seen.number)
            name = f"{take.path.name}, frame {frame_seen.number}, {float(frame_seen.time):.2f} s"
            yield _shrunk(Scene(name, frame_seen.picture, frame_seen.reason, row_seen, frame_seen.time), size)

    def _width(self, take: Take, size: int) -> int:
        """How wide the left side is, even: as the first frame that can be read has it."""
        for frame in take.frames():
            if frame.picture is not None:
                width = min(_WIDEST * size, round(frame.picture.width * size / frame.picture.height))
                return width + width % 2
        raise VideoError(f"{take.path}: no frame of it can be read. Export it again.")

    def _lacks(self, scene: Scene) -> bool:
        """Whether a row is not shown whole; says why."""
        if scene.row is None:
            return False
        told = [scene.missing] if scene.picture is None else []
        told += [scene.row.reason] if scene.row.values is None else []
        for reason in told:
            self._complain(reason)
        return bool(told)

    def _with_heads(self, scenes: Iterable[Scene], size: int) -> Iterator[tuple[Scene, np.ndarray | None]]:
        """Yield each scene with its head, uint8[size, size, 3], in order; the next ones are drawn meanwhile."""

        def draw(values: np.ndarray) -> np.ndarray:
            return render(values, style=self._look, subject=None, size=size, framing="crop").image

        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[tuple[Scene, Future[np.ndarray] | None]] = deque()
            try:
                for scene in scenes:
                    values = None if scene.row is None else scene.row.values
                    waiting.append((scene, None if values is None else pool.submit(draw, values)))
                    if len(waiting) > 2 * _THREADS:
                        done, head = waiting.popleft()
                        yield done, None if head is None else head.result()
                for done, head in waiting:
                    yield done, None if head is None else head.result()
            finally:
                pool.shutdown(cancel_futures=True)


# --- drawing ------------------------------------------------------------------------------------------------------


def _face(picture: Image.Image, row: ShownRow, size: int) -> Image.Image:
    """Cut out where the model looked, or the face that is found; a picture without one stays whole."""
    try:
        box = row.box or next(iter(detect_faces(picture)), None)
        if box is not None:
            return crop_face(picture, box, size)
    except PictureError:
        pass
    return picture


def _shrunk(scene: Scene, size: int) -> Scene:
    """Keep no more pixels than are shown: scenes wait for their heads."""
    if scene.picture is None:
        return scene
    return replace(scene, picture=_within(scene.picture, _WIDEST * size, size))


def _within(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as large as it fits, at least a pixel wide and high."""
    scale = min(width / picture.width, height / picture.height)
    fitted = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture if fitted == picture.size else picture.resize(fitted, Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # so it is wherever Pillow has FreeType, as its wheels have
    return font


def _cell(scene: Scene, head: np.ndarray | None, size: int) -> Image.Image:
    """Input and head side by side, name and words below."""
    font = _font(12)
    cell = Image.new("RGB", (2 * size, size + 36), _PAPER)
    _halves(cell, scene, head, size, size, font, _PAPER)
    pen = ImageDraw.Draw(cell)
    for line, text in enumerate((Path(scene.name).name, scene.row.words if scene.row else "")):
        pen.text((2, size + 2 + 16 * line), _cut(text, 2 * size - 4, pen, font), fill=_INK, font=font)
    return cell


def _side_by_side(scene: Scene, head: np.ndarray | None, size: int, width: int) -> np.ndarray:
    """One frame of a film, uint8[h, w, 3], both even."""
    font = _font(max(10, size // 24))
    strip = 2 * max(10, size // 24)
    canvas = Image.new("RGB", (width + size, size + strip), _BLACK)
    _halves(canvas, scene, head, size, width, font, _BLACK)
    pen = ImageDraw.Draw(canvas)
    sides = ((0, width, Path(scene.name).name), (width, size, scene.row.words if scene.row else ""))
    for left, room, text in sides:
        pen.text((left + 4, size + strip // 5), _cut(text, room - 8, pen, font), fill=_PAPER, font=font)
    return np.asarray(canvas)


def _halves(
    canvas: Image.Image,
    scene: Scene,
    head: np.ndarray | None,
    size: int,
    width: int,
    font: ImageFont.FreeTypeFont,
    ground: tuple[int, int, int],
) -> None:
    """Draw the input, ``width`` wide, and the head to the right of it; or why they are not there."""
    if scene.picture is None:
        canvas.paste(_note(scene.missing, width, size, font), (0, 0))
    else:
        shown = _within(scene.picture, width, size)
        canvas.paste(ground, (0, 0, width, size))
        canvas.paste(shown, ((width - shown.width) // 2, (size - shown.height) // 2))
    right = _note(scene.why_no_head, size, size, font) if head is None else Image.fromarray(head)
    canvas.paste(right, (width, 0))


def _note(text: str, width: int, height: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """A grey panel with a text, broken into lines."""
    panel = Image.new("RGB", (width, height), _GREY)
    pen = ImageDraw.Draw(panel)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) <= width - 16:
            lines[-1] = longer
        else:
            lines.append(_cut(word, width - 16, pen, font))
    room = (height - 8) // (sum(font.getmetrics()) + 4)  # 4 is Pillow's own spacing
    pen.multiline_text((width / 2, height / 2), "\n".join(lines[:room]).strip(), _INK, font, "mm", align="center")
    return panel


def _cut(text: str, room: float, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont) -> str:
    """The text as far as there is room, in pixels; what is cut off ends in dots."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= room:
        return text
    while text and pen.textlength(f"{text} ...", font=font) > room:
        text = text[:-1]
    words, _, rest = text.rpartition(" ")
    return f"{words if len(rest) < _LONG_WORD else text} ..."


def _grid(cells: Sequence[Image.Image]) -> Image.Image:
    columns = min(_COLUMNS, len(cells))
    width, height = cells[0].width + _MARGIN, cells[0].height + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, -(-len(cells) // columns) * height + _MARGIN), _PAPER)
    for number, cell in enumerate(cells):
        sheet.paste(cell, (_MARGIN + number % columns * width, _MARGIN + number // columns * height))
    return sheet


def _stamp(row: ShownRow) -> str:
    """A row's name with its timecode, where the name is not that already."""
    return f"{row.name}, {row.timecode}" if row.timecode and row.timecode != row.name else row.name
