"""The fast engine for CPUs: loops compiled by numba, on all cores, with no compiler on the user's machine.

Work is cut into tasks that write to disjoint memory: forward by level and range of points, the table's gradient by level,
so that each row has one writer, which goes through the points in order. There are no atomics, and the result does not
depend on which thread takes which task; nor on their number, until there are fewer levels than threads. Which threads these
are is the business of :mod:`.cpu_threads`.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings.hashgrid.cpu_threads import Task, drain, run
from neuralfield.encodings.hashgrid.layout import PRIMES, GridLayout, too_large

if TYPE_CHECKING:
    from neuralfield.encodings.hashgrid.cpu_kernels import Kernels

# Corners visited below which a second thread costs more than it brings: about a tenth of a millisecond.
_WORK_PER_THREAD = 1 << 16

# Points up to which the matrix of features stays in the cache, so that it may be written one level at a time.
_DIRECT = 1 << 12

# Bytes of level-major features at a time; more points are done in several rounds.
_SCRATCH = 1 << 25


def available() -> str | None:
    """`None` when the engine can run here, else why not and what to do about it."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install numba)"
    return None


def supports(x: Tensor, params: Tensor, layout: GridLayout, interpolation: str) -> str | None:
    """`None` when the engine takes this input, else why not."""
    for name, tensor in (("coordinates", x), ("parameters", params)):
        if tensor.device.type != "cpu" or tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"it takes float32 on the CPU, and the {name} are {kind} on {tensor.device.type}"
    return too_large(layout)


def forward(
    x: Float[Tensor, "n dim"], params: Float[Tensor, " parameters"], layout: GridLayout, interpolation: str
) -> Float[Tensor, "n out_dim"]:
    """Features of all levels; see :func:`.reference.forward`."""
    kernels = _kernels(layout, interpolation)
    tables = _split(_flat(params), layout)
    out = np.empty(len(x) * layout.out_dim, np.float32)
    for chunk in _chunks(_flat(x), out, layout, kernels):
        buffer = chunk.matrix if chunk.direct else np.empty_like(chunk.matrix)
        parts = _ranges(chunk.n, chunk.threads)
        # All parts of one level before the next: threads that run at once share a table in the outer cache.
        levels = [chunk.level(index, tables[index], buffer, interpolation) for index in range(len(tables))]
        run([functools.partial(kernels.forward, *level, *part) for level in levels for part in parts], chunk.threads)
        if not chunk.direct:
            chunk.transpose(buffer, chunk.matrix, back=True)
    return torch.from_numpy(out).view(len(x), layout.out_dim)


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
    kernels = _kernels(layout, interpolation)
    tables = _split(_flat(params), layout)
    grad_params = _take_zeros(layout.n_parameters if needs_params else 0)
    grad_x = np.zeros(x.numel() if needs_x else 0, np.float32)
    first = 0
    for chunk in _chunks(_flat(x), _flat(grad), layout, kernels):
        buffer = chunk.matrix if chunk.direct else np.empty_like(chunk.matrix)
        if not chunk.direct:
            chunk.transpose(chunk.matrix, buffer, back=False)
        tasks: list[Task] = []
        sums: list[Task] = []
        if needs_params:
            tasks, sums = _by_level(kernels.table_gradient, chunk, grad_params, buffer, interpolation)
        if needs_x and interpolation != "nearest":
            target = grad_x[first * layout.in_dim :][: len(chunk.x)]
            tasks += _by_points(kernels.input_gradient, chunk, tables, buffer, interpolation, target)
        run(tasks, chunk.threads)
        run(sums, chunk.threads)
        first += chunk.n
    return (
        torch.from_numpy(grad_x).view(x.shape) if needs_x else None,
        torch.from_numpy(grad_params) if needs_params else None,
    )


