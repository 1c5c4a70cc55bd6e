"""Batches of training samples: stratified, without replacement, and a pure function of the step.

Nothing is remembered between steps, so a run that is resumed at step k sees exactly the batches that an uninterrupted
one sees, and an image of a hundred megapixels needs no permutation of its own size.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from neuralfield.checks import integer


@runtime_checkable
class Batches(Protocol):
    """Training positions by step: a pure function of the step, so that a resumed fit sees the same ones."""

    @property
    def full(self) -> bool:
        """Whether every batch is the whole set, in order."""

    def batch(self, step: int) -> Int64[Tensor, " batch"]:
        """Positions of one step, counted from 0."""


class StratifiedBatches:
    r"""Splits n samples into epochs of K = ceil(n / batch_size) batches; every sample occurs once in an epoch.

    The samples, in memory order, are cut into S = ceil(n / K) strata of K neighbours (the last may be shorter). Batch k
    of an epoch takes from stratum s its element $(\pi(k) + \beta_s) \bmod K$, with a fresh random permutation $\pi$ and
    fresh random shifts $\beta_s$ in each epoch. So each batch is spread evenly over the image, lower in variance than an
    independent draw, and comes in memory order, which gathers from pixels and grids like.

    **Arguments**

    - `n`: number of samples.
    - `batch_size`: the most samples in a batch; a batch has S or S - 1 samples. n or more: all samples every step.
    - `seed`: batches are a function of (seed, step).
    """

    def __init__(self, n: int, batch_size: int, seed: int = 0) -> None:
        self.n = integer("n", n, 1)
        self.batch_size = min(integer("fit.batch_size", batch_size, 1), self.n)
        self.seed = integer("seed", seed, 0)
        self.batches_per_epoch = math.ceil(self.n / self.batch_size)
        self.n_strata = math.ceil(self.n / self.batches_per_epoch)
        self._epoch = -1
        self._order = self._shifts = np.empty(0, np.int64)
        self._starts = np.arange(self.n_strata, dtype=np.int64) * self.batches_per_epoch

    @property
    def full(self) -> bool:
        """Whether every batch is the whole set."""
        return self.batches_per_epoch == 1

    def batch(self, step: int) -> Int64[Tensor, " batch"]:
        """Positions (0 to n - 1, increasing) of the samples of one step, counted from 0."""
        epoch, k = divmod(step, self.batches_per_epoch)
        if self.full:
            return torch.arange(self.n)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = rng.permutation(self.batches_per_epoch)
            self._shifts = rng.integers(self.batches_per_epoch, size=self.n_strata)
            self._epoch = epoch
        within = self._shifts + self._order[k]
        np.subtract(within, self.batches_per_epoch, out=within, where=within >= self.batches_per_epoch)
        positions = self._starts + within
        # Only the last stratum can be shorter than K; its missing elements are simply not there.
        return torch.from_numpy(positions if positions[-1] < self.n else positions[:-1])
