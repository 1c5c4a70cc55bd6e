"""Regular grids: recognising them in coordinates and in indices."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def unravel(index: Int[Tensor, " n"], shape: Sequence[int]) -> Int[Tensor, "n axes"]:
    """Row-major multi-indices."""
    parts = []
    for size in reversed(shape):
        parts.append(index % size)
        index = index // size
    return torch.stack(parts[::-1], dim=1)


def progression(index: Int[Tensor, " n"], shape: Sequence[int]) -> list[tuple[int, int, int]] | None:
    """The sub-lattice of a grid that row-major indices run over, in order.

    **Returns**

    (first, step, count) per axis, or None if the indices are no such product of progressions.
    """
    found, axes = [], []
    for values in unravel(index, shape).unbind(1):
        unique = values.unique()  # ascending
        step = int(unique[1] - unique[0]) if len(unique) > 1 else 1
        found.append((int(unique[0]), step, len(unique)))
        axes.append(torch.arange(len(unique), device=index.device) * step + unique[0])
    if math.prod(count for *_, count in found) != len(index):
        return None
    expected = torch.zeros((), dtype=index.dtype, device=index.device)
    for axis, size in zip(axes, shape, strict=True):
        expected = (expected * size)[..., None] + axis
    return found if torch.equal(expected.flatten(), index) else None


def lattice(x: Float[Tensor, "n in_dim"]) -> tuple[tuple[int, ...], Float[Tensor, "axes in_dim"]] | None:
    r"""The regular grid that coordinates run over in row-major order, within their rounding.

    $x_i = x_0 + \sum_a i_a s_a$ with at most three axes a, the last of which runs fastest. Steps may point anywhere:
    images in either order of axes, sub-lattices, rotated and sheared grids.

    **Returns**

    the number of points along each axis and the step $s_a$ of each, float64; or None.
    """
    points = _differences(x)
    shape: list[int] = []
    stride = 1
    while stride < len(x) and len(shape) < 3:
        shape.insert(0, _run(points[::stride], _rounding(x)))
        stride *= shape[0]
    if stride != len(x):
        return None
    steps = lattice_of(x, shape or (1,))
    return None if steps is None else (tuple(shape or (1,)), steps)


def lattice_of(x: Float[Tensor, "n in_dim"], shape: Sequence[int]) -> Float[Tensor, "axes in_dim"] | None:
    """The steps along the axes of a grid of known shape; None if x does not run over one. See :func:`lattice`."""
    points, rounding, stride = _differences(x), _rounding(x), len(x)
    steps = torch.zeros(len(shape), x.shape[1], dtype=torch.float64)
    for axis, count in enumerate(shape):
        stride //= count
        if count > 1:
            step = points[(count - 1) * stride] / (count - 1)
            steps[axis] = torch.tensor([_simple(float(s), rounding / (count - 1)) for s in step], dtype=torch.float64)
    steps = steps.to(x.device)
    expected = unravel(torch.arange(len(x), device=x.device), shape).to(torch.float64) @ steps
    return steps if bool(((points - expected).abs() <= rounding).all()) else None


def _differences(x: Tensor) -> Tensor:
    return x.to(torch.float64) - x[0].to(torch.float64)


def _rounding(x: Tensor) -> float:
    """A coordinate is off by half a unit in its last place, a difference of two by one; steps add a little more."""
    return 4 * torch.finfo(x.dtype).eps * max(float(x.abs().max()), torch.finfo(x.dtype).tiny)


def _run(points: Float[Tensor, "n in_dim"], rounding: float) -> int:
    """How many points from the first one on are equally spaced; at least 2."""
    index = torch.arange(len(points), dtype=torch.float64, device=points.device)[:, None]
    off = (points - index * points[1]).abs().amax(dim=1)
    # The step is known to `rounding` only, which grows along the run until the run itself makes it better.
    bad = (off > rounding * (1 + index[:, 0])).nonzero()
    return int(bad[0]) if len(bad) else len(points)


def _simple(step: float, rounding: float) -> float:
    """The step as k / m for small k where it is one within rounding: 1/512 rather than 0.0019531249."""
    for k in range(1, 5):
        if abs(step) > rounding and abs(step) < 1:
            simple = math.copysign(k / round(k / abs(step)), step)
            if abs(simple - step) <= rounding:
                return simple
    return 0.0 if abs(step) <= rounding else step
