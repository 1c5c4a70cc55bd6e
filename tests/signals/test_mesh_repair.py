"""What is repaired in meshes whose faults are known because they were put there."""

import numpy as np
import pytest

from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.mesh_repair import Repair, repaired
from neuralfield.signals.mesh_topology import Topology
from tests.signals.image_files import fails
from tests.signals.meshes import box, inverted, joined, sheet, soup, sphere, torus

RNG = np.random.default_rng(11)


def some(mesh, fraction, seed=0):
    return np.random.default_rng(seed).random(len(mesh.faces)) < fraction


def scaled(mesh, scale):
    return TriangleMesh(0.5 + scale * (mesh.vertices - 0.5), mesh.faces)


def test_a_sound_mesh_stays_as_it_is_and_nothing_is_said():
    for mesh in (box(), sphere(), torus()):
        result, report = repaired(mesh)
        assert np.array_equal(result.vertices, mesh.vertices) and np.array_equal(result.faces, mesh.faces)
        assert report == Repair() and report.words() == ""


def test_seams_are_merged_and_unused_vertices_dropped():
    loose = soup(torus())
    with_unused = TriangleMesh(np.concatenate([[[9.0, 9, 9]], loose.vertices]), loose.faces + 1)
    result, report = repaired(with_unused)
    assert report == Repair(merged_vertices=len(loose.vertices) - len(torus().vertices))
    assert len(result.vertices) == len(torus().vertices) and result.is_watertight
    assert np.array_equal(result.corners, torus().corners)


@pytest.mark.parametrize("mesh", [sphere(), torus(), box()], ids=["sphere", "torus", "box"])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 1.0])
def test_a_mixed_winding_becomes_outward(mesh, fraction):
    which = some(mesh, fraction)
    result, report = repaired(inverted(mesh, which))
    assert result.is_watertight and result.volume == pytest.approx(mesh.volume)
    assert np.allclose(result.normals, mesh.normals) and report.flipped_faces == which.sum()


def test_degenerate_triangles_go_and_what_they_stitched_is_no_hole():
    # The side between vertices 0 and 1 is divided on one side only; a triangle without an area closes the gap.
    middle = (box().vertices[0] + box().vertices[1]) / 2
    vertices = np.concatenate([box().vertices, [middle]])
    faces = box().faces.tolist()
    k = next(i for i, f in enumerate(faces) if {0, 1} <= set(f))
    f = faces.pop(k)
    j = next(j for j in range(3) if {f[j], f[(j + 1) % 3]} == {0, 1})
    a, b, c = f[j], f[(j + 1) % 3], f[(j + 2) % 3]
    cut = TriangleMesh(vertices, np.array([*faces, [a, 8, c], [8, b, c]]))
    assert repaired(cut)[1].open_edges == 3
    stitched = TriangleMesh(vertices, np.array([*faces, [a, 8, c], [8, b, c], [8, a, b], [0, 0, 5]]))
    result, report = repaired(inverted(stitched, some(stitched, 0.4)))
    assert report.degenerate_faces == 2 and report.open_edges == 0 and len(result.faces) == 13
    assert result.volume == pytest.approx(1)


def test_triangles_flat_but_for_rounding_are_degenerate():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50, 3))
    line = np.stack([a, b, a + 0.3 * (b - a)], 1).reshape(-1, 3)  # on a line up to rounding, hardly ever exactly
    mesh = joined(box(), TriangleMesh(np.concatenate([line, box().vertices]), np.arange(150).reshape(-1, 3)))
    result, report = repaired(mesh)
    assert report.degenerate_faces == 50 and np.array_equal(result.corners, box().corners)


def test_duplicates_go_whichever_vertex_they_begin_with():
    extra = np.roll(box().faces[:5], 1, axis=1)
    result, report = repaired(TriangleMesh(box().vertices, np.concatenate([box().faces, extra, extra])))
    assert report == Repair(duplicate_faces=10) and np.array_equal(result.faces, box().faces)


def test_a_surface_stored_for_both_sides_keeps_one():
    both = TriangleMesh(box().vertices, np.concatenate([inverted(box()).faces, box().faces]))
    result, report = repaired(both)
    assert report.duplicate_faces == 12 and result.is_watertight and result.volume == pytest.approx(1)
    # All but one triangle are there twice: the hole must not spread.
    result, report = repaired(TriangleMesh(both.vertices, both.faces[1:]))
    assert report.duplicate_faces == 11 and result.is_watertight and result.volume == pytest.approx(1)


def test_the_wall_between_two_boxes_that_touch_goes():
    two = joined(box(), box((1, 0, 0), (2, 1, 1)))
    result, report = repaired(inverted(two))
    assert report == Repair(merged_vertices=4, duplicate_faces=4, flipped_faces=20)
    assert result.is_watertight and result.volume == pytest.approx(2)


def test_cavities_stay_and_everything_inside_out_turns_as_a_whole():
    hollow = joined(sphere(500), inverted(scaled(sphere(500), 0.6)), scaled(sphere(500), 0.2))
    shell = sphere(500).volume * (1 - 0.6**3 + 0.2**3)
    for mesh, flipped in ((hollow, 0), (inverted(hollow), len(hollow.faces))):
        result, report = repaired(mesh)
        assert report == Repair(bodies=3, flipped_faces=flipped)
        assert result.volume == pytest.approx(shell)
    # An island in the cavity that alone is inside out would have the winding number -1.
    third = 2 * len(hollow.faces) // 3
    result, report = repaired(inverted(hollow, slice(third, None)))
    assert result.volume == pytest.approx(shell) and report.flipped_faces == len(hollow.faces) // 3


