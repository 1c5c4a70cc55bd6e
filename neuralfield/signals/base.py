"""What every signal is to the rest of the package: numbered samples with coordinates and values, and how a fit is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield.signals.holdout import Split
from neuralfield.signals.quality import PSNR, Quality
from neuralfield.signals.sampling import Batches, StratifiedBatches


@dataclass(frozen=True)
class SampleSet:
    """Samples on which a field is judged: `n` of them, `index` takes positions 0 to n - 1 to sample indices."""

    n: int
    index: Callable[[Int64[Tensor, " n"]], Int64[Tensor, " n"]]

    def portions(self, size: int = 2**20) -> Iterator[Int64[Tensor, " k"]]:
        """All sample indices, so many at a time."""
        for start in range(0, self.n, size):
            yield self.index(torch.arange(start, min(start + size, self.n)))


class Signal(ABC):
    """Ground truth: a function from [0, 1]^D to C channels, known at numbered samples.

    **Attributes**

    - `type`: the configuration's word: "image", "shape", "volume".
    - `in_dim`, `out_dim`: D and C. `name`, `source`: what to call it, and where it came from.
    - `split`: which samples train, which are held out.
    - `quality`: how a fit is judged; `default_loss`: what to minimise unless told otherwise.
    - `logits`: whether the values are probabilities, 0 to 1, of which a field gives the logarithm of the odds.
    """

    type: str
    in_dim: int
    out_dim: int
    name: str
    source: str
    split: Split
    quality: Quality = PSNR
    default_loss: str = "mse"
    logits: bool = False

    @property
    @abstractmethod
    def n_samples(self) -> int:
        """How many samples there are, in both sets of the split and outside of them."""

    @abstractmethod
    def coordinates(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        """Coordinates of samples, float32 in [0, 1], on the device of ``index``."""

    @abstractmethod
    def values(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n channels"]:
        """Values of samples, float32, on the device of ``index``."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What this signal is, as plain values for a report or a JSON file; saved with a field that was fitted to it."""

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what is fitted: equal for equal samples; the name and the file it came from do not enter."""

    @property
    @abstractmethod
    def size(self) -> str:
        """Its size in words, for a title: "512 x 512 x 3"."""

    @property
    def title(self) -> str:
        """What is fitted, in words."""
        heldout = f", {self.split.n_heldout:,} samples held out" if self.split.n_heldout else ""
        return f"{self.name}, {self.size}{heldout}"

    @property
    def n_values(self) -> int:
        """How many numbers describe the signal."""
        return self.n_samples * self.out_dim

    @property
    @abstractmethod
    def lattice(self) -> float:
        """Training samples along the longest side, on average: what the finest level of a grid should resolve."""

    @property
    def details(self) -> int:
        """About how many numbers of its own the finest level of a grid needs: as many as training samples."""
        return self.split.n_train

    @property
    def highest_frequency(self) -> float:
        """Cycles per unit up to which axis-aligned frequencies serve: half of the lattice's Nyquist frequency.

        Beyond it they alias between the samples (Tancik et al. 2020 found 2^6 best on lattices of 256).
        """
        return self.lattice / 4

    @property
    def bandwidth(self) -> float:
        """The sigma of Fourier features where none is given, in cycles per unit (10: Tancik et al. 2020, images)."""
        return 10.0

    def batches(self, batch_size: int, seed: int) -> Batches:
        """The training positions of each step."""
        return StratifiedBatches(self.split.n_train, batch_size, seed)

    def warnings(self) -> list[str]:
        """What a person should know before fitting this."""
        return []

    def judged_on(self) -> dict[str, SampleSet]:
        """The sets that a fit is judged on, by the name of the number; what decides is the last."""
        sets = {f"{self.quality.key}_train": SampleSet(self.split.n_train, self.split.train)}
        if self.split.n_heldout:
            sets[f"{self.quality.key}_heldout"] = SampleSet(self.split.n_heldout, self.split.heldout)
        return sets
