"""Evaluating a field on many points, block by block, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.field import Field
from neuralfield.signals.base import SampleSet, Signal
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
    """The quality of a field on a fixed, evenly spread subset of a set of a signal's samples.

    **Arguments**

    - `signal`: the ground truth.
    - `samples`: the set; `points`: the most to take of it.
    """

    def __init__(self, signal: Signal, samples: SampleSet, points: int) -> None:
        # A regular stride would fall on the same few columns of an image; strata with random shifts do not.
        index = samples.index(StratifiedBatches(samples.n, points, seed=0).batch(0))
        self.coordinates = signal.coordinates(index)
        self.target = signal.values(index)
        self._measure = signal.quality.measure

    def quality(self, field: Field) -> float:
        """In the signal's own measure."""
        return self._measure(evaluate(field, self.coordinates), self.target)
