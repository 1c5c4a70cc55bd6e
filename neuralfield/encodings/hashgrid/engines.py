"""Which code evaluates the grid: engines by name, and the choice among them.

An engine is a module with ``forward`` and ``backward`` of the signatures in :mod:`.reference`; ``available()`` says why it
cannot run here, ``supports(...)`` why it cannot take an input (None: it can). All engines share one parameter layout, one
autograd function and one set of tests, and agree with the reference to 1e-5 in float32. They take features, sums and
gradients in the precision of the coordinates, whatever that of the table; casting is done here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.encodings.hashgrid import cpu, reference, triton_engine
from neuralfield.encodings.hashgrid.layout import GridLayout
from neuralfield.errors import ConfigError, MissingDependency

ENGINES: dict[str, ModuleType] = {"reference": reference, "cpu": cpu, "triton": triton_engine}
"""reference: plain torch, on every device; cpu: loops compiled by numba; triton: kernels for CUDA, compiled by Triton."""

_BEST = {"cpu": ("cpu", "compiled loops on all cores"), "cuda": ("triton", "Triton kernels, compiled for this GPU")}


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
        if kind not in _BEST:
            return EngineChoice("reference", f"plain torch on {kind}; the compiled engines are for the CPU and CUDA")
        best, reason = _BEST[kind]
        if best not in missing:
            return EngineChoice(best, reason)
        why = f"because the {best} engine cannot be used: {missing[best]}"
        return EngineChoice("reference", f"plain torch on {kind}, {why}")
    if engine in missing:
        message = f"encoding.engine={engine} cannot be used: {missing[engine]}; use encoding.engine=auto"
        raise MissingDependency(message) if "not installed" in missing[engine] else ConfigError(message)
    return EngineChoice(engine, "asked for")


def unavailable(device: torch.device | str) -> dict[str, str]:
    """Engines that cannot be used on a device, and why."""
    kind = torch.device(device).type
    on_triton = kind == "cuda" or (kind == "cpu" and triton_engine.interpreted())
    reasons = {
        "cpu": cpu.available() if kind == "cpu" else f"it runs on the CPU, and this is {kind}",
        "triton": triton_engine.available() if on_triton else f"it runs on CUDA, and this is {kind}",
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def encode(
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    interpolation: str,
    engine: str,
    active_levels: int | None = None,
    table_dtype: torch.dtype | None = None,
) -> Tensor:
    """Features of ``x`` by the chosen engine, of the dtype of ``params``, differentiable to any order in both.

    "auto" takes the reference for what the chosen engine does not take (float64, five dimensions, ...); a forced engine
    raises :class:`~neuralfield.errors.ConfigError` instead. With `active_levels` the finer levels give zeros, and neither
    they nor their gradients are computed. With `table_dtype` features come from a copy of ``params`` rounded to it, and
    gradients go to ``params`` unrounded.
    """
    if active_levels is not None and active_levels < len(layout.levels):
        coarse = replace(layout, levels=layout.levels[:active_levels])
        features = encode(x, params[: coarse.n_parameters], coarse, interpolation, engine, table_dtype=table_dtype)
        return torch.nn.functional.pad(features, (0, layout.out_dim - coarse.out_dim))
    table = None if table_dtype in (None, params.dtype) else params.detach().to(table_dtype)
    module = ENGINES[choose(engine, x.device).name]
    if module is not reference:
        refused = module.supports(x, params if table is None else table, layout, interpolation)
        if refused is not None and table is not None:  # a rounded table may be kept in float32 as well
            table = table.to(params.dtype)
            refused = module.supports(x, table, layout, interpolation)
        if refused is not None and engine != "auto":
            raise ConfigError(
                f"encoding.engine={engine} cannot evaluate this grid: {refused}; use encoding.engine=auto"
            )
        module = reference if refused is not None else module
    return _Encode.apply(x, params, table, layout, interpolation, module).to(params.dtype)


class _Encode(torch.autograd.Function):
    """One autograd node for all levels: nothing but x and the parameters is kept for the backward pass.

    Letting autograd record each corner of each level would keep some hundred numbers per point alive. `table`, where it is
    not None, holds the numbers that stand in for the parameters; their gradient is the parameters'.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        params: Tensor,
        table: Tensor | None,
        layout: GridLayout,
        interpolation: str,
        engine: ModuleType,
    ) -> Tensor:
        ctx.save_for_backward(x, params, table)
        ctx.layout, ctx.interpolation, ctx.engine = layout, interpolation, engine
        return engine.forward(x, params if table is None else table, layout, interpolation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, params, table = ctx.saved_tensors
        engine = ctx.engine
        if torch.is_grad_enabled():
            # Under create_graph=True gradients are recorded here; the reference's operations can be differentiated again.
            engine = reference
            table = params if table is None else params + (table - params).detach()
        needs = ctx.needs_input_grad[:2]
        grad_x, grad_params = engine.backward(
            grad, x, params if table is None else table, ctx.layout, ctx.interpolation, *needs
        )
        return grad_x, None if grad_params is None else grad_params.to(params.dtype), None, None, None, None
