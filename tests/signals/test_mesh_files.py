"""Mesh files: every format gives back the mesh that was written, and every damaged file one sentence."""

import json
import logging
import struct
import warnings

import numpy as np
import pytest
import trimesh

from neuralfield.errors import SignalError
from neuralfield.signals.mesh_files import SUFFIXES, read_mesh
from tests.signals import mesh_bytes
from tests.signals.image_files import fails
from tests.signals.mesh_bytes import damaged, embedded, every_format, glb, gltf
from tests.signals.meshes import box, sphere

MESH = sphere(40)
BOX = box((0, 0, 0), (1, 2, 4))


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, data):
        (tmp_path / name).write_bytes(data)
        return read_mesh(tmp_path / name)

    return write_and_read


@pytest.mark.parametrize("name", every_format(BOX))
def test_every_format_gives_back_the_triangles(read, name, capfd):
    mesh = read(name, every_format(BOX)[name])
    assert np.array_equal(mesh.corners[2:], BOX.corners[2:]) and len(mesh.faces) == 12
    assert mesh.is_watertight and mesh.volume == pytest.approx(8)
    assert capfd.readouterr() == ("", "")
    assert {name[name.rfind(".") :] for name in every_format(BOX)} == set(SUFFIXES)


@pytest.mark.parametrize("kind", ["obj", "ply", "stl", "glb", "off", "stl_ascii"])
def test_what_trimesh_writes_is_read(read, kind):
    written = trimesh.Trimesh(MESH.vertices, MESH.faces, process=False).export(file_type=kind)
    data = written.encode() if isinstance(written, str) else written
    mesh = read(f"file.{kind[:3]}", data)
    np.testing.assert_allclose(mesh.corners, MESH.corners, atol=1e-6)


def test_obj_as_programs_write_it(read):
    text = b"""# comment
mtllib missing.mtl
o first\r
v 0 0 0 1.0 0.5 0.5
  v\t1 0 0
v 1e0 1 0 1
v 0 +1 -0 \\
 0.5
vt 0 0
vn 0 0 1
usemtl shiny
s off
f 1/1/1 2/1/1 3/1/1 4//1
l 1 2
v 0 0 5
v 1 0 5
v 0 1 5
f -3 -2 -1
f -3/1 -2 -1
"""
    mesh = read("scene.obj", text)
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 5, 6]]
    assert mesh.vertices[3].tolist() == [0, 1, 0] and len(mesh.vertices) == 7


def test_relative_numbers_count_from_the_line_that_holds_them(read):
    parts = []
    for k in range(3):
        parts += [f"v {k} 0 0", f"v {k} 1 0", f"v {k} 0 1", "f -3 -2 -1"]
    assert read("parts.obj", "\n".join(parts).encode()).corners[:, 0, 0].tolist() == [0, 1, 2]


def test_off_with_colours_comments_and_the_counts_in_the_first_line(read):
    text = (
        b"# made\nCOFF 4 2 0\n\n0 0 0 255 0 0 255\n1 0 0 1 1 1 1 # here\n1 1 0\n0 1 0\n4 0 1 2 3 0.5 0.5 0.5\n2 0 1\n"
    )
    assert read("file.off", text).faces.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize(("count", "index"), [("uchar", "int"), ("ushort", "uint"), ("int", "ushort")])
def test_ply_of_every_kind_with_mixed_polygons(read, kind, count, index):
    vertices = np.random.default_rng(0).random((9, 3))
    polygons = [[0, 1, 2], [2, 3, 4, 5], [5, 6], [6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7]]
    data = mesh_bytes.ply(vertices, polygons[:4], kind, count, index, extra=True)
    mesh = read("file.ply", data)
    assert np.array_equal(mesh.vertices, vertices)
    assert mesh.faces[[0, 3]].tolist() == [[0, 1, 2], [6, 7, 8]] and set(mesh.faces[1:3].ravel()) == {2, 3, 4, 5}
    assert len(read("file.ply", mesh_bytes.ply(vertices, polygons, kind, count, index)).faces) == 10


def test_every_part_of_a_scene_is_where_its_transforms_put_it(read):
    turn = [0, 0, 2**-0.5, 2**-0.5]  # a quarter about z: x to y, y to -x
    nodes = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": turn, "name": "turned"},
        {"mesh": 0, "scale": [1, 1, -1]},
        {"mesh": 0},  # in no scene
    ]
    for name, data in (("a.glb", glb(*gltf(BOX, nodes))), ("a.gltf", embedded(*gltf(BOX, nodes)))):
        mesh = read(name, data)
        expected = [
            BOX.vertices @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]] + [10, 0, 0],
            BOX.vertices * [1, 1, -1] + [10, 0, 0],
        ]
        np.testing.assert_allclose(np.sort(mesh.vertices, axis=0), np.sort(np.concatenate(expected), axis=0), atol=1e-6)
        assert mesh.is_watertight and mesh.volume == pytest.approx(16)  # the mirrored one is not inside out


