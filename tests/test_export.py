"""Pictures of a field: where its pixels lie, and what each file format keeps of them."""

from __future__ import annotations

import errno
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor

import neuralfield as nf
from neuralfield import export
from neuralfield.encodings import Identity
from neuralfield.errors import ConfigError, OutputError
from neuralfield.export import SUFFIXES, render, to_8bit, write_image
from neuralfield.networks import MLP
from neuralfield.signals.reading import read_image

RNG = np.random.default_rng(3)


def wavy(channels: int = 3) -> nf.Field:
    torch.manual_seed(1)
    encoding = {"name": "fourier", "n_features": 8, "sigma": 2.0}
    return nf.build(2, channels, encoding, {"width": 16, "output_scale": 1.0})


def coordinates() -> nf.Field:
    """The field whose value is its coordinates, (x, y)."""
    field = nf.Field(Identity(2), MLP(2, 2, depth=0))
    with torch.no_grad():
        field.network.layers[0].weight.copy_(torch.eye(2))
        field.network.layers[0].bias.zero_()
    return field


def at(field: nf.Field, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return field(x).numpy()


def test_pixels_are_sampled_at_their_centres() -> None:
    image = render(coordinates(), 8, 4)
    assert image.shape == (4, 8, 2) and image.dtype == np.float32
    x, y = np.meshgrid((np.arange(8) + 0.5) / 8, (np.arange(4) + 0.5) / 4)
    np.testing.assert_array_equal(image, np.stack([x, y], -1).astype(np.float32))


def test_region_is_cut_out_in_the_same_way() -> None:
    image = render(coordinates(), 5, 2, region=(0.25, 0.5, 0.75, 0.6))
    x, y = np.meshgrid(0.25 + 0.5 * (np.arange(5) + 0.5) / 5, 0.5 + 0.1 * (np.arange(2) + 0.5) / 2)
    np.testing.assert_allclose(image, np.stack([x, y], -1), rtol=1e-6)


def test_render_is_the_field() -> None:
    field = wavy()
    image = render(field, 7, 5)
    for row, column in ((0, 0), (4, 6), (2, 3)):
        value = at(field, torch.tensor([(column + 0.5) / 7, (row + 0.5) / 5]))
        np.testing.assert_allclose(image[row, column], value, rtol=1e-5, atol=1e-6)


def test_a_part_drawn_alone_is_the_same_part_of_the_whole() -> None:
    field = wavy()
    whole = render(field, 32, 16)
    np.testing.assert_allclose(render(field, 8, 8, region=(0.25, 0.5, 0.5, 1.0)), whole[8:, 8:16], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [3, 5])
def test_odd_scales_keep_the_centres(scale: int) -> None:
    """The middle one of scale x scale fine pixels lies where the coarse pixel lies."""
    field = wavy()
    fine = render(field, 6 * scale, 4 * scale)
    np.testing.assert_allclose(
        fine[scale // 2 :: scale, scale // 2 :: scale], render(field, 6, 4), rtol=1e-4, atol=1e-5
    )


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    field = wavy()
    whole = render(field, 40, 11)
    seen: list[int] = []
    for points in (1, 13, 40, 130):  # less than a row, a row, several
        monkeypatch.setattr(export, "block_points", lambda _, points=points: points)
        seen.clear()
        np.testing.assert_allclose(render(field, 40, 11, on_rows=seen.append), whole, rtol=1e-5, atol=1e-6)
        assert seen == sorted(set(seen)) and seen[-1] == 11


def test_very_wide_images_keep_exact_positions() -> None:
    image = render(coordinates(), 100_001, 1)
    exact = (np.arange(100_001) + 0.5) / 100_001
    assert np.abs(image[0, :, 0] - exact).max() < 2**-24


def test_mode_of_the_field_comes_back() -> None:
    field = wavy()
    for training in (True, False):
        field.train(training)
        render(field, 2, 2)
        assert field.training is training
    assert all(parameter.grad is None for parameter in field.parameters())


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0.5, 0, 0.5, 1), "empty"),
        ((0.6, 0, 0.4, 1), "empty"),
        ((0, 1, 1, 0), "empty"),
        ((0, 0, 1), "four numbers"),
        ((0, 0, 1.5, 1), "region"),
        ((-0.1, 0, 1, 1), "region"),
        ((float("nan"), 0, 1, 1), "region"),
    ],
    ids=str,
)
def test_bad_regions(region: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        render(wavy(), 2, 2, region)


def test_only_fields_of_two_coordinates_are_images() -> None:
    with pytest.raises(ConfigError, match="2 coordinates is an image; this one has 3"):
        render(nf.build(3, 1, "none"), 2, 2)
    with pytest.raises(ConfigError, match="width must be at least 1"):
        render(wavy(), 0, 2)


# Files


def random_image(channels: int, height: int = 6, width: int = 9) -> np.ndarray:
    return RNG.random((height, width, channels)).astype(np.float32)


def test_eight_bits_are_rounded_to_nearest_and_clamped() -> None:
    values = np.array([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 100.4 / 255, 254.6 / 255, 1.0, 7.0], np.float32)
    assert to_8bit(values.reshape(1, -1, 1), "srgb").ravel().tolist() == [0, 0, 0, 1, 100, 255, 255, 255]
    every = np.arange(256, dtype=np.float32).reshape(16, 16, 1) / 255
    assert np.array_equal(to_8bit(every, "srgb"), np.arange(256).reshape(16, 16, 1))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_linear_values_are_encoded_for_eight_bits_but_opacity_is_not(channels: int) -> None:
    """IEC 61966-2-1: 0.0025 lies on the straight part of the curve, 0.2140 is half of full scale."""
    image = np.zeros((1, 3, channels), np.float32) + np.array([0.0025, 0.21404114, 1.0], np.float32)[:, None]
    expected = np.repeat(np.array([[8], [128], [255]]), channels, 1)  # 0.0025 * 12.92 * 255 = 8.2
    if channels in (2, 4):
        expected[:, -1] = [1, 55, 255]
    assert to_8bit(image, "linear")[0].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("suffix", "channels"), [(s, c) for s in (".png", ".bmp", ".PNG") for c in (1, 2, 3, 4) if s != ".bmp" or c % 2]
)
def test_lossless_eight_bit_files(tmp_path: Path, suffix: str, channels: int) -> None:
    image = random_image(channels)
    write_image(tmp_path / f"image{suffix}", image)
    back = read_image(tmp_path / f"image{suffix}")
    assert back.has_alpha == (channels in (2, 4))
    pixels = np.rint(image * 255)
    assert np.array_equal(back.pixels, pixels if back.pixels.shape[2] == channels else np.repeat(pixels, 3, 2))


