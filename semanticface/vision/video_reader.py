"""Frames of a take with their exact times, from a video file or a folder of pictures.

Videos are limited to an allow-list of containers and codecs, and only the video stream is decoded. Every frame that the
container declares is yielded at its position: an undecodable one has no picture but a reason, and never shifts later
frames. Frames predicted from a lost one are yielded as decoded, possibly smeared, up to the next key frame.
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
"""Codecs of cameras, phones and editors; FFmpeg's other decoders are rarely used and rarely audited."""
MAX_FRAMES = 999_999
"""More than four hours at 60 fps; the maximum number of table rows below the header."""

_CONTAINERS = "mov,matroska,avi"
_CONVERT = "Convert it: ffmpeg -i INPUT -c:v libx264 -pix_fmt yuv420p OUTPUT.mp4"
_SNAP_WITHIN = Fraction(1, 20)  # of a frame: Matroska rounds times to milliseconds
_MISSING = Fraction(1, 2)  # seconds that containers may declare beyond the last frame
_HASHED_BYTES = 2**20  # at either end of a file
_VISIBLE_FLAG = 0x10  # bit of a VP8 frame's first byte: displayed, not only a reference


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a take.

    Attributes:
        number: from 1, in display order.
        time: exact seconds since the first frame.
        picture: upright RGB; None if undecodable (see ``reason``) or skipped.
        code: error code, as in ``PictureError``; empty without an error.
        reason: error message; empty without an error.
    """

    number: int
    time: Fraction
    picture: Image.Image | None = None
    code: str = ""
    reason: str = ""


class Take(ABC):
    """A video or a folder of frames.

    Attributes:
        path: of the video or folder.
        rate: fps, exact if one of ``timecode.RATES``, else as declared by the container.
        count: expected number of frames; None if unknown.
        timecode: of the first frame, as recorded by the camera; None if not recorded.
        identity: JSON-serialisable values that identify the content.
        shortfall: after all frames were read, a message about declared frames that are missing; else empty.
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
        """The rate of these frames' timecodes, one of ``timecode.RATES``."""
        return timecode_rate(self.rate)

    @abstractmethod
    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """Yield all frames, the first ``skip`` without pictures; a VideoError after ``MAX_FRAMES``."""