def test_gltf_with_a_buffer_beside_it(read, tmp_path):
    tree, data = gltf(MESH, uri="my%20mesh.bin")
    fails("keeps its vertices in my%20mesh.bin, which is not there", read, "a.gltf", json.dumps(tree).encode())
    (tmp_path / "my mesh.bin").write_bytes(data)
    np.testing.assert_allclose(read("a.gltf", json.dumps(tree).encode()).corners, MESH.corners, atol=1e-6)


def test_what_gltf_would_be_read_wrongly_is_refused(read):
    def refused(text, change):
        fails(text, read, "a.glb", glb(*gltf(MESH, change=change)))

    draco = "KHR_draco_mesh_compression"
    refused(f"compressed with {draco}|DracoPy", lambda t: t.update(extensionsRequired=[draco, "KHR_lights"]))
    refused("sparse numbers", lambda t: t["accessors"][0].update(sparse={"count": 1}))
    refused("normalized numbers", lambda t: t["accessors"][0].update(normalized=True))
    refused("triangle fans", lambda t: t["meshes"][0]["primitives"][0].update(mode=6))
    refused("announced without data", lambda t: t["accessors"].append({"count": 10**12, "componentType": 5126}))
    refused("two parents", lambda t: t.update(nodes=[{"children": [1, 1]}, {"mesh": 0}]))
    refused("has a parent", lambda t: t.update(nodes=[{"mesh": 0, "children": [0]}]))
    refused("no triangles", lambda t: t["meshes"][0]["primitives"][0].update(mode=1))
    refused("no triangles", lambda t: [t.pop("meshes"), t.update(nodes=[{}])])
    refused(
        "names vertex 39 of 39",
        lambda t: [t["accessors"][0].update(count=39), t["bufferViews"][0].update(byteLength=468)],
    )


def test_missing_files_folders_and_unknown_kinds_are_named(read, tmp_path):
    (tmp_path / "bunny.obj").write_bytes(mesh_bytes.obj(MESH))
    fails("does not exist; did you mean 'bunny.obj'", read_mesh, tmp_path / "buny.obj")
    fails("does not exist; check the name", read_mesh, tmp_path / "nowhere" / "x.obj")
    fails("is a folder; give one mesh file, for example .*bunny.obj", read_mesh, tmp_path)
    fails("suffix .objj, expected one of .obj, .ply, .*; did you mean '.obj'", read, "a.objj", b"x")
    fails("suffix \\(none\\)", read, "a", b"x")
    fails("not a file name", read_mesh, "a\0.obj")
    fails("device or pipe", read_mesh, "/dev/null")
    for suffix in SUFFIXES:
        fails("empty file", read, f"a{suffix}", b"")
        fails("empty file", read, f"b{suffix}", b" \n")


