"""Files of meshes, read back by trimesh: positions, triangles, orientation, comments; and what happens when writing fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import trimesh

from neuralfield import mesh_export
from neuralfield.errors import ConfigError, OutputError
from neuralfield.mesh_export import MESH_SUFFIXES, write_mesh
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.placement import Placement

PLACEMENT = Placement(120.0, (-60.0, 5.0, 33.0))


@pytest.fixture(scope="module")
def mesh() -> TriangleMesh:
    """A deformed sphere in the cube, closed, of 1280 triangles."""
    ball = trimesh.creation.icosphere(3)
    vertices = 0.5 + 0.4 * np.asarray(ball.vertices) * (1 + 0.1 * np.sin(5 * np.asarray(ball.vertices[:, :1])))
    return TriangleMesh(vertices, np.asarray(ball.faces))


def read(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, force="mesh", process=False, maintain_order=True)


def stored_normals(path: Path) -> np.ndarray:
    """Those in the file; a loaded mesh would compute what is missing."""
    if path.suffix == ".obj":
        return np.array([line.split()[1:] for line in path.read_text().split("\n") if line.startswith("vn ")], float)
    with path.open("rb") as file:
        if path.suffix.lower() == ".ply":
            return trimesh.exchange.ply.load_ply(file)["vertex_normals"]
        (geometry,) = trimesh.exchange.gltf.load_glb(file)["geometry"].values()
    return geometry["vertex_normals"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [*MESH_SUFFIXES, ".PLY"])
@pytest.mark.parametrize("normals", [False, True])
def test_what_is_read_is_what_was_written(tmp_path: Path, mesh: TriangleMesh, suffix: str, normals: bool) -> None:
    path = tmp_path / f"mesh{suffix}"
    write_mesh(path, mesh, PLACEMENT, normals=normals)
    assert names(tmp_path) == [path.name]
    back = read(path)
    expected = PLACEMENT.to_world(mesh.vertices)
    corners = np.asarray(back.vertices)[back.faces]
    np.testing.assert_allclose(corners, expected[mesh.faces], atol=1e-7 if suffix in (".obj", ".off") else 2e-5)
    assert back.volume == pytest.approx(mesh.volume * 120**3, rel=1e-5)
    if suffix != ".stl":
        assert np.array_equal(back.faces, mesh.faces)
        assert back.is_watertight
    else:
        np.testing.assert_allclose(back.face_normals, mesh.normals, atol=1e-5)
    if normals and suffix in (".ply", ".obj", ".glb"):
        np.testing.assert_allclose(stored_normals(path), mesh.vertex_normals, atol=1e-6)


def test_without_a_placement_the_vertices_are_as_they_are(tmp_path: Path, mesh: TriangleMesh) -> None:
    write_mesh(tmp_path / "mesh.ply", mesh)
    assert np.array_equal(
        np.asarray(read(tmp_path / "mesh.ply").vertices, np.float32), mesh.vertices.astype(np.float32)
    )


@pytest.mark.parametrize("block", [1, 7, 642, 10**6])
def test_the_bytes_of_a_ply(tmp_path: Path, mesh: TriangleMesh, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the format's description: a header of text, then float32 x y z, then a count in a byte and three int32."""
    monkeypatch.setattr(mesh_export, "_BLOCK", block)
    write_mesh(tmp_path / "mesh.ply", mesh, comment="a field,\nof äöü\x07")
    header, _, body = (tmp_path / "mesh.ply").read_bytes().partition(b"end_header\n")
    assert header.decode("ascii").split("\n") == [
        "ply",
        "format binary_little_endian 1.0",
        "comment a field, of ????",
        "element vertex 642",
        "property float x",
        "property float y",
        "property float z",
        "element face 1280",
        "property list uchar int vertex_indices",
        "",
    ]
    assert len(body) == 642 * 12 + 1280 * 13
    assert np.array_equal(np.frombuffer(body[: 642 * 12], "<f4").reshape(-1, 3), mesh.vertices.astype(np.float32))
    faces = np.frombuffer(body[642 * 12 :], np.uint8).reshape(-1, 13)
    assert (faces[:, 0] == 3).all()
    assert np.array_equal(np.ascontiguousarray(faces[:, 1:]).view("<i4"), mesh.faces)


