"""Cropping and scaling: sizes, light, edges and refusals."""

import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals import colour
from neuralfield.signals.image import ImageSignal

from .image_files import noise

make = ImageSignal.from_array
every = torch.arange


def all_values(signal):
    return signal.values(every(signal.n_pixels)).reshape(signal.height, signal.width, -1).numpy()


@pytest.mark.parametrize(
    ("crop", "box"),
    [
        (4, (3, 1, 4, 4)),
        ([6, 2], (2, 2, 6, 2)),
        ((1, 3, 5, 2), (1, 3, 5, 2)),
        ([0, 0, 10, 6], (0, 0, 10, 6)),
        (6.0, (2, 0, 6, 6)),
    ],
)
def test_crop(crop, box):
    x, y, w, h = box
    array = noise((6, 10, 3), np.uint8)
    signal = make(array, crop=crop)
    assert signal.shape == (h, w)
    assert np.array_equal(all_values(signal), array[y : y + h, x : x + w] / np.float32(255))
    assert np.array_equal(signal.rows(0, h), all_values(signal))


@pytest.mark.parametrize(
    "crop", [7, [11, 3], [8, 3, 4, 2], [0, 5, 3, 2], 1, [3, 1], "5", [1, 2, 3], -3, [2.5, 3], True, [], [None, 4]]
)
def test_wrong_crops(crop):
    with pytest.raises(ConfigError, match=r"signal.crop"):
        make(np.zeros((6, 10), np.uint8), crop=crop)


def test_crop_outside_says_the_size():
    with pytest.raises(ConfigError, match="10 x 6 pixels"):
        make(np.zeros((6, 10), np.uint8), crop=[8, 3, 4, 2])


@pytest.mark.parametrize(
    ("resize", "shape"), [(5, (3, 5)), ([4, 6], (6, 4)), (0.5, (3, 5)), (20, (12, 20)), (10, (6, 10))]
)
def test_resize_shapes(resize, shape):
    signal = make(noise((6, 10, 3), np.uint8), resize=resize)
    assert signal.shape == shape and signal.out_dim == 3 and signal.rows(0, 2).shape == (2, shape[1], 3)
    assert signal.rows(0, 2).dtype == np.float32


@pytest.mark.parametrize("resize", [1, 0, -4, 1.0, 1.5, "8", [1, 8], [4, 5, 6], True, 0.01, float("nan"), {}])
def test_wrong_resizes(resize):
    with pytest.raises(ConfigError, match=r"signal.resize"):
        make(np.zeros((6, 10), np.uint8), resize=resize)


@pytest.mark.parametrize("linear", [True, False])
def test_resize_keeps_a_constant_and_the_mean_light(linear):
    flat = make(np.full((30, 40, 3), 0.3, np.float32), resize=[7, 11], linear=linear)
    np.testing.assert_allclose(flat.rows(0, 11), 0.3, rtol=2e-6)
    checks = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)
    small = make(checks, resize=16, linear=linear).rows(0, 16)[2:-2, 2:-2]
    half_light = 0.5 if linear else colour.linear_to_srgb(np.array(0.5))
    np.testing.assert_allclose(small, half_light, atol=1e-3)


def test_resize_in_blocks_is_the_resize_of_the_whole(monkeypatch):
    from neuralfield.signals.stored import StoredPixels

    array = noise((31, 23, 3), np.uint8)
    whole = make(array, resize=9).rows(0, 9)
    monkeypatch.setattr(StoredPixels, "rows_per_block", property(lambda self: 4))
    np.testing.assert_allclose(make(array, resize=9).rows(0, 9), whole, atol=1e-6)


def test_resize_by_an_oracle():
    from PIL import Image

    array = noise((24, 36), np.float32)
    expected = np.asarray(Image.fromarray(array).resize((12, 8), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(make(array, resize=[12, 8], linear=True).rows(0, 8)[..., 0], expected, atol=1e-5)


def test_resize_does_not_bleed_transparent_colours():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = (0, 0, 255, 255)
    rgba[:, 4:] = (255, 0, 0, 0)
    fitted = make(rgba, resize=4, alpha="fit").rows(0, 4)
    assert fitted[..., 0].max() < 1e-6 and fitted[0, 1, 3] > 0.5
    np.testing.assert_allclose(fitted[:, :2, 2], 1.0, atol=1e-6)


def test_resize_to_a_hostile_size_is_refused():
    with pytest.raises(SignalError, match="memory"):
        make(np.zeros((4, 4), np.uint8), resize=10**7)
