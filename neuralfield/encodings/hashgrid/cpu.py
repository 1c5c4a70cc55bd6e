"""The fast engine for CPUs: compiled loops on all cores, no compiler needed (numba brings its own).

Work is cut into tasks that write to disjoint memory: a level at a time forward, and a level at a time for the gradient of
the table, whose rows each have one writer that goes through the points in order. So there are no atomics, and the
result does not depend on scheduling. The kernels see features level-major, [L, n, F]: writing 8 bytes into each row of
[n, L F], once per level, would move every cache line of that matrix 16 times.

The threads are Python's, kept in a pool, with kernels that release the GIL. numba's own layers are not used: its default
one aborts the process when two threads call it at once, and an OpenMP pool does not survive a fork.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings.hashgrid.layout import PRIMES, GridLayout

if TYPE_CHECKING:
    from neuralfield.encodings.hashgrid.cpu_kernels import Kernels

Task = Callable[[], object]

_MAX_DIM, _MAX_FEATURES = 4, 8

# Corners below which a second thread costs more than it brings: about a tenth of a millisecond.
_WORK_PER_THREAD = 1 << 16

# Points up to which the rows of the output stay in the cache, so that writing them once per level is no loss.
_DIRECT = 1 << 12

# Bytes of level-major features held at a time; more points are done in several rounds.
_SCRATCH = 1 << 25


def available() -> str | None:
    """`None` when the engine can run here, else why not and what to do."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install numba)"
    return None


def supports(x: Tensor, params: Tensor, layout: GridLayout, interpolation: str) -> str | None:
    """`None` when the engine takes this input, else why not."""
    for name, tensor in (("coordinates", x), ("parameters", params)):
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"it takes float32 on the CPU, and the {name} are {kind} on {tensor.device.type}"
    if layout.in_dim > _MAX_DIM or layout.n_features > _MAX_FEATURES:
        return (
            f"it takes at most {_MAX_DIM} dimensions and {_MAX_FEATURES} features per level, "
            f"and the grid has {layout.in_dim} and {layout.n_features}"
        )
    return None


def forward(
    x: Float[Tensor, "n dim"], params: Float[Tensor, " parameters"], layout: GridLayout, interpolation: str
) -> Float[Tensor, "n out_dim"]:
    """Features of all levels; see :func:`.reference.forward`."""
    n, dim, features, count = len(x), layout.in_dim, layout.n_features, len(layout.levels)
    kernels, smooth = _kernels(layout, interpolation)
    tables = _split(_flat(params), layout)
    points, out = _flat(x), np.empty(n * layout.out_dim, np.float32)
    for lo, hi in _rounds(n, layout):
        m = hi - lo
        threads = _threads(m, layout, kernels.corners)
        some, target = points[lo * dim : hi * dim], out[lo * layout.out_dim : hi * layout.out_dim]
        direct = m <= _DIRECT
        buffer = target if direct else np.empty_like(target)
        tasks: list[Task] = []
        for index, level in enumerate(_levels(layout)):
            base, width = (index * features, layout.out_dim) if direct else (index * m * features, features)
            for part in _ranges(m, threads, count):
                tasks.append(
                    functools.partial(kernels.forward, some, tables[index], buffer, base, width, *level, smooth, *part)
                )
        _run(tasks, threads)
        if not direct:
            _run([functools.partial(kernels.transpose, buffer, target, m, count, *part, True) for part in _ranges(m, threads)], threads)
    return torch.from_numpy(out).view(n, layout.out_dim)


def backward(
    grad: Float[Tensor, "n out_dim"],
    x: Float[Tensor, "n dim"],
    params: Float[Tensor, " parameters"],
    layout: GridLayout,
    interpolation: str,
    needs_x: bool,
    needs_params: bool,
) -> tuple[Float[Tensor, "n dim"] | None, Float[Tensor, " parameters"] | None]:
    """Gradients to x and to the flat parameters, each only where it is needed; see :func:`.reference.backward`."""
    n, dim, features, count = len(x), layout.in_dim, layout.n_features, len(layout.levels)
    kernels, smooth = _kernels(layout, interpolation)
    points, pulled = _flat(x), _flat(grad)
    # From the system's zero pages: a page is cleared when, and by the thread by which, it is first written to.
    grad_params = np.zeros(layout.n_parameters if needs_params else 0, np.float32)
    grad_x = np.zeros(n * dim if needs_x else 0, np.float32)
    for lo, hi in _rounds(n, layout):
        m = hi - lo
        threads = _threads(m, layout, kernels.corners)
        some, source = points[lo * dim : hi * dim], pulled[lo * layout.out_dim : hi * layout.out_dim]
        direct = m <= _DIRECT
        buffer = source if direct else np.empty_like(source)
        if not direct:
            _run([functools.partial(kernels.transpose, source, buffer, m, count, *part, False) for part in _ranges(m, threads)], threads)
        places = [(i * features, layout.out_dim) if direct else (i * m * features, features) for i in range(count)]
        tasks: list[Task] = []
        shares: list[_Shares] = []
        if needs_params:
            gradients = _split(grad_params, layout)
            parts = _ranges(m, _parts(threads, count, m))
            # Fine levels first: they take longest, and the short ones fill the gaps at the end.
            for index in reversed(range(count)):
                shares.append(_Shares(gradients[index], len(parts)))
                for part, table in zip(parts, shares[-1].tables, strict=True):
                    tasks.append(
                        functools.partial(
                            kernels.table_gradient, some, table, buffer, *places[index], *_levels(layout)[index], smooth, *part
                        )
                    )
        if needs_x and interpolation != "nearest":
            tables = _split(_flat(params), layout)
            target = grad_x[lo * dim : hi * dim]
            for part in _ranges(m, 4 * threads):
                calls = [
                    functools.partial(kernels.input_gradient, some, table, buffer, *place, *level, smooth, *part, target)
                    for table, place, level in zip(tables, places, _levels(layout), strict=True)
                ]
                tasks.append(functools.partial(_in_order, calls))
        _run(tasks, threads)
        _run([share.add for share in shares if len(share.tables) > 1], threads)
    return (
        torch.from_numpy(grad_x).view(n, dim) if needs_x else None,
        torch.from_numpy(grad_params) if needs_params else None,
    )
