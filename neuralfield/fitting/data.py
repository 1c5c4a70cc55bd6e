"""Feeding a signal to the optimiser: batches of coordinates and values on the right device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.signals.base import Signal

_CACHE_BYTES = 2**30
"""Whole training sets up to this size, as float32, are kept ready-made: on the host, or on a GPU with room to spare."""


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
        if needed <= min(_CACHE_BYTES, _free_bytes(device) // 4):
            index = signal.split.train(torch.arange(signal.split.n_train))
            self._cached = signal.coordinates(index).to(device), signal.values(index).to(device)

    def batch(self, step: int) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n channels"]]:
        """Coordinates and values of one step, counted from 0."""
        if self._cached is None:
            index = self.signal.split.train(self.batches.batch(step))
            return self.signal.coordinates(index).to(self.device), self.signal.values(index).to(self.device)
        coordinates, values = self._cached
        if self.batches.full:
            return coordinates, values
        position = self.batches.batch(step).to(self.device)
        return coordinates[position], values[position]


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 2**40