class PictureFolder(Take):
    """The pictures in a folder at ``rate`` fps, in natural order: ``2.png`` before ``10.png``."""

    def __init__(self, folder: Path, rate: Fraction) -> None:
        self._paths = sorted(expand([folder]), key=_natural)
        if len(self._paths) > MAX_FRAMES:
            raise VideoError(f"{folder}: more than {MAX_FRAMES:,} pictures. Split the folder.")
        digest = hashlib.sha256()
        for path in self._paths:
            status = path.stat()
            digest.update(f"{path.name}/{status.st_size}/{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
        standard = standard_rate(rate) or rate
        identity = {"pictures": len(self._paths), "files": digest.hexdigest(), "rate": str(standard)}
        super().__init__(folder, standard, len(self._paths), identity)

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

    The file's rotation and mirroring are applied, and non-square pixels are resampled to square ones.
    """

    def __init__(self, path: Path) -> None:
        identity = _identity(path)
        with _OpenStream(path) as (container, stream):
            declared = stream.average_rate or stream.guessed_rate
            if declared is None or not 0 < declared <= 1000:
                raise VideoError(f"{path}: the frame rate is not declared. {_CONVERT}")
            rate = standard_rate(Fraction(declared)) or Fraction(declared)
            exact, self._seconds = _declared_length(container, stream, rate)
            estimate = None if self._seconds is None else round(self._seconds * rate)
            super().__init__(path, rate, exact or estimate, identity)
            self._exact = exact
            tagged = [stream.metadata, container.metadata, *(other.metadata for other in container.streams)]
            lowercase = ({key.lower(): value for key, value in tags.items()} for tags in tagged)
            self.timecode = next((tags["timecode"] for tags in lowercase if "timecode" in tags), None)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        self.shortfall = ""
        constant_rate = standard_rate(self.rate)
        first = last = None
        number = 0
        with _OpenStream(self.path) as (_, stream):
            aspect = stream.sample_aspect_ratio
            for stamp, decoded in _decode_in_order(stream):
                number += 1
                if number > MAX_FRAMES:
                    raise VideoError(f"{self.path}: more than {MAX_FRAMES:,} frames. Split the video.")
                if stamp is None:
                    stamp = Fraction(0) if last is None else last + 1 / self.rate
                first = stamp if first is None else first
                last = stamp
                time = _snap(stamp - first, constant_rate)
                if decoded is None or decoded.is_corrupt:
                    reason = f"{self.path}, frame {number}: the frame is damaged. Copy or export the video again."
                    yield Frame(number, time, None, "damaged", reason)
                else:
                    yield Frame(number, time, None if number <= skip else _upright(decoded, aspect))
        self.shortfall = self._shortfall(number, Fraction(0) if last is None or first is None else last - first)

    def _shortfall(self, frames: int, seconds: Fraction) -> str:
        """Return a message about missing frames, given the number of frames and the time of the last."""
        if self._exact:
            found = f"{frames} of {self._exact} frames" if frames < self._exact else ""
        else:
            # Frame spacing may vary, so the number of frames proves nothing here.
            declared = self._seconds or Fraction(0)
            cut = seconds + 1 / self.rate < declared - min(_MISSING, declared / 4)
            found = f"{float(seconds):.1f} of {float(declared):.1f} seconds" if cut else ""
        return found and f"{self.path}: the video is truncated: {found} found. Copy or export it again to get the rest."


def open_take(path: str | os.PathLike[str], rate: Fraction | None = None) -> Take:
    """Open a video, or a folder of pictures at ``rate`` fps.

    Raises:
        VideoError: the file is missing, not a video, without a video stream, encrypted, damaged from the start, of a
            codec not in ``CODECS``, or too large or too small; or a folder without a rate or with too many pictures.
        PictureError: the folder has no pictures or is unreadable.
    """
    path = Path(path)
    if not path.is_dir():
        return VideoFile(path)
    if rate is None:
        raise VideoError(f"{path}: a folder of frames needs a frame rate, for example --fps 30.")
    return PictureFolder(path, rate)


def is_video(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a video, by its suffix or else by its first bytes."""
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


class _OpenStream:
    """Context manager of a container and its video stream, validated and ready to decode."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tuple[Any, Any]:
        # A file object, so that FFmpeg never interprets the name as a URL or another protocol.
        try:
            self._file = self._path.open("rb")
        except (OSError, ValueError) as error:
            raise VideoError(f"{self._path}: {getattr(error, 'strerror', error)}. Check the path.") from error
        try:
            self._container = av.open(self._file, options={"format_whitelist": _CONTAINERS})
        except (av.FFmpegError, ValueError) as error:
            self._file.close()
            raise VideoError(
                f"{self._path}: not a readable video: it is damaged, truncated (an unfinished recording or download), "
                "or not MP4, MOV, MKV, WebM or AVI. Copy it again or convert it."
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
        path, streams = self._path, [s for s in self._container.streams.video if not _is_cover(s)]
        if not streams:
            raise VideoError(f"{path}: the file has no video stream. Give the video itself.")
        stream = streams[0]
        codec = stream.codec_context
        if codec is None or codec.codec_tag == "encv":
            raise VideoError(f"{path}: encrypted, or an unknown codec. Give a copy without protection.")
        if codec.name not in CODECS and codec.codec.canonical_name not in CODECS:
            raise VideoError(f"{path}: the codec {codec.name} is not supported. {_CONVERT}")
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
        # A stream may change its size midway; the decoder enforces the limit too.
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        return stream


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _declared_length(container: Any, stream: Any, rate: Fraction) -> tuple[int | None, Fraction | None]:
    """Return the declared number of frames, or the declared seconds; None for what is not declared."""
    if "mp4" in container.format.name and len(stream.index_entries):
        # The index includes frames that an edit list removes, as others may depend on them.
        return sum(not entry.is_discard for entry in stream.index_entries), None
    if "DURATION" in stream.metadata and (found := re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata["DURATION"])):
        return None, (int(found[1]) * 60 + int(found[2])) * 60 + Fraction(found[3])
    if stream.frames:  # AVI, which counts pauses as frames too
        return None, stream.frames / rate
    if stream.duration is not None:
        return None, stream.duration * stream.time_base
    if container.duration and len(container.streams) == 1:
        return None, Fraction(container.duration, av.time_base)
    return None, None


def _decode_in_order(stream: Any) -> Iterator[tuple[Fraction | None, av.VideoFrame | None]]:
    """Yield the time stamp and picture of each frame in display order; None for undecodable pictures.

    A decoder may delay, reorder or silently drop frames. Packets declare which frames exist: a frame that has not been
    decoded when a later one arrives is lost.
    """
    pending: list[int] = []
    last_pts: int | None = None
    base = stream.time_base

    def emit(frame: av.VideoFrame) -> Iterator[tuple[Fraction | None, av.VideoFrame | None]]:
        nonlocal last_pts
        if frame.pts is None:
            yield None, frame
            return
        while pending and pending[0] < frame.pts:
            yield heapq.heappop(pending) * base, None
        if pending and pending[0] == frame.pts:
            heapq.heappop(pending)
        elif last_pts is not None and frame.pts <= last_pts:
            return  # too late: already reported as lost
        last_pts = frame.pts
        yield frame.pts * base, frame

    packets = stream.container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):
            # A truncated file ends here; the caller reports what is missing.
            break
        counted = packet.size > 0 and not packet.is_discard and not _is_hidden(packet, stream)
        if counted and packet.pts is not None:
            heapq.heappush(pending, packet.pts)
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if counted and packet.pts is None:
                yield None, None
            continue
        for frame in frames:
            yield from emit(frame)
    try:
        for frame in stream.decode(None):
            yield from emit(frame)
    except (EOFError, av.FFmpegError):
        pass
    while pending:
        yield heapq.heappop(pending) * base, None


def _is_hidden(packet: Any, stream: Any) -> bool:
    """Return whether a packet holds an undisplayed frame; only VP8 has separate packets for them."""
    return stream.codec_context.name == "vp8" and not bytes(packet)[0] & _VISIBLE_FLAG


def _snap(time: Fraction, rate: Fraction | None) -> Fraction:
    """Return the time snapped to the grid of a constant rate if it is off by container rounding only."""
    if rate is None:
        return time
    tick = round(time * rate)
    return tick / rate if abs(time * rate - tick) <= _SNAP_WITHIN else time


def _upright(frame: av.VideoFrame, aspect: Fraction | None) -> Image.Image:
    """Return a decoded frame as RGB with square pixels, rotated and mirrored by its display matrix.

    ``aspect`` is a pixel's width by its height; values beyond 1:4 either way are considered wrong and ignored.
    """
    stretch = aspect if aspect and Fraction(1, 4) <= aspect <= 4 else 1
    pixels = frame.to_ndarray(format="rgb24", width=round(frame.width * stretch), height=frame.height)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        # x' = a x + c y, y' = b x + d y: a quarter turn or none, then mirroring along either axis.
        a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``face2.png`` before ``face10.png``."""
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part.lower()) for part in parts]


def _identity(path: Path) -> dict[str, Any]:
    """Return the size and a hash of both ends of a file: identifies it quickly, whatever its size."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise VideoError(f"{path}: not a regular file. Save the video to a file first.")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            digest = hashlib.sha256(file.read(_HASHED_BYTES))
            file.seek(max(0, size - _HASHED_BYTES))
            digest.update(file.read(_HASHED_BYTES))
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: {getattr(error, 'strerror', None) or error}. Check the path.") from error
    if size == 0:
        raise VideoError(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    return {"bytes": size, "ends": digest.hexdigest()}
