"""Small mesh files for the tests, built by hand from the descriptions of the formats."""

import base64
import json
import struct

import numpy as np


def obj(mesh):
    lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
    return "\n".join([*lines, *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces.tolist()), ""]).encode()


def off(mesh):
    lines = ["OFF", f"{len(mesh.vertices)} {len(mesh.faces)} 0"]
    lines += [f"{x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
    return "\n".join([*lines, *(f"3 {a} {b} {c}" for a, b, c in mesh.faces.tolist()), ""]).encode()


def ply(vertices, polygons, kind="ascii", count="uchar", index="int", extra=False):
    """PLY with polygons of any sizes; ``extra``: more properties and elements around them."""
    codes = {"uchar": "B", "int": "i", "uint": "I", "ushort": "H"}
    order = ">" if "big" in kind else "<"
    header = ["ply", f"format {kind} 1.0", "comment made by hand"]
    header += ["element sensor 1", "property double gain", "property list uchar short path"] if extra else []
    header += [f"element vertex {len(vertices)}", *(f"property double {a}" for a in "xyz")]
    header += ["property uchar red"] if extra else []
    header += [f"element face {len(polygons)}"]
    header += ["property float quality"] if extra else []
    header += [f"property list {count} {index} vertex_indices"]
    header += ["property list uchar float texcoord"] if extra else []
    rows = [[("d", 2.5), ("B", 2), ("h", -3), ("h", 4)]] if extra else []
    rows += [[("d", x) for x in v] + ([("B", 7)] if extra else []) for v in vertices.tolist()]
    for k, p in enumerate(polygons):
        row = [("f", 0.5)] if extra else []
        row += [(codes[count], len(p)), *((codes[index], int(i)) for i in p)]
        rows.append(row + ([("B", k % 3)] + [("f", 1.5)] * (k % 3) if extra else []))
    head = "\n".join([*header, "end_header", ""]).encode()
    if kind == "ascii":
        return head + "\n".join(" ".join(repr(v) for _, v in row) for row in rows).encode() + b"\n"
    return head + b"".join(struct.pack(order + c, v) for row in rows for c, v in row)


def stl(mesh, text=False):
    corners, normals = mesh.corners.astype("<f4"), mesh.normals.astype("<f4")
    if not text:
        rows = [n.tobytes() + c.tobytes() + b"\0\0" for n, c in zip(normals, corners, strict=True)]
        return b"solid but binary".ljust(80) + struct.pack("<I", len(rows)) + b"".join(rows)
    lines = ["solid made"]
    for normal, triangle in zip(normals.tolist(), corners.tolist(), strict=True):
        lines += ["facet normal {} {} {}".format(*normal), "outer loop"]
        lines += ["vertex {!r} {!r} {!r}".format(*corner) for corner in triangle]
        lines += ["endloop", "endfacet"]
    return "\n".join([*lines, "endsolid made", ""]).encode()


def gltf(mesh, nodes=None, scene=(0,), uri=None, change=None):
    """The JSON tree and the buffer of a scene with one mesh."""
    points, corners = mesh.vertices.astype("<f4").tobytes(), mesh.faces.astype("<u4").tobytes()
    data = points + corners
    tree = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(scene)}],
        "nodes": nodes or [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(mesh.vertices), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5125, "count": mesh.faces.size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(points)},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(corners)},
        ],
        "buffers": [{"byteLength": len(data), **({"uri": uri} if uri else {})}],
    }
    if change is not None:
        change(tree)
    return tree, data


def embedded(tree, data):
    """A .gltf with its buffer inside."""
    tree["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    return json.dumps(tree).encode()


def glb(tree, data):
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    data = data + b"\0" * (-len(data) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def every_format(mesh):
    """The mesh as each suffix, some in several kinds: (name, bytes)."""
    triangles = mesh.faces.tolist()
    quad = [[0, 1, 3, 2], *triangles[2:]]
    return {
        "text.obj": obj(mesh),
        "text.off": off(mesh),
        "text.ply": ply(mesh.vertices, triangles),
        "little.ply": ply(mesh.vertices, triangles, "binary_little_endian"),
        "mixed.ply": ply(mesh.vertices, quad, "binary_big_endian", extra=True),
        "mixed-text.ply": ply(mesh.vertices, quad, extra=True),
        "binary.stl": stl(mesh),
        "text.stl": stl(mesh, text=True),
        "scene.glb": glb(*gltf(mesh)),
        "scene.gltf": embedded(*gltf(mesh)),
    }


def damaged(data, rng):
    """The bytes with some flipped, overwritten, cut out or doubled."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(out)))
        kind = rng.integers(5)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at : at + 4] = bytes(rng.integers(0, 256, 4, np.uint8))
        elif kind == 2:
            out[at : at + 4] = b"\xff\xff\xff\x7f" if rng.random() < 0.5 else b"9999"
        elif kind == 3:
            del out[at : at + int(rng.integers(1, 20))]
        else:
            out[at:at] = out[at : at + int(rng.integers(1, 40))]
        if not out:
            break
    return bytes(out)
