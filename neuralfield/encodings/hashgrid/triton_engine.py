"""The fast engine for GPUs: kernels in Triton, which torch's CUDA wheels for Linux bring with them.

No CUDA toolkit is needed: kernels are compiled at first use, some seconds per kind of grid (dimensions, features,
interpolation), and kept on disk by Triton. With ``TRITON_INTERPRET=1`` in the environment before Triton is imported they run
in its interpreter, on CPU tensors, for tests.

Sums are in float32, whatever the table's precision. The table's gradient is added up by atomic additions, whose order is
left to the hardware; under ``torch.use_deterministic_algorithms(True)`` it is sorted by row first, which takes several times
as long and gives the same bits each time. Everything else is deterministic always.

Features lie in memory feature by feature, [L F, n], and are returned as the transposed view: so all writes are contiguous,
and a matrix product takes its first operand either way. ``features.contiguous()`` where the order matters.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings.hashgrid.layout import PRIMES, GridLayout, too_large

_TABLES = (torch.float32, torch.float16, torch.bfloat16)

# Points per program, and a thread each: small, because every thread keeps 2^D rows under way in its registers.
_BLOCK = 128

# Visits that one program of the deterministic sum adds up at a time.
_VISITS = 256

# Offsets from which 64 bits are needed; a block is left for points beyond the last.
_WIDE = 2**31 - 2**12

# The first version with tuples in kernels; torch 2.7 brings it.
_OLDEST = (3, 3)


def interpreted() -> bool:
    """Whether Triton's interpreter is asked for, which runs kernels on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on")


