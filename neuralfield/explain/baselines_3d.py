"""Interpolation of training samples in three dimensions: what a field of a volume or a shape has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.interpolate import LinearNDInterpolator, RBFInterpolator, RegularGridInterpolator, make_interp_spline
from scipy.spatial import cKDTree

from neuralfield.explain.curves import psnr
from neuralfield.explain.patches import Patch

Values = Float[np.ndarray, "m channels"]

_NEIGHBOURS = 64  # training points that a cubic between scattered ones is made from
_FEWEST = 10  # that a polynomial is determined by


def interpolation_psnr(windows: Sequence[Patch]) -> dict[str, float]:
    """PSNR on the held-out samples that count, dB, of "nearest", "linear" and "cubic" interpolation.

    - nearest: the value of the nearest training sample.
    - linear: in the cells of a lattice (trilinear), else in the tetrahedra of Delaunay's triangulation.
    - cubic: the tensor product of cubic splines between lattices, else the radial function $r^3$ with a quadratic
      polynomial over the 64 nearest samples. It reproduces polynomials of degree 3 and 2.

    Where there is nothing to interpolate between, the nearest sample counts, or the lattice's own continuation.
    """
    found = {}
    for name, method in (("nearest", nearest), ("linear", linear), ("cubic", cubic)):
        found[name] = _psnr(windows, method)
    return found


def nearest(window: Patch) -> Values:
    """Of the nearest training sample."""
    x, y, at = _arrays(window)
    return np.asarray(y[cKDTree(x).query(at)[1]])


def linear(window: Patch) -> Values:
    """Trilinear, or linear in tetrahedra."""
    x, y, at = _arrays(window)
    axes = lattice(x)
    if axes is not None:
        grid = y.reshape(*(len(axis) for axis in axes[::-1]), -1)
        return np.asarray(
            RegularGridInterpolator(axes[::-1], grid, bounds_error=False, fill_value=None)(at[:, ::-1])
        )  # fmt: skip
    found = LinearNDInterpolator(x, y)(at)
    return np.where(np.isnan(found), nearest(window), found)


def cubic(window: Patch) -> Values:
    """A tricubic spline where training and held-out samples are lattices, else radial functions r^3."""
    x, y, at = _arrays(window)
    axes, held = lattice(x), lattice(at)
    if axes is None or held is None:
        if len(x) < _FEWEST:
            return nearest(window)
        degree = 2 if len(x) > 2 * _FEWEST else 1
        try:
            return np.asarray(RBFInterpolator(x, y, min(_NEIGHBOURS, len(x)), kernel="cubic", degree=degree)(at))
        except np.linalg.LinAlgError:  # the points lie in a plane, or on a cone
            return nearest(window)
    values = y.reshape(*(len(axis) for axis in axes[::-1]), -1)
    for number, (axis, where) in enumerate(zip(axes[::-1], held[::-1], strict=True)):
        values = make_interp_spline(axis, values, k=3 if len(axis) > 3 else 1, axis=number)(where)
    return np.asarray(values.reshape(len(at), -1))


def lattice(x: Float[np.ndarray, "n 3"]) -> list[Float[np.ndarray, " k"]] | None:
    """The coordinates along x, y and z of points that are a lattice with x fastest; None for others."""
    axes = [np.unique(x[:, d]) for d in range(3)]
    sizes = [len(axis) for axis in axes]
    if np.prod(sizes) != len(x) or min(sizes) < 2:
        return None
    z, y, x_axis = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    return axes if np.array_equal(np.stack([x_axis, y, z], axis=-1).reshape(-1, 3), x) else None


def _psnr(windows: Sequence[Patch], method: Callable[[Patch], Values]) -> float:
    errors = counts = 0.0
    for window in windows:
        squares = np.square(method(window) - window.y_test.cpu().numpy()).mean(axis=1)
        counted = window.counted.cpu().numpy()
        errors, counts = errors + float((squares * counted).sum()), counts + float(counted.sum())
    return float(psnr(np.array([errors / counts]))[0])


def _arrays(
    window: Patch,
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n channels"], Float[np.ndarray, "m 3"]]:
    return (
        window.x.double().cpu().numpy(),
        window.y.double().cpu().numpy(),
        window.x_test.double().cpu().numpy(),
    )
