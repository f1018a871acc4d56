"""Image loading, with pictures of every kind generated in code."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from semanticface.errors import PictureError
from semanticface.vision import image_io
from semanticface.vision.image_io import expand, load_picture


def drawn(width=64, height=48):
    """Return a picture with distinct corners: red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=(255, 0, 0))
    pen.rectangle((width // 2, 0, width, height // 2 - 1), fill=(0, 255, 0))
    pen.rectangle((0, height // 2, width // 2 - 1, height), fill=(0, 0, 255))
    return image


def encoded(image, format="PNG", **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def difference(a, b):
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).mean()


def fails(source, code, *words, **options):
    with pytest.raises(PictureError) as caught:
        load_picture(source, **options)
    assert caught.value.code == code
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("format", image_io.FORMATS)
def test_plain(tmp_path, format):
    path = tmp_path / f"face.{format.lower()}"
    path.write_bytes(encoded(drawn(), format, quality=95))
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        image = load_picture(source)
        assert (image.mode, image.size) == ("RGB", (64, 48))
        assert difference(image, drawn()) < 6


def test_a_wrong_suffix_is_ignored(tmp_path):
    path = tmp_path / "face.jpg"
    path.write_bytes(encoded(drawn(), "PNG"))
    assert difference(load_picture(path), drawn()) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied(orientation, format):
    # The stored pixels are the upright picture with the inverse of the viewer's turn.
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    stored = drawn() if orientation == 1 else drawn().transpose(image_io._UPRIGHT[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} | ({"lossless": True} if format == "WEBP" else {})
    image = load_picture(encoded(stored, format, exif=exif, **options))
    assert image.size == (64, 48)
    assert difference(image, drawn()) < 6


def test_malformed_exif_is_ignored():
    data = encoded(drawn(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert load_picture(data).size == (64, 48)


def test_metadata_is_removed():
    exif = Image.Exif()
    exif[0x010F] = "Maker of cameras"
    exif.get_ifd(0x8825)[1] = "N"
    data = encoded(drawn(), "JPEG", exif=exif, comment=b"at home", icc_profile=b"x" * 200, dpi=(300, 300))
    assert Image.open(io.BytesIO(data)).info.keys() >= {"exif", "comment", "icc_profile"}
    image = load_picture(data)
    assert image.info == {} and not image.getexif() and type(image) is Image.Image
    again = encoded(image, "JPEG")
    for word in (b"Maker", b"at home", b"Exif", b"x" * 20):
        assert word not in again


def test_cmyk():
    image = load_picture(encoded(drawn().convert("CMYK"), "JPEG", quality=95))
    assert difference(image, drawn()) < 6


@pytest.mark.parametrize("kind", ["L", "1", "P", "LA", "YCbCr", "HSV"])
def test_other_modes(kind):
    grey = drawn().convert("L")
    image = load_picture(drawn().convert(kind))
    assert image.mode == "RGB"
    if kind == "L":
        assert difference(image, grey.convert("RGB")) == 0
    if kind in ("P", "YCbCr", "HSV"):
        assert difference(image, drawn()) < 3


@pytest.mark.parametrize("source", ["png", "opened", "mode I"])
def test_16_bit_grey_is_scaled_not_clipped(source):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (48, 1))
    if source == "mode I":
        given = Image.fromarray(ramp.astype(np.int32))
    else:
        given = Image.fromarray(ramp)
        given = encoded(given) if source == "png" else given
    values = np.asarray(load_picture(given))
    assert np.abs(values[..., 0].astype(float) - ramp / 257).max() <= 0.5


def test_16_bit_colour_png_is_scaled():
    values = np.full((20, 20, 3), [1000, 30000, 65535], dtype=">u2")
    raw = b"".join(b"\x00" + row.tobytes() for row in values)
    data = png((20, 20), raw, depth=16)
    assert np.abs(np.asarray(load_picture(data), int)[0, 0] - [1000 // 257, 30000 // 257, 255]).max() <= 1


@pytest.mark.parametrize("mode", ["F", "I"])
def test_grey_of_unknown_range_is_rejected(mode):
    fails(Image.new(mode, (32, 32), -5), "unsupported_mode", "8-", name="scan")


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_shows_white(format):
    image = drawn().convert("RGBA")
    image.putalpha(0)
    assert np.asarray(load_picture(encoded(image, format))).min() > 250
    half = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    assert abs(int(np.asarray(load_picture(encoded(half)))[0, 0, 0]) - 127) <= 1


def test_palette_with_transparency():
    image = drawn().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    index = image.getpixel((0, 0))
    assert load_picture(encoded(image, transparency=index)).getpixel((0, 0)) == (255, 255, 255)


def png(size, raw, depth=8, colour=2):
    """Return a PNG of kinds that Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", image_io.FORMATS)
def test_every_truncation_is_an_error(tmp_path, format):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    whole = encoded(noise, format)
    for length in (1, 4, 12, 30, len(whole) // 4, len(whole) // 2, len(whole) - 40):
        with pytest.raises(PictureError) as caught:
            load_picture(whole[:length], name="cut.img")
        assert caught.value.code in ("damaged", "not_a_picture")
        assert "cut.img" in str(caught.value)
        if length > 12:
            assert caught.value.code == "damaged"


@pytest.mark.parametrize("format", image_io.FORMATS)
def test_corrupted_bytes_raise_only_picture_errors(format):
    whole = bytearray(encoded(drawn(), format))
    random = np.random.default_rng(7)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            data[random.integers(len(data))] = random.integers(256)
        try:
            assert load_picture(bytes(data)).mode == "RGB"
        except PictureError as error:
            assert error.code and str(error)


def test_zero_bytes(tmp_path):
    path = tmp_path / "nothing.png"
    path.touch()
    fails(path, "empty", str(path), "again")
    fails(b"", "empty", "the picture")


def test_too_many_pixels_are_rejected_before_decoding(monkeypatch):
    # A 20,000 x 20,000 picture in a few bytes: 1.2 GB if it were decoded.
    bomb = png((20000, 20000), b"")
    fails(bomb, "too_many_pixels", "64 million", name="bomb.png")
    fails(png((9000, 9000), b""), "too_many_pixels", "9000 x 9000", name="bomb.png")
    monkeypatch.setattr(image_io, "MAX_PIXELS", 64 * 48)
    assert load_picture(encoded(drawn())).size == (64, 48)
    fails(encoded(drawn(64, 49)), "too_many_pixels")


def test_too_large_a_file(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(image_io.MAX_BYTES + 1)  # sparse: takes no space
    fails(path, "file_too_large", "huge.png", "64 MiB")
    monkeypatch.setattr(image_io, "MAX_BYTES", 10)
    fails(encoded(drawn()), "file_too_large")


def test_too_small():
    fails(encoded(drawn(40, 8)), "too_small", "40 x 8", "16 pixels")


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_animations_are_rejected_with_their_frame_count(format):
    data = encoded(
        drawn(), format, save_all=True, append_images=[Image.new("RGB", (64, 48), c) for c in ("red", "blue")]
    )
    fails(data, "animated", "clip", "3 frames", "ffmpeg", name="clip")


def test_the_first_picture_of_an_mpo_is_used():
    data = encoded(drawn(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], quality=95)
    assert difference(load_picture(data), drawn()) < 6


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (encoded(drawn(), "GIF"), "unsupported_format", "a GIF"),
        (encoded(drawn(), "BMP"), "unsupported_format", "BMP"),
        (encoded(drawn(), "TIFF"), "unsupported_format", "TIFF"),
        (b"\x00\x00\x00\x20ftypheic" + b"\x00" * 64, "unsupported_format", "HEIC"),
        (b"\x00\x00\x00\x20ftypisom" + b"\x00" * 64, "unsupported_format", "video"),
        (b"%PDF-1.7 and so on", "unsupported_format", "PDF"),
        (b"<html><body>404</body></html>", "unsupported_format", "web page"),
        (b"just words, no picture", "not_a_picture", "not a picture"),
        (bytes(200), "not_a_picture", "not a picture"),
    ],
)
def test_other_content_is_named(tmp_path, content, code, word):
    path = tmp_path / "face.png"
    path.write_bytes(content)
    fails(path, code, "face.png", word, "PNG, JPEG or WEBP")


def test_paths_that_are_not_files(tmp_path):
    fails(tmp_path / "gone.png", "missing", "gone.png", "Check the path")
    fails(tmp_path, "directory", str(tmp_path))
    fails("a\x00b.png", "unreadable")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    fails(pipe, "not_a_file", "pipe.png")
    fails("/dev/zero", "not_a_file", "/dev/zero")


def test_expand(tmp_path):
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("b.PNG", "a.jpg", "c.webp", "notes.txt", ".hidden.png"):
        (folder / name).touch()
    gone = tmp_path / "gone.png"
    assert expand([gone, folder]) == [gone, folder / "a.jpg", folder / "b.PNG", folder / "c.webp"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PictureError, match=r"empty: no picture") as caught:
        expand([empty])
    assert caught.value.code == "no_pictures"


def test_a_folder_is_read_by_content(tmp_path):
    jpeg = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(jpeg, "JPEG")
    contents = {
        "a.jpg": jpeg.getvalue(), "b.jfif": jpeg.getvalue(), "IMG_3.HEIC": jpeg.getvalue(), "d": jpeg.getvalue(),
        "e.avif": b"\0\0\0\x1cftypavif" + bytes(64), "f.heic": b"\0\0\0\x1cftypheic" + bytes(64),
        "g.gif": b"GIF89a" + bytes(64), "h.mov": b"\0\0\0\x14ftypqt  " + bytes(64), "i.txt": b"words",
        "j.jpg": b"words",
        ".hidden.jpg": jpeg.getvalue(),
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    notes = []
    found = expand([tmp_path], notes.append)
    assert [path.name for path in found] == [
        "IMG_3.HEIC", "a.jpg", "b.jfif", "d", "e.avif", "f.heic", "g.gif", "j.jpg",
    ]  # fmt: skip
    assert notes == [f"{tmp_path}: passed over, no pictures: h.mov, i.txt."]
    assert all(load_picture(path).size == (32, 32) for path in found[:4])
    codes = []
    for path in found[4:]:
        with pytest.raises(PictureError) as caught:
            load_picture(path)
        codes.append(caught.value.code)
    assert codes == ["unsupported_format"] * 3 + ["not_a_picture"]


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", ["text", "compressed", "international", "plain international", "profile", "many"])
def test_a_png_with_megabytes_of_metadata(kind, late):
    size = 3 * 2**20
    packed = zlib.compress(bytes(size))
    extra = {
        "text": png_chunk(b"tEXt", b"workflow\0" + b"{" * size),
        "compressed": png_chunk(b"zTXt", b"workflow\0\0" + packed),
        "international": png_chunk(b"iTXt", b"workflow\0\1\0\0\0" + packed),
        "plain international": png_chunk(b"iTXt", b"workflow\0\0\0\0\0" + b"{" * size),
        "profile": png_chunk(b"iCCP", b"profile\0\0" + packed),
        "many": b"".join(png_chunk(b"zTXt", b"part\0\0" + zlib.compress(bytes(2**20))) for _ in range(70)),
    }[kind]
    pixels = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    plain = buffer.getvalue()
    at = plain.index(b"IEND" if late else b"IDAT") - 4
    assert np.array_equal(np.asarray(load_picture(plain[:at] + extra + plain[at:])), pixels)


def scanned(extra):
    """A progressive JPEG with its last scan repeated, and how many scans Pillow writes."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
        buffer, "JPEG", progressive=True
    )
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * extra + data[-2:], data.count(b"\xff\xda")


def test_scans_of_a_jpeg_are_counted_before_it_is_decoded():
    data, written = scanned(0)
    assert image_io.count_scans(data) == written > 5 and load_picture(data).size == (40, 40)
    data, _ = scanned(200)
    assert image_io.count_scans(data) == written + 200
    with pytest.raises(PictureError, match=r"a JPEG of 2.. scans") as caught:
        load_picture(data)
    assert caught.value.code == "too_many_scans"


@given(st.binary(max_size=200))
def test_any_bytes_have_a_number_of_scans(data):
    assert 0 <= image_io.count_scans(b"\xff\xd8" + data) <= len(data)


def test_every_16_bit_grey_is_scaled():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = np.asarray(load_picture(Image.fromarray(values)))
    assert np.array_equal(pixels[..., 0], np.rint(values / 257))
