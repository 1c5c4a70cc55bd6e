"""Windows of a volume against the array they were cut from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.explain.patches import congruent, patches, roughness, signal_roughness, whole
from neuralfield.explain.voxel_patches import indices, members, middle_layers, middle_slice
from neuralfield.signals.holdout_volume import make_volume_split
from neuralfield.signals.volume import VolumeSignal


def _volume(
    shape: tuple[int, int, int], holdout: str = "every_other", spacing: tuple[float, float, float] = (1, 1, 1)
) -> tuple[np.ndarray, VolumeSignal]:
    values = np.random.default_rng(0).random((*shape, 2)).astype(np.float32)
    values.flat[0], values.flat[1] = 0, 1  # normalised values are then the given ones
    return values, VolumeSignal.from_array(values, spacing, holdout=holdout)


def test_a_window_holds_the_lattice_of_its_box_and_the_voxels_between() -> None:
    values, signal = _volume((40, 44, 60), spacing=(0.5, 0.7, 1.1))
    windows = patches(signal, side=5, most=8)
    assert len(windows) == 8 and len({w.box for w in windows}) == 8 and congruent(signal, windows)
    for window in windows:
        x, y, z, *size = (int(v) for v in window.box)
        assert size == [10, 10, 10] and x % 2 == y % 2 == z % 2 == 0
        cut = values[z : z + 10, y : y + 10, x : x + 10]
        assert np.allclose(window.y.numpy(), cut[::2, ::2, ::2].reshape(-1, 2), atol=1e-6)
        assert np.allclose(window.y_test.numpy(), cut[1::2, 1::2, 1::2].reshape(-1, 2), atol=1e-6)
        assert np.array_equal(indices(signal, window.x)[0], [x, y, z])
        # Two training voxels, four voxels, lie on every side of what counts.
        place = indices(signal, window.x_test) - [x, y, z]
        assert np.array_equal(window.counted.bool().numpy(), ((place >= 4) & (place <= 5)).all(axis=1))


def test_few_windows_lie_inside_and_enough_of_them_cover_the_volume() -> None:
    _, large = _volume((64, 64, 64))
    corners = np.array([w.box[:3] for w in patches(large, 5, 8)])
    assert corners.min() > 0 and corners.max() + 10 < 64 and len(np.unique(corners)) == 2
    _, small = _volume((16, 16, 16))
    windows = patches(small, 5, 64)
    ends = np.array([w.box[:3] for w in windows])
    assert ends.min() == 0 and ends.max() == 6
    counted = np.concatenate([indices(small, w.x_test)[w.counted.bool().numpy()] for w in windows])
    assert len(np.unique(counted, axis=0)) == small.split.n_heldout  # every one of them
    (one,) = patches(_volume((10, 9, 10))[1], 5, 8)
    assert one.box == (0, 0, 0, 10, 9, 10) and bool(one.counted.all())


@pytest.mark.parametrize("holdout", ["every_other", "random:0.3", "random:0.8"])
def test_membership_by_bisection(holdout: str) -> None:
    split = make_volume_split(holdout, 7, 6, 5, seed=1)
    index = torch.randperm(210)
    for heldout, count, take in ((False, split.n_train, split.train), (True, split.n_heldout, split.heldout)):
        found = members(split, index, heldout)
        assert set(index[found].tolist()) == set(take(torch.arange(count)).tolist())


def test_random_holdouts_share_out_every_voxel() -> None:
    _, signal = _volume((14, 14, 14), "random:0.2")
    windows = patches(signal, side=6, most=4)
    assert not congruent(signal, windows)
    for window in windows:
        assert len(window.x) + len(window.x_test) == np.prod(window.box[3:])


def test_roughness_is_that_of_cell_corners() -> None:
    values, signal = _volume((12, 12, 12))
    corners = np.mean(
        [values[i : i + 9 : 2, j : j + 9 : 2, k : k + 9 : 2] for i in (0, 2) for j in (0, 2) for k in (0, 2)], axis=0
    )
    expected = np.square(corners - values[1:10:2, 1:10:2, 1:10:2]).mean()
    window = whole(signal)
    window.counted[:] = torch.from_numpy((indices(signal, window.x_test) < 10).all(axis=1)).float()
    assert roughness(window) == pytest.approx(expected, rel=1e-5)
    assert signal_roughness(signal) == pytest.approx(expected, rel=0.3)  # with the outer layer, which has no corners


def test_the_slice_holds_the_residuals_of_its_two_layers() -> None:
    _, signal = _volume((24, 24, 24))
    window = patches(signal, side=6, most=1)[0]
    z = indices(signal, window.x)[:, 2], indices(signal, window.x_test)[:, 2]
    train, test = (torch.from_numpy(layer.astype(np.float32))[:, None] for layer in z)
    shown = middle_slice(signal, window, train, test)
    even, odd = middle_layers(12)
    assert (even, odd) == (6, 7) and shown.shape == (12, 12)
    front = int(window.box[2])
    assert np.all(shown[::2, ::2] == front + even) and np.all(shown[1::2, 1::2] == front + odd)
    assert np.isnan(shown[::2, 1::2]).all() and np.isnan(shown[1::2, ::2]).all()
    assert middle_layers(1) == (0, 0) and middle_layers(9) == (4, 5)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="held-out voxels"):
        patches(_volume((20, 20, 20), "none")[1], side=5)
    with pytest.raises(ConfigError, match="no window of 2 x 2 x 2 voxels"):
        patches(_volume((2, 2, 2))[1], side=4)
