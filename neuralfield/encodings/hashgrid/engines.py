"""Which code evaluates the grid: engines by name, and the choice among them.

An engine is a module with ``forward`` and ``backward`` of the signatures in :mod:`.reference`; ``available()`` says why it
cannot run here, ``supports(...)`` why it cannot take an input (None: it can). All engines share one parameter layout, one
autograd function and one set of tests, and agree with the reference to 1e-5 in float32 (:mod:`.tinycudann_engine` says where
its own rounding prevents that). They take features, sums and gradients in the precision of the coordinates, whatever that of
the table; casting is done here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.encodings.hashgrid import cpu, reference, timing, tinycudann_engine, triton_engine
from neuralfield.encodings.hashgrid.autograd import Encode
from neuralfield.encodings.hashgrid.layout import GridLayout
from neuralfield.errors import ConfigError, MissingDependency

ENGINES: dict[str, ModuleType] = {
    "reference": reference,
    "cpu": cpu,
    "triton": triton_engine,
    "tinycudann": tinycudann_engine,
}
"""reference: plain torch, on every device; cpu: loops compiled by numba; triton: kernels for CUDA, compiled by Triton;
tinycudann: tiny-cuda-nn's kernels for CUDA, where its torch binding is installed."""

# What "auto" looks at on each kind of device, first choice first. On a CPU the size of the problem does not matter: on one
# core `cpu` took a sixth to an eightieth of the reference's time for 1, 16, 256 and 4096 points of grids of 2 to 16 levels.
# Only its first use costs more, half a second, and five where it compiles: too little to switch engines within a run.
_FAST = {
    "cpu": {"cpu": "compiled loops on all cores"},
    "cuda": {"triton": "Triton kernels, compiled for this GPU", "tinycudann": "tiny-cuda-nn's kernels"},
}

# How far features of another engine may be from the first choice's, as a fraction of the largest, for "auto" to take it.
_SAME = 1e-5

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineChoice:
    """An engine's name and the reason for it, in words for a person."""

    name: str
    reason: str


def choose(engine: str, device: torch.device | str) -> EngineChoice:
    """The engine that ``engine`` ("auto" or a name) stands for on a device, for float32 coordinates and parameters.

    Where "auto" has several to choose from, batches decide: see :func:`select`.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name or an engine of another device, and
    :class:`~neuralfield.errors.MissingDependency` when what a forced engine needs is not installed.
    """
    choice("engine", engine, ("auto", *ENGINES))
    kind = torch.device(device).type
    if engine != "auto":
        missing = _missing(engine, kind)
        if missing is not None:
            message = f"encoding.engine={engine} cannot be used: {missing}; use encoding.engine=auto"
            raise MissingDependency(message) if "not installed" in missing else ConfigError(message)
        return EngineChoice(engine, "asked for")
    if kind not in _FAST:
        return EngineChoice("reference", f"plain torch on {kind}; the compiled engines are for the CPU and CUDA")
    found = _usable(kind)
    if not found:
        best = next(iter(_FAST[kind]))
        why = f"because the {best} engine cannot be used: {_missing(best, kind)}"
        return EngineChoice("reference", f"plain torch on {kind}, {why}")
    also = f"; or {found[1]}, where it is measured to be faster" if len(found) > 1 else ""
    return EngineChoice(found[0], _FAST[kind][found[0]] + also)


def unavailable(device: torch.device | str) -> dict[str, str]:
    """Engines that cannot be used on a device, and why."""
    kind = torch.device(device).type
    reasons = {name: _missing(name, kind) for name in ENGINES}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _missing(name: str, kind: str) -> str | None:
    """Why an engine cannot be used on a kind of device, if so."""
    if name == "reference":
        return None
    if name == "cpu":
        return cpu.available() if kind == "cpu" else f"it runs on the CPU, and this is {kind}"
    simulated = kind == "cpu" and triton_engine.interpreted()
    if kind == (tinycudann_engine.DEVICE if name == "tinycudann" else "cuda") or (name == "triton" and simulated):
        reason: str | None = ENGINES[name].available()
        return reason
    return f"it runs on CUDA, and this is {kind}"


def _usable(kind: str) -> list[str]:
    return [name for name in _FAST[kind] if _missing(name, kind) is None]


