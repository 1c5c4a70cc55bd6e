"""OpenEXR, Radiance HDR and NumPy arrays."""

import os
import sys

import imagecodecs
import numpy as np
import OpenEXR
import pytest

from neuralfield.errors import MissingDependency
from neuralfield.signals import raw as raw_module
from neuralfield.signals.reading import read_image

from .image_files import exr, fails, noise


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint32])
@pytest.mark.parametrize("names", ["RGB", "RGBA", "Y", "YA"])
@pytest.mark.parametrize("tiled", [False, True])
def test_exr(tmp_path, dtype, names, tiled):
    pixels = (noise((20, 30, len(names)), np.float32) * 50).astype(dtype)
    # Written one by one and backwards: the order in the file must not matter.
    channels = {name: pixels[:, :, k].copy() for k, name in reversed(list(enumerate(names)))}
    header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()} if tiled else {}
    raw = read_image(exr(tmp_path, channels, header))
    assert raw.pixels.dtype == np.float32 and np.array_equal(raw.pixels, pixels.astype(np.float32))
    assert (raw.has_alpha, raw.premultiplied, raw.linear, raw.format) == ("A" in names, "A" in names, True, "EXR")


def test_exr_data_window(tmp_path):
    pixels = noise((20, 30, 3), np.float32)
    window = (np.array([-5, 7], np.int32), np.array([24, 26], np.int32))
    path = exr(
        tmp_path,
        {"RGB": pixels},
        {"dataWindow": window, "displayWindow": (np.zeros(2, np.int32), np.array([99, 99], np.int32))},
    )
    assert np.array_equal(read_image(path).pixels, pixels)


def test_exr_lists_the_channels_that_are_there(tmp_path):
    plane = noise((8, 8), np.float32)
    fails("its channels are: Z, diffuse.R", read_image, exr(tmp_path, {"Z": plane, "diffuse.R": plane}))


def test_exr_parts(tmp_path):
    pixels, depth = noise((8, 9, 3), np.float32), noise((8, 9), np.float32)
    path = tmp_path / "parts.exr"

    def write(first, second):
        parts = [OpenEXR.Part({}, channels, name=name) for name, channels in (("a", first), ("b", second))]
        OpenEXR.File(parts).write(str(path))

    write({"Z": depth}, {"RGB": pixels})
    assert np.array_equal(read_image(path).pixels, pixels)  # the only one with colours
    assert np.array_equal(read_image(path, 1).pixels, pixels)
    fails("its channels are: Z", read_image, path, 0)
    write({"RGB": pixels}, {"RGB": pixels + 1})
    fails("2 parts; choose one", read_image, path)
    assert np.array_equal(read_image(path, 1).pixels, pixels + 1)


def test_exr_without_openexr(tmp_path, monkeypatch):
    path = exr(tmp_path, {"Y": noise((8, 8), np.float32)})
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(MissingDependency, match="pip install OpenEXR"):
        read_image(path)


@pytest.mark.parametrize("width", [30, 5])  # run-length coding starts at 8
def test_hdr(read, width):
    pixels = noise((20, width, 3), np.float32) * 40
    raw = read(imagecodecs.rgbe_encode(pixels, header=True))
    # 8 bits of mantissa, shared by the three colours of a pixel
    assert raw.pixels.dtype == np.float32 and (np.abs(raw.pixels - pixels) <= pixels.max(-1, keepdims=True) / 128).all()
    assert (raw.has_alpha, raw.linear, raw.format) == (False, True, "HDR")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b"-Y 20 +X 30", b"+Y 20 +X 30", "order"),
        (b"rgbe", b"xyze", "XYZ"),
        (b"-Y 20 +X 30", b"-Y 2x +X 30", "size line"),
    ],
)
def test_hdr_of_other_kinds(read, old, new, text):
    fails(text, read, imagecodecs.rgbe_encode(noise((20, 30, 3), np.float32), header=True).replace(old, new))


@pytest.mark.parametrize("dtype", [bool, np.uint8, ">u2", np.uint32, np.float16, np.float32, ">f4", np.float64])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_npy(tmp_path, dtype, shape):
    array = (noise(shape, np.uint8) > 99) if dtype is bool else (noise(shape, np.float32) * 9).astype(dtype)
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(array, order=order))
        raw = read_image(tmp_path / "a.npy")
        expected = array * np.uint8(255) if dtype is bool else array
        assert np.array_equal(raw.pixels, expected.reshape(5, 7, -1)) and raw.pixels.dtype.isnative
        assert raw.pixels.dtype.name in raw_module.STORAGE and raw.has_alpha == (len(shape) == 3 and shape[2] in (2, 4))


def test_npy_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.save(tmp_path / "a.npy", np.array([[Bomb(), Bomb()]], dtype=object), allow_pickle=True)
    fails("never loaded", read_image, tmp_path / "a.npy")
    assert not (tmp_path / "exploded").exists()
