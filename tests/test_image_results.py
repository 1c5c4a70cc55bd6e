"""Numbers and pictures of a fitted image."""

from __future__ import annotations

import numpy as np
import pytest

import neuralfield as nf
from neuralfield import image_results


def test_psnr_of_the_parts_by_hand(signal: nf.ImageSignal) -> None:
    fit = signal.rows(0, signal.height).copy()
    fit[1::2, 1::2] += 0.1  # exactly the held-out pixels
    fit[0, 0] = 2.0
    metrics = image_results.measure(signal, fit)
    truth = signal.rows(0, signal.height)

    def by_hand(rows: slice, columns: slice) -> float:
        error = np.clip(fit[rows, columns], 0, 1).astype(float) - truth[rows, columns]
        return -10 * np.log10(np.mean(error**2))

    assert metrics["psnr_heldout"] == pytest.approx(by_hand(slice(1, None, 2), slice(1, None, 2)), abs=1e-6)
    assert metrics["psnr_train"] == pytest.approx(by_hand(slice(0, None, 2), slice(0, None, 2)), abs=1e-6)
    assert metrics["psnr"] == pytest.approx(by_hand(slice(None), slice(None)), abs=1e-6)
    assert metrics["psnr_unclamped"] < metrics["psnr"]


def test_without_a_hold_out_train_is_all(picture: np.ndarray) -> None:
    signal = nf.ImageSignal.from_array(picture)
    metrics = image_results.measure(signal, signal.rows(0, signal.height) * 0.9)
    assert metrics["psnr_heldout"] is None and metrics["psnr_train"] == metrics["psnr"]


def test_a_reduced_picture_has_the_mean_of_the_large_one(signal: nf.ImageSignal) -> None:
    values = np.full((40, 60, 3), 0.25, np.float32)
    small = image_results.thumbnail(values, "linear", side=20)
    assert small.shape == (14, 20, 3)
    assert (small == small[0, 0, 0]).all() and small[0, 0, 0] == 137  # sRGB of 0.25
