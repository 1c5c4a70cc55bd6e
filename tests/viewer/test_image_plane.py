"""The geometry of an image in a plane, against a pinhole camera that projects points one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuralfield.viewer.image_plane import (
    SIDE,
    Camera,
    Picture,
    centred,
    fitting,
    placed,
    plane_size,
    under,
    visible,
    zoom,
)


def project(camera: Camera, point: tuple[float, float, float]) -> tuple[float, float]:
    """Place on the canvas, in pixels, of a point: the focal length in pixels is (height / 2) / tan(fov / 2)."""
    focal = camera.height / 2 / math.tan(camera.fov / 2)
    depth = point[2] + camera.distance  # the camera is at z = -distance and looks along +z
    return (
        camera.width / 2 + focal * (point[0] - camera.x) / depth,
        camera.height / 2 + focal * (point[1] - camera.y) / depth,
    )


CAMERAS = [
    Camera(0, 0, 90, 1.3, 800, 600),
    Camera(10, -5, 20, 1.3, 640, 480),
    Camera(-40, 30, 60, 0.7, 500, 900),
    Camera(3, 4, 0.2, 1.0, 333, 222),
]
SIZE = plane_size(300, 200)


@pytest.mark.parametrize("camera", CAMERAS)
def test_what_is_visible_ends_at_the_canvas_or_at_the_image(camera: Camera) -> None:
    picture = visible(camera, SIZE)
    assert picture is not None
    left, top, right, bottom = picture.region
    ends = [project(camera, ((u - 0.5) * SIZE[0], (v - 0.5) * SIZE[1], 0)) for u, v in ((left, top), (right, bottom))]
    for axis, (low, high, pixels) in enumerate(((left, right, camera.width), (top, bottom, camera.height))):
        first, last = ends[0][axis], ends[1][axis]
        assert first == pytest.approx(0, abs=1e-6) if low > 0 else first > -1e-6
        assert last == pytest.approx(pixels, abs=1e-6) if high < 1 else last < pixels + 1e-6
        assert (picture.width, picture.height)[axis] == max(1, round(last - first))


def test_nothing_is_visible_beside_the_image_and_large_canvases_are_drawn_coarser() -> None:
    assert visible(Camera(200, 0, 20, 1.0, 800, 600), SIZE) is None
    picture = visible(Camera(0, 0, 5, 1.0, 8000, 4000), SIZE, most_pixels=1 << 20)
    assert picture is not None and picture.width * picture.height == pytest.approx(1 << 20, rel=0.01)
    assert picture.width / picture.height == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("camera", CAMERAS)
def test_a_lifted_picture_looks_as_if_it_lay_in_the_plane(camera: Camera, layer: int) -> None:
    picture = Picture((0.2, 0.1, 0.7, 0.9), 10, 10)
    (x, y, z), width, height = placed(picture, camera, SIZE, layer)
    assert -camera.distance < z < 0
    for u, v, sx, sy in ((0.2, 0.1, -0.5, -0.5), (0.7, 0.9, 0.5, 0.5)):
        flat = project(camera, ((u - 0.5) * SIZE[0], (v - 0.5) * SIZE[1], 0))
        assert project(camera, (x + sx * width, y + sy * height, z)) == pytest.approx(flat, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("camera", CAMERAS)
def test_dragging_brings_what_was_grabbed_under_the_pointer(camera: Camera) -> None:
    grabbed = under(camera, (0.3, 0.8))
    assert project(camera, (*grabbed, 0)) == pytest.approx((0.3 * camera.width, 0.8 * camera.height), abs=1e-6)
    x, y = centred(camera, grabbed, (0.6, 0.1))
    moved = Camera(x, y, camera.distance, camera.fov, camera.width, camera.height)
    assert project(moved, (*grabbed, 0)) == pytest.approx((0.6 * camera.width, 0.1 * camera.height), abs=1e-6)


@pytest.mark.parametrize(("width", "height"), [(800, 600), (300, 900), (1000, 100)])
def test_all_of_an_image_is_seen_with_a_margin(width: int, height: int) -> None:
    for size in (plane_size(300, 200), plane_size(10, 1000)):
        camera = Camera(0, 0, fitting(size, 1.1, width / height, margin=0.05), 1.1, width, height)
        x, y = project(camera, (size[0] / 2, size[1] / 2, 0))
        share = max((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
        assert share == pytest.approx(1 / 1.1)
        assert visible(camera, size).region == (0.0, 0.0, 1.0, 1.0)  # type: ignore[union-attr]


def test_the_zoom_is_the_distance_on_the_screen_of_neighbouring_pixels() -> None:
    pixels = (300, 200)
    assert max(SIZE) == SIDE and np.allclose(SIZE, (SIDE, SIDE * 2 / 3))
    for camera in CAMERAS:
        first, second = (project(camera, (k * SIZE[0] / pixels[0], 0, 0)) for k in (3, 4))
        assert zoom(camera, SIZE, pixels) == pytest.approx(second[0] - first[0])
