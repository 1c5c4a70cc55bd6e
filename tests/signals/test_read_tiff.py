"""TIFF: depths, layouts, colour spaces, pages and maps against exact arrays."""

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from neuralfield.signals import raw as raw_module
from neuralfield.signals import read_tiff
from neuralfield.signals.reading import read_image

from .image_files import fails, noise, saved, tiff


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "predictor": True},
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"rowsperstrip": 5, "compression": "lzw"},
    ],
)
def test_tiff(read, dtype, channels, options):
    pixels = noise((20, 30, channels), dtype)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    stored, photometric = (pixels, "rgb") if channels > 1 else (pixels[..., 0], "minisblack")
    raw = read(tiff(stored, photometric=photometric, **extra, **options))
    expected = pixels.astype(np.float32) if np.dtype(dtype).kind == "f" else pixels
    assert raw.pixels.dtype == expected.dtype and raw.pixels.dtype.isnative and np.array_equal(raw.pixels, expected)
    assert (raw.has_alpha, raw.premultiplied, raw.linear, raw.format) == (channels == 4, False, False, "TIFF")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_in_planes(read, compression):
    pixels = noise((20, 30, 3), np.uint16)
    data = tiff(np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate", compression=compression)
    assert np.array_equal(read(data).pixels, pixels)


@pytest.mark.parametrize(
    ("extra", "alpha", "premultiplied"),
    [("assocalpha", True, True), ("unassalpha", True, False), ("unspecified", False, False)],
)
def test_tiff_extra_samples(read, extra, alpha, premultiplied):
    pixels = noise((6, 7, 4), np.uint8)
    raw = read(tiff(pixels, photometric="rgb", extrasamples=[extra]))
    assert np.array_equal(raw.pixels, pixels) and (raw.has_alpha, raw.premultiplied) == (alpha, premultiplied)


def test_tiff_white_is_zero_and_bilevel(read):
    grey = noise((6, 9), np.uint16)
    assert np.array_equal(read(tiff(grey, photometric="miniswhite")).pixels[..., 0], 65535 - grey)
    fails("white as zero", read, tiff(grey.astype(np.float32), photometric="miniswhite"))
    for kind in ("minisblack", "miniswhite"):
        bits = grey > 30000
        shown = bits if kind == "minisblack" else ~bits
        assert np.array_equal(read(tiff(bits, photometric=kind)).pixels[..., 0], 255 * shown)


@pytest.mark.parametrize("bits", [4, 12])
def test_tiff_of_odd_depth_fills_the_range(read, bits):
    top = (1 << bits) - 1
    levels = noise((6, 8), np.uint16) & top
    stored = levels.astype(np.uint8 if bits <= 8 else np.uint16)
    packed = imagecodecs.packints_encode(stored, bits)
    data = bytearray(
        tiff(np.frombuffer(packed, np.uint8).reshape(6, -1), photometric="minisblack", metadata=None, rowsperstrip=6)
    )
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = file.pages[0].tags
        width, depth = tags["ImageWidth"], tags["BitsPerSample"]
    for tag, value in ((width, 8), (depth, bits)):
        struct.pack_into("<H", data, tag.offset + 8, value)
    limit = 255 if bits <= 8 else 65535
    assert np.array_equal(read(data).pixels[..., 0], np.rint(levels * (limit / top)).astype(stored.dtype))


@pytest.mark.parametrize(("factor", "dtype"), [(257, np.uint8), (256, np.uint8), (1, np.uint8), (None, np.uint16)])
def test_tiff_palette(read, factor, dtype):
    table = noise((3, 256), np.uint8).astype(np.uint16)
    stored = table * factor if factor else noise((3, 256), np.uint16)
    index = noise((6, 9), np.uint8)
    raw = read(tiff(index, photometric="palette", colormap=stored))
    assert raw.pixels.dtype == dtype and np.array_equal(raw.pixels, (table if factor else stored).T[index])


def test_tiff_ycbcr_and_jpeg(read):
    pixels = np.repeat(np.repeat(noise((4, 4, 3), np.uint8), 8, 0), 8, 1)
    converted = Image.fromarray(pixels).convert("YCbCr")
    expected = np.asarray(converted.convert("RGB")).astype(int)
    assert np.abs(read(saved(converted, "TIFF")).pixels - expected).max() <= 1
    for photometric in ("ycbcr", "rgb"):
        data = tiff(pixels, photometric=photometric, compression="jpeg")
        assert np.abs(read(data).pixels.astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 2


def test_tiff_pages(read):
    stack = noise((3, 6, 9), np.uint8)
    data = tiff(stack, photometric="minisblack")
    fails("3 pages; choose one with signal.frame=0", read, data)
    for k in range(3):
        assert np.array_equal(read(data, k).pixels[..., 0], stack[k])
    fails("no picture 7", read, data, 7)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("tags", [0, 1])
def test_a_chain_of_pages_that_bites_its_tail_is_refused(read, tags):
    data = bytearray(tiff(noise((6, 9), np.uint8)))
    entries = struct.unpack_from("<H", data, 8)[0]
    struct.pack_into("<I", data, 10 + 12 * entries, len(data))
    loop = struct.pack("<H", tags) + bytes(12 * tags) + struct.pack("<I", len(data))
    fails("2 pages|picture", read, data + loop)


def test_tiff_pyramids_are_one_picture(read):
    buffer, pixels = io.BytesIO(), noise((32, 32, 3), np.uint8)
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(pixels, photometric="rgb")
        writer.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read(buffer.getvalue()).pixels, pixels)


def test_tiff_stays_on_disk_when_it_is_large(tmp_path, monkeypatch):
    monkeypatch.setattr(read_tiff, "MAP_FROM", 100)
    # Nothing needs to fit into memory, so that nothing is compared with it.
    monkeypatch.setattr(raw_module, "available_bytes", lambda: 10.0)
    pixels = noise((20, 30, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate")
    before = (tmp_path / "a.tif").read_bytes()
    for name in ("a.tif", "b.tif"):
        raw = read_image(tmp_path / name)
        assert isinstance(raw.pixels, np.memmap) and np.array_equal(raw.pixels, pixels)
    raw = read_image(tmp_path / "a.tif")
    raw.pixels[:] = 0
    assert (tmp_path / "a.tif").read_bytes() == before
    monkeypatch.undo()
    assert not isinstance(read_image(tmp_path / "a.tif").pixels, np.memmap)


@pytest.mark.parametrize(("dtype", "text"), [(np.int16, "int16"), (np.complex64, "complex64"), (np.uint64, "uint64")])
def test_tiff_types_without_a_range(read, dtype, text):
    fails(text, read, tiff(np.ones((4, 4), dtype)))


@pytest.mark.parametrize(
    ("kind", "mode", "text"), [("TIFF", "LAB", "CIELAB"), ("TIFF", "CMYK", "SEPARATED"), ("JPEG", "CMYK", "CMYK")]
)
def test_other_colour_spaces(read, kind, mode, text):
    image = Image.fromarray(noise((8, 8, 3), np.uint8)).convert(mode)
    fails(f"colour space {text}.*convert it", read, saved(image, kind))
