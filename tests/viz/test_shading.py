"""Pictures of surfaces against what geometry says: normals, light, outlines, and what happens when nothing is seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import Delaunay

from neuralfield.errors import ConfigError
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz import shading
from neuralfield.viz.camera import Camera
from neuralfield.viz.normals import corner_normals
from neuralfield.viz.occlusion import open_sky
from neuralfield.viz.shading import CLAY, render_mesh
from tests.viz.solids import BALL, box, joined

pytestmark = pytest.mark.filterwarnings("error")


def test_a_box_is_flat_and_a_sphere_is_round() -> None:
    cube = box()
    every = np.arange(12)
    expected = np.repeat(cube.normals[:, None], 3, axis=1)
    assert corner_normals(cube, every) == pytest.approx(expected, abs=1e-12)
    assert corner_normals(cube, every, crease=180)[0, 0] == pytest.approx(-np.ones(3) / 3**0.5, abs=0.3)
    found = corner_normals(BALL, np.arange(len(BALL.faces)))
    radial = (BALL.vertices[BALL.faces] - 0.5) / 0.4
    assert (found * radial).sum(axis=2).min() > 0.999


def test_normals_against_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    plane = rng.random((60, 2))
    points = np.column_stack([plane, rng.normal(scale=0.08, size=60)])
    faces = Delaunay(plane).simplices.astype(np.int64)
    faces[::9] = faces[::9, ::-1]
    faces = np.concatenate([faces, [[3, 3, 8]]])
    points = np.concatenate([points, points])  # a seam: half the triangles have vertices of their own
    faces[::2] += 60
    mesh, chosen = TriangleMesh(points, faces), np.arange(0, len(faces), 2)
    areas, normals, own = mesh.areas, mesh.normals, faces % 60
    for crease, pairs in ((50.0, 2**20), (50.0, 5), (20.0, 2**20)):
        monkeypatch.setattr("neuralfield.viz.normals._PAIRS", pairs)
        found = corner_normals(mesh, chosen, crease)
        for i, face in enumerate(chosen):
            for k in range(3):
                about = [j for j in range(len(faces)) if own[face, k] in own[j]]
                if areas[face] > 0:
                    about = [j for j in about if normals[j] @ normals[face] >= math.cos(math.radians(crease)) - 1e-9]
                total = sum(areas[j] * normals[j] for j in about if areas[j] > 0)
                assert found[i, k] == pytest.approx(total / np.linalg.norm(total), abs=1e-9)


def test_ambient_occlusion() -> None:
    x, y = np.meshgrid(np.arange(80.0) - 39.5, 39.5 - np.arange(80.0))
    up = np.zeros((80, 80, 3), np.float32)
    up[..., 2] = -1
    tilted = np.stack([x, y, 100 + 0.5 * x], axis=2).astype(np.float32)
    slope = np.broadcast_to(np.array([0.5, 0, -1], np.float32) / np.float32(1.25**0.5), up.shape).copy()
    for place, normal in ((np.stack([x, y, 0 * x + 100], axis=2).astype(np.float32), up), (tilted, slope)):
        assert (open_sky(place, normal, 12.0, 12.0) > 0.999).all()
    valley = np.stack([x, y, 100 - np.abs(x)], axis=2).astype(np.float32)  # two walls at a right angle
    facing = np.stack([-np.sign(x), 0 * x, 0 * x - 1], axis=2).astype(np.float32) / np.float32(2**0.5)
    share = open_sky(valley, facing, 12.0, 12.0)[40, 40:]
    assert share[0] < 0.8 and share[25:35].min() > 0.999
    assert (np.diff(share[:20]) > -0.02).all() and share[0] < share[6] < share[12]
    ridge, outward = valley.copy(), facing.copy()
    ridge[..., 2], outward[..., 0] = 200 - valley[..., 2], -facing[..., 0]
    assert (open_sky(ridge, outward, 12.0, 12.0) > 0.999).all()
    nothing = np.full_like(valley, np.nan)
    assert (open_sky(nothing, up, 12.0, 12.0) == 1).all()


def test_the_light_on_a_sphere() -> None:
    size, k, f, s, h = 160, shading._KEY, shading._FILL, shading._SKY, shading._SOFT
    camera = Camera.around(BALL.vertices, azimuth=30, elevation=20)
    picture = render_mesh(BALL, camera, size, size, samples=1)
    row, column = np.mgrid[0:size, 0:size] + 0.5
    ray = camera.rays(column, row, size, size)
    # |eye + t ray - centre| = 0.4
    gap = camera.eye - 0.5
    b, a = (ray @ gap), (ray**2).sum(axis=2)
    root = b**2 - a * (gap @ gap - 0.16)
    hit = root > 0.02 * root.max()
    t = (-b - np.sqrt(np.maximum(root, 0))) / a
    n = (gap + t[..., None] * ray) / 0.4
    axes = np.stack([camera.right, camera.up, camera.back])
    key, fill = (np.array(v) / np.linalg.norm(v) @ axes for v in (shading._KEY_FROM, shading._FILL_FROM))
    light = (
        k * np.maximum(0, n @ key + h) / (1 + h) + f * np.maximum(0, n @ fill) + s * (0.3 + 0.7 * (1 + n[..., 1]) / 2)
    )
    paint = np.array([int(CLAY[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(((paint + 0.055) / 1.055) ** 2.4 * light[..., None], 0, 1)
    expected = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )
    difference = np.abs(picture[hit] - expected[hit])
    assert difference.mean() < 1 and np.percentile(difference, 99) < 4
    # Brightness falls with the angle from the key light.
    angle, grey = np.arccos(np.clip(n[hit] @ key, -1, 1)), picture[hit].mean(axis=1)
    means = [grey[(angle >= low) & (angle < low + 0.15)].mean() for low in np.arange(0.15, 1.7, 0.15)]
    assert (np.diff(means) < 0).all() and means[0] - means[-1] > 70
    assert picture[hit].min() > 40  # nothing is black


def test_both_sides_are_seen() -> None:
    camera = Camera.around(BALL.vertices)
    inside_out = TriangleMesh(BALL.vertices, BALL.faces[:, ::-1])
    picture = render_mesh(BALL, camera, 120, 120)
    turned = render_mesh(inside_out, camera, 120, 120)
    assert np.abs(picture.astype(int) - turned).max() <= 1
    faces = BALL.faces.copy()
    some = np.random.default_rng(0).random(len(faces)) < 0.3
    faces[some] = faces[some][:, ::-1]
    mixed = render_mesh(TriangleMesh(BALL.vertices, faces), camera, 120, 120)
    assert np.abs(picture.astype(int) - mixed).mean() < 1 and np.abs(picture.astype(int) - mixed).max() < 25


def test_the_background_is_untouched_and_edges_are_smooth() -> None:
    camera = Camera.around(BALL.vertices, azimuth=0, elevation=0)
    for colour, value in (("#ffffff", (255, 255, 255)), ("#102030", (16, 32, 48))):
        picture = render_mesh(BALL, camera, 100, 100, samples=9, background=colour)
        row, column = np.mgrid[0:100, 0:100] + 0.5
        outside = np.hypot(row - 50, column - 50) > 48
        assert (picture[outside] == value).all() and outside.sum() > 2000
    # Seen before black and before white, the share of the surface in each pixel follows: area to a fraction of a pixel.
    linear = []
    for colour in ("black", "white"):
        image = render_mesh(BALL, camera, 60, 60, samples=16, background=colour) / 255
        linear.append(np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)[..., 1])
    cover = 1 - (linear[1] - linear[0])
    radius = camera.scale(60, 60) * 0.4 / math.sqrt(float(camera.eye[2] - 0.5) ** 2 - 0.16)
    assert cover.sum() == pytest.approx(math.pi * radius**2, rel=5e-3)
    assert ((cover > 0.1) & (cover < 0.9)).sum() > 80


def test_values_are_seen_through_the_colormap() -> None:
    camera = Camera.around(BALL.vertices)
    height = BALL.vertices[:, 1]
    picture = render_mesh(BALL, camera, 80, 80, values=height, colormap="RdBu", limits=(0.1, 0.9)).astype(int)
    assert picture[15, 40, 2] > picture[15, 40, 0] + 30 and picture[65, 40, 0] > picture[65, 40, 2] + 30
    height = np.where(height > 0.6, np.nan, height)
    picture = render_mesh(BALL, camera, 80, 80, values=height, colormap="RdBu").astype(int)
    assert picture[15, 40, 0] < 20 and picture[15, 40, 1] == picture[15, 40, 2] > 150  # cyan


def test_the_same_bytes_each_time_in_any_place_and_size() -> None:
    mesh = joined(box(), box((0.2, 0.9, 0.2), (0.4, 1.6, 0.5)), BALL)
    first = render_mesh(mesh, None, 90, 70)
    assert first.tobytes() == render_mesh(mesh, None, 90, 70).tobytes()
    for scale, offset in ((1e3, -200.0), (1e-6, 0.0), (1e30, 0.0)):
        other = render_mesh(TriangleMesh(mesh.vertices * scale + offset, mesh.faces), None, 90, 70)
        assert (np.abs(first.astype(int) - other).max(axis=2) > 2).mean() < 2e-3


def test_nothing_to_see() -> None:
    for width, height in ((160, 40), (29, 57), (113, 58), (1, 1)):
        picture = render_mesh(None, None, width, height)
        assert picture.shape == (height, width, 3)
    picture = render_mesh(None, None, 160, 40)
    assert (picture < 130).all(axis=2).sum() > 30 and (picture[:8] == 255).all()  # words in the middle
    away = Camera.around(BALL.vertices + 100)
    assert not np.array_equal(render_mesh(BALL, away, 160, 40), picture)  # "no surface in view"
    assert (render_mesh(BALL, away, 160, 40, background="#000000")[:8] == 0).all()


def test_bad_options() -> None:
    camera = Camera.around(BALL.vertices)
    for wrong, words in (
        ({"samples": 3}, "samples must be one of 1, 4, 9, 16"),
        ({"colour": "reddish"}, "'reddish' is not a colour"),
        ({"values": np.zeros(3)}, "got 3 for 4000 vertices"),
        ({"values": BALL.vertices[:, 0], "limits": (1, 1)}, "limits must be two numbers"),
        ({"values": BALL.vertices[:, 0], "colormap": "nothing"}, "'nothing' is not a colormap"),
    ):
        with pytest.raises(ConfigError, match=words):
            render_mesh(BALL, camera, 20, 20, **wrong)
    with pytest.raises(ConfigError, match="width must be between 1 and 8192"):
        render_mesh(BALL, camera, 0, 20)
    with pytest.raises(ConfigError, match="more than 2\\^26 samples"):
        render_mesh(BALL, camera, 8192, 4096)
