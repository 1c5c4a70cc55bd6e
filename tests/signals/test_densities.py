import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from neuralfield.errors import ConfigError
from neuralfield.signals.densities import (
    _ELLIPSOIDS,
    DENSITIES,
    blobs,
    density,
    gaussians,
    gyroid_density,
    marschner_lobb,
    shepp_logan,
)


def at(function, x, y, z):
    """At one point."""
    return float(function(*(np.array([value], np.float64) for value in (x, y, z)))[0])


@pytest.mark.parametrize("name", sorted(DENSITIES))
def test_lattices_hold_the_functions_at_voxel_centres(name):
    n = 12
    values = density(name, n)
    assert values.shape == (n, n, n, 1) and values.dtype == np.float32
    assert values.min() >= 0 and values.max() <= 1 and np.ptp(values) > 0.1
    for k, j, i in ((0, 0, 0), (3, 7, 5), (11, 2, 9), (6, 5, 6)):
        exact = at(DENSITIES[name], (i + 0.5) / n, (j + 0.5) / n, (k + 0.5) / n)
        assert math.isclose(values[k, j, i, 0], exact, abs_tol=1e-7)


def test_marschner_lobb_at_known_points():
    # x = y = 0: cos(12 pi cos 0) = 1, hence (1 - sin(pi z / 2) + 1/2) / 2.5
    for z, expected in ((-1, 2.5 / 2.5), (0, 1.5 / 2.5), (1, 0.5 / 2.5), (1 / 3, 1.0 / 2.5)):
        assert math.isclose(at(marschner_lobb, 0.5, 0.5, (z + 1) / 2), expected)
    # r = 1: cos(12 pi cos(pi / 2)) = 1; r = 2/3: cos(12 pi / 2) = 1; where 12 cos(pi r / 2) = 11: cos(11 pi) = -1
    assert math.isclose(at(marschner_lobb, 1.0, 0.5, 0.5), 0.6)
    assert math.isclose(at(marschner_lobb, 0.5, 0.5 + 1 / 3, 0.5), 0.6)
    r = 2 / math.pi * math.acos(11 / 12)
    assert math.isclose(at(marschner_lobb, 0.5 + 0.3 * r, 0.5 + 0.4 * r, 0.5), 1.0 / 2.5)


def test_shepp_logan_at_known_points():
    # outside, in the skull, in the brain, in the two ventricles, in the spheres, where two ellipsoids add up
    for point, expected in (
        ((0.95, 0, 0), 0.0),
        ((0, 0.9, 0), 1.0),
        ((0, -0.3, 0), 0.2),
        ((-0.22, 0, -0.25), 0.0),
        ((0.22, 0, -0.25), 0.0),
        ((0, 0.35, -0.25), 0.4),
        ((0, 0.1, 0.625), 0.0),
        ((0.06, -0.105, 0.625), 0.4),
        ((-0.08, -0.65, -0.25), 0.3),
    ):
        assert math.isclose(at(shepp_logan, *((c + 1) / 2 for c in point)), expected, abs_tol=1e-12), point


def test_shepp_logan_against_ellipsoids_turned_by_scipy():
    points = np.random.default_rng(0).uniform(-1, 1, (20000, 3))
    total = np.zeros(len(points))
    for x0, y0, z0, a, b, c, degrees, contrast in _ELLIPSOIDS:
        local = Rotation.from_euler("z", degrees, degrees=True).inv().apply(points - [x0, y0, z0])
        total += contrast * (np.square(local / [a, b, c]).sum(1) <= 1)
    found = shepp_logan(*((points.T + 1) / 2))
    assert np.abs(found - total).max() < 1e-9
    # the volume of the skull's ellipsoid, 4/3 pi a b c, by the same points
    assert abs((found > 0.99).mean() * 8 - 4 / 3 * math.pi * (0.69 * 0.92 * 0.9 - 0.6624 * 0.874 * 0.88)) < 0.1


def test_gaussians_integrate_to_the_closed_form():
    # The blobs lie well inside, so that the integral over the cube is nearly that over all space.
    n = 64
    heights = sum(height for _, _, height in blobs())
    whole = 0.0
    for centre, widths, height in blobs():
        parts = [
            s * math.sqrt(math.pi / 2) * (math.erf((1 - c) / s / math.sqrt(2)) + math.erf(c / s / math.sqrt(2)))
            for c, s in zip(centre, widths, strict=True)
        ]
        whole += height * math.prod(parts)
    assert math.isclose(float(density("gaussians", n).mean(dtype=np.float64)), whole / heights, rel_tol=1e-3)
    centre, _, height = blobs()[0]
    assert at(gaussians, *centre) >= height / heights


def test_gyroid_has_its_zeros_and_symmetries():
    for point in ((0, 0, 0), (0.5, 0.5, 0.5), (1 / 6, 0, 1 / 12)):
        x, y, z = (6 * math.pi * c for c in point)
        exact = math.sin(x) * math.cos(y) + math.sin(y) * math.cos(z) + math.sin(z) * math.cos(x)
        assert math.isclose(at(gyroid_density, *point), 0.5 + exact / 3, abs_tol=1e-12)
    assert math.isclose(at(gyroid_density, 1 / 24, 1 / 24, 1 / 24), 1.0)  # X = Y = Z = 45 degrees: 3/2
    rng = np.random.default_rng(1).uniform(0, 0.6, (3, 100))
    turned = gyroid_density(rng[1], rng[2], rng[0])
    assert np.allclose(gyroid_density(*rng), turned) and np.allclose(gyroid_density(*(rng + 1 / 3)), turned)


def test_refused():
    with pytest.raises(ConfigError, match="did you mean 'shepp_logan'"):
        density("shep_logan")
    for resolution in (1, 1025):
        with pytest.raises(ConfigError):
            density("gaussians", resolution)
