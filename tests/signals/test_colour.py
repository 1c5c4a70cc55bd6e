import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals import colour

reals = st.floats(-20, 20, allow_nan=False)


@pytest.mark.parametrize(
    ("srgb", "linear"),
    [
        (0.0, 0.0),
        (1.0, 1.0),
        (0.5, 0.21404114),
        (0.04045, 0.0031308049),
        (0.02, 0.0015479876),
        (10 / 255, 0.0030352698),
        (188 / 255, 0.50288646),
    ],
)
def test_curve_has_the_published_values(srgb, linear):
    for kind in (np.array, torch.tensor):
        assert float(colour.srgb_to_linear(kind([srgb]))[0]) == pytest.approx(linear, rel=1e-6, abs=1e-12)
        assert float(colour.linear_to_srgb(kind([linear]))[0]) == pytest.approx(srgb, rel=1e-5, abs=1e-12)


@given(st.lists(reals, min_size=1, max_size=20))
def test_round_trip_and_both_libraries_agree(values):
    array = np.array(values)
    there = colour.srgb_to_linear(array)
    np.testing.assert_allclose(colour.linear_to_srgb(there), array, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(colour.srgb_to_linear(torch.tensor(array)).numpy(), there, rtol=1e-12)
    np.testing.assert_allclose(colour.srgb_to_linear(-array), -there, rtol=1e-12)


@given(reals, reals)
def test_curve_is_increasing(a, b):
    low, high = colour.linear_to_srgb(np.array([min(a, b), max(a, b)]))
    assert low <= high + 1e-6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_kept(dtype):
    assert colour.srgb_to_linear(np.ones(3, dtype)).dtype == dtype
    assert colour.linear_to_srgb(np.zeros(3, dtype)).dtype == dtype
    assert colour.composite(np.ones((2, 4), dtype), 1.0, False).dtype == dtype


def test_gradients_are_finite_at_black():
    x = torch.tensor([0.0, 1e-4, 0.5], requires_grad=True)
    (slope,) = torch.autograd.grad(colour.linear_to_srgb(x).sum(), x)
    assert torch.isfinite(slope).all() and slope[1].item() == pytest.approx(12.92, rel=1e-5)


def test_integers_are_refused_with_the_cure():
    for wrong in (np.zeros(3, np.uint8), torch.zeros(3, dtype=torch.uint8)):
        with pytest.raises(SignalError, match="divide by the maximum"):
            colour.srgb_to_linear(wrong)


def test_composite_over():
    rgba = np.array([[0.5, 0.25, 0.0, 0.5], [1.0, 1.0, 1.0, 0.0], [0.2, 0.4, 0.6, 1.0]])
    expected = np.array([[0.75, 0.625, 0.5], [1.0, 1.0, 1.0], [0.2, 0.4, 0.6]])
    np.testing.assert_allclose(colour.composite(rgba, 1.0, False), expected)
    associated = np.concatenate([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], axis=1)
    np.testing.assert_allclose(colour.composite(torch.tensor(associated), [1.0, 1.0, 1.0], True).numpy(), expected)
    np.testing.assert_allclose(colour.composite(rgba, [0.0, 0.5, 1.0], False)[1], [0.0, 0.5, 1.0])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 1)), min_size=1, max_size=9))
def test_straight_undoes_premultiplication(pairs):
    colours, alpha = np.array(pairs).T
    associated = np.stack([colours * alpha, alpha], -1)
    np.testing.assert_allclose(colour.straight(associated, True)[:, 0], colours, rtol=1e-12, atol=1e-300)


def test_straight_is_black_where_nothing_shows():
    assert colour.straight(torch.tensor([[0.7, 0.0]]), True).tolist() == [[0.0]]
    assert colour.straight(np.array([[0.7, 0.0]]), True).tolist() == [[0.0]]
    assert colour.straight(np.array([[0.7, 0.0]]), False).tolist() == [[0.7]]


@pytest.mark.parametrize("wrong", [[1.0, 0.0], "white", None, [0.0, 1.0, float("nan")], True])
def test_wrong_backgrounds(wrong):
    with pytest.raises(ConfigError, match=r"signal.background"):
        colour.background_of(wrong, 3)


def test_to_display():
    values = np.array([[0.0, 0.5, 1.0], [-1.0, 2.0, np.nan]], np.float32)
    shown = colour.to_display(values, "srgb")
    assert shown.shape == (2, 3, 3) and shown.dtype == np.uint8
    assert shown[..., 0].tolist() == [[0, 128, 255], [0, 255, 0]]
    assert colour.to_display(torch.tensor([[0.21404114]]), "linear")[0, 0].tolist() == [128, 128, 128]
    rgba = np.array([[[0.2, 0.4, 0.6, 0.0]]], np.float32)
    assert colour.to_display(rgba, "srgb").tolist() == [[[51, 102, 153]]]
    assert colour.to_display(np.array([[[0.2, 0.9]]], np.float32), "srgb").tolist() == [[[51, 51, 51]]]


def test_every_byte_survives_display():
    levels = np.arange(256, dtype=np.float32).reshape(16, 16) / 255
    assert np.array_equal(colour.to_display(levels, "srgb")[..., 0].reshape(-1), np.arange(256))
    light = colour.srgb_to_linear(levels)
    assert np.array_equal(colour.to_display(light, "linear")[..., 0].reshape(-1), np.arange(256))


def test_display_refuses_what_is_no_picture():
    with pytest.raises(SignalError, match="shape"):
        colour.to_display(np.zeros(4, np.float32), "srgb")
    with pytest.raises(ConfigError, match="srgb, linear"):
        colour.to_display(np.zeros((2, 2), np.float32), "rgb")