def double_backward(
    v: Float[Tensor, "n dim"] | None,
    w: Float[Tensor, " parameters"] | None,
    grad: Float[Tensor, "n out_dim"],
    x: Float[Tensor, "n dim"],
    params: Float[Tensor, " parameters"],
    layout: GridLayout,
    interpolation: str,
    needs_grad: bool,
    needs_x: bool,
    needs_params: bool,
) -> tuple[Float[Tensor, "n out_dim"] | None, Float[Tensor, "n dim"] | None, Float[Tensor, " parameters"] | None]:
    r"""Gradients of what :func:`backward` computes: of $v \cdot \nabla_x + w \cdot \nabla_T$ applied to S = grad . f(x; T).

    The part with v is in :mod:`.cpu_double_kernels`. As f is linear in the table, the part with w is the encoding of w in the
    table's place: its features are the gradient to `grad`, and the gradient of these the one to x.

    **Arguments**

    - `v`, `w`: gradients to what :func:`backward` returned; `None` stands for zeros.
    - `grad`, `x`, `params`, `layout`, `interpolation`: what :func:`backward` was called with.
    - `needs_grad`, `needs_x`, `needs_params`: which of the three results are wanted.

    **Returns**

    gradients to `grad`, `x` and `params`; `None` where one is not wanted, or where nothing given depends on it.
    """
    out = grad_x = grad_params = None
    if w is not None:
        out = forward(x, w, layout, interpolation) if needs_grad else None
        grad_x = backward(grad, x, w, layout, interpolation, True, False)[0] if needs_x else None
    if v is not None:
        if needs_x and grad_x is None:
            grad_x = torch.zeros(x.shape)
        along = _along(v, grad, x, params, layout, interpolation, needs_grad, grad_x, needs_params)
        if along[0] is not None:
            out = along[0] if out is None else out.add_(along[0])
        grad_params = along[1]
    return out, grad_x, grad_params


