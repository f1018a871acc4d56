"""The frames of a take, one after the other with their true times: from a video file, or from a folder of pictures.

A video is opened by an allow-list of containers and codecs, and nothing but its picture stream is decoded. Every frame
that the container announces comes out in its place: one that cannot be decoded comes without a picture and with the
reason, and never shifts those after it. Frames coded as changes to a lost one come as the decoder makes them, smeared
at worst, up to the next key frame.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from semanticface.errors import PictureError, VideoError
from semanticface.vision.image_io import MAX_PIXELS, MIN_SIDE, expand, load_picture
from semanticface.vision.timecode import standard_rate, timecode_rate

SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
CODECS = (
    "h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "prores", "dnxhd", "ffv1",
    "huffyuv", "utvideo", "rawvideo", "png", "qtrle", "h263", "dvvideo", "msmpeg4v3",
)  # fmt: skip
"""Codecs of cameras, phones and editors; what else FFmpeg can decode is rarely used and rarely checked."""
MAX_FRAMES = 999_999
"""More than four hours at 60 frames a second; as many rows as a table may have below its header."""

_CONTAINERS = "mov,matroska,avi"
_CONVERT = "Convert it: ffmpeg -i INPUT -c:v libx264 -pix_fmt yuv420p OUTPUT.mp4"
_STEADY = Fraction(1, 20)  # of a frame: Matroska rounds times to thousandths of a second
_MISSING = Fraction(1, 2)  # seconds at the end of a video that containers may announce without holding them
_ENDS = 2**20  # bytes at either end of a file by which it is known again
_SHOWN = 0x10  # bit of a VP8 frame's first byte: it is to be shown, not only to be predicted from


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a take.

    Attributes:
        number: from 1, in the order shown.
        time: seconds since the first frame, exact.
        picture: upright RGB; None where ``reason`` says why, and in frames that were skipped.
        code: why there is no picture in a word, as in ``PictureError``; mostly empty.
        reason: the same in a sentence.
    """

    number: int
    time: Fraction
    picture: Image.Image | None = None
    code: str = ""
    reason: str = ""


class Take(ABC):
    """What a video and a folder of frames have in common.

    Attributes:
        path: where it is.
        rate: frames a second, exact where it is one of ``timecode.RATES``; else as the container says.
        count: how many frames are expected; None where nothing says so.
        timecode: the first frame's as the camera recorded it; None where it did not.
        identity: what tells this take from another one, for JSON.
        shortfall: after the frames were read: what was announced and is not there, in a sentence; mostly empty.
    """

    def __init__(self, path: Path, rate: Fraction, count: int | None, identity: dict[str, Any]) -> None:
        self.path = path
        self.rate = rate
        self.count = count
        self.timecode: str | None = None
        self.identity = identity
        self.shortfall = ""

    @property
    def timecode_rate(self) -> Fraction:
        """The rate in which timecodes count these frames, one of ``timecode.RATES``."""
        return timecode_rate(self.rate)

    @abstractmethod
    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """Yield the frames from the first; the first ``skip`` are not made into pictures.

        Raises:
            VideoError: more than ``MAX_FRAMES``.
        """


