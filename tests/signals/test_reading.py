"""Every kind of bad file against the one error that may come out."""

import io
import os
import struct

import imagecodecs
import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image

from neuralfield.errors import MissingDependency, SignalError
from neuralfield.signals import raw as raw_module
from neuralfield.signals import read_float, reading
from neuralfield.signals.reading import read_image

from .image_files import exr, fails, noise, png, png_of, saved, tiff


def whole_files():
    rgb = noise((24, 32, 3), np.uint8)
    image = Image.fromarray(rgb)
    files = {
        "png": png_of(rgb),
        "png16": png_of(noise((24, 32, 3), np.uint16)),
        "jpeg": saved(image, "JPEG"),
        "progressive": saved(image, "JPEG", progressive=True),
        "webp": saved(image, "WEBP"),
        "lossless": saved(image, "WEBP", lossless=True),
        "bmp": saved(image, "BMP"),
        "gif": saved(image, "GIF"),
        "tiff": tiff(rgb, photometric="rgb"),
        "zlib": tiff(rgb, photometric="rgb", compression="zlib"),
        "lzw": tiff(rgb, photometric="rgb", compression="lzw"),
        "tiles": tiff(rgb, photometric="rgb", tile=(16, 16)),
        "tiffjpeg": tiff(rgb, photometric="ycbcr", compression="jpeg"),
        "hdr": imagecodecs.rgbe_encode(noise((24, 32, 3), np.float32), header=True),
    }
    buffer = io.BytesIO()
    np.save(buffer, rgb)
    files["npy"] = buffer.getvalue()
    return files


WHOLE = whole_files()


@pytest.mark.parametrize("part", [1, 3, 9, 30, 60, 0.3, 0.6, 0.9, 0.99, -40, -1])
@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_files_that_were_cut_short(read, kind, part):
    data = WHOLE[kind]
    assert read(data).pixels.shape == (24, 32, 3)
    length = int(part * len(data)) if isinstance(part, float) else part if part > 0 else len(data) + part
    if kind in ("gif", "jpeg") and part == -1:  # only the closing mark is missing, so that all pixels may be there
        try:
            assert np.array_equal(read(data[:-1]).pixels, read(data).pixels)
        except SignalError as error:
            assert kind == "jpeg" and "truncated" in str(error)
    else:
        fails("picture", read, data[:length])


@pytest.mark.parametrize("part", [3, 30, 200, 0.2, 0.5, 0.9, -1])
@pytest.mark.parametrize("compression", ["NO", "ZIP", "PIZ"])
def test_exr_files_that_were_cut_short(tmp_path, capsys, compression, part):
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION")}
    path = exr(tmp_path, {"RGB": noise((40, 50, 3), np.float32)}, header)
    data = path.read_bytes()
    length = int(part * len(data)) if isinstance(part, float) else part if part > 0 else len(data) + part
    path.write_bytes(data[:length])
    fails("made.exr", read_image, path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_damaged_files_give_nothing_but_the_one_error(read, kind):
    random = np.random.default_rng(3)
    data = np.frombuffer(WHOLE[kind], np.uint8)
    for _ in range(25):
        damaged = data.copy()
        where = random.integers(0, min(len(data), 300 if random.random() < 0.6 else len(data)), 4)
        damaged[where] = random.integers(0, 256, 4)
        try:
            raw = read(damaged.tobytes())
        except SignalError:
            continue
        assert raw.pixels.ndim == 3 and raw.pixels.dtype.name in raw_module.STORAGE


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty file"),
        (b"hello, this is a note\n", "text file"),
        ("schöne Grüße".encode(), "text file"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"<HTML>", "web page"),
        (b"<svg xmlns=''>", "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"PK\x03\x04rest", "npz"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\x1f\x8b\x08", "gzip"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\x00\x01\x02\x03" * 9, "starts with 00 01 02 03"),
    ],
)
def test_what_is_no_image(read, data, text):
    fails(text, read, data)


