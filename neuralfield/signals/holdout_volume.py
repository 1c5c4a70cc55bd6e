"""Which voxels train and which are held out: :func:`make_volume_split`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.signals.holdout import Split, make_split

STORED = 10**8
"""Voxels up to which a random choice is drawn from all subsets and stored; above, one voxel of each run is chosen."""
_MOST = 3 * 10**9  # members of the smaller set: their squares must fit into 63 bits


@dataclass(frozen=True)
class EveryOtherVoxel(Split):
    """Train where x, y and z are even, measure where all three are odd (three quarters of the voxels are in neither)."""

    height: int
    width: int

    def train(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return self._index(position, (self.height + 1) // 2, (self.width + 1) // 2, 0)

    def heldout(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return self._index(position, self.height // 2, self.width // 2, 1)

    def _index(self, position: Tensor, rows: int, columns: int, odd: int) -> Tensor:
        k, rest = position // (rows * columns), position % (rows * columns)
        j, i = rest // columns, rest % columns
        return ((2 * k + odd) * self.height + 2 * j + odd) * self.width + 2 * i + odd


@dataclass(frozen=True)
class OneOfEachRun(Split):
    r"""One voxel of each run of neighbours makes the smaller set, of m of n voxels, without any memory.

    Run s of the m runs has the flat indices $B_s \le i < B_{s+1}$ with $B_s = \lfloor s n / m \rfloor$, and its member of
    the smaller set is $B_s + h(s) \bmod (B_{s+1} - B_s)$ with a hash h of (seed, s): each voxel of a run is equally
    likely. $B_s - s$ voxels of the larger set precede run s, which leads from a position p there to its run, the last
    with $B_s - s \le p$.
    """

    few_are_heldout: bool
    key: int

    def train(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return self._many(position) if self.few_are_heldout else self._few(position)

    def heldout(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return self._few(position) if self.few_are_heldout else self._many(position)

    def _few(self, run: Tensor) -> Tensor:
        start = self._start(run)
        return start + mixed(run, self.key) % (self._start(run + 1) - start)

    def _many(self, position: Tensor) -> Tensor:
        few = min(self.n_train, self.n_heldout)
        # The quotient is a run off at most (rounding of B, and of the division); the comparisons put it right.
        run = (position.double() * (few / max(self.n_train, self.n_heldout))).long().clamp(0, few - 1)
        for _ in range(2):
            run -= (self._start(run) - run > position).long()
            run += ((self._start(run + 1) - run - 1 <= position) & (run + 1 < few)).long()
        candidate = position + run
        return candidate + (candidate >= self._few(run)).long()

    def _start(self, run: Tensor) -> Tensor:
        few, count = min(self.n_train, self.n_heldout), self.n_train + self.n_heldout
        return run * (count // few) + run * (count % few) // few  # the product run * count would overflow


def mixed(number: Int64[Tensor, " n"], key: int) -> Int64[Tensor, " n"]:
    """A hash, at least 0: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) of ``key`` plus multiples."""
    x = number * _signed(0x9E3779B97F4A7C15) + key
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return (x ^ _shifted(x, 31)) & (2**63 - 1)


def make_volume_split(holdout: str, depth: int, height: int, width: int, seed: int) -> Split:
    """Divide the voxels of a volume into training and held-out ones; flat indices (k * height + j) * width + i.

    Args:
        holdout: ``"none"``: every voxel trains. ``"every_other"``: voxels ``[::2, ::2, ::2]`` train, and the result is
            measured on ``[1::2, 1::2, 1::2]``: the three-dimensional form of the protocol of Tancik et al. 2020 for
            images. ``"random:F"``: a fraction 0 < F < 1 of the voxels, rounded to whole ones, is held out: up to 10^8
            voxels each subset of that size being equally likely (8 bytes for each member of the smaller set), above
            that :class:`OneOfEachRun`, without memory.
        depth, height, width: voxels along z, y, x, at least 2.
        seed: of the random choice.

    Raises:
        ConfigError: ``holdout`` is none of these, or leaves no voxel on one of the two sides.
    """
    if holdout == "every_other":
        n_train = ((depth + 1) // 2) * ((height + 1) // 2) * ((width + 1) // 2)
        return EveryOtherVoxel(n_train, (depth // 2) * (height // 2) * (width // 2), height, width)
    count = depth * height * width
    name, _, argument = str(holdout).partition(":")
    try:
        if name != "random" or count <= STORED:
            return make_split(holdout, depth * height, width, seed)
        make_split(f"random:{_middle(argument)}", 2, 2, seed)  # the same words for a wrong fraction
    except ConfigError as error:
        raise ConfigError(str(error).replace("pixels", "voxels").replace("image", "volume")) from error
    n_heldout = round(float(argument) * count)
    few = min(n_heldout, count - n_heldout)
    if not 0 < few < _MOST:
        raise ConfigError(f"signal.holdout={holdout} of {count:,} voxels makes a set of {few:,}; use every_other")
    key = int(torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(seed)))
    return OneOfEachRun(count - n_heldout, n_heldout, n_heldout == few, key)


def _middle(fraction: str) -> str:
    """A half in place of any fraction between 0 and 1, of which four voxels have something to train and measure on."""
    try:
        return "0.5" if 0.0 < float(fraction) < 1.0 else fraction
    except ValueError:
        return fraction


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >= 1 << 63 else constant