@pytest.mark.parametrize(
    ("suffix", "channels"), [(s, c) for s in (".jpg", ".jpeg", ".webp") for c in (1, 2, 3, 4) if s == ".webp" or c % 2]
)
def test_lossy_files(tmp_path: Path, suffix: str, channels: int) -> None:
    y, x = np.mgrid[0:32, 0:48] / 48
    image = np.stack([0.3 + 0.3 * x + 0.1 * k * y for k in range(channels)], -1).astype(np.float32)
    write_image(tmp_path / f"image{suffix}", image)
    back = read_image(tmp_path / f"image{suffix}").pixels / 255
    if channels < 3:  # grey may come back as three equal channels
        grey, alpha = back[..., :1], back[..., -1:]
        back = grey if channels == 1 else np.concatenate([grey, alpha], -1)
    assert back.shape == image.shape
    assert np.abs(back - image).mean() < 0.015


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(6, 9), (3, 4), (2, 2), (4, 3)], ids=str)
def test_tiff_and_npy_keep_floats_as_they_are(tmp_path: Path, channels: int, size: tuple[int, int]) -> None:
    image = random_image(channels, *size) * 3 - 1  # beyond [0, 1] on both sides
    for suffix in (".tif", ".tiff", ".npy"):
        write_image(tmp_path / f"image{suffix}", image)
        back = read_image(tmp_path / f"image{suffix}")
        assert np.array_equal(back.pixels, image) and not back.premultiplied
        assert suffix == ".npy" or back.has_alpha == (channels in (2, 4))
    stored = tifffile.imread(tmp_path / "image.tif")
    assert np.array_equal(stored.reshape(image.shape), image) and stored.dtype == np.float32
    assert np.array_equal(np.load(tmp_path / "image.npy"), image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("space", ["srgb", "linear"])
def test_exr_holds_light(tmp_path: Path, channels: int, space: str) -> None:
    """Linear and premultiplied by opacity, as the format has it."""
    image = random_image(channels)
    write_image(tmp_path / "image.exr", image, space)
    back = read_image(tmp_path / "image.exr")
    colours, alpha = (image[..., :-1], image[..., -1:]) if channels in (2, 4) else (image, 1)
    light = (
        np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
        if space == "srgb"
        else colours
    )
    assert back.linear and back.has_alpha == back.premultiplied == (channels in (2, 4))
    np.testing.assert_allclose(back.pixels[..., : colours.shape[2]], light * alpha, rtol=2e-5, atol=1e-7)
    if channels in (2, 4):
        assert np.array_equal(back.pixels[..., -1:], alpha)


def test_npy_takes_any_number_of_channels(tmp_path: Path) -> None:
    image = random_image(7)
    write_image(tmp_path / "image.npy", image)
    assert np.array_equal(np.load(tmp_path / "image.npy"), image)


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("image.gif", 3, "cannot write image.gif: known formats are .png"),
        ("image", 3, "known formats"),
        ("image.png", 5, "at most 4 channels, the image has 5; write .npy"),
        ("image.exr", 5, "at most 4"),
        ("image.jpg", 4, "no transparency"),
        ("image.jpeg", 2, "no transparency"),
        ("image.bmp", 4, "no transparency"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path: Path, name: str, channels: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_image(tmp_path / name, random_image(channels))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_writer_keeps_the_old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    write_image(path, random_image(3))
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise errors.pop()

    for module, name in ((iio, "imwrite"), (tifffile, "imwrite"), (np, "save"), (export, "_write_exr")):
        monkeypatch.setattr(module, name, fail)
    for error, message in ((OSError(errno.ENOSPC, "full"), "disk full"), (RuntimeError("no codec"), "no codec")):
        errors = [error]
        with pytest.raises(OutputError, match=message):
            write_image(path, random_image(3))
        assert errors == []
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
