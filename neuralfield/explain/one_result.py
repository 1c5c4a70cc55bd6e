"""The last result that was made of a field, so that its curve and its pictures cost one."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

import torch

from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.base import Signal

T = TypeVar("T")


class OneResult(Generic[T]):
    """Holds one result, and gives it back for the same field at the same weights, the same signal and options."""

    def __init__(self) -> None:
        self._held: tuple[dict[str, torch.Tensor], object, weakref.ref[Signal], FitOptions, T] | None = None

    def keep(self, field: Field, signal: Signal, options: FitOptions, result: T) -> T:
        """Hold this one instead of the last."""
        state = {name: value.detach().clone() for name, value in field.state_dict().items()}
        self._held = state, field.config, weakref.ref(signal, self._drop), options, result
        return result

    def _drop(self, _: object) -> None:
        """The signal is gone, and nothing can be asked of it."""
        self._held = None

    def find(self, field: Field, signal: Signal, options: FitOptions) -> T | None:
        """The result, if it is of these."""
        if self._held is None:
            return None
        state, config, of, by, result = self._held
        if of() is not signal or by != options or config != field.config:
            return None
        same = all(torch.equal(state[name].to(value), value) for name, value in field.state_dict().items())
        return result if same else None
