"""Safe image loading: an allow-list of formats, size limits; output is upright 8-bit RGB without metadata."""

from __future__ import annotations

import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from semanticface.errors import PictureError
from semanticface.utils.listing import listed

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Suffixes of pictures; ``expand`` and ``load_picture`` also go by content."""
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_SCANS = 64
"""Of a JPEG; encoders write about ten. Each costs a pass over all pixels."""
_MAX_SCANNED = 16 * MAX_PIXELS  # pixels times scans
MIN_SIDE = 16
JPEG_QUALITY = 95
BACKGROUND = (255, 255, 255)
"""Colour behind transparent parts."""

_HEAD = 16  # bytes that tell what a file is
_LONG_TEXT = 2**16  # bytes
_ROWS = 64
_EXIF_ORIENTATION = 0x0112
_MARKER = re.compile(rb"\xff[^\x00\xff]")  # of a JPEG; 0xff 0x00 is data, and further 0xff are padding
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Signatures of files that people give by mistake, so that the error can name them without running a decoder that is
# not on the allow-list: (offset, bytes, name).
_SIGNATURES = (
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\x00", "a TIFF picture"),
    (0, b"MM\x00*", "a TIFF picture"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\x00\x00\x01\x00", "an icon file"),
    (4, b"ftypavif", "an AVIF picture"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIC picture"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (0, b"\x1a\x45\xdf\xa3", "a video (WebM or Matroska)"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML or SVG file"),
    (0, b"<!DOCTYPE", "a web page"),
    (0, b"<html", "a web page"),
)


def load_picture(source: str | os.PathLike[str] | bytes | Image.Image, *, name: str | None = None) -> Image.Image:
    """Load a picture as a new upright 8-bit RGB image without metadata.

    EXIF rotation is applied; transparency is composited over white; greyscale, palette, CMYK and 16-bit pictures are
    converted (16-bit by scaling). Of a JPEG with several pictures (phones store depth maps this way) the first is
    returned. Colour profiles are ignored.

    Args:
        source: a path, a file's bytes, or a Pillow image.
        name: name of the picture in errors; by default the path, or "the picture".

    Raises:
        PictureError: with ``code`` one of ``missing``, ``directory``, ``unreadable``, ``not_a_file``, ``empty``,
            ``file_too_large``, ``unsupported_format``, ``not_a_picture``, ``too_many_pixels``, ``too_many_scans``,
            ``too_small``, ``animated``, ``unsupported_mode``, ``damaged``.
    """
    # Pillow only warns about pictures above its own limit; its warnings about odd metadata do not help users.
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        if isinstance(source, Image.Image):
            return _clean(source, name or "the picture")
        if isinstance(source, bytes):
            name, data = name or "the picture", source
            _check_length(len(data), name)
        else:
            name = name or os.fspath(source)
            data = _read(Path(source), name)
        try:
            with _open(data, name) as image:
                _check_scans(data, image, name)
                return _clean(image, name)
        except PictureError as error:
            # Pillow refuses a PNG with megabytes of text or profile, such as the workflow that made it.
            if error.code != "damaged" or (plain := _without_texts(data)) == data:
                raise
            with _open(plain, name) as image:
                return _clean(image, name)


def expand(paths: Iterable[str | os.PathLike[str]], note: Callable[[str], None] = lambda _: None) -> list[Path]:
    """Return the paths in order, each folder replaced by the pictures directly in it, sorted by name.

    A picture is known by its content or its suffix; one of a format that is not read is kept too, as are missing paths,
    so that their errors appear in order on loading.

    Args:
        paths: files and folders.
        note: called with a sentence on a folder's other files, which are passed over.

    Raises:
        PictureError: a folder without pictures (``no_pictures``) or an unreadable one (``unreadable``).
    """
    out: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            out.append(path)
            continue
        try:
            files = sorted(p for p in path.iterdir() if not p.name.startswith(".") and p.is_file())
        except OSError as error:
            raise PictureError("unreadable", f"{path}: {error.strerror}. Check the folder's permissions.") from error
        inside = [file for file in files if file.suffix.lower() in SUFFIXES or _is_picture(file)]
        if not inside:
            raise PictureError(
                "no_pictures", f"{path}: no picture in this folder. It must contain {_names(SUFFIXES)} files."
            )
        out += inside
        known = set(inside)
        if others := [file.name for file in files if file not in known]:
            note(f"{path}: passed over, no pictures: {listed(others)}.")
    return out


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    kind = _other_kind(head) or ""
    return _allowed_kind(head) is not None or kind.endswith(("picture", "GIF"))


def _without_texts(data: bytes) -> bytes:
    """Return a PNG without profile, compressed texts and long texts, none of which says how to show it."""
    if _allowed_kind(data) != "PNG":
        return data
    out, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        long = length > _LONG_TEXT or b"\0\1\0" in data[at + 8 : at + 8 + min(length, 90)]
        if kind not in (b"zTXt", b"iCCP") and not (kind in (b"tEXt", b"iTXt") and long):
            out.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(out)


def contact_sheet(pictures: Sequence[np.ndarray], captions: Sequence[str], *, columns: int) -> Image.Image:
    """Return a grid of square pictures of one size, uint8[size, size, 3], with a caption below each."""
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures and {len(captions)} captions: give at least one, and equally many")
    size, margin, text = len(pictures[0]), 8, 18
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (size + margin) + margin, lines * (size + margin + text) + margin), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for number, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        x = margin + number % columns * (size + margin)
        y = margin + number // columns * (size + margin + text)
        sheet.paste(Image.fromarray(pixels), (x, y))
        while caption and pen.textlength(caption, font=font) > size:
            caption = caption[:-1]
        pen.text((x, y + size + 2), caption, fill=(40, 40, 40), font=font)
    return sheet


def _names(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"


def _check_length(length: int, name: str) -> None:
    if length == 0:
        raise PictureError("empty", f"{name}: the file is empty (0 bytes). Copy or download it again.")
    if length > MAX_BYTES:
        raise PictureError(
            "file_too_large",
            f"{name}: {length / 2**20:.0f} MiB, the limit is {MAX_BYTES // 2**20} MiB. Save a smaller copy.",
        )


def _read(path: Path, name: str) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PictureError("directory", f"{name}: a folder, not a picture. Name a file inside it.")
        # A pipe or device could block or never end.
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("not_a_file", f"{name}: not a regular file. Save the picture to a file first.")
        _check_length(status.st_size, name)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise PictureError("missing", f"{name}: no such file. Check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError("unreadable", f"{name}: {reason}. Check the path and its permissions.") from error
    _check_length(len(data), name)
    return data


def _open(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise PictureError("too_many_pixels", _too_many_pixels(name)) from error
    except Exception as error:  # decoders raise errors of any type on malicious bytes
        allowed = _names(FORMATS)
        if (kind := _allowed_kind(data)) is not None:
            raise PictureError("damaged", _damaged(name, kind)) from error
        if (other := _other_kind(data)) is not None:
            raise PictureError(
                "unsupported_format", f"{name}: the content is {other}. Convert it to {allowed}."
            ) from error
        raise PictureError("not_a_picture", f"{name}: the content is not a picture. Give a {allowed} file.") from error


def _check_scans(data: bytes, image: Image.Image, name: str) -> None:
    """Refuse a JPEG of so many scans that decoding would take very long."""
    if image.format not in ("JPEG", "MPO"):
        return
    scans = count_scans(data)
    if scans > MAX_SCANS or scans * image.width * image.height > _MAX_SCANNED:
        raise PictureError("too_many_scans", f"{name}: a JPEG of {scans} scans. Save it again as a plain JPEG or PNG.")


def count_scans(data: bytes) -> int:
    """Return the number of scans of a JPEG's first picture (ITU-T T.81, B.2), without decoding it."""
    scans, at = 0, 2
    while found := _MARKER.search(data, at):
        marker, at = found[0][-1], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        scans += marker == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _allowed_kind(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def _other_kind(data: bytes) -> str | None:
    for offset, signature, kind in _SIGNATURES:
        if data[offset:].startswith(signature):
            return kind
    return None


def _too_many_pixels(name: str, size: tuple[int, int] | None = None) -> str:
    what = "too many pixels" if size is None else f"{size[0]} x {size[1]} pixels"
    return f"{name}: {what}, the limit is {MAX_PIXELS // 10**6} million. Save a smaller copy."


def _damaged(name: str, kind: str | None) -> str:
    return f"{name}: a damaged or truncated {kind or 'picture'}. Copy, download or export it again."


def _clean(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError("too_many_pixels", _too_many_pixels(name, image.size))
    if min(image.size) < MIN_SIDE:
        raise PictureError(
            "too_small",
            f"{name}: {image.width} x {image.height} pixels. Give a picture of at least {MIN_SIDE} pixels a side.",
        )
    kind = image.format
    try:
        # MPO is a JPEG with several pictures, not an animation.
        frames = 1 if kind == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise PictureError(
                "animated",
                f"{name}: an animation of {frames} frames. Save the one frame you mean as a PNG, "
                "for example: ffmpeg -i INPUT -frames:v 1 frame.png",
            )
        image.load()
        pixels = _rgb(image, name)
        turn = _UPRIGHT.get(_orientation(image))
    except PictureError:
        raise
    except Exception as error:  # decoders raise errors of any type on malicious bytes
        raise PictureError("damaged", _damaged(name, kind)) from error
    if turn is not None:
        pixels = pixels.transpose(turn)
    clean = Image.new("RGB", pixels.size)
    clean.paste(pixels)
    return clean


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if missing or unreadable."""
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # malformed EXIF must not make a readable picture fail
        return 1


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(
                "unsupported_mode", f"{name}: 32-bit grey values of unknown range. Save it as an 8- or 16-bit PNG."
            )
        grey = np.empty(values.shape, np.uint8)
        for top in range(0, len(values), _ROWS):  # bounds the memory
            grey[top : top + _ROWS] = np.rint(values[top : top + _ROWS] / np.float32(257))
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise PictureError(
            "unsupported_mode", f"{name}: floating-point grey values of unknown range. Save it as an 8-bit PNG."
        )
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, (*BACKGROUND, 255)), over).convert("RGB")
    return image.convert("RGB")


def encode_jpeg(picture: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    """Encode without metadata and without chroma subsampling, which would blur lips and irises."""
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
