"""Importance sampling of training voxels: more often where the values change. :class:`ImportanceBatches`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.signals.holdout import Split

MOST = 1 << 27
"""Samples up to which weights are kept: 8 bytes each, 1 GiB in all."""
FLOOR = 1.0
"""Part of the mean gradient that is added to every weight; 1: half of the draws are spread evenly."""

Slab = Callable[[int, int], Float[np.ndarray, "k y x channels"]]


class ImportanceBatches:
    r"""Draws sample $i$ with probability $p_i = w_i / \sum_j w_j$, in batches that are stratified in the distribution.

    With $F(i) = \sum_{j \le i} p_j$, draw $s$ of the $m$ of a batch is $\min\{i : F(i) > (s + \xi_s) / m\}$ with
    independent uniform $\xi_s \in [0, 1)$: the inverse of the distribution, one draw from each m-th of it. So the
    expected number of times that sample $i$ is in a batch is exactly $m p_i$, its variance is at most that of
    independent draws, and positions come in increasing order. A sample can be drawn twice in a batch if $p_i > 1 / m$,
    and there are no epochs.

    The loss is *not* reweighted by $1 / p_i$: a fit minimises $\sum_i p_i\, \ell_i$ instead of $\sum_i \ell_i / n$. It
    trades accuracy where weights are small for accuracy where they are large; with gradient magnitudes as weights
    edges gain, flat regions lose, and the mean squared error over all voxels, hence the PSNR, is no longer what is
    minimised.

    **Arguments**

    - `weights`: at least 0, finite, not all 0; not normalised.
    - `batch_size`: draws in a batch, m; at most the number of samples.
    - `seed`: batches are a function of (seed, step).
    """

    def __init__(self, weights: Float[np.ndarray, " n"], batch_size: int, seed: int = 0) -> None:
        self.n = integer("n", len(weights), 1)
        self.batch_size = min(integer("fit.batch_size", batch_size, 1), self.n)
        self.seed = integer("seed", seed, 0)
        cumulative = np.cumsum(weights, dtype=np.float64)
        total = float(cumulative[-1])
        if not (np.isfinite(total) and total > 0 and float(weights.min()) >= 0):
            raise ConfigError("the weights of an importance sampling must be finite, at least 0, and not all 0")
        self._cumulative = cumulative
        # What a draw that is rounded up to the very end falls back on: the last sample that can be drawn at all.
        self._last = int(np.searchsorted(cumulative, total, side="left"))

    @property
    def full(self) -> bool:
        """Whether every batch is the whole set, in order: never."""
        return False

    def batch(self, step: int) -> Int64[Tensor, " batch"]:
        """Positions (0 to n - 1, never decreasing) of the draws of one step, counted from 0."""
        shifts = np.random.default_rng((self.seed, 0x496D70, step)).random(self.batch_size)
        levels = (np.arange(self.batch_size) + shifts) * (float(self._cumulative[-1]) / self.batch_size)
        found = np.searchsorted(self._cumulative, levels, side="right")
        return torch.from_numpy(np.minimum(found, self._last).astype(np.int64))


def gradient_weights(
    slab: Slab,
    shape: tuple[int, int, int],
    steps: tuple[float, float, float],
    split: Split,
    planes: int,
    floor: float = FLOOR,
) -> Float[np.ndarray, " n"]:
    r"""Weights of the training voxels: $|\nabla v| + \text{floor} \cdot \overline{|\nabla v|}$, float32.

    The gradient is that of :func:`np.gradient`: central differences inside, one-sided ones at the faces; of several
    channels, the root of the sum of squares. Computed from ``planes`` slices at a time and one neighbour on each side.

    Args:
        slab: the values of slices ``[start, stop)``.
        shape: z, y, x.
        steps: distance of neighbours along z, y, x, in units of the cube.
        split: which voxels train; positions increase with the index.
        planes: slices to look at together.
        floor: the least weight, as a part of the mean gradient of the training voxels.

    Raises:
        ConfigError: more than 2^27 training voxels, whose weights would not fit.
    """
    floor = number("floor", floor, 0)
    if split.n_train > MOST:
        raise ConfigError(
            f"signal.sampling=gradient keeps 8 bytes for each training voxel, which serves up to {MOST:,} of them, and "
            f"there are {split.n_train:,}; use signal.sampling=uniform, signal.crop or signal.downsample=2"
        )
    weights = np.empty(split.n_train, np.float32)
    done = 0
    for start, stop, size in _magnitudes(slab, shape, steps, planes):
        plane = shape[1] * shape[2]
        end = _first_from(split, stop * plane, done)
        index = split.train(torch.arange(done, end)).numpy() - start * plane
        weights[done:end] = size.reshape(-1)[index]
        done = end
    mean = float(weights.mean(dtype=np.float64))
    weights += np.float32(floor * mean if mean > 0 else 1.0)  # a volume that is flat where it trains: all alike
    return weights


def _magnitudes(
    slab: Slab, shape: tuple[int, int, int], steps: tuple[float, float, float], planes: int
) -> Iterator[tuple[int, int, Float[np.ndarray, "k y x"]]]:
    depth = shape[0]
    planes = max(planes, 2)
    start = 0
    while start < depth:
        stop = min(start + planes, depth)
        low, high = max(0, start - 1), min(depth, stop + 1)
        values = slab(low, high).astype(np.float32)
        squared = np.zeros(values.shape[:3], np.float32)
        for channel in range(values.shape[3]):
            for axis in range(3):
                squared += np.square(np.gradient(values[..., channel], steps[axis], axis=axis))
        yield start, stop, np.sqrt(squared[start - low : stop - low])
        start = stop


def _first_from(split: Split, index: int, low: int) -> int:
    """The first training position whose flat index is at least ``index``."""
    high = split.n_train
    while low < high:
        middle = (low + high) // 2
        if int(split.train(torch.tensor([middle]))) < index:
            low = middle + 1
        else:
            high = middle
    return low
