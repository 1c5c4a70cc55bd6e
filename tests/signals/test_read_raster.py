"""PNG, JPEG, WebP, BMP and GIF at every depth against exact arrays, and the eight orientations."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.signals import read_png

from .image_files import chunk, fails, noise, orientation_note, png, png_of, saved, tiff, turn_back


@pytest.mark.parametrize("without_codecs", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png(read, monkeypatch, channels, dtype, without_codecs):
    pixels = noise((5, 7, channels), dtype)
    if without_codecs:
        monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
        if dtype == np.uint16 and channels > 1:
            monkeypatch.setitem(sys.modules, "imagecodecs", None)
            with pytest.raises(MissingDependency, match="pip install imagecodecs"):
                read(png_of(pixels))
            return
    raw = read(png_of(pixels))
    assert raw.pixels.dtype == dtype and np.array_equal(raw.pixels, pixels)
    assert (raw.has_alpha, raw.premultiplied, raw.linear, raw.format) == (channels in (2, 4), False, False, "PNG")


@pytest.mark.parametrize("without_codecs", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_fills_the_range(read, monkeypatch, depth, without_codecs):
    if without_codecs:
        monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
    top = (1 << depth) - 1
    levels = noise((3, 8), np.uint8) & top
    bits = np.unpackbits(levels[..., None], axis=-1)[..., 8 - depth :].reshape(3, -1)
    raw = read(png([np.packbits(row).tobytes() for row in bits], 8, depth, 0))
    assert np.array_equal(raw.pixels[..., 0], levels * (255 // top)) and not raw.has_alpha


@pytest.mark.parametrize("without_codecs", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_palette(read, monkeypatch, transparent, without_codecs):
    if without_codecs:
        monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
    table = noise((4, 3), np.uint8)
    index = noise((5, 6), np.uint8) % 4
    notes = chunk(b"PLTE", table.tobytes()) + (chunk(b"tRNS", b"\x00\x80") if transparent else b"")
    raw = read(png([row.tobytes() for row in index], 6, 8, 3, notes))
    assert np.array_equal(raw.pixels[..., :3], table[index]) and raw.has_alpha == transparent
    if transparent:
        assert np.array_equal(raw.pixels[..., 3], np.array([0, 128, 255, 255])[index])


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_png_colour_key(read, dtype, channels):
    pixels = noise((4, 5, channels), dtype) % 3
    key = pixels[2, 3]
    raw = read(png_of(pixels, chunk(b"tRNS", key.astype(">u2").tobytes())))
    assert raw.has_alpha and raw.pixels.dtype == dtype and np.array_equal(raw.pixels[..., :-1], pixels)
    assert np.array_equal(raw.pixels[..., -1] == 0, (pixels == key).all(-1))


def test_png_beyond_the_limits_of_pillow(read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    pixels = noise((9, 9, 3), np.uint8)
    assert np.array_equal(read(png_of(pixels)).pixels, pixels)
    assert read(saved(Image.fromarray(pixels), "JPEG")).pixels.shape == (9, 9, 3)
    assert Image.MAX_IMAGE_PIXELS == 10  # put back


def test_jpeg(read):
    pixels = np.repeat(np.repeat(noise((4, 4, 3), np.uint8), 16, 0), 16, 1)
    for shown in (pixels, pixels[..., 0]):
        image = Image.fromarray(shown)
        data = saved(image, "JPEG", quality=95)
        raw = read(data)
        assert raw.format == "JPEG" and not raw.has_alpha
        assert np.array_equal(raw.pixels.squeeze(), np.asarray(Image.open(io.BytesIO(data))))


def test_pictures_behind_the_first_of_a_jpeg_are_previews(read):
    first, second = (Image.new("RGB", (16, 16), shade) for shade in ((200, 100, 50), (0, 0, 0)))
    raw = read(saved(first, "MPO", save_all=True, append_images=[second]))
    assert np.abs(raw.pixels - np.array([200.0, 100.0, 50.0])).max() < 4 and raw.format == "JPEG"


@pytest.mark.parametrize(("kind", "channels"), [("WEBP", 3), ("WEBP", 4), ("BMP", 3), ("PNG", 3), ("PNG", 4)])
def test_lossless_colours(read, kind, channels):
    pixels = noise((6, 9, channels), np.uint8)
    pixels[..., 3:] |= 1  # WebP does not keep the colours of what is invisible
    raw = read(saved(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(raw.pixels, pixels) and raw.has_alpha == (channels == 4)
    assert raw.format.upper() == kind


def test_bmp_grey_and_bilevel(read):
    grey = noise((6, 9), np.uint8)
    assert np.array_equal(read(saved(Image.fromarray(grey), "BMP")).pixels[..., 0], grey)
    assert np.array_equal(read(saved(Image.fromarray(grey > 99), "BMP")).pixels[..., 0], 255 * (grey > 99))


def test_gif_and_transparent_gif(read):
    index = noise((6, 9), np.uint8) % 4
    image = Image.fromarray(index)
    image = Image.frombytes("P", (9, 6), index.tobytes())
    image.putpalette(list(range(12)))
    table = np.arange(12, dtype=np.uint8).reshape(4, 3)
    assert np.array_equal(read(saved(image, "GIF")).pixels, table[index])
    raw = read(saved(image, "GIF", transparency=2))
    assert raw.has_alpha and np.array_equal(raw.pixels[..., 3] == 0, index == 2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations(read, kind):
    levels = (0, 120, 250)
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in levels]
    data = saved(
        frames[0],
        kind,
        save_all=True,
        append_images=frames[1:],
        duration=50,
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    fails(r"3 animation frames; choose one with signal.frame=0", read, data)
    for k, level in enumerate(levels):
        assert np.abs(read(data, k).pixels[..., :3].astype(int) - level).max() <= 4
    fails("no picture 3: signal.frame goes from 0 to 2", read, data, 3)


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_wrong_frame_numbers(read, wrong):
    with pytest.raises((ConfigError, TypeError), match="frame"):
        read(png_of(noise((3, 3, 3), np.uint8)), wrong)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "PNG without imagecodecs"])
def test_orientation(read, monkeypatch, kind, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :16] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
    stored = np.ascontiguousarray(turn_back(upright, orientation))
    note = b"Exif\0\0" + orientation_note(orientation)
    if kind.startswith("PNG"):
        if kind != "PNG":
            monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
        data = png_of(stored, chunk(b"eXIf", note[6:]))
    elif kind == "TIFF":
        data = tiff(stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        data = saved(
            Image.fromarray(stored),
            kind,
            exif=note,
            **({"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0}),
        )
    found = read(data).pixels
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("note", [b"", b"nonsense", orientation_note(99)])
def test_unreadable_notes_do_not_spoil_a_picture(read, note):
    pixels = noise((4, 6, 3), np.uint8)
    assert np.array_equal(read(png_of(pixels, chunk(b"eXIf", note))).pixels, pixels)