class PictureFolder(Take):
    """The pictures in a folder, ``2.png`` before ``10.png``, ``rate`` a second.

    Raises:
        PictureError: a folder without pictures, or one that may not be read.
        VideoError: too many.
    """

    def __init__(self, folder: Path, rate: Fraction) -> None:
        self._paths = sorted(expand([folder]), key=_natural)
        if len(self._paths) > MAX_FRAMES:
            raise VideoError(f"{folder}: more than {MAX_FRAMES:,} pictures. Split the folder.")
        digest = hashlib.sha256()
        for path in self._paths:
            status = path.stat()
            digest.update(f"{path.name}/{status.st_size}/{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        named = standard_rate(rate) or rate
        identity = {"pictures": len(self._paths), "files": digest.hexdigest(), "rate": str(named)}
        super().__init__(folder, named, len(self._paths), identity)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        for number, path in enumerate(self._paths, start=1):
            time = (number - 1) / self.rate
            if number <= skip:
                yield Frame(number, time)
                continue
            try:
                yield Frame(number, time, load_picture(path))
            except PictureError as error:
                yield Frame(number, time, None, error.code, str(error))


class VideoFile(Take):
    """A video in MP4, MOV, Matroska, WebM or AVI.

    Rotation and mirroring that the file asks for are applied, and pixels that are not square made square.

    Raises:
        VideoError: no such file, not a video, no picture in it, encrypted, damaged from the start, a codec that is not
            in ``CODECS``, or pictures too large or too small.
    """

    def __init__(self, path: Path) -> None:
        identity = _identity(path)
        with _Opened(path) as (container, stream):
            measured = stream.average_rate or stream.guessed_rate
            if measured is None or not 0 < measured <= 1000:
                raise VideoError(f"{path}: does not say how fast its frames follow each other. {_CONVERT}")
            rate = standard_rate(Fraction(measured)) or Fraction(measured)
            exact, self._seconds = _announced(container, stream, rate)
            estimate = None if self._seconds is None else round(self._seconds * rate)
            super().__init__(path, rate, exact or estimate, identity)
            self._exact = exact
            tagged = [stream.metadata, container.metadata, *(other.metadata for other in container.streams)]
            named = ({key.lower(): value for key, value in tags.items()} for tags in tagged)
            self.timecode = next((tags["timecode"] for tags in named if "timecode" in tags), None)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        self.shortfall = ""
        steady = standard_rate(self.rate)
        first = last = None
        number = 0
        with _Opened(self.path) as (_, stream):
            aspect = stream.sample_aspect_ratio
            for stamp, decoded in _in_place(stream):
                number += 1
                if number > MAX_FRAMES:
                    raise VideoError(f"{self.path}: more than {MAX_FRAMES:,} frames. Split the video.")
                if stamp is None:
                    stamp = Fraction(0) if last is None else last + 1 / self.rate
                first = stamp if first is None else first
                last = stamp
                time = _steadied(stamp - first, steady)
                if decoded is None or decoded.is_corrupt:
                    reason = f"{self.path}, frame {number}: damaged in the file. Copy or export the video again."
                    yield Frame(number, time, None, "damaged", reason)
                else:
                    yield Frame(number, time, None if number <= skip else _upright(decoded, aspect))
        self.shortfall = self._missing(number, Fraction(0) if last is None or first is None else last - first)

    def _missing(self, frames: int, seconds: Fraction) -> str:
        """Say what was announced and did not come, given the number of frames and the time of the last."""
        if self._exact:
            there = f"{frames} of {self._exact} frames" if frames < self._exact else ""
        else:
            # Frames may follow each other unevenly, so their number proves nothing here.
            announced = self._seconds or Fraction(0)
            gone = seconds + 1 / self.rate < announced - min(_MISSING, announced / 4)
            there = f"{float(seconds):.1f} of {float(announced):.1f} seconds" if gone else ""
        return there and (
            f"{self.path}: the video breaks off: {there} are there. Copy or export it again if the rest is wanted."
        )


def open_take(path: str | os.PathLike[str], rate: Fraction | None = None) -> Take:
    """Open a video, or a folder of pictures with the rate at which they follow each other.

    Raises:
        VideoError, PictureError: see ``VideoFile`` and ``PictureFolder``; or a folder without a rate.
    """
    path = Path(path)
    if not path.is_dir():
        return VideoFile(path)
    if rate is None:
        raise VideoError(f"{path}: a folder does not say how fast its frames follow each other. Say it: --fps 30")
    return PictureFolder(path, rate)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a video, by its name or, where that says nothing, by its first bytes."""
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return not path.is_dir()
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(16)
    except (OSError, ValueError):
        return False
    brand = head[8:12]
    if head[4:8] == b"ftyp":
        return not brand.startswith((b"hei", b"avi", b"mif", b"msf"))
    return head.startswith(b"\x1a\x45\xdf\xa3") or (head.startswith(b"RIFF") and brand == b"AVI ")


class _Opened:
    """A container and its picture stream, checked and ready to be decoded; closes the file at the end of the block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tuple[Any, Any]:
        # A file of our own, so that no name is ever taken for an address or another of FFmpeg's protocols.
        try:
            self._file = self._path.open("rb")
        except (OSError, ValueError) as error:
            raise VideoError(f"{self._path}: {getattr(error, 'strerror', error)}. Check the path.") from error
        try:
            self._container = av.open(self._file, options={"format_whitelist": _CONTAINERS})
        except (av.FFmpegError, ValueError) as error:
            self._file.close()
            raise VideoError(
                f"{self._path}: not a video that can be read: it is damaged, cut short (a recording that was never "
                "finished, a download that broke off), or not MP4, MOV, MKV, WebM or AVI. Copy it again or convert it."
            ) from error
        try:
            return self._container, self._stream()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._file.close()

    def _stream(self) -> Any:
        path, shown = self._path, [s for s in self._container.streams.video if not _is_cover(s)]
        if not shown:
            raise VideoError(f"{path}: there is no picture in this file, only sound. Give the video itself.")
        stream = shown[0]
        codec = stream.codec_context
        if codec is None or codec.codec_tag == "encv":
            raise VideoError(
                f"{path}: encrypted, or of a codec that nothing here knows. Give a copy without protection."
            )
        if codec.name not in CODECS and codec.codec.canonical_name not in CODECS:
            raise VideoError(f"{path}: the codec is {codec.name}, which is not read. {_CONVERT}")
        if codec.width * codec.height > MAX_PIXELS:
            raise VideoError(
                f"{path}: {codec.width} x {codec.height} pixels, the limit is {MAX_PIXELS // 10**6} million. "
                "Scale it down."
            )
        if min(codec.width, codec.height) < MIN_SIDE:
            raise VideoError(
                f"{path}: {codec.width} x {codec.height} pixels. Give a video of at least {MIN_SIDE} pixels a side."
            )
        stream.thread_type = "AUTO"
        # A stream may change its size on the way; the decoder keeps to the limit too.
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        return stream


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _announced(container: Any, stream: Any, rate: Fraction) -> tuple[int | None, Fraction | None]:
    """How many frames the container says there are, or how many seconds of them; None for what it does not say."""
    if "mp4" in container.format.name and len(stream.index_entries):
        # What an edit list cuts away is still in the index, as it may be needed to decode the rest.
        return sum(not entry.is_discard for entry in stream.index_entries), None
    if "DURATION" in stream.metadata and (found := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata["DURATION"])):
        return None, (int(found[1]) * 60 + int(found[2])) * 60 + Fraction(found[3])
    if stream.frames:  # AVI, where pauses are counted as frames too
        return None, stream.frames / rate
    if stream.duration is not None:
        return None, stream.duration * stream.time_base
    if container.duration and len(container.streams) == 1:
        return None, Fraction(container.duration, av.time_base)
    return None, None


