"""Predictions next to their inputs: each row's picture and the head rendered from it, as a sheet or as a video.

A missing picture or answer becomes a grey panel that says why. Heads are rendered on several threads, since the
renderer's loops release the GIL.
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
from semanticface.vision.face_detector import detect_faces, main_face
from semanticface.vision.image_io import load_picture
from semanticface.vision.video_reader import Take
from semanticface.vision.video_writer import write_video

SHEETS, VIDEOS = (".png", ".jpg", ".jpeg"), (".mp4",)

_INK, _PAPER, _GREY, _BLACK = (40, 40, 40), (255, 255, 255), (226, 226, 226), (0, 0, 0)
_MARGIN = 10
_COLUMNS = 4
_WIDEST = 2  # in heads: a wider input is letterboxed
_THREADS = min(8, os.cpu_count() or 1)
_FRAMES_AHEAD = 4
_LONG_WORD = 24  # letters: a longer word is a path or a name, which may be cut anywhere


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One input and its prediction.

    Attributes:
        name: of the picture, for the caption.
        picture: the input; None if ``missing`` says why.
        missing: why there is no picture.
        row: the prediction; None if the file has none for this picture.
        time: seconds from the first.
    """

    name: str
    picture: Image.Image | None
    missing: str
    row: ShownRow | None
    time: Fraction = Fraction(0)

    @property
    def why_no_head(self) -> str:
        """Why there is no head to render."""
        if self.row is None:
            return "no row for this frame"
        return self.row.reason.removeprefix(f"{self.row.name}: ")


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows (or frames) shown, and how many rows lack a picture or an answer."""

    shown: int
    incomplete: int


class Comparison:
    """The rows of a predictions file and their inputs.

    Args:
        file: what ``recording.read`` reads.
        warn: called with a sentence for each incomplete row and each uncertain assignment.
        video: the video of the rows; by default the one that the file names.
        folder: where pictures are, if neither at their path nor next to the file.
        style: one of ``rendering.STYLES``.
        frontal: whether heads face the camera, whatever rotations the rows have.

    Raises:
        TableError: no such file, no rows, or rows whose frames cannot be determined.
        SemanticFaceError: an unknown style, a video that cannot be found or read.
    """

    def __init__(
        self,
        file: Path,
        warn: Callable[[str], None],
        *,
        video: Path | None = None,
        folder: Path | None = None,
        style: str = "photo",
        frontal: bool = False,
    ) -> None:
        if style not in STYLES:
            raise SemanticFaceError(f"{style}: no such style. Choose one of {', '.join(STYLES)}.")
        self._file, self._warn, self._folder, self._style = file, warn, folder, style
        self._frontal = frontal
        self._rows = read_rows(file, warn)
        if not self._rows:
            raise TableError(f"{file}: no rows below the header. Give a file with coefficients.")
        self.take = find_take(file, self._rows, video, folder)
        """The video or folder of frames of the rows; None for rows of single pictures."""
        self._frames = None if self.take is None else frames_of(file, self._rows, self.take, warn)
        self._names: dict[Path, str] = {}  # by picture found: without their folders, two names may be alike

    def inputs(self) -> list[Path]:
        """Return the pictures, or the video, that are read; the output must not replace them."""
        if self.take is not None:
            return [self.take.path]
        found = (locate(row.name, self._file, self._folder) for row in self._rows)
        return [path for path in found if path is not None]

    def write_sheet(self, out: Path, *, size: int = 224, max_rows: int = 24) -> Counts:
        """Write a picture of rows spread evenly over the file: input, head, name and caption of each.

        The input is cropped to the model's box; without one in the file, to a detected face.

        Args:
            out: ends in one of ``SHEETS``.
            size: side of each picture in pixels.
            max_rows: maximum rows.
        """
        places = np.linspace(0, len(self._rows) - 1, min(max_rows, len(self._rows))).round().astype(int).tolist()
        entries = self._of_pictures(places, size) if self._frames is None else self._of_frames(places, size)
        cells, incomplete = [], 0
        for entry, head in self._with_heads(tqdm(entries, total=len(places), unit="row"), size):
            incomplete += self._is_incomplete(entry)
            cells.append(_cell(entry, head, size))
        with atomic_path(out) as temporary:
            _grid(cells).save(temporary, quality=92)
        return Counts(len(cells), incomplete)

    def write_video(self, out: Path, *, size: int = 360, rate: Fraction = Fraction(1)) -> Counts:
        """Write a silent video: each input frame (or picture) left, its head right, a caption below.

        Times are those of the input video.

        Args:
            out: ends in one of ``VIDEOS``.
            size: side of the head in pixels, and the height of the input.
            rate: pictures per second, for rows that are not of a video.
        """
        size += size % 2
        entries = self._slides(rate, size) if self.take is None else self._video_entries(self.take, size)
        total = len(self._rows) if self.take is None else self.take.count
        width = size if self.take is None else self._width(self.take, size)
        shown, incomplete = 0, 0
        with write_video(out, rate if self.take is None else self.take.rate) as film:
            for entry, head in self._with_heads(tqdm(entries, total=total, unit="frame"), size):
                film.add(entry.time, _video_frame(entry, head, size, width))
                incomplete += self._is_incomplete(entry)
                shown += 1
        if self._frames is not None:
            beyond = sum(frame is None or frame > shown for frame in self._frames)
            if beyond:
                self._warn(f"{self._file}: {beyond} rows match no frame of {self.take and self.take.path}")
            incomplete += beyond
        if self.take is not None and self.take.shortfall:
            self._warn(self.take.shortfall)
        return Counts(shown, incomplete)

    # --- entries --------------------------------------------------------------------------------------------------

    def _of_pictures(self, places: Sequence[int], size: int | None, rate: Fraction = Fraction(1)) -> Iterator[Entry]:
        """Yield rows with their pictures, cropped to the face if a size is given."""
        for place in places:
            row = self._rows[place]
            picture, missing = self._picture(row)
            if picture is not None and size is not None:
                picture = _face(picture, row, size)
            yield Entry(row.name, picture, missing, row, place / rate)

    def _picture(self, row: ShownRow) -> tuple[Image.Image | None, str]:
        path = locate(row.name, self._file, self._folder)
        if path is None or path.is_dir():
            return None, f"{row.name}: not found. Say where the pictures are: --pictures DIR"
        if (other := self._names.setdefault(path, row.name)) != row.name:
            return None, f"{row.name}: {path} already matches {other}. Say where their folders are: --pictures DIR"
        try:
            return load_picture(path), ""
        except PictureError as error:
            return None, str(error)

    def _of_frames(self, places: Sequence[int], size: int) -> Iterator[Entry]:
        """Yield rows with the faces cropped from their frames."""
        assert self.take is not None and self._frames is not None
        wanted = {frame for place in places if (frame := self._frames[place]) is not None}
        entries: dict[int, Entry] = {}
        by_frame: dict[int, list[int]] = {}
        for place in places:
            row, frame = self._rows[place], self._frames[place]
            entries[place] = Entry(_stamp(row), None, f"no frame {frame or ''} in {self.take.path}", row)
            if frame is not None:
                by_frame.setdefault(frame, []).append(place)
        if wanted:
            first = min(wanted) - 1
            frames = islice(self.take.frames(first), first, max(wanted))
            for decoded in tqdm(frames, total=max(wanted) - first, unit="frame", desc="decoding", leave=False):
                for place in by_frame.get(decoded.number, []):
                    row = self._rows[place]
                    picture = decoded.picture and _face(decoded.picture, row, size)
                    entries[place] = Entry(_stamp(row), picture, decoded.reason, row)
        yield from (entries[place] for place in places)

    def _slides(self, rate: Fraction, size: int) -> Iterator[Entry]:
        for entry in self._of_pictures(range(len(self._rows)), None, rate):
            yield _shrunk(entry, size)

    def _video_entries(self, take: Take, size: int) -> Iterator[Entry]:
        """Yield every frame of the video with its row."""
        assert self._frames is not None
        row_of: dict[int, ShownRow] = {}
        for row, frame in zip(self._rows, self._frames, strict=True):
            if frame is not None and row_of.setdefault(frame, row) is not row:
                self._warn(f"{self._file}: {row.name}: another row is of frame {frame} too. The first is shown.")
        for decoded in prefetch(take.frames(), depth=_FRAMES_AHEAD):
            name = f"{take.path.name}, frame {decoded.number}, {float(decoded.time):.2f} s"
            yield _shrunk(Entry(name, decoded.picture, decoded.reason, row_of.get(decoded.number), decoded.time), size)

    def _width(self, take: Take, size: int) -> int:
        """Return the even width of the left side, from the first readable frame."""
        for frame in take.frames():
            if frame.picture is not None:
                width = min(_WIDEST * size, round(frame.picture.width * size / frame.picture.height))
                return width + width % 2
        raise VideoError(f"{take.path}: no frame of it can be read. Export it again.")

    def _is_incomplete(self, entry: Entry) -> bool:
        """Whether a row lacks its picture or answer, other than a face that the app had lost; warns if so."""
        if entry.row is None:
            return False
        reasons = [entry.missing] if entry.picture is None else []
        reasons += [entry.row.reason] if entry.row.failed else []
        for reason in reasons:
            self._warn(reason)
        return bool(reasons)

    def _with_heads(self, entries: Iterable[Entry], size: int) -> Iterator[tuple[Entry, np.ndarray | None]]:
        """Yield each entry with its head, uint8[size, size, 3], in order; later heads render in the background."""

        def draw(values: np.ndarray, pose: np.ndarray | None) -> np.ndarray:
            pose = None if self._frontal else pose
            return render(values, style=self._style, subject=None, size=size, framing="crop", pose=pose).image

        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[tuple[Entry, Future[np.ndarray] | None]] = deque()
            try:
                for entry in entries:
                    row = entry.row
                    if row is None or row.values is None:
                        waiting.append((entry, None))
                    else:
                        waiting.append((entry, pool.submit(draw, row.values, row.pose)))
                    if len(waiting) > 2 * _THREADS:
                        done, head = waiting.popleft()
                        yield done, None if head is None else head.result()
                for done, head in waiting:
                    yield done, None if head is None else head.result()
            finally:
                pool.shutdown(cancel_futures=True)


# --- drawing ------------------------------------------------------------------------------------------------------


def _face(picture: Image.Image, row: ShownRow, size: int) -> Image.Image:
    """Crop to the model's box or a detected face; without one the picture stays whole."""
    try:
        box = row.box
        if box is None and (faces := detect_faces(picture)):
            box = main_face(faces)
        if box is not None:
            return crop_face(picture, box, size)
    except PictureError:
        pass
    return picture


