"""Which pixels train a field and which are held out to measure it: :func:`make_split`.

Positions count 0, 1, 2, ... inside a set; flat pixel indices are row * width + column. A split turns positions into
indices, in increasing order, so that any way of sampling positions is a way of sampling pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from neuralfield import checks
from neuralfield.errors import ConfigError, nearest

_EXAMPLES = "none, every_other or random:0.25"
_BLOCK = 1 << 20
_MOST_RANDOM = 10**9  # the hypergeometric sampler of NumPy goes no further


@dataclass(frozen=True)
class Split:
    """Two disjoint sets of the pixels of one image.

    Attributes:
        n_train: how many pixels train.
        n_heldout: how many are held out; 0 when all train.
    """

    n_train: int
    n_heldout: int

    def train(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Flat pixel indices of training positions ``0 <= position < n_train``; increasing with the position.

        The range of the positions is not checked, because on a GPU that would stop the device at every step.
        """
        return position

    def heldout(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Flat pixel indices of held-out positions ``0 <= position < n_heldout``; see :meth:`train`."""
        raise ConfigError("nothing is held out with signal.holdout=none; choose every_other or random:0.25")


@dataclass(frozen=True)
class EveryOther(Split):
    """Train on even rows and even columns, measure on odd rows and odd columns (half the pixels are in neither)."""

    width: int

    def train(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        columns = (self.width + 1) // 2
        return 2 * (position // columns) * self.width + 2 * (position % columns)

    def heldout(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        columns = self.width // 2
        return (2 * (position // columns) + 1) * self.width + 2 * (position % columns) + 1


@dataclass(frozen=True)
class RandomSplit(Split):
    """A uniformly drawn set of pixels is held out, all others train.

    Only the smaller of the two sets is stored, sorted: ``few``. The p-th pixel outside of it is p + k, where k counts
    the members f_j with f_j - j <= p, because f_j - j outsiders precede the member f_j.
    """

    few: Tensor
    few_are_heldout: bool
    _copies: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def train(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return self._outside(position) if self.few_are_heldout else self._inside(position)

    def heldout(self, position: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
        return self._inside(position) if self.few_are_heldout else self._outside(position)

    def _inside(self, position: Tensor) -> Tensor:
        return self._on(position.device)[0][position].long()

    def _outside(self, position: Tensor) -> Tensor:
        preceding = self._on(position.device)[1]
        return position + torch.searchsorted(preceding, position.to(preceding.dtype), right=True)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The members and the numbers of outsiders before each, kept on every device that asked."""
        if device not in self._copies:
            few = self.few.to(device)
            self._copies[device] = few, few - torch.arange(len(few), dtype=few.dtype, device=device)
        return self._copies[device]


def make_split(holdout: str, height: int, width: int, seed: int) -> Split:
    """Divide the pixels of a ``height`` x ``width`` image into training and held-out ones.

    Args:
        holdout: ``"none"``: every pixel trains. ``"every_other"``: the protocol of Tancik et al., "Fourier Features Let
            Networks Learn High Frequency Functions in Low Dimensional Domains", 2020: training sees rows 0, 2, 4, ...
            and columns 0, 2, 4, ... (``[::2, ::2]``), and the result is measured on ``[1::2, 1::2]``; the two remaining
            quarters of the image are in neither set. ``"random:F"``: a fraction 0 < F < 1 of the pixels, rounded to
            whole ones, is held out, each subset of that size being equally likely.
        height: rows, at least 1.
        width: columns, at least 1.
        seed: of the random choice, which has a generator of its own; not used otherwise.

    Raises:
        ConfigError: ``holdout`` is none of these, or leaves no pixel on one of the two sides.
    """
    height, width = checks.integer("height", height, 1), checks.integer("width", width, 1)
    count = height * width
    name, _, argument = str(holdout).partition(":")
    if holdout == "none":
        return Split(count, 0)
    if holdout == "every_other":
        n_train, n_heldout = ((height + 1) // 2) * ((width + 1) // 2), (height // 2) * (width // 2)
        if not n_heldout:
            raise ConfigError(
                f"signal.holdout=every_other leaves no pixel of a {width} x {height} image to measure "
                "on; it needs 2 x 2, or use signal.holdout=none"
            )
        return EveryOther(n_train, n_heldout, width)
    if name != "random" or not argument:
        hint = nearest(name, ["none", "every_other", "random"])
        raise ConfigError(f"signal.holdout must be {_EXAMPLES}, got {holdout!r}{hint}")
    return _random(_fraction(argument, holdout), count, holdout, checks.integer("seed", seed, 0))


def _fraction(argument: str, holdout: str) -> float:
    try:
        fraction = float(argument)
    except ValueError:
        fraction = float("nan")
    if not 0.0 < fraction < 1.0:
        raise ConfigError(
            f"signal.holdout=random:F needs a fraction F between 0 and 1, such as random:0.25, got {holdout!r}"
        )
    return fraction


def _random(fraction: float, count: int, holdout: str, seed: int) -> RandomSplit:
    n_heldout = round(fraction * count)
    if not 0 < n_heldout < count:
        left = "to train on" if n_heldout else "to measure on"
        raise ConfigError(
            f"signal.holdout={holdout} leaves none of the {count} pixels {left}; choose another "
            "fraction, for example random:0.25"
        )
    if count >= _MOST_RANDOM:
        raise ConfigError(
            f"signal.holdout={holdout} works up to {_MOST_RANDOM:.0e} pixels and this image has "
            f"{count}; use every_other, which needs no memory"
        )
    few_are_heldout = n_heldout <= count - n_heldout
    few = _choose(count, n_heldout if few_are_heldout else count - n_heldout, seed)
    return RandomSplit(count - n_heldout, n_heldout, torch.from_numpy(few), few_are_heldout)


def _choose(count: int, wanted: int, seed: int) -> np.ndarray:
    """A uniformly drawn, sorted subset of ``wanted`` of the numbers below ``count``.

    Block by block: how many fall into a block is hypergeometric, and which ones is then uniform inside it. That is the
    same distribution as one draw from all, without a permutation of the whole image in memory.
    """
    generator = np.random.default_rng([seed, 0x486F6C64])
    few = np.empty(wanted, np.int32)  # count is below 10^9
    done = 0
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        missing, rest = wanted - done, count - start
        share = int(generator.hypergeometric(missing, rest - missing, size)) if rest > size else missing
        few[done : done + share] = np.sort(generator.choice(size, share, replace=False, shuffle=False)) + start
        done += share
    return few