def _in_place(stream: Any) -> Iterator[tuple[Fraction | None, av.VideoFrame | None]]:
    """Yield the time stamp and picture of each frame in the order shown; None for the picture where decoding failed.

    A decoder may delay frames, reorder them, or lose one without a word. The packets say which frames there must be:
    a frame that has not come out when a later one does is lost.
    """
    awaited: list[int] = []
    newest: int | None = None
    base = stream.time_base

    def arrived(frame: av.VideoFrame) -> Iterator[tuple[Fraction | None, av.VideoFrame | None]]:
        nonlocal newest
        if frame.pts is None:
            yield None, frame
            return
        while awaited and awaited[0] < frame.pts:
            yield heapq.heappop(awaited) * base, None
        if awaited and awaited[0] == frame.pts:
            heapq.heappop(awaited)
        elif newest is not None and frame.pts <= newest:
            return  # too late: its place has been taken by a report of its loss
        newest = frame.pts
        yield frame.pts * base, frame

    packets = stream.container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            # A file that breaks off in the middle ends here; the caller counts what is missing.
            break
        counted = packet.size > 0 and not packet.is_discard and not _is_hidden(packet, stream)
        if counted and packet.pts is not None:
            heapq.heappush(awaited, packet.pts)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if counted and packet.pts is None:
                yield None, None
            continue
        for frame in frames:
            yield from arrived(frame)
    try:
        for frame in stream.decode(None):
            yield from arrived(frame)
    except (EOFError, av.FFmpegError):
        pass
    while awaited:
        yield heapq.heappop(awaited) * base, None


def _is_hidden(packet: Any, stream: Any) -> bool:
    """Whether a packet holds a frame that is never shown, which only VP8 keeps in packets of their own."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & _SHOWN


def _steadied(time: Fraction, rate: Fraction | None) -> Fraction:
    """The time on the grid of a steady rate where a container's rounding is all that keeps it off."""
    if rate is None:
        return time
    place = round(time * rate)
    return place / rate if abs(time * rate - place) <= _STEADY else time


def _upright(frame: av.VideoFrame, aspect: Fraction | None) -> Image.Image:
    """A decoded frame as an RGB picture with square pixels, turned and mirrored as its display matrix says.

    ``aspect`` is a pixel's width by its height; what no camera has (beyond 1 to 4 either way) is taken for a mistake.
    """
    stretch = aspect if aspect and Fraction(1, 4) <= aspect <= 4 else 1
    pixels = frame.to_ndarray(format="rgb24", width=round(frame.width * stretch), height=frame.height)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        # x' = a x + c y, y' = b x + d y: a turn by a quarter, or none, then a mirror image along either axis.
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key by which ``face2.png`` comes before ``face10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part.lower()) for part in parts]


def _identity(path: Path) -> dict[str, Any]:
    """Size and both ends of a file: enough to know it again, whatever its size and name."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VideoError(f"{path}: not a regular file. Save the video to a file first.")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.sha256(file.read(_ENDS))
            file.seek(max(0, size - _ENDS))
            digest.update(file.read(_ENDS))
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: {getattr(error, 'strerror', None) or error}. Check the path.") from error
    if size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    return {"bytes": size, "ends": digest.hexdigest()}
