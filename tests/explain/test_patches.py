"""Windows: which pixels they hold, and which count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.explain.patches import congruent, patches


def _image(height: int, width: int, holdout: str = "every_other") -> tuple[np.ndarray, nf.ImageSignal]:
    values = np.random.default_rng(0).random((height, width, 2)).astype(np.float32)
    values = np.concatenate([values, values[..., :1]], axis=2)
    return values, nf.ImageSignal.from_array(values, holdout=holdout)


def test_a_window_holds_the_lattice_of_its_box_and_the_pixels_between() -> None:
    values, signal = _image(120, 160)
    windows = patches(signal, side=12, most=6)
    assert 2 <= len(windows) <= 6 and len({w.box for w in windows}) == len(windows)
    for window in windows:
        left, top, width, height = window.box
        assert (width, height) == (24, 24) and left % 2 == 0 and top % 2 == 0
        assert left + width <= 160 and top + height <= 120
        expected = values[top : top + height : 2, left : left + width : 2].reshape(-1, 3)
        assert np.array_equal(window.y.numpy(), expected)
        between = values[top + 1 : top + height : 2, left + 1 : left + width : 2].reshape(-1, 3)
        assert np.array_equal(window.y_test.numpy(), between)
        first = torch.tensor([(left + 0.5) / 160, (top + 0.5) / 120])
        assert torch.allclose(window.x[0], first, atol=1e-6)
        assert 0 < int(window.counted.sum()) < len(window.counted)
    assert congruent(signal, windows)


def test_pixels_count_only_where_the_window_surrounds_them_or_the_image_ends() -> None:
    _, signal = _image(120, 160)
    window = patches(signal, side=12, most=1)[0]
    left, top, width, height = window.box
    assert left > 0 and top > 0  # in the middle
    column = (window.x_test[:, 0] * 160 - 0.5).round() - left
    row = (window.x_test[:, 1] * 120 - 0.5).round() - top
    inside = (column >= 6) & (column <= width - 7) & (row >= 6) & (row <= height - 7)
    assert torch.equal(window.counted.bool(), inside)
    _, small = _image(24, 24)
    (whole,) = patches(small, side=24)
    assert whole.box == (0, 0, 24, 24) and bool(whole.counted.all())


def test_random_holdouts_give_windows_that_are_not_congruent() -> None:
    _, signal = _image(60, 60, "random:0.3")
    windows = patches(signal, side=14, most=4)
    assert len(windows) == 4 and not congruent(signal, windows)
    for window in windows:
        _, _, width, height = window.box
        assert len(window.x) + len(window.x_test) == width * height


@pytest.mark.parametrize(("holdout", "side", "words"), [("none", 12, "hold-out"), ("every_other", 2, "side")])
def test_mistakes_are_named(holdout: str, side: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        patches(_image(40, 40, holdout)[1], side=side)