def _along(
    v: Tensor,
    grad: Tensor,
    x: Tensor,
    params: Tensor,
    layout: GridLayout,
    interpolation: str,
    needs_grad: bool,
    grad_x: Tensor | None,
    needs_params: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The part of :func:`double_backward` with v: returned to `grad` and to the parameters, added to `grad_x`."""
    along, steps = np.zeros(len(x) * layout.out_dim if needs_grad else 0, np.float32), _flat(v)
    grad_params = _take_zeros(layout.n_parameters if needs_params else 0)
    if interpolation != "nearest":  # else all stays zero
        from neuralfield.encodings.hashgrid import cpu_double_kernels

        kernels = cpu_double_kernels.make(layout.in_dim, layout.n_features)
        tables, first = _split(_flat(params), layout), 0
        target = None if grad_x is None else grad_x.view(-1).numpy()
        for chunk in _chunks(_flat(x), _flat(grad), layout, _kernels(layout, interpolation)):
            points = slice(first * layout.in_dim, (first + chunk.n) * layout.in_dim)
            features = along[first * layout.out_dim :][: len(chunk.matrix) if needs_grad else 0]
            given, found = chunk.matrix, features
            if not chunk.direct:
                given, found = np.empty_like(given), np.empty_like(found)
                if needs_params or target is not None:
                    chunk.transpose(chunk.matrix, given, back=False)
            tasks: list[Task] = []
            sums: list[Task] = []
            if needs_params:
                kernel = kernels.table_gradient_along
                tasks, sums = _by_level(kernel, chunk, grad_params, given, interpolation, steps[points])
            if target is not None:
                kernel, extra = kernels.input_gradient_along, (target[points], steps[points])
                tasks += _by_points(kernel, chunk, tables, given, interpolation, *extra)
            if needs_grad:
                tasks += _by_points(kernels.forward_along, chunk, tables, found, interpolation, steps[points])
            run(tasks, chunk.threads)
            run(sums, chunk.threads)
            if needs_grad and not chunk.direct:
                chunk.transpose(found, features, back=True)
            first += chunk.n
    return (
        torch.from_numpy(along).view(grad.shape) if needs_grad else None,
        torch.from_numpy(grad_params) if needs_params else None,
    )


def _by_level(
    kernel: Any, chunk: _Chunk, gradient: Any, buffer: Any, interpolation: str, *extra: Any
) -> tuple[list[Task], list[Task]]:
    """Tasks that add a chunk's part to the table's gradient, each at the rows of one level; and tasks for after these."""
    tasks: list[Task] = []
    sums: list[Task] = []
    # Fine levels first: they take longest, and the short tasks fill the gap at the end.
    for index, table in reversed(list(enumerate(_split(gradient, chunk.layout)))):
        parts = _ranges(chunk.n, _copies(chunk.threads, len(chunk.layout.levels)))
        copies = [table, *(np.zeros_like(table) for _ in parts[1:])]
        for part, copy in zip(parts, copies, strict=True):
            level = chunk.level(index, copy, buffer, interpolation)
            tasks.append(functools.partial(kernel, *level, *part, *extra))
        if copies[1:]:
            sums.append(functools.partial(functools.reduce, np.ndarray.__iadd__, copies))
    return tasks, sums


def _by_points(
    kernel: Any, chunk: _Chunk, tables: list[Any], buffer: Any, interpolation: str, *extra: Any
) -> list[Task]:
    """Tasks that each take some points through all levels, in order."""
    levels = [chunk.level(index, table, buffer, interpolation) for index, table in enumerate(tables)]
    tasks: list[Task] = []
    for part in _ranges(chunk.n, 4 * chunk.threads):
        calls: deque[Task] = deque(functools.partial(kernel, *level, *part, *extra) for level in levels)
        tasks.append(functools.partial(drain, calls))
    return tasks


class _Chunk:
    """Some points, and their part of the [n, L F] matrix of features or of gradients.

    A kernel, which handles one level, would touch every cache line of a large matrix to use 8 bytes of it. Such a matrix
    is transposed to or from [L, n, F]; a small one (`direct`) stays in the cache.
    """

    def __init__(self, x: Any, matrix: Any, layout: GridLayout, kernels: Kernels) -> None:
        self.x, self.matrix, self.layout, self.kernels = x, matrix, layout, kernels
        self.n = len(x) // layout.in_dim
        self.direct = self.n <= _DIRECT
        work = self.n * len(layout.levels) * kernels.corners
        self.threads = max(1, min(torch.get_num_threads(), work // _WORK_PER_THREAD))

    def level(self, index: int, rows: Any, buffer: Any, interpolation: str) -> tuple[Any, ...]:
        """The first arguments of every kernel, for one level."""
        features = self.layout.n_features
        base = index * features * (1 if self.direct else self.n)
        width = self.layout.out_dim if self.direct else features
        return (self.x, rows, buffer, base, width, *_constants(self.layout)[index], interpolation == "smoothstep")

    def transpose(self, source: Any, target: Any, back: bool) -> None:
        """From [n, L, F] to [L, n, F], or back."""
        arguments = (source, target, self.n, len(self.layout.levels), back)
        parts = _ranges(self.n, self.threads)
        run([functools.partial(self.kernels.transpose, *arguments, *part) for part in parts], self.threads)


def _chunks(x: Any, matrix: Any, layout: GridLayout, kernels: Kernels) -> Iterator[_Chunk]:
    """The points in chunks, which bound the memory for level-major features."""
    step = max(1, _SCRATCH // (4 * layout.out_dim))
    for first in range(0, len(x) // layout.in_dim, step):
        some = x[first * layout.in_dim : (first + step) * layout.in_dim]
        yield _Chunk(some, matrix[first * layout.out_dim : (first + step) * layout.out_dim], layout, kernels)


# Gradients that an optimiser has used up and cleared, by length. Fresh zeros cost a page fault for every page touched.
_cleared: dict[int, list[Any]] = {}


def give_zeros(gradient: Any) -> None:
    """Take back the memory of a gradient to the parameters, all zeros again, for a later :func:`backward`."""
    kept = _cleared.setdefault(len(gradient), [])
    if len(kept) < 2:
        kept.append(gradient)


def _take_zeros(n: int) -> Any:
    try:
        return _cleared[n].pop()
    except (KeyError, IndexError):
        # numpy's zeros are the system's untouched pages: each is cleared when, and by the thread by which, it is first used.
        return np.zeros(n, np.float32)


def _flat(tensor: Tensor) -> Any:
    """The numbers of a tensor as a flat array, not copied where they lie in order."""
    return tensor.detach().contiguous().view(-1).numpy()


def _split(flat: Any, layout: GridLayout) -> list[Any]:
    """The part of a flat parameter array that belongs to each level, as views."""
    f = layout.n_features
    return [flat[level.offset * f : (level.offset + level.entries) * f] for level in layout.levels]


@functools.lru_cache(maxsize=64)
def _constants(layout: GridLayout) -> list[tuple[float, int, bool, Any]]:
    """Scale, entries, whether hashed, and what one vertex along each axis means for the row, of each level."""
    constants = []
    for level in layout.levels:
        strides = [PRIMES[d] if level.hashed else level.resolution**d for d in range(layout.in_dim)]
        constants.append((level.scale, level.entries, level.hashed, np.array(strides, np.uint32)))
    return constants


def _kernels(layout: GridLayout, interpolation: str) -> Kernels:
    """The kernels for a grid; importing numba takes part of a second, so it waits until here."""
    from neuralfield.encodings.hashgrid import cpu_kernels

    corners = 1 if interpolation == "nearest" else 2**layout.in_dim
    return cpu_kernels.make(layout.in_dim, layout.n_features, corners)


def _ranges(n: int, parts: int) -> list[tuple[int, int]]:
    """0 .. n in at most `parts` ranges of nearly equal length."""
    parts = max(1, min(parts, n))
    ends = [n * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(ends))


def _copies(threads: int, levels: int) -> int:
    """How many tables a level's gradient is summed in: the least number that keeps three quarters of the threads busy.

    One, unless threads are many or levels few. The copies are added up in order, so that the result is the same each time.
    """
    copies = 1
    while levels * copies < 0.75 * threads * -(-levels * copies // threads):
        copies += 1
    return copies
