"""glTF scenes (.gltf, .glb) through trimesh, after a check of what it would read wrongly: :func:`read_gltf`."""

from __future__ import annotations

import importlib.util
import json
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.errors import SignalError

# What moves or replaces vertices; materials, lights and the like do not matter.
_COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression")
_DECODER = {"KHR_draco_mesh_compression": "DracoPy"}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_MOST_PLACEHOLDERS = 1 << 24  # values of accessors without data, which are filled with zeros


def read_gltf(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All triangles of a glTF 2 scene, each node's where its transform puts it: ``vertices [v, 3], faces [f, 3]``."""
    import trimesh

    tree = _tree(path)
    _check_tree(tree, path)
    scene = trimesh.load_scene(
        str(path), file_type=path.suffix[1:].lower(), resolver=_buffers(tree, path), process=False, skip_materials=True
    )
    placed = [(np.asarray(scene.graph[node][0]), scene.graph[node][1]) for node in scene.graph.nodes_geometry]
    if not placed:  # meshes that no node of the scene refers to
        placed = [(np.eye(4), name) for name in scene.geometry]
    vertices, faces, count = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for transform, name in placed:
        geometry = scene.geometry[name]
        if not isinstance(geometry, trimesh.Trimesh):
            continue
        points = np.asarray(geometry.vertices, np.float64).reshape(-1, 3)
        corners = np.asarray(geometry.faces, np.int64).reshape(-1, 3)
        if len(corners) and (corners.min() < 0 or corners.max() >= len(points)):
            raise SignalError(
                f"{path}: a triangle names vertex {corners.max()} of {len(points)}; export the mesh again"
            )
        linear = transform[:3, :3]
        vertices.append(points @ linear.T + transform[:3, 3])
        # A mirror image turns every triangle over; glTF asks to turn them back.
        faces.append(count + (corners[:, [0, 2, 1]] if np.linalg.det(linear) < 0 else corners))
        count += len(points)
    return np.concatenate(vertices), np.concatenate(faces)


def _tree(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if path.suffix.lower() == ".glb":
        if data[:4] != b"glTF" or len(data) < 20:
            raise ValueError("it does not begin as a binary glTF file")
        version, length, chunk = struct.unpack("<III", data[4:16])
        if version != 2:
            raise ValueError(f"it is glTF version {version}; only version 2 is read")
        if length > len(data):
            raise ValueError(f"it announces {length} bytes and has {len(data)}")
        data = data[20 : 20 + chunk]
    tree = json.loads(data)
    if not isinstance(tree, dict):
        raise ValueError("it holds no glTF scene")
    return tree


def _check_tree(tree: dict[str, Any], path: Path) -> None:
    needed = [name for name in tree.get("extensionsRequired", []) if name in _COMPRESSED]
    needed = [n for n in needed if n not in _DECODER or importlib.util.find_spec(_DECODER[n]) is None]
    if needed:
        raise SignalError(f"{path} is compressed with {needed[0]}, which is not read; export it without compression")
    accessors = tree.get("accessors", [])
    for mesh in tree.get("meshes", []):
        for primitive in mesh["primitives"]:
            mode = primitive.get("mode", _TRIANGLES)
            if mode == _FAN:
                raise SignalError(f"{path} stores triangle fans, which are not read; export it with plain triangles")
            if mode not in (_TRIANGLES, _STRIP):
                continue
            for number in [primitive["attributes"]["POSITION"], primitive.get("indices")]:
                accessor = accessors[number] if number is not None else {}
                strange = [word for word in ("sparse", "normalized") if accessor.get(word)]
                if strange:
                    raise SignalError(
                        f"{path} stores its vertices as {strange[0]} numbers; export it with plain floats"
                    )
    zeros = sum(int(a["count"]) for a in accessors if "bufferView" not in a)
    if zeros > _MOST_PLACEHOLDERS:
        raise ValueError(f"{zeros} values are announced without data")
    _check_nodes(tree.get("nodes", []), tree.get("scenes", []))


def _check_nodes(nodes: list[dict[str, Any]], scenes: list[dict[str, Any]]) -> None:
    """Each node has one parent at most and no scene begins within the tree, so that walking down it comes to an end."""
    children = [child for node in nodes for child in node.get("children", [])]
    if len(set(children)) < len(children):
        raise ValueError("a node has two parents")
    for scene in scenes:
        if set(scene.get("nodes", [])) & set(children):
            raise ValueError("a scene begins at a node that has a parent")


def _buffers(tree: dict[str, Any], path: Path) -> dict[str, bytes]:
    """The bytes of the files that the scene names, which lie beside it."""
    found: dict[str, bytes] = {}
    for buffer in tree.get("buffers", []):
        uri = buffer.get("uri")
        if uri is None or uri.startswith("data:"):
            continue
        beside = path.parent / urllib.parse.unquote(uri)
        if "://" in uri or not beside.is_file():
            raise SignalError(f"{path} keeps its vertices in {uri}, which is not there; copy it too, or export as .glb")
        found[uri] = beside.read_bytes()
    return found