@pytest.mark.parametrize(
    "data",
    [
        png([b"\0\0\0"], 1, 8, 2),
        png_of(noise((1, 9, 3), np.uint8)),
        saved(Image.new("L", (1, 1)), "BMP"),
        tiff(noise((1, 5), np.uint8)),
        imagecodecs.rgbe_encode(noise((1, 1, 3), np.float32), header=True),
    ],
)
def test_nothing_to_fit(read, data):
    fails("2 x 2", read, data)


@pytest.mark.parametrize("data", [png([b""], 0, 8, 2, height=0), png([b"\0"], 5, 8, 0, height=0)])
def test_sizes_of_zero(read, data):
    fails("0 pixels|empty|0 x", read, data)


@pytest.mark.parametrize("size", [10**6, 2**31 - 1])
def test_hostile_sizes_of_png(read, size):
    fails("memory", read, png([b"\0" * 9], size, 8, 2, height=size))


def test_hostile_sizes_of_other_formats(read, tmp_path):
    data = bytearray(tiff(noise((8, 8, 3), np.uint8), photometric="rgb", compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = [file.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")]
    for tag in tags:
        data[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", 4)  # LONG
        data[tag.offset + 8 : tag.offset + 12] = struct.pack("<I", 10**6)
    fails("memory", read, data)
    fails("memory", read, b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1000000 +X 1000000\n" + bytes(50))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }\n"
    fails("memory", read, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(40))
    bmp = bytearray(saved(Image.new("RGB", (4, 4)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 10**6, 10**6)
    fails("memory", read, bmp)
    path = exr(tmp_path, {"RGB": noise((8, 8, 3), np.float32)})
    low, high = (struct.pack("<ii", *corner) for corner in ((0, 0), (7, 7)))
    path.write_bytes(path.read_bytes().replace(low + high, low + struct.pack("<ii", 10**6, 10**6)))
    fails("made.exr", read_image, path)


@pytest.mark.parametrize(("value", "count"), [(np.nan, 2), (np.inf, 1), (-np.inf, 3)])
def test_values_that_are_not_finite(read, tmp_path, value, count):
    pixels = noise((9, 8, 3), np.float32)
    pixels[4, 5, 2] = value
    pixels[6, : count - 1, 0] = value
    text = f"{count} value.* NaN or infinite, the first at row 4, column 5, channel 2"
    fails(text, read, tiff(pixels, photometric="rgb"))
    fails(text, read_image, exr(tmp_path, {"RGB": pixels}))
    np.save(tmp_path / "a.npy", pixels)
    fails(text, read_image, tmp_path / "a.npy")


def test_missing_files(tmp_path):
    (tmp_path / "kodim03.png").write_bytes(b"x")
    fails("did you mean 'kodim03.png'", read_image, tmp_path / "kodim3.png")
    fails("check the name", read_image, tmp_path / "zzzzzzzzzzzz")
    fails("there is no folder", read_image, tmp_path / "a" / "b" / "c.png")
    fails("does not exist", read_image, tmp_path / "kodim03.png" / "inside.png")
    fails("folder; give one image file, for example .*kodim03.png", read_image, tmp_path)
    fails("not a file name|does not exist", read_image, "a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    fails("not a regular file", read_image, tmp_path / "pipe")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(noise((4, 4, 3), np.uint8)))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reading.Path, "open", refuse)
    fails("no permission to read .*chmod u\\+r", read_image, path)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.png").write_bytes(png_of(noise((4, 4, 3), np.uint8)))
    assert read_image("~/a.png").pixels.shape == (4, 4, 3)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("lines\nof text " * 50), KeyError("x"), RecursionError()]
)
def test_whatever_a_reader_raises(read, monkeypatch, error):
    def reader(path, frame):
        raise error

    monkeypatch.setitem(reading._READERS, "PNG", reader)
    with pytest.raises(SignalError) as caught:
        read(png_of(noise((4, 4, 3), np.uint8)))
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_read_float_says_which_openexr(tmp_path, monkeypatch):
    path = exr(tmp_path, {"Y": noise((8, 8), np.float32)})
    monkeypatch.setattr(read_float, "require", lambda *arguments: object())
    with pytest.raises(MissingDependency, match=r"3\.3"):
        read_image(path)
