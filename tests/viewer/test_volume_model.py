"""Slices of a volume: the fit by its formula, truth and error by indexing the array; surfaces of a plane."""

from __future__ import annotations

import numpy as np
import pytest

from neuralfield.errors import ConfigError
from neuralfield.extraction import NoSurfaceError
from neuralfield.signals.volume import VolumeSignal
from neuralfield.viewer.volume_model import PLANES, VolumeModel, windowed
from neuralfield.viewer.volume_stage import box_edges
from neuralfield.viewer.worker import Superseded
from tests.viewer.conftest import linear_field

WEIGHTS = np.array([0.5, 0.25, 0.125])
VALUES = np.random.default_rng(1).random((2, 4, 8)).astype(np.float32)
VALUES[0, 0, :2] = 0, 1
TRUTH = VolumeSignal.from_array(VALUES)  # 8 x 4 x 2 voxels: the box spans 1, 1/2, 1/4 of the cube, centred
FIELD = linear_field([WEIGHTS], [0], TRUTH.describe())


def middle(x: float, y: float, z: float) -> np.ndarray:
    """Of voxel x, y, z in the cube: voxels are 1/8 wide, and the box is centred."""
    return np.array([(x + 0.5) / 8, 0.25 + (y + 0.5) / 8, 0.375 + (z + 0.5) / 8])


@pytest.mark.parametrize("truth", [TRUTH, None])
def test_the_box_and_the_voxels_are_known_from_the_field_as_from_the_truth(truth: VolumeSignal | None) -> None:
    model = VolumeModel(FIELD, truth)
    assert np.allclose(model.low, [0, 0.25, 0.375]) and np.allclose(model.high, [1, 0.75, 0.625])
    assert model.voxels == (8, 4, 2) and model.in_source(0.25) == pytest.approx(0.25)
    assert [model.place(axis, 1.5) for axis in range(3)] == pytest.approx(middle(1.5, 1.5, 1.5))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxel", [0, 1, 0.75])
def test_slices_of_the_fit(axis: int, voxel: float) -> None:
    values = VolumeModel(FIELD, TRUTH).values("fit", axis, voxel)
    plane, sizes = PLANES[axis], (8, 4, 2)
    assert values.shape == (sizes[plane.rows], sizes[plane.columns], 1)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            where = [0.0, 0.0, 0.0]
            where[axis], where[plane.rows], where[plane.columns] = voxel, row, column
            assert values[row, column, 0] == pytest.approx(WEIGHTS @ middle(*where), abs=1e-6)


def test_finer_slices_lie_between() -> None:
    fine = VolumeModel(FIELD).values("fit", 2, 0, detail=4)
    assert fine.shape == (16, 32, 1)
    coarse = fine.reshape(4, 4, 8, 4).mean(axis=(1, 3))  # of a linear function the mean is the value in the middle
    assert np.abs(coarse - VolumeModel(FIELD).values("fit", 2, 0)[..., 0]).max() < 1e-6


def test_slices_of_truth_and_error() -> None:
    model = VolumeModel(FIELD, TRUTH)
    for axis, picked in ((0, VALUES[:, :, 1]), (1, VALUES[:, 1]), (2, VALUES[1])):
        assert np.allclose(model.values("truth", axis, 1)[..., 0], picked)
        assert np.allclose(model.values("truth", axis, 0.75)[..., 0], picked)  # the nearest
        error = np.abs(model.values("fit", axis, 1)[..., 0] - picked)
        assert np.allclose(model.values("error", axis, 1)[..., 0], error, atol=1e-6)
    assert np.allclose(model.values("truth", 0, 99)[..., 0], VALUES[:, :, 7])


def test_surfaces_at_a_value() -> None:
    model = VolumeModel(linear_field([[1, 0, 0], [0, 0, 1]], [0, 0], TRUTH.describe()))
    fractions: list[float] = []
    low, high = model.surface(0.25, 32, on_progress=fractions.append).box
    assert np.allclose(low, [0.25, 0.25, 0.375]) and np.allclose(high, [1, 0.75, 0.625]) and fractions[-1] == 1
    low, high = model.surface(0.5, 32, channel=1).box
    assert np.allclose(low, [0, 0.25, 0.5]) and np.allclose(high, [1, 0.75, 0.625])
    with pytest.raises(NoSurfaceError):
        model.surface(2.0, 32)


def test_levels() -> None:
    least, divide, most = VolumeModel(linear_field([[1, 0, 0]], [0])).levels()
    assert (least, most) == (0, 1) and divide == pytest.approx(0.5, abs=0.03)  # halves are what divides evenly
    assert VolumeModel(linear_field([[0, 0, 0]], [3])).levels() == (0, 0.5, 1)
    assert VolumeModel(linear_field([[0, 0, 0]], [float("nan")])).levels() == (0, 0.5, 1)


@pytest.mark.parametrize(
    "said",
    [{}, {"box": 3}, {"box": [[0, 0, 0], [1, 1]]}, {"box": [[0, 0, 0], [0, 1, 1]]}, {"box": [[-1, 0, 0], [1, 1, 1]]},
     {"box": [["a"] * 3] * 2}, {"width": 4}, {"width": 4, "height": 0, "depth": 1}, {"low": "a"}, {"low": 2, "high": 1}],
)  # fmt: skip
def test_a_field_that_says_little_or_nonsense_is_shown_in_the_whole_cube(said: dict) -> None:
    model = VolumeModel(linear_field([WEIGHTS], [0], said))
    assert np.allclose([model.low, model.high], [[0] * 3, [1] * 3]) and model.voxels == (128, 128, 128)
    assert model.in_source(0.5) == 0.5


def test_a_slice_ends_when_nobody_waits_for_it() -> None:
    def check() -> None:
        raise Superseded

    with pytest.raises(Superseded):
        VolumeModel(FIELD).values("fit", 0, 0, check=check)
    with pytest.raises(ConfigError, match="did you mean 'truth'"):
        VolumeModel(FIELD).values("trut", 0, 0)


def test_the_window() -> None:
    values = np.array([[0.1, 0.3, 0.4, 0.5, 0.9, np.nan, np.inf, -np.inf]])[..., None]
    grey = windowed(values, 0.4, 0.2)[0, :, 0]
    assert grey.tolist() == [0, 0, 128, 255, 255, 0, 255, 0]
    colours = np.array([[[0.0, 0.5, 1.0]]])
    assert windowed(colours, 0.5, 1.0)[0, 0].tolist() == [0, 128, 255]
    assert windowed(colours, 0.5, 1.0, channel=2)[0, 0].tolist() == [255] * 3
    assert windowed(np.array([[[1.0, 0.0]]]), 0.5, 1.0)[0, 0].tolist() == [255] * 3


def test_the_edges_of_a_box() -> None:
    edges = box_edges(np.array([0.0, 1, 2]), np.array([3.0, 5, 9]))
    lengths = np.abs(edges[:, 1] - edges[:, 0])
    assert edges.shape == (12, 2, 3) and ((lengths > 0).sum(axis=1) == 1).all()
    assert sorted(lengths.sum(axis=1).tolist()) == [3] * 4 + [4] * 4 + [7] * 4
    assert len(np.unique(np.sort(edges, axis=1).reshape(12, 6), axis=0)) == 12
