"""Which code evaluates the grid: engines by name, and the choice among them.

An engine is a module with ``forward`` and ``backward`` of the signatures in :mod:`.reference`; ``available()`` says why it
cannot run here, ``supports(...)`` why it cannot take an input (None: it can). All engines share one parameter layout, one
autograd function and one set of tests, and agree with the reference to 1e-5 in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.encodings.hashgrid import cpu, reference
from neuralfield.encodings.hashgrid.layout import GridLayout
from neuralfield.errors import ConfigError, MissingDependency

ENGINES: dict[str, ModuleType] = {"reference": reference, "cpu": cpu}
"""reference: plain torch, on every device; cpu: loops compiled by numba."""


@dataclass(frozen=True)
class EngineChoice:
    """An engine's name and the reason for it, in words for a person."""

    name: str
    reason: str


def choose(engine: str, device: torch.device | str) -> EngineChoice:
    """The engine that ``engine`` ("auto" or a name) stands for on a device, for float32 coordinates and parameters.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name or an engine of another device, and
    :class:`~neuralfield.errors.MissingDependency` when what a forced engine needs is not installed.
    """
    choice("engine", engine, ("auto", *ENGINES))
    kind = torch.device(device).type
    missing = unavailable(device)
    if engine == "auto":
        if "cpu" not in missing:
            return EngineChoice("cpu", "compiled loops on all cores")
        return EngineChoice(
            "reference", f"plain torch on {kind}, because the cpu engine cannot be used: {missing['cpu']}"
        )
    if engine in missing:
        message = f"encoding.engine={engine} cannot be used: {missing[engine]}; use encoding.engine=auto"
        raise MissingDependency(message) if "not installed" in missing[engine] else ConfigError(message)
    return EngineChoice(engine, "asked for")


def unavailable(device: torch.device | str) -> dict[str, str]:
    """Engines that cannot be used on a device, and why."""
    kind = torch.device(device).type
    reason = cpu.available() if kind == "cpu" else f"it runs on the CPU, and this is {kind}"
    return {} if reason is None else {"cpu": reason}


def encode(x: Tensor, params: Tensor, layout: GridLayout, interpolation: str, engine: str) -> Tensor:
    """Features of ``x`` by the chosen engine, differentiable to any order in ``x`` and ``params``.

    "auto" takes the reference for what the chosen engine does not take (float64, five dimensions, ...); a forced engine
    raises :class:`~neuralfield.errors.ConfigError` instead.
    """
    module = ENGINES[choose(engine, x.device).name]
    if module is not reference:
        refused = module.supports(x, params, layout, interpolation)
        if refused is not None and engine != "auto":
            raise ConfigError(
                f"encoding.engine={engine} cannot evaluate this grid: {refused}; use encoding.engine=auto"
            )
        module = reference if refused is not None else module
    return _Encode.apply(x, params, layout, interpolation, module)


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
        return engine.forward(x, params, layout, interpolation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, params = ctx.saved_tensors
        # Under create_graph=True gradients are recorded here; the reference's operations can be differentiated again.
        engine = reference if torch.is_grad_enabled() else ctx.engine
        grads = engine.backward(grad, x, params, ctx.layout, ctx.interpolation, *ctx.needs_input_grad[:2])
        return (*grads, None, None, None)
