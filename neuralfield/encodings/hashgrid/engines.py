"""Which code evaluates the grid: engines by name, and the choice among them.

An engine is a module with ``forward`` and ``backward`` of the signatures in :mod:`.reference`. All engines share one
parameter layout, one autograd function and one set of tests, and agree with the reference to 1e-5 in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.encodings.hashgrid import reference
from neuralfield.encodings.hashgrid.layout import GridLayout

ENGINES: dict[str, ModuleType] = {"reference": reference}


@dataclass(frozen=True)
class EngineChoice:
    """An engine's name and the reason for it, in words for a person."""

    name: str
    reason: str


def choose(engine: str, device: torch.device | str) -> EngineChoice:
    """The engine that ``engine`` ("auto" or a name) stands for on a device.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name.
    """
    choice("engine", engine, ("auto", *ENGINES))
    if engine != "auto":
        return EngineChoice(engine, "asked for")
    return EngineChoice("reference", f"plain torch, runs on every device ({torch.device(device).type} here)")


def unavailable(device: torch.device | str) -> dict[str, str]:
    """Engines that cannot be used on a device, and why."""
    return {}


def encode(x: Tensor, params: Tensor, layout: GridLayout, interpolation: str, engine: str) -> Tensor:
    """Features of ``x`` by the chosen engine, differentiable to any order in ``x`` and ``params``."""
    name = choose(engine, x.device).name
    return _Encode.apply(x, params, layout, interpolation, ENGINES[name])  # type: ignore[no-any-return]


class _Encode(torch.autograd.Function):
    """One autograd node for all levels: nothing but x and the parameters is kept for the backward pass.

    Letting autograd record each corner of each level would keep some hundred numbers per point alive.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, params: Tensor, layout: GridLayout, interpolation: str, engine: ModuleType
    ) -> Tensor:
        ctx.save_for_backward(x, params)
        ctx.layout, ctx.interpolation, ctx.engine = layout, interpolation, engine
        return engine.forward(x, params, layout, interpolation)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, params = ctx.saved_tensors
        # Under create_graph=True gradients are recorded here; the reference's operations can be differentiated again.
        engine = reference if torch.is_grad_enabled() else ctx.engine
        grads = engine.backward(grad, x, params, ctx.layout, ctx.interpolation, *ctx.needs_input_grad[:2])
        return (*grads, None, None, None)
