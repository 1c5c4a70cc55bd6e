"""Parts of an image: the fit by its formula, truth and error by going through pixels one by one."""

from __future__ import annotations

import numpy as np
import pytest

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.signals.colour import linear_to_srgb
from neuralfield.viewer.image_model import ImageModel, heat
from neuralfield.viewer.worker import Superseded
from tests.viewer.conftest import linear_field

FIELD = linear_field([[1, 0], [0, 1], [0, 0]], [0, 0, 0.5])
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
TRUTH = nf.ImageSignal.from_array(PIXELS)
REGION = (0.2, 0.3, 0.9, 0.8)


def places(region: tuple[float, float, float, float], width: int, height: int) -> list[tuple[int, int, float, float]]:
    left, top, right, bottom = region
    return [
        (r, c, left + (c + 0.5) / width * (right - left), top + (r + 0.5) / height * (bottom - top))
        for r in range(height)
        for c in range(width)
    ]


def test_the_fit_is_evaluated_at_the_middles_of_the_pixels_of_the_screen() -> None:
    drawn = ImageModel(FIELD, TRUTH).draw("fit", REGION, 40, 30)
    for r, c, x, y in places(REGION, 40, 30):
        assert np.abs(drawn[r, c] - 255 * np.array([x, y, 0.5])).max() < 0.51


def test_strips_make_no_seams() -> None:
    model = ImageModel(FIELD, TRUTH)
    wide = model.values("fit", REGION, 3000, 60)  # three strips
    x = 0.2 + (np.arange(3000) + 0.5) / 3000 * 0.7
    y = 0.3 + (np.arange(60) + 0.5) / 60 * 0.5
    assert np.abs(wide[..., 0] - x).max() < 1e-6 and np.abs(wide[..., 1] - y[:, None]).max() < 1e-6


def test_the_truth_is_its_own_pixels() -> None:
    drawn = ImageModel(FIELD, TRUTH).draw("truth", REGION, 40, 30)
    for r, c, x, y in places(REGION, 40, 30):
        assert (drawn[r, c] == PIXELS[int(y * 5), int(x * 7)]).all()


def test_the_error_is_that_of_the_pixel() -> None:
    values = ImageModel(FIELD, TRUTH).values("error", REGION, 40, 30)
    for r, c, x, y in places(REGION, 40, 30):
        row, column = int(y * 5), int(x * 7)
        fit = np.array([(column + 0.5) / 7, (row + 0.5) / 5, 0.5])
        assert values[r, c, 0] == pytest.approx(np.abs(fit - PIXELS[row, column] / 255).mean(), abs=1e-6)


def test_the_error_is_cut_to_what_the_screen_shows() -> None:
    bright = linear_field([[0, 0]], [7.0])
    white = nf.ImageSignal.from_array(np.full((4, 4), 255, np.uint8))
    assert (ImageModel(bright, white).values("error", (0, 0, 1, 1), 4, 4) == 0).all()


def test_four_samples_are_averaged_in_light_where_pixels_are_smaller_than_the_screens() -> None:
    board = np.indices((32, 32)).sum(axis=0).astype(np.uint8) % 2 * 255
    model = ImageModel(linear_field([[0, 0]], [0.0]), nf.ImageSignal.from_array(board))
    grey = model.draw("truth", (0, 0, 1, 1), 16, 16)
    assert (grey == round(255 * float(linear_to_srgb(np.array(0.5))))).all()  # 188
    assert set(np.unique(model.draw("truth", (0, 0, 1, 1), 16, 16, smooth=False))) <= {0, 255}
    assert np.allclose(model.values("error", (0, 0, 1, 1), 16, 16, smooth=True), 0.5)


def test_linear_images_are_shown_by_the_srgb_curve() -> None:
    light = nf.ImageSignal.from_array(np.full((4, 4, 3), 0.5, np.float32), linear=True)
    model = ImageModel(linear_field([[0, 0]] * 3, [0.5] * 3), light)
    for shown in ("fit", "truth"):
        assert (model.draw(shown, (0, 0, 1, 1), 2, 2) == 188).all()


def test_sizes_without_a_truth() -> None:
    assert ImageModel(linear_field([[0, 0]], [0], {"width": 30, "height": 20})).aspect == (30, 20)
    for said in ({}, {"width": "a", "height": 2}, {"width": 0, "height": 2}, {"width": None}):
        model = ImageModel(linear_field([[0, 0]], [0], said))
        assert model.pixels is None and model.aspect == (1, 1)
        assert model.draw("fit", (0, 0, 1, 1), 3, 2).shape == (2, 3, 3)


def test_drawing_ends_when_nobody_waits_for_it() -> None:
    def check() -> None:
        raise Superseded

    with pytest.raises(Superseded):
        ImageModel(FIELD, TRUTH).draw("fit", (0, 0, 1, 1), 8, 8, check=check)
    with pytest.raises(ConfigError, match="empty"):
        ImageModel(FIELD, TRUTH).draw("fit", (0.5, 0, 0.5, 1), 8, 8)


def test_heat_goes_from_black_upwards_and_marks_what_is_not_finite() -> None:
    colours = heat(np.array([[0.0, 0.5, 1.0, 2.0, np.nan]]))[0].astype(int)
    assert colours[0].sum() < 10 and colours[0].sum() < colours[1].sum() < colours[2].sum()
    assert (colours[3] == colours[2]).all() and colours[4].tolist() == [0, 255, 255]