def test_contents_that_contradict_the_suffix_are_named(read):
    fails("is a PLY file, not OBJ; rename it to \\*.ply", read, "a.obj", every_format(MESH)["little.ply"])
    fails("is a binary glTF file, not STL", read, "a.stl", every_format(MESH)["scene.glb"])
    fails("does not begin with ply", read, "a.ply", every_format(MESH)["text.obj"])
    fails("does not begin with OFF", read, "a.off", every_format(MESH)["text.obj"])
    fails("Git LFS pointer", read, "a.obj", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    fails("web page", read, "a.stl", b"<!DOCTYPE html><html>")
    fails("gzip", read, "a.obj", b"\x1f\x8b\x08")


def test_no_faces_bad_numbers_and_no_area_say_so_in_every_text_format(read):
    fails("no triangles, only 1 points", read, "a.obj", b"v 0 0 0\nl 1 1\n")
    fails("no triangles", read, "a.obj", bytes(range(256)) * 20)
    fails("no triangles, only 40 points", read, "a.ply", mesh_bytes.ply(MESH.vertices, []))
    fails("no triangles, only 1 points", read, "a.off", b"OFF\n1 0 0\n0 0 0\n")
    fails("1 of 3 vertices are NaN", read, "a.obj", b"v 0 0 0\nv 1 0 nan\nv 0 1 0\nf 1 2 3\n")
    fails("1 of 3 vertices are NaN", read, "a.off", b"OFF\n3 1 0\n0 0 0\n1 0 -inf\n0 1 0\n3 0 1 2\n")
    fails("face 1 names vertex 3 .*and there are 3", read, "a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2 4\n")
    fails("face 0 names vertex -1", read, "a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -4\n")
    fails("line 4 .*begin with 1, not 0", read, "a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n")
    fails("line 2 .*needs x, y and z", read, "a.obj", b"v 0 0 0\nv 1 0\n")
    fails("line 2 .*at least three", read, "a.obj", b"v 0 0 0\nf 1 1\n")
    fails("none of the 1 triangles has an area", read, "a.obj", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    nan = bytearray(mesh_bytes.stl(BOX))
    nan[96:100] = struct.pack("<f", np.nan)
    fails("1 of 36 vertices are NaN", read, "a.stl", nan)
    fails("no triangles", read, "a.stl", b"\0" * 84)
    fails(
        "triangle strips",
        read,
        "a.ply",
        mesh_bytes.ply(MESH.vertices, []).replace(b"element face", b"element tristrips"),
    )
    fails("OFF file of an unusual kind", read, "a.off", b"4OFF\n1 1 1\n")


def test_counts_that_lie_are_found_before_anything_is_allocated(read):
    files = every_format(BOX)
    many = str(10**15).encode()
    for name in ("text.ply", "little.ply", "mixed.ply"):
        fails("are announced", read, name, files[name].replace(b"element vertex 8", b"element vertex " + many))
        fails("are announced", read, name, files[name].replace(b"element face ", b"element face " + many))
    fails("are announced, 20 lines follow", read, "a.off", files["text.off"].replace(b"8 12 0", b"8 " + many + b" 0"))
    text = files["text.stl"]
    fails("line 9: 'facet' does not belong", read, "a.stl", text.replace(b"endfacet", b"", 1))
    fails("ends within a facet", read, "a.stl", text[: text.rfind(b"endfacet")])
    stl = files["binary.stl"]
    fails("4294967295 triangles take", read, "a.stl", stl[:80] + b"\xff" * 4 + stl[84:])
    long_list = bytearray(mesh_bytes.ply(BOX.vertices, BOX.faces.tolist(), "binary_little_endian", count="uint"))
    first = long_list.index(b"end_header\n") + 11 + 8 * 24
    long_list[first : first + 4] = b"\xf0\xff\xff\xff"
    fails("cannot be read as PLY", read, "a.ply", long_list)


@pytest.mark.parametrize("name", every_format(BOX))
def test_a_file_cut_anywhere_is_an_error_or_an_obj_with_fewer_triangles(read, name):
    data = every_format(BOX)[name].rstrip()
    for end in range(1, len(data) - 1, max(1, len(data) // 120)):
        try:
            mesh = read(name, data[:end])
        except SignalError as error:
            assert "\n" not in str(error) and str(error).count(name) == 1 and len(str(error)) < 600
        else:  # neither OBJ nor the last digits of a text say how much should follow
            assert name.startswith(("text", "mixed-text")) and (len(mesh.faces) < 12 or end > len(data) - 20)
            assert name == "text.obj" or end > len(data) - 20


@pytest.mark.parametrize("name", every_format(BOX))
def test_damaged_bytes_give_a_mesh_or_one_sentence(read, name, capfd):
    data, rng = every_format(BOX)[name], np.random.default_rng(8)
    for _ in range(60):
        try:
            read(name, damaged(data, rng))
        except SignalError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
    assert capfd.readouterr() == ("", "")


def test_what_the_reader_remarks_is_kept_from_the_terminal_and_its_logger_left_as_it_was(read, capfd, monkeypatch):
    def noisy(*_, **__):
        logging.getLogger("trimesh.made").error("a remark")
        warnings.warn("another", stacklevel=1)
        raise KeyError("accessors")

    logging.getLogger("trimesh.made")
    monkeypatch.setattr(trimesh, "load_scene", noisy)
    fails("cannot be read as GLB: .*'accessors'", read, "a.glb", every_format(MESH)["scene.glb"])
    assert not logging.getLogger("trimesh.made").disabled and capfd.readouterr() == ("", "")


def test_a_file_that_may_not_be_read_is_said(monkeypatch, tmp_path):
    path = tmp_path / "a.obj"
    path.write_bytes(b"v")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", forbidden)
    fails("no permission to read", read_mesh, path)