def test_far_from_the_origin_a_ply_keeps_float64(tmp_path: Path, mesh: TriangleMesh) -> None:
    """Coordinates of a map grid: float32 would move vertices by 3 cm."""
    far = Placement(0.8, (458_000.0, 5_428_000.0, 100.0))
    write_mesh(tmp_path / "mesh.ply", mesh, far, normals=True)
    assert b"property double x" in (tmp_path / "mesh.ply").read_bytes()[:300]
    np.testing.assert_array_equal(read(tmp_path / "mesh.ply").vertices, far.to_world(mesh.vertices))


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off"])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_tiny_and_huge_meshes_keep_their_shape(tmp_path: Path, mesh: TriangleMesh, suffix: str, scale: float) -> None:
    write_mesh(tmp_path / f"mesh{suffix}", mesh, Placement(scale, (0.0, 0.0, 0.0)))
    np.testing.assert_allclose(np.asarray(read(tmp_path / f"mesh{suffix}").vertices) / scale, mesh.vertices, atol=1e-7)


def test_comments_of_the_other_formats(tmp_path: Path, mesh: TriangleMesh) -> None:
    write_mesh(tmp_path / "mesh.obj", mesh, comment="hash grid, 512 cells")
    assert (tmp_path / "mesh.obj").read_text().startswith("# hash grid, 512 cells\nv ")
    write_mesh(tmp_path / "mesh.stl", mesh, comment="solid " + 100 * "x")
    content = (tmp_path / "mesh.stl").read_bytes()
    assert content.startswith(b"binary: solid xxx") and len(content) == 84 + 50 * 1280
    for suffix in MESH_SUFFIXES:
        write_mesh(tmp_path / f"mesh{suffix}", mesh, comment="")
        assert len(read(tmp_path / f"mesh{suffix}").faces) == 1280


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_mesh_from_the_wild_is_written_as_it_is(tmp_path: Path, suffix: str) -> None:
    """A hole, a duplicate, a triangle without area, a vertex that nothing uses: nothing is mended in passing."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    faces = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 1], [1, 2, 3]])
    write_mesh(tmp_path / f"mesh{suffix}", TriangleMesh(vertices, faces), normals=True)
    back = read(tmp_path / f"mesh{suffix}")
    np.testing.assert_allclose(np.asarray(back.vertices)[back.faces], vertices[faces], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "hint"), [("mesh.obk", "did you mean '.obj'"), ("mesh", "known formats"), ("mesh.plyy", "'.ply'")]
)
def test_other_suffixes(tmp_path: Path, mesh: TriangleMesh, name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        write_mesh(tmp_path / name, mesh)
    assert not names(tmp_path)


@pytest.mark.parametrize("suffix", [".stl", ".glb"])
def test_coordinates_that_a_format_cannot_hold(tmp_path: Path, mesh: TriangleMesh, suffix: str) -> None:
    with pytest.raises(OutputError, match=r"beyond float32; use \.ply"):
        write_mesh(tmp_path / f"mesh{suffix}", mesh, Placement(1e40, (0.0, 0.0, 0.0)))
    write_mesh(tmp_path / "mesh.ply", mesh, Placement(1e40, (0.0, 0.0, 0.0)))
    np.testing.assert_allclose(read(tmp_path / "mesh.ply").vertices, mesh.vertices * 1e40)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk full"), (errno.EACCES, "no permission"), (errno.EIO, "cannot write")]
)
def test_a_failure_keeps_the_old_file(
    tmp_path: Path, mesh: TriangleMesh, suffix: str, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"mesh{suffix}"
    write_mesh(path, mesh)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("neuralfield.files.os.fsync", fail)
    with pytest.raises(OutputError, match=words):
        write_mesh(path, mesh, PLACEMENT)
    assert path.read_bytes() == before and names(tmp_path) == [path.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_half_way(tmp_path: Path, mesh: TriangleMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(self: Path, mode: str = "r", **options: object) -> object:
        return real(Path("/dev/full") if mode == "wb" else self, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    for suffix in (".ply", ".obj"):
        with pytest.raises(OutputError, match=r"disk full while writing .*nothing half-written"):
            write_mesh(tmp_path / f"mesh{suffix}", mesh)
    assert not names(tmp_path)


def test_a_folder_that_is_a_file(tmp_path: Path, mesh: TriangleMesh) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(OutputError, match="a part of that path is a file"):
        write_mesh(tmp_path / "occupied" / "mesh.ply", mesh)


def test_a_writer_that_fails_for_another_reason(
    tmp_path: Path, mesh: TriangleMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise ValueError("no such thing")

    monkeypatch.setattr(mesh_export, "_exported", fail)
    with pytest.raises(OutputError, match=r"cannot write .*mesh\.obj: no such thing"):
        write_mesh(tmp_path / "mesh.obj", mesh)
    assert not names(tmp_path)
