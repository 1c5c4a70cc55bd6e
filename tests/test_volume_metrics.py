"""PSNR and SSIM of volumes against scikit-image and against a window worked out by hand; streaming changes nothing."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from neuralfield import volume_metrics
from neuralfield.errors import SignalError
from neuralfield.volume_metrics import VolumeSSIM, volume_quality

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A smooth volume of two channels, [z, y, x, channels] = [37, 29, 41, 2], and one with noise beyond [0, 1]."""
    rng = np.random.default_rng(0)
    truth = gaussian_filter(rng.normal(size=(37, 29, 41, 2)), (3, 3, 3, 0))
    truth = (truth - truth.min()) / np.ptp(truth)
    return truth, truth + rng.normal(0, 0.05, truth.shape)


def quality(truth: np.ndarray, fit: np.ndarray, slices: int | None = None) -> dict:
    return volume_quality(lambda a, b: truth[a:b], lambda a, b: fit[a:b], *truth.shape, slices=slices)


def whole_ssim(truth: np.ndarray, fit: np.ndarray) -> float:
    return structural_similarity(truth, fit.clip(0, 1), channel_axis=3, **WANG)


def test_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, fit = pair
    result = quality(*pair)
    assert list(result) == ["psnr", "psnr_unclamped", "mae", "ssim"]
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(truth, fit.clip(0, 1), data_range=1), abs=1e-10)
    assert result["psnr_unclamped"] == pytest.approx(peak_signal_noise_ratio(truth, fit, data_range=1), abs=1e-10)
    assert result["mae"] == pytest.approx(np.abs(truth - fit.clip(0, 1)).mean(), rel=1e-12)
    assert result["ssim"] == pytest.approx(whole_ssim(truth, fit), abs=1e-6)
    assert result["psnr"] > result["psnr_unclamped"] + 1e-4 and 0.2 < result["ssim"] < 0.9


@pytest.mark.parametrize("slices", [1, 4, 10, 11, 36, 37, 1000])
@pytest.mark.parametrize("block", [1, 20_000])
def test_slabs_and_strips_do_not_change_anything(
    pair: tuple[np.ndarray, np.ndarray], slices: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, fit = (volume[:, :, :25, :1] for volume in pair)
    expected = whole_ssim(truth, fit), quality(truth, fit)["psnr"]
    monkeypatch.setattr(volume_metrics, "_BLOCK_VALUES", max(block, 5))
    result = quality(truth, fit, slices)
    assert result["ssim"] == pytest.approx(expected[0], abs=1e-6)
    assert result["psnr"] == pytest.approx(expected[1], abs=1e-9)


def test_every_window_is_counted_once(pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    truth, fit = pair
    monkeypatch.setattr(volume_metrics, "_BLOCK_VALUES", 12_000)
    similarity = VolumeSSIM()
    for start in range(0, 37, 5):
        similarity.add(truth[start : start + 5], fit[start : start + 5])
    assert similarity.count == (37 - 10) * (29 - 10) * (41 - 10) * 2


def test_a_single_window_by_hand() -> None:
    """The formula of Wang et al. on 11 x 11 x 11 voxels with the weights written out."""
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 11, 11, 11))
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    weight = np.einsum("i,j,k->ijk", line, line, line)
    weight /= weight.sum()
    mean_a, mean_b = (weight * a).sum(), (weight * b).sum()
    var_a, var_b = (weight * a**2).sum() - mean_a**2, (weight * b**2).sum() - mean_b**2
    covariance = (weight * a * b).sum() - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    assert quality(a[..., None], b[..., None])["ssim"] == pytest.approx(expected, abs=1e-6)


def test_every_slice_is_asked_for_once_in_order(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, fit = pair
    asked: dict[str, list[int]] = {"truth": [], "fit": []}

    def give(name: str, volume: np.ndarray) -> volume_metrics.Slab:
        def slab(start: int, stop: int) -> np.ndarray:
            asked[name].extend(range(start, stop))
            return volume[start:stop]

        return slab

    seen: list[float] = []
    volume_quality(give("truth", truth), give("fit", fit), *truth.shape, slices=9, on_progress=seen.append)
    assert asked["truth"] == asked["fit"] == list(range(37))
    assert seen == [9 / 37, 18 / 37, 27 / 37, 36 / 37, 1.0]


def test_equal_volumes(pair: tuple[np.ndarray, np.ndarray]) -> None:
    result = quality(pair[0], pair[0])
    assert result["psnr"] == result["psnr_unclamped"] == math.inf and result["mae"] == 0
    assert result["ssim"] == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [(10, 20, 20), (20, 10, 20), (20, 20, 10), (1, 1, 1)])
def test_small_volumes_have_no_ssim(shape: tuple[int, int, int]) -> None:
    result = quality(np.zeros((*shape, 1)), np.full((*shape, 1), 0.1))
    assert result["ssim"] is None
    assert f"at least 11 voxels, the volume has {shape[2]} x {shape[1]} x {shape[0]}" in result["ssim_reason"]
    assert result["psnr"] == pytest.approx(20.0, abs=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_values_that_are_not_finite_give_no_number(value: float, which: int) -> None:
    volumes = np.zeros((2, 14, 12, 13, 2), np.float32)
    volumes[which, 7, 3, 1, 1] = value
    result = quality(volumes[0], volumes[1], slices=4)
    assert [result[k] for k in ("psnr", "psnr_unclamped", "mae", "ssim")] == [None] * 4
    assert result["psnr_reason"] == result["ssim_reason"] == "1 of 4368 values are not finite"


def test_the_volume_is_never_held_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume_metrics, "_BLOCK_VALUES", 1 << 15)
    shape = (160, 64, 96, 1)
    tracemalloc.start()
    # A float64 volume of this size takes 7.9 MB; slabs of 4 slices and 10 more, twice, take 0.7 MB in float32.
    result = volume_quality(
        lambda a, b: np.full((b - a, *shape[1:]), 0.5, np.float32),
        lambda a, b: np.full((b - a, *shape[1:]), 0.6, np.float32),
        *shape,
        slices=4,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result["psnr"] == pytest.approx(20, abs=1e-5)
    assert peak < 7.9e6


def test_faults_are_named() -> None:
    with pytest.raises(SignalError, match=r"slices 0 to 4 of the fit have shape \[4, 5, 6, 1\], not \[4, 5, 7, 1\]"):
        volume_quality(lambda a, b: np.zeros((b - a, 5, 7, 1)), lambda a, b: np.zeros((b - a, 5, 6, 1)), 4, 5, 7, 1)
    assert volume_quality(lambda a, b: np.zeros(0), lambda a, b: np.zeros(0), 0, 5, 7, 1)["psnr_reason"] == (
        "no values to compare"
    )
