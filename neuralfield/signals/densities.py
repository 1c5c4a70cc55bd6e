r"""Volumes with an exact answer, functions of the unit cube, to try things on without a file: :func:`density`.

Each takes coordinates x, y, z in [0, 1], arrays that broadcast against each other, and gives values in [0, 1], float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from neuralfield import checks
from neuralfield.errors import ConfigError, nearest

Axis = Float[np.ndarray, "..."]
# Kak and Slaney, table 3.2: centre x0, y0, z0; half axes a, b, c; angle (degrees, about z); and the contrasts of Yu, Ye
# and Wang 2004, without which all that is inside the skull differs by one per cent.
_ELLIPSOIDS = (
    (0.0, 0.0, 0.0, 0.69, 0.92, 0.9, 0.0, 1.0),
    (0.0, 0.0, 0.0, 0.6624, 0.874, 0.88, 0.0, -0.8),
    (-0.22, 0.0, -0.25, 0.41, 0.16, 0.21, 108.0, -0.2),
    (0.22, 0.0, -0.25, 0.31, 0.11, 0.22, 72.0, -0.2),
    (0.0, 0.35, -0.25, 0.21, 0.25, 0.5, 0.0, 0.2),
    (0.0, 0.1, -0.25, 0.046, 0.046, 0.046, 0.0, 0.2),
    (-0.08, -0.65, -0.25, 0.046, 0.023, 0.02, 0.0, 0.1),
    (0.06, -0.65, -0.25, 0.046, 0.023, 0.02, 90.0, 0.1),
    (0.06, -0.105, 0.625, 0.056, 0.04, 0.1, 90.0, 0.2),
    (0.0, 0.1, 0.625, 0.056, 0.056, 0.1, 0.0, -0.2),
)
_BLOBS = 12
_GYROID_PERIODS = 3


def marschner_lobb(x: Axis, y: Axis, z: Axis) -> Axis:
    r"""$\frac{1 - \sin(\pi z / 2) + \alpha (1 + \rho_r(\sqrt{x^2 + y^2}))}{2 (1 + \alpha)}$ with
    $\rho_r(r) = \cos(2 \pi f_M \cos(\pi r / 2))$, $f_M = 6$, $\alpha = 1/4$, on $[-1, 1]^3$: rings whose frequency just
    stays below the Nyquist limit of 40 samples along each side.

    Marschner and Lobb, "An Evaluation of Reconstruction Filters for Volume Rendering", 1994, section 6.
    """
    alpha, frequency = 0.25, 6.0
    x, y, z = (2.0 * axis - 1.0 for axis in (x, y, z))
    rings = np.cos(2.0 * math.pi * frequency * np.cos(math.pi / 2.0 * np.sqrt(x * x + y * y)))
    return (1.0 - np.sin(math.pi / 2.0 * z) + alpha * (1.0 + rings)) / (2.0 * (1.0 + alpha))


def shepp_logan(x: Axis, y: Axis, z: Axis) -> Axis:
    r"""A head of ten ellipsoids on $[-1, 1]^3$; the value is the sum over those that contain the point.

    An ellipsoid contains it if $(u/a)^2 + (v/b)^2 + (w/c)^2 \le 1$, with (u, v, w) the point relative to the centre,
    turned by minus the ellipsoid's angle about z. Geometry: Kak and Slaney, "Principles of Computerized Tomographic
    Imaging", 1988, chapter 3 (the extension of Shepp and Logan 1974 to three dimensions); contrasts: Yu, Ye and Wang,
    "Katsevich-Type Algorithms for Variable Radius Spiral Cone-Beam CT", 2004.
    """
    x, y, z = (2.0 * axis - 1.0 for axis in (x, y, z))
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape))
    for x0, y0, z0, a, b, c, degrees, contrast in _ELLIPSOIDS:
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        u = (x - x0) * cosine + (y - y0) * sine
        v = (y - y0) * cosine - (x - x0) * sine
        total += contrast * ((u / a) ** 2 + (v / b) ** 2 + ((z - z0) / c) ** 2 <= 1.0)
    return np.clip(total, 0.0, 1.0)  # sums such as 1 - 0.8 - 0.2 are off zero by a rounding


def gaussians(x: Axis, y: Axis, z: Axis) -> Axis:
    r"""$\sum_k h_k \exp(-\tfrac12 \sum_d (x_d - c_{kd})^2 / s_{kd}^2) / \sum_k h_k$, twelve blobs longer than wide.

    Centres in [0.15, 0.85], widths in [0.03, 0.12] and heights in [0.4, 1] are terms of additive recurrences
    $\{k \phi_d\}$ with irrational $\phi_d$, hence the same on every machine. Smooth, nearly band-limited. The sum is
    divided by that of the heights, so that it stays in [0, 1].
    """
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape, z.shape))
    heights = 0.0
    for centre, widths, height in blobs():
        exponent = sum(((axis - c) / s) ** 2 for axis, c, s in zip((x, y, z), centre, widths, strict=True))
        total += height * np.exp(-0.5 * np.asarray(exponent))
        heights += height
    return total / heights


def blobs() -> list[tuple[tuple[float, float, float], tuple[float, float, float], float]]:
    """Centre, widths (standard deviations) along x, y, z and height of each blob of :func:`gaussians`."""
    roots = [math.sqrt(prime) % 1.0 for prime in (2, 3, 5, 7, 11, 13, 17)]
    found = []
    for k in range(1, _BLOBS + 1):
        t = [(k * root) % 1.0 for root in roots]
        centre = (0.15 + 0.7 * t[0], 0.15 + 0.7 * t[1], 0.15 + 0.7 * t[2])
        widths = (0.03 + 0.09 * t[3], 0.03 + 0.09 * t[4], 0.03 + 0.09 * t[5])
        found.append((centre, widths, 0.4 + 0.6 * t[6]))
    return found


def gyroid_density(x: Axis, y: Axis, z: Axis) -> Axis:
    r"""$\tfrac12 + \tfrac13 (\sin X \cos Y + \sin Y \cos Z + \sin Z \cos X)$, $X = 6 \pi x$ and so on: three periods.

    The sum lies in [-3/2, 3/2]; where the density is 1/2 lies an approximation of Schoen's gyroid, a minimal surface
    (A. H. Schoen, "Infinite Periodic Minimal Surfaces without Self-Intersections", NASA TN D-5541, 1970).
    """
    x, y, z = (2.0 * math.pi * _GYROID_PERIODS * axis for axis in (x, y, z))
    return 0.5 + (np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)) / 3.0


DENSITIES: dict[str, Callable[[Axis, Axis, Axis], Axis]] = {
    "shepp_logan": shepp_logan,
    "marschner_lobb": marschner_lobb,
    "gaussians": gaussians,
    "gyroid_density": gyroid_density,
}
"""By name, the function."""


def density(name: str, resolution: int = 128) -> Float[np.ndarray, "z y x 1"]:
    """One of :data:`DENSITIES` at the centres ((i + 0.5) / n, ...) of ``resolution``^3 voxels, float32.

    Raises:
        ConfigError: there is no such density, or the resolution is not between 2 and 1024.
    """
    if name not in DENSITIES:
        raise ConfigError(
            f"there is no density {name!r}{nearest(name, DENSITIES)}; they are {', '.join(DENSITIES)}. A volume of your "
            "own is given with signal.path=volume.nii.gz"
        )
    n = checks.integer("signal.resolution", resolution, 2, 1024)
    centres = (np.arange(n) + 0.5) / n
    values = np.empty((n, n, n, 1), np.float32)
    for k in range(n):
        values[k, :, :, 0] = DENSITIES[name](centres[None, :], centres[:, None], centres[k : k + 1, None])
    return np.clip(values, 0.0, 1.0, out=values)  # where a sum of sines is a rounding below 0
