"""PSNR and SSIM against scikit-image and against numbers worked out by hand; streaming changes nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from neuralfield.errors import SignalError
from neuralfield.metrics import ImageErrors, image_quality, psnr_from_mse


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    truth = skimage.data.astronaut()[100:237, 150:301].astype(np.float64) / 255
    noise = np.random.default_rng(0).normal(0, 0.05, truth.shape)
    return truth, truth + noise


def quality(truth: np.ndarray, fit: np.ndarray, block_rows: int | None = None) -> dict:
    return image_quality(lambda a, b: truth[a:b], lambda a, b: fit[a:b], *truth.shape, block_rows=block_rows)


def test_psnr_of_known_errors() -> None:
    assert psnr_from_mse(0.01) == pytest.approx(20.0, abs=1e-12)
    assert psnr_from_mse(1.0) == 0.0
    assert psnr_from_mse(0.0) == math.inf
    for bad in (-1e-9, math.nan):
        with pytest.raises(SignalError, match="at least 0"):
            psnr_from_mse(bad)


def test_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, fit = pair
    clamped, result = fit.clip(0, 1), quality(*pair)
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, clamped, data_range=1), abs=1e-10)
    assert result["psnr_unclamped"] == pytest.approx(peak_signal_noise_ratio(truth, fit, data_range=1), abs=1e-10)
    eight = [np.rint(x * 255).astype(np.uint8) for x in (truth, clamped)]
    assert result["psnr_8bit"] == pytest.approx(peak_signal_noise_ratio(*eight), abs=1e-10)
    assert result["mae"] == pytest.approx(np.abs(truth - clamped).mean(), rel=1e-12)
    assert len({round(result[k], 3) for k in ("psnr", "psnr_8bit", "psnr_unclamped")}) == 3


@pytest.mark.parametrize("block_rows", [1, 7, 10, 11, 64, 136, 137, 1000, None])
def test_blocks_do_not_change_anything(pair: tuple[np.ndarray, np.ndarray], block_rows: int | None) -> None:
    truth, fit = pair
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    whole = structural_similarity(truth, fit.clip(0, 1), channel_axis=2, **options)
    result = quality(truth, fit, block_rows)
    assert result["ssim"] == pytest.approx(whole, abs=1e-12)
    assert result["psnr"] == pytest.approx(quality(truth, fit, 137)["psnr"], abs=1e-10)


def test_every_row_is_asked_for_once_in_order(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, fit = pair
    asked: list[int] = []

    def render(start: int, stop: int) -> np.ndarray:
        asked.extend(range(start, stop))
        return fit[start:stop]

    image_quality(lambda a, b: truth[a:b], render, *truth.shape, block_rows=9)
    assert asked == list(range(truth.shape[0]))


def test_ssim_convention_is_the_gaussian_one() -> None:
    """0.5498 is the value of three independent implementations; a uniform 7 x 7 window would give 0.5702."""
    truth = skimage.data.astronaut().astype(np.float64) / 255
    fit = (truth + np.random.default_rng(0).normal(0, 0.05, truth.shape)).clip(0, 1)
    assert quality(truth, fit)["ssim"] == pytest.approx(0.5498, abs=1e-3)


def test_equal_images() -> None:
    image = skimage.data.astronaut()[:32, :48].astype(np.float32) / 255
    result = quality(image, image)
    assert result["psnr"] == result["psnr_8bit"] == result["psnr_unclamped"] == math.inf
    assert result["ssim"] == pytest.approx(1.0, abs=1e-12)
    assert result["mae"] == 0.0


def test_only_overshoots() -> None:
    """Errors outside [0, 1] are invisible to every measure but the unclamped one."""
    result = quality(np.ones((16, 16, 1)), np.full((16, 16, 1), 1.1))
    assert result["psnr"] == result["psnr_8bit"] == math.inf
    assert result["psnr_unclamped"] == pytest.approx(20.0, abs=1e-9)


@pytest.mark.parametrize(("height", "width"), [(10, 40), (40, 10), (1, 1)])
def test_small_images_have_no_ssim(height: int, width: int) -> None:
    result = quality(np.zeros((height, width, 3)), np.full((height, width, 3), 0.1))
    assert result["ssim"] is None
    assert "at least 11 pixels" in result["ssim_reason"]
    assert result["psnr"] == pytest.approx(20.0, abs=1e-9)


def test_eleven_pixels_are_enough() -> None:
    values = np.random.default_rng(1).random((2, 11, 11, 1))
    result = quality(values[0], values[1])
    assert "ssim_reason" not in result
    assert -1 <= result["ssim"] < 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_give_no_number(value: float, which: int) -> None:
    images = np.zeros((2, 24, 24, 3), np.float32)
    images[which, 17, 3, 1] = value
    result = quality(images[0], images[1], block_rows=4)
    assert [result[k] for k in ("psnr", "psnr_8bit", "psnr_unclamped", "mae", "ssim")] == [None] * 5
    assert result["psnr_reason"] == result["ssim_reason"] == "1 of 1728 values are not finite"


def test_float32_input_is_summed_in_float64() -> None:
    errors = ImageErrors()
    for _ in range(20):
        errors.add(np.zeros(100_000, np.float32), np.full(100_000, 0.1, np.float32))
    assert errors.results()["psnr"] == pytest.approx(20.0, abs=1e-6)


def test_faults_are_named() -> None:
    with pytest.raises(SignalError, match=r"rows 0 to 4 of the fit have shape \[4, 5, 3\], not \[4, 4, 3\]"):
        image_quality(lambda a, b: np.zeros((4, 4, 3)), lambda a, b: np.zeros((4, 5, 3)), 4, 4, 3)
    with pytest.raises(SignalError, match="they must be the same"):
        ImageErrors().add(np.zeros((4, 1)), np.zeros((4, 3)))
    assert ImageErrors().results()["psnr_reason"] == "no values to compare"
