"""The camera: projection and rays are inverse, frames are tight, views stand where they are said to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz.camera import Camera, corners
from neuralfield.viz.viewpoint import AZIMUTHS, best_view
from tests.viz.solids import BALL, box, joined

pytestmark = pytest.mark.filterwarnings("error")


def test_rays_pass_through_what_is_projected() -> None:
    points = np.random.default_rng(0).random((50, 3))
    for options in ({}, {"up": "z", "azimuth": 200, "elevation": -50, "aspect": 0.4}):
        camera = Camera.around(points, **options)
        column, row, depth = camera.project(points, 70, 50).T
        again = camera.eye + depth[:, None] * camera.rays(column, row, 70, 50)
        assert np.abs(again - points).max() < 1e-12
        axes = np.stack([camera.right, camera.up, camera.back])
        assert np.abs(axes @ axes.T - np.eye(3)).max() < 1e-12 and np.linalg.det(axes) == pytest.approx(1)


@pytest.mark.parametrize(("width", "height"), [(100, 100), (200, 80), (60, 300)])
def test_everything_is_in_the_frame_and_touches_it(width: int, height: int) -> None:
    rng = np.random.default_rng(width)
    for _ in range(20):
        points = rng.normal(size=(30, 3)) * rng.random(3) * 10 + 100 * rng.normal(size=3)
        angles = {"azimuth": 360 * rng.random(), "elevation": 120 * rng.random() - 60}
        camera = Camera.around(points, aspect=width / height, margin=0.1, **angles)
        column, row, _ = camera.project(points, width, height).T
        free = (
            np.array([column.min(), width - column.max()]) / width,
            np.array([row.min(), height - row.max()]) / height,
        )
        assert min(free[0].min(), free[1].min()) > 0.1 - 1e-9
        # In the direction that decides, both sides are touched; in the other, the object is in the middle.
        decides, other = sorted(free, key=lambda pair: pair.min())
        assert decides == pytest.approx([0.1, 0.1]) and other[0] == pytest.approx(other[1])


def test_where_the_camera_stands() -> None:
    cube = corners(np.zeros(3), np.ones(3))
    for up, azimuth, expected in (
        ("y", 0, [0, 0, 1]),
        ("y", 90, [1, 0, 0]),
        ("z", 0, [0, -1, 0]),
        ("z", 90, [1, 0, 0]),
    ):
        camera = Camera.around(cube, up=up, azimuth=azimuth, elevation=0)
        assert camera.back == pytest.approx(np.array(expected, float), abs=1e-12)
        assert camera.up == pytest.approx(np.eye(3)["xyz".index(up)], abs=1e-12)
        assert (camera.eye - 0.5) @ camera.back > 2
    column, row, _ = Camera.around(cube, azimuth=0, elevation=0).project(np.array([[1.0, 1, 1], [0, 0, 1]]), 90, 90).T
    assert column[0] > 45 > column[1] and row[0] < 45 < row[1]  # x to the right, y up


def test_cameras_of_little() -> None:
    for points in (np.full((1, 3), 7.0), np.array([[0.0, 0, 0], [0, 0, 5]]), np.array([[0, 0, 0], [np.nan, 0, 0]])):
        camera = Camera.around(points, azimuth=0, elevation=0)
        placed = camera.project(points[np.isfinite(points).all(axis=1)], 40, 40)
        assert (np.abs(placed[:, :2] - 20) < 20).all() and (placed[:, 2] > 0).all()
    assert np.isnan(camera.project(camera.eye + camera.back, 40, 40)[:2]).all()
    with pytest.raises(SignalError, match="none of the 2 points"):
        Camera.around(np.full((2, 3), np.inf))
    for wrong in ({"up": "x"}, {"elevation": 95}, {"field_of_view": 0}, {"aspect": 0}, {"margin": 0.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Camera.around(BALL.vertices, **wrong)


def test_the_best_view_is_where_there_is_most_to_see() -> None:
    for azimuth in AZIMUTHS:
        side = np.array([math.sin(math.radians(azimuth)), math.cos(math.radians(azimuth))])
        steps = [box() for _ in range(1)]
        for k in range(4):  # small boxes on the two walls that this view shows
            for axis in (0, 1):
                middle = np.full(3, 0.5)
                middle[2 * axis], middle[1] = 0.5 + 0.5 * np.sign(side[axis]), 0.2 + 0.2 * k
                steps.append(box(tuple(middle - 0.07), tuple(middle + 0.07)))
        mesh = joined(*steps)
        camera = best_view(mesh)
        assert np.sign(camera.back[[0, 2]]).tolist() == np.sign(side).tolist()
    far = TriangleMesh(BALL.vertices + 2, BALL.faces)
    camera = best_view(BALL, far, None, azimuth=10)
    placed = camera.project(np.concatenate([BALL.vertices, far.vertices]), 50, 50)
    assert (placed[:, :2] > 0).all() and (placed[:, :2] < 50).all()