def _shrunk(entry: Entry, size: int) -> Entry:
    """Keep no more pixels than are shown, since entries are queued until their heads are rendered."""
    if entry.picture is None:
        return entry
    return replace(entry, picture=_within(entry.picture, _WIDEST * size, size))


def _within(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Return the picture as large as it fits, at least a pixel wide and high."""
    scale = min(width / picture.width, height / picture.height)
    fitted = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture if fitted == picture.size else picture.resize(fitted, Image.Resampling.BICUBIC)


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # true if Pillow has FreeType, as its wheels have
    return font


def _cell(entry: Entry, head: np.ndarray | None, size: int) -> Image.Image:
    """Return input and head, with name and caption below."""
    font = _font(12)
    cell = Image.new("RGB", (2 * size, size + 36), _PAPER)
    _halves(cell, entry, head, size, size, font, _PAPER)
    pen = ImageDraw.Draw(cell)
    for line, text in enumerate((Path(entry.name).name, entry.row.caption if entry.row else "")):
        pen.text((2, size + 2 + 16 * line), _cut(text, 2 * size - 4, pen, font), fill=_INK, font=font)
    return cell


def _video_frame(entry: Entry, head: np.ndarray | None, size: int, width: int) -> np.ndarray:
    """Return one video frame, uint8[h, w, 3], h and w even."""
    font = _font(max(10, size // 24))
    strip = 2 * max(10, size // 24)
    canvas = Image.new("RGB", (width + size, size + strip), _BLACK)
    _halves(canvas, entry, head, size, width, font, _BLACK)
    pen = ImageDraw.Draw(canvas)
    sides = ((0, width, Path(entry.name).name), (width, size, entry.row.caption if entry.row else ""))
    for left, room, text in sides:
        pen.text((left + 4, size + strip // 5), _cut(text, room - 8, pen, font), fill=_PAPER, font=font)
    return np.asarray(canvas)


def _halves(
    canvas: Image.Image,
    entry: Entry,
    head: np.ndarray | None,
    size: int,
    width: int,
    font: ImageFont.FreeTypeFont,
    background: tuple[int, int, int],
) -> None:
    """Draw the input, ``width`` wide, and the head to the right of it; or why they are missing."""
    if entry.picture is None:
        canvas.paste(_note(entry.missing, width, size, font), (0, 0))
    else:
        shown = _within(entry.picture, width, size)
        canvas.paste(background, (0, 0, width, size))
        canvas.paste(shown, ((width - shown.width) // 2, (size - shown.height) // 2))
    right = _note(entry.why_no_head, size, size, font) if head is None else Image.fromarray(head)
    canvas.paste(right, (width, 0))


def _note(text: str, width: int, height: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return a grey panel with wrapped text."""
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
    """Shorten the text to ``room`` pixels; a shortened text ends in dots."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= room:
        return text
    while text and pen.textlength(f"{text} ...", font=font) > room:
        text = text[:-1]
    kept, _, rest = text.rpartition(" ")
    return f"{kept if len(rest) < _LONG_WORD else text} ..."


def _grid(cells: Sequence[Image.Image]) -> Image.Image:
    columns = min(_COLUMNS, len(cells))
    width, height = cells[0].width + _MARGIN, cells[0].height + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, -(-len(cells) // columns) * height + _MARGIN), _PAPER)
    for number, cell in enumerate(cells):
        sheet.paste(cell, (_MARGIN + number % columns * width, _MARGIN + number // columns * height))
    return sheet


def _stamp(row: ShownRow) -> str:
    """Return a row's name, with its timecode if they differ."""
    return f"{row.name}, {row.timecode}" if row.timecode and row.timecode != row.name else row.name