@functools.cache
def available() -> str | None:
    """`None` when the engine can run here, given a CUDA device, else why not and what to do about it."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (on Linux: pip install triton; torch's CUDA wheels bring it)"
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return (
            f"triton {triton.__version__} is too old, it takes {oldest} (pip install --upgrade torch, to 2.7 or later)"
        )
    return None if interpreted() else _no_compiler()


def _no_compiler() -> str | None:
    """Triton builds a small C module per kernel, to launch it; the kernel itself needs no compiler."""
    if sys.platform != "linux":
        return None  # builds for other systems bring a compiler
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "triton finds no C compiler (apt install gcc, or set CC)"
    # Debian's default scheme names a folder that has no headers.
    headers = Path(sysconfig.get_path("include", "posix_prefix"))
    if not (headers / "Python.h").exists() and not os.environ.get("CPATH") and not os.environ.get("C_INCLUDE_PATH"):
        return f"triton finds no Python.h in {headers} (apt install python3-dev)"
    return None


def supports(x: Tensor, params: Tensor, layout: GridLayout, interpolation: str) -> str | None:
    """`None` when the engine takes this input, else why not."""
    for name, tensor, dtypes in (("coordinates", x, _TABLES[:1]), ("parameters", params, _TABLES)):
        kind, dtype = tensor.device.type, str(tensor.dtype).removeprefix("torch.")
        if kind != ("cpu" if interpreted() else "cuda") or tensor.dtype not in dtypes:
            return (
                f"it takes float32 coordinates and a float32, float16 or bfloat16 table on CUDA, "
                f"and the {name} are {dtype} on {kind}"
            )
    return too_large(layout)


def forward(
    x: Float[Tensor, "n dim"], params: Float[Tensor, " parameters"], layout: GridLayout, interpolation: str
) -> Float[Tensor, "n out_dim"]:
    """Features of all levels, in float32; see :func:`.reference.forward`."""
    from neuralfield.encodings.hashgrid import triton_kernels

    out = x.new_empty(layout.out_dim, len(x))
    if len(x):
        with _on(x):
            grid = (_ceil(len(x), _BLOCK), len(layout.levels))
            constants = _constants(layout, x.device)
            options = _options(x, out, layout, interpolation, _read_at_once(params))
            triton_kernels.forward[grid](x.contiguous(), params.contiguous(), out, *constants, len(x), **options)
    return out.t()


def backward(
    grad: Float[Tensor, "n out_dim"],
    x: Float[Tensor, "n dim"],
    params: Float[Tensor, " parameters"],
    layout: GridLayout,
    interpolation: str,
    needs_x: bool,
    needs_params: bool,
) -> tuple[Float[Tensor, "n dim"] | None, Float[Tensor, " parameters"] | None]:
    """Gradients to x and to the flat parameters, in float32, each only where needed; see :func:`.reference.backward`."""
    grad_x = grad_params = None
    x = x.contiguous()
    with _on(x):
        if needs_params:
            by_order = torch.are_deterministic_algorithms_enabled()
            grad_params = (_sorted_gradient if by_order else _table_gradient)(grad, x, layout, interpolation)
        if needs_x:
            grad_x = _input_gradient(grad, x, params, layout, interpolation)
    return grad_x, grad_params


def _table_gradient(grad: Tensor, x: Tensor, layout: GridLayout, interpolation: str) -> Tensor:
    from neuralfield.encodings.hashgrid import triton_kernels

    out = x.new_zeros(layout.n_parameters)
    if len(x):
        grid = (_ceil(len(x), _BLOCK), len(layout.levels))
        options = _options(x, grad, layout, interpolation, _added_at_once())
        triton_kernels.table_gradient[grid](
            x, grad, out, *_constants(layout, x.device), len(x), *grad.stride(), **options
        )
    return out


def _input_gradient(grad: Tensor, x: Tensor, params: Tensor, layout: GridLayout, interpolation: str) -> Tensor:
    from neuralfield.encodings.hashgrid import triton_kernels

    if interpolation == "nearest" or not len(x):
        return torch.zeros_like(x)
    out = torch.empty_like(x)
    sizes = (len(x), len(layout.levels))
    triton_kernels.input_gradient[(_ceil(len(x), _BLOCK),)](
        x, params.contiguous(), grad, out, *_constants(layout, x.device), *sizes, *grad.stride(),
        **_options(x, grad, layout, interpolation, _read_at_once(params)),
    )  # fmt: skip
    return out


def _sorted_gradient(grad: Tensor, x: Tensor, layout: GridLayout, interpolation: str) -> Tensor:
    """The table's gradient, the same bits each time: see :mod:`.triton_sorted`. One level is in memory at a time."""
    from neuralfield.encodings.hashgrid import triton_sorted

    out = x.new_zeros(layout.n_parameters)
    n, features = len(x), layout.n_features
    if not n:
        return out
    options = _options(x, grad, layout, interpolation, 1)
    shared = {k: v for k, v in options.items() if k not in ("F", "VECTOR")}
    visits = n * (1 if interpolation == "nearest" else 2**layout.in_dim)
    shared["WIDE"] = shared["WIDE"] or visits > _WIDE
    rows = torch.empty(visits, dtype=torch.int32, device=x.device)
    weights = torch.empty(visits, dtype=torch.float32, device=x.device)
    for index, level in enumerate(layout.levels):
        constants = _constants(layout, x.device)
        triton_sorted.visits[(_ceil(n, _BLOCK),)](x, rows, weights, *constants, n, index, **shared)
        found, order = torch.sort(rows, stable=True)
        bounds = torch.searchsorted(found, torch.arange(level.entries + 1, dtype=torch.int32, device=x.device))
        # Enough threads per row for the visits it has on average; few sizes, because each is compiled.
        lanes = next(size for size in (_VISITS, _VISITS // 16, 1) if visits >= size * level.entries or size == 1)
        grid = (_ceil(level.entries, _VISITS // lanes), features)
        triton_sorted.segment_sum[grid](
            order, weights, bounds, grad[:, index * features :], out[level.offset * features :], n, level.entries,
            *grad.stride(), F=features, ROWS=_VISITS // lanes, LANES=lanes,
        )  # fmt: skip
    return out


def _read_at_once(params: Tensor) -> int:
    """Features that one instruction reads: 16 bytes."""
    return 16 // params.element_size()


def _added_at_once() -> int:
    """Features (float32) that one instruction adds to memory: several since Hopper (sm_90).

    For older GPUs, Triton since 3.8 would give each feature of a tile a thread of its own.
    """
    if interpreted():
        return 4
    from triton.runtime import driver

    target = driver.active.get_current_target()
    return 4 if target.backend == "cuda" and target.arch >= 90 else 1


def _options(x: Tensor, matrix: Tensor, layout: GridLayout, interpolation: str, at_once: int) -> dict[str, Any]:
    """The constants of a compilation. `at_once`: features that one instruction reads or adds, a power of two."""
    f = layout.n_features
    lengths = [level.entries * f for level in layout.levels]
    reach = sum((size - 1) * abs(stride) for size, stride in zip(matrix.shape, matrix.stride(), strict=True))
    return {
        "D": layout.in_dim,
        "F": f,
        "VECTOR": min(f & -f, at_once),
        "INTERPOLATION": interpolation,
        "WIDE": max(x.numel(), reach, *lengths) > _WIDE,
        "BLOCK": _BLOCK,
    }


@functools.lru_cache(maxsize=64)
def _constants(layout: GridLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    """`scales` and `levels` of the kernels, on the device: copied once per grid, not at every call."""
    records = []
    for level in layout.levels:
        strides = [PRIMES[d] if level.hashed else level.resolution**d % 2**32 for d in range(layout.in_dim)]
        records.append([level.entries, level.offset, level.hashed, *strides])
    scales = torch.tensor([level.scale for level in layout.levels], dtype=torch.float32, device=device)
    return scales, torch.tensor(records, dtype=torch.int64, device=device)


def _on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def _ceil(n: int, size: int) -> int:
    return -(-n // size)