def test_bodies_beside_each_other_turn_each_for_itself():
    others = [TriangleMesh(box().vertices + np.array([2.0 * k, 0, 0]), box().faces) for k in range(6)]
    wrong = np.repeat([True, False, True, True, False, False], 12)
    result, report = repaired(inverted(joined(*others), wrong))
    assert report == Repair(bodies=6, flipped_faces=36) and result.volume == pytest.approx(6)
    assert report.words() == "flipped 36 triangles; 6 separate bodies"


def test_an_open_shell_around_a_cavity_still_counts_as_around():
    outer = TriangleMesh(sphere(500).vertices, sphere(500).faces[8:])
    inner = inverted(scaled(sphere(500), 0.5))
    result, report = repaired(inverted(joined(outer, inner)))
    assert report.flipped_faces == len(outer.faces) + len(inner.faces) and report.open_edges > 5
    assert result.volume == pytest.approx(sphere(500).volume * (1 - 0.5**3), rel=0.05)


def test_an_open_hemisphere_looks_out_and_a_lone_sheet_is_left_alone():
    dome = sphere(1000)
    dome = TriangleMesh(dome.vertices, dome.faces[dome.corners[:, :, 2].min(1) > 0.5])
    expected = repaired(dome)[0]
    assert np.array_equal(expected.corners, dome.corners)
    assert np.array_equal(np.sort(repaired(inverted(dome, some(dome, 0.3)))[0].faces), np.sort(expected.faces))
    assert (repaired(inverted(dome))[0].normals == expected.normals).all()
    for flat in (sheet(), inverted(sheet())):  # both sides see the sky: there is nothing to decide by
        assert repaired(flat)[1].flipped_faces == 0


def test_one_sided_and_branching_surfaces_do_not_crash():
    n = 20
    turn = 2 * np.pi * np.arange(n) / n
    ends = [
        np.stack([(1 + w * np.cos(turn / 2)) * np.cos(turn), (1 + w * np.cos(turn / 2)) * np.sin(turn)], 1)
        for w in (-0.3, 0.3)
    ]
    points = np.concatenate([np.c_[e, w * np.sin(turn / 2)] for e, w in zip(ends, (-0.3, 0.3), strict=True)])
    i = np.arange(n)
    near, far = i, i + n
    near_, far_ = np.where(i == n - 1, n, i + 1), np.where(i == n - 1, 0, i + 1 + n)
    strip = TriangleMesh(points, np.concatenate([np.stack([near, near_, far], 1), np.stack([far, near_, far_], 1)]))
    assert repaired(strip)[1].bodies == 1 and repaired(strip)[1].open_edges == 2 * n
    fan = TriangleMesh(RNG.random((9, 3)), np.stack([np.zeros(7, int), np.ones(7, int), np.arange(2, 9)], 1))
    assert repaired(fan)[1].open_edges == 14 and repaired(fan)[1].bodies == 1
    # Two boxes that share an edge only: four triangles at it.
    pair = joined(box(), inverted(box((1, 1, 0), (2, 2, 1))))
    assert repaired(pair)[0].volume == pytest.approx(2)


@pytest.mark.parametrize("seed", range(8))
def test_any_random_triangles_go_through_and_a_second_time_nothing_happens(seed):
    rng = np.random.default_rng(seed)
    mesh = TriangleMesh(rng.integers(0, 3, (12, 3)).astype(float), rng.integers(0, 12, (60, 3)))
    result, report = repaired(mesh)
    assert len(result.faces) == 60 - report.degenerate_faces - report.duplicate_faces
    assert repaired(result)[1].duplicate_faces == repaired(result)[1].merged_vertices == 0
    again = repaired(result)
    assert np.array_equal(repaired(again[0])[0].faces, again[0].faces)


def test_edges_and_components_agree_with_a_slow_count():
    faces = np.random.default_rng(1).permuted(np.tile(np.arange(12), (40, 1)), axis=1)[:, :3]
    edges = {}
    for k, f in enumerate(faces.tolist()):
        for j in range(3):
            edges.setdefault(frozenset((f[j], f[(j + 1) % 3])), set()).add(k)
    topology = Topology(faces)
    assert sorted(topology.degree) == sorted(len(s) for s in edges.values())
    assert topology.open_edges == sum(len(s) == 1 for s in edges.values())
    body = list(range(40))
    for _ in range(40):
        for sharing in edges.values():
            for k in sharing:
                body[k] = min(body[j] for j in sharing)
    count, label = topology.bodies
    assert count == len(set(body)) and len(set(zip(label.tolist(), body, strict=True))) == count


def test_the_sentence_names_what_was_done_with_singular_and_plural():
    report = Repair(2274, 1, 0, 12, 1, 223)
    assert report.words() == (
        "merged 2,274 vertices; dropped 1 triangle without an area; flipped 12 triangles; 223 open edges: inside is "
        "decided by the winding number"
    )
    assert Repair(1, 2, 1, 1, 2, 1).words() == (
        "merged 1 vertex; dropped 2 triangles without an area; dropped 1 duplicate triangle; flipped 1 triangle; "
        "2 separate bodies; 1 open edge: inside is decided by the winding number"
    )


def test_nothing_left_is_an_error():
    flat = np.array([[0.0, 0, 0], [1, 0, 0], [0.3, 1e-15, 0]])
    fails("no triangles|has an area", repaired, TriangleMesh(flat, np.array([[0, 1, 2]])))
