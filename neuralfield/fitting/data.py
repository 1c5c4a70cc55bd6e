"""Feeding a signal to the optimiser: batches of coordinates and values on the right device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield.memory import available_bytes
from neuralfield.signals.base import Signal

_CACHE_BYTES = 2**30
"""Whole training sets up to this size, as float32, are kept ready-made: on the host, or on a GPU with room to spare."""


class Batch(NamedTuple):
    """The samples of one step.

    - `coordinates`: [n, D]; `target`: [n, C].
    - `position`: [n], where they stand among the training samples; None: they are all of them, in order.
    """

    coordinates: Float[Tensor, "n dim"]
    target: Float[Tensor, "n channels"]
    position: Int64[Tensor, " n"] | None


class TrainingData:
    """Coordinates and values of the training samples, by step.

    A set that fits is converted once and gathered from on the device; a larger one stays in the signal's own storage on
    the host, and each batch is converted and sent by itself.
    """

    def __init__(self, signal: Signal, batch_size: int, seed: int, device: torch.device) -> None:
        self.signal = signal
        self.device = device
        self.batches = signal.batches(batch_size, seed)
        self._cached: tuple[Tensor, Tensor] | None = None
        needed = 4 * signal.split.n_train * (signal.in_dim + signal.out_dim)
        if needed <= min(_CACHE_BYTES, available_bytes(device) / 4):
            index = signal.split.train(torch.arange(signal.split.n_train))
            self._cached = signal.coordinates(index).to(device), signal.values(index).to(device)

    @property
    def coordinates(self) -> Float[Tensor, "n dim"] | None:
        """Coordinates of all training samples, in order; None where they are not kept."""
        return None if self._cached is None else self._cached[0]

    def batch(self, step: int) -> Batch:
        """The samples of one step, counted from 0."""
        if self._cached is None:
            index = self.signal.split.train(self.batches.batch(step))
            return Batch(
                self.signal.coordinates(index).to(self.device), self.signal.values(index).to(self.device), None
            )
        coordinates, values = self._cached
        if self.batches.full:
            return Batch(coordinates, values, None)
        position = self.batches.batch(step).to(self.device)
        return Batch(coordinates[position], values[position], position)
