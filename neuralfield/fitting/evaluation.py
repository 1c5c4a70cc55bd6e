"""Evaluating a field on many points, block by block, so that memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from neuralfield.field import Field
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.sampling import StratifiedBatches

_BLOCK_BYTES = 2**26


def block_points(field: Field) -> int:
    """Points per block such that the widest layer's activations, in and out, stay near 64 MiB (and near the cache)."""
    widths = [module.in_features + module.out_features for module in field.modules() if isinstance(module, nn.Linear)]
    widest = max([field.encoding.out_dim, *widths])
    return max(1024, min(2**17, _BLOCK_BYTES // (8 * widest)))


@contextmanager
def inference(field: Field) -> Iterator[None]:
    """Evaluation mode without gradients; the former mode comes back afterwards."""
    training = field.training
    field.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        field.train(training)


def evaluate(field: Field, coordinates: Float[Tensor, "n dim"]) -> Float[Tensor, "n channels"]:
    """Values at many coordinates, as float32 on the CPU."""
    with inference(field):
        blocks = [field(part.to(field.device)).float().cpu() for part in coordinates.split(block_points(field))]
    return torch.cat(blocks) if blocks else torch.empty(0, field.out_dim)


class Probe:
    """PSNR on a fixed, evenly spread subset of a signal's training or held-out samples.

    **Arguments**

    - `signal`: the ground truth.
    - `select`: from positions within the set to sample indices (``signal.split.train`` or ``.heldout``).
    - `n`: samples in the set; `points`: the most to take of them.
    """

    def __init__(
        self,
        signal: ImageSignal,
        select: Callable[[Int64[Tensor, " n"]], Int64[Tensor, " n"]],
        n: int,
        points: int,
    ) -> None:
        # A regular stride would fall on the same few columns of an image; strata with random shifts do not.
        index = select(StratifiedBatches(n, points, seed=0).batch(0))
        self.coordinates = signal.coordinates(index)
        self.target = signal.values(index)

    def psnr(self, field: Field) -> float:
        r"""$-10 \log_{10}$ of the mean squared error of values clamped to [0, 1]."""
        error = evaluate(field, self.coordinates).clamp(0, 1) - self.target.clamp(0, 1)
        mse = error.double().square().mean().item()
        return -10 * math.log10(mse) if mse > 0 else math.inf