def select(
    x: Tensor, params: Tensor, table: Tensor | None, layout: GridLayout, interpolation: str, engine: str
) -> tuple[EngineChoice, Tensor | None]:
    """The engine for one batch, and the table that it is to read: that given, or a float32 copy where it takes no other.

    "auto" takes the reference for what no fast engine of the device takes (float64, five dimensions, ...). Where two take
    it they are timed on the first batch of each size class (powers of two), which takes some batches' time, and the faster
    one is kept for the process; then results can differ in the last bits from run to run. It is never timed while a CUDA
    graph is captured or torch compiles.

    Raises :class:`~neuralfield.errors.ConfigError` where a forced engine does not take the batch, and what
    :func:`choose` raises.
    """
    chosen = choose(engine, x.device)
    if chosen.name == "reference":
        return chosen, table
    names = [chosen.name] if engine != "auto" else _usable(x.device.type)
    refused = _refused(names, x, params if table is None else table, layout, interpolation)
    if len(refused) == len(names) and table is not None:  # a rounded table may be kept in float32 as well
        table = table.to(params.dtype)
        refused = _refused(names, x, table, layout, interpolation)
    able = [name for name in names if name not in refused]
    if len(able) > 1:
        training = torch.is_grad_enabled() and (x.requires_grad or params.requires_grad)
        values = params if table is None else table
        return _fastest(able, x, values, layout, interpolation, training), table
    if able:
        others = "".join(f"; not {name}: {why}" for name, why in refused.items())
        return chosen if not others else EngineChoice(able[0], _FAST[x.device.type][able[0]] + others), table
    if engine != "auto":
        raise ConfigError(
            f"encoding.engine={engine} cannot evaluate this grid: {refused[engine]}; use encoding.engine=auto"
        )
    best, why = next(iter(refused.items()))
    return EngineChoice("reference", f"plain torch, because the {best} engine cannot evaluate this grid: {why}"), table


def _refused(names: list[str], x: Tensor, table: Tensor, layout: GridLayout, interpolation: str) -> dict[str, str]:
    """Those of the engines that do not take a batch, and why."""
    reasons = {name: ENGINES[name].supports(x, table, layout, interpolation) for name in names}
    return {name: why for name, why in reasons.items() if why is not None}


_measured: dict[object, EngineChoice] = {}


def _fastest(
    names: list[str], x: Tensor, table: Tensor, layout: GridLayout, interpolation: str, training: bool
) -> EngineChoice:
    """The engine that was measured to be the fastest for such batches; the first where measuring must not be."""
    first = EngineChoice(names[0], f"{_FAST[x.device.type][names[0]]}; nothing else was measured")
    capturing = x.is_cuda and torch.cuda.is_current_stream_capturing()
    if capturing or torch.compiler.is_compiling() or not len(x):
        return first
    size = 1 << (len(x) - 1).bit_length()
    key = (*names, layout, interpolation, table.dtype, x.device, size, training)
    if key not in _measured:
        results = timing.race({name: ENGINES[name] for name in names}, x, table, layout, interpolation, training)
        _measured[key] = _verdict(results, size, training)
        _log.info("hash grid: the %s engine (%s)", _measured[key].name, _measured[key].reason)
    return _measured[key]


def _verdict(results: dict[str, timing.Timing], size: int, training: bool) -> EngineChoice:
    same = {name: result for name, result in results.items() if result.difference <= _SAME}
    best = min(same, key=lambda name: same[name].seconds)
    figures = ", ".join(f"{name} {1e3 * result.seconds:.3g} ms" for name, result in results.items())
    passes = "forward and backward" if training else "forward"
    reason = f"the fastest on batches of up to {size:,} points, {passes}: {figures}"
    for name in results.keys() - same.keys():
        reason += f"; {name} is left out, its features differ by {results[name].difference:.1g} of the largest"
    return EngineChoice(best, reason)


def encode(
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    interpolation: str,
    engine: str,
    active_levels: int | None = None,
    table_dtype: torch.dtype | None = None,
    tell: Callable[[EngineChoice], None] | None = None,
) -> Tensor:
    """Features of ``x`` by the chosen engine, of the dtype of ``params``, differentiable to any order in both.

    :func:`select` chooses, and says what it raises. With `active_levels` the finer levels give zeros, and neither they nor
    their gradients are computed. With `table_dtype` features come from a copy of ``params`` rounded to it, and gradients go
    to ``params`` unrounded. `tell` is called with the engine that evaluates the batch, and the reason for it.
    """
    if active_levels is not None and active_levels < len(layout.levels):
        coarse = replace(layout, levels=layout.levels[:active_levels])
        head = params[: coarse.n_parameters]
        features = encode(x, head, coarse, interpolation, engine, table_dtype=table_dtype, tell=tell)
        return torch.nn.functional.pad(features, (0, layout.out_dim - coarse.out_dim))
    table = None if table_dtype in (None, params.dtype) else params.detach().to(table_dtype)
    chosen, table = select(x, params, table, layout, interpolation, engine)
    if tell is not None:
        tell(chosen)
    module = ENGINES[chosen.name]
    return Encode.apply(x, params, table, layout, interpolation, module).to(params.dtype)
