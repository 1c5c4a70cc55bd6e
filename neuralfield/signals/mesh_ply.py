"""PLY (Turk's Polygon File Format), text and binary, with polygons of any mix of sizes: :func:`read_ply`.

The reader at hand refuses binary files in which triangles and quads are mixed, as modelling programs write them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from neuralfield.errors import SignalError

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8", "float32": "f4", "float64": "f8"},
}
_CORNERS = ("vertex_indices", "vertex_index")
_LONGEST_HEADER = 1 << 20

Polygons = tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, " p"], Int64[np.ndarray, " c"]]


@dataclass
class _Element:
    """Rows of one kind: name, type, and for a list the type of its length."""

    name: str
    length: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def has_list(self) -> bool:
        return any(length for _, _, length in self.properties)


def read_ply(path: Path) -> Polygons:
    """Positions, corners per face and vertex numbers (from 0) of a PLY file."""
    data = path.read_bytes()
    try:
        kind, elements, start = _header(data)
        rows = _text_rows(data[start:], elements) if kind == "ascii" else _binary_rows(data, start, elements, kind)
        return _polygons(rows, elements)
    except (ValueError, OverflowError, IndexError) as error:
        raise SignalError(
            f"{path} cannot be read as PLY: {error}; it is damaged or was cut short: export it again"
        ) from error


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    stop = data.find(b"\n", end)
    if end < 0 or stop < 0:
        raise ValueError("its header has no end")
    lines = data[:end].decode("latin-1").replace("\r", "\n").split("\n")
    kind, elements = "", []
    for line in lines[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3:
            kind = words[1]
        elif words[0] == "element" and len(words) == 3 and int(words[2]) >= 0:
            elements.append(_Element(words[1], int(words[2])))
        elif words[0] == "property" and elements and len(words) == 3 and words[1] in _TYPES:
            elements[-1].properties.append((words[2], _TYPES[words[1]], None))
        elif words[:2] == ["property", "list"] and elements and len(words) == 5 and _is_list(*words[2:4]):
            elements[-1].properties.append((words[4], _TYPES[words[3]], _TYPES[words[2]]))
        else:
            raise ValueError(f"its header has the unknown line {' '.join(words)[:60]!r}")
    if kind not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError(f"it has the unknown format {kind[:40]!r}")
    names = [[name for name, _, _ in element.properties] for element in elements]
    if any(len(set(n)) < len(n) for n in [*names, [e.name for e in elements]]):
        raise ValueError("its header uses a name twice")
    return kind, elements, stop + 1


def _is_list(length: str, kind: str) -> bool:
    return _TYPES.get(length, "f")[0] != "f" and kind in _TYPES


def _polygons(rows: dict[str, dict[str, np.ndarray]], elements: list[_Element]) -> Polygons:
    known = {element.name: element for element in elements}
    if "vertex" not in known or not {"x", "y", "z"} <= rows["vertex"].keys():
        raise ValueError("it has no vertices with x, y and z")
    with np.errstate(invalid="ignore"):  # NaN of float32 that carry a payload; they are refused by name later
        vertices = np.stack([rows["vertex"][axis].astype(np.float64) for axis in "xyz"], 1)
    name = next((n for n in _CORNERS if f"{n} count" in rows.get("face", {})), None)
    if name is None:
        if "tristrips" in known:
            raise ValueError("it stores triangle strips, which are not read; save it with plain triangles")
        return vertices, np.zeros(0, np.int64), np.zeros(0, np.int64)
    counts, corners = rows["face"][f"{name} count"], rows["face"][name]
    if corners.dtype.kind == "f" and not ((np.abs(corners) < 2**53) & (np.trunc(corners) == corners)).all():
        raise ValueError("a vertex number is not a whole number")
    return vertices, counts.astype(np.int64), corners.astype(np.int64)


Rows = dict[str, dict[str, np.ndarray]]


def _text_rows(data: bytes, elements: list[_Element]) -> Rows:
    words = np.array([float(word) for word in data.split()], np.float64)
    rows: Rows = {}
    at = 0
    for element in elements:
        if element.length * len(element.properties) > len(words) - at:
            raise ValueError(f"{element.length} rows of {element.name!r} are announced and there are fewer")
        own: dict[str, np.ndarray] = {}
        if not element.has_list:
            width = len(element.properties)
            table = words[at : at + element.length * width].reshape(element.length, width)
            rows[element.name] = {name: table[:, k] for k, (name, _, _) in enumerate(element.properties)}
            at += table.size
            continue
        starts: dict[str, list[int]] = {name: [] for name, _, _ in element.properties}
        for _ in range(element.length):
            for name, _, length in element.properties:
                starts[name].append(at)
                at += 1 + _whole(words[at]) if length else 1
        if at > len(words):
            raise ValueError("it ends within a list")
        for name, _, length in element.properties:
            first = np.array(starts[name], np.int64)
            own[name] = words[first]
            if length:
                own[f"{name} count"] = words[first].astype(np.int64)
                own[name] = words[_ranges(first + 1, own[f"{name} count"])]
        rows[element.name] = own
    return rows


def _binary_rows(data: bytes, at: int, elements: list[_Element], kind: str) -> Rows:
    order = "<" if "little" in kind else ">"
    rows: Rows = {}
    for element in elements:
        least = element.length * sum(np.dtype(length or type_).itemsize for _, type_, length in element.properties)
        if least > len(data) - at:
            raise ValueError(
                f"{element.length} rows of {element.name!r} are announced ({least} bytes at least) and {len(data) - at} "
                "bytes follow"
            )
        fields = _uniform(data, at, element, order) if element.length and element.properties else None
        if not element.properties or not element.length:
            empty = np.zeros(0, np.int64)
            rows[element.name] = {name: empty for name, _, _ in element.properties}
            rows[element.name] |= {f"{name} count": empty for name, _, length in element.properties if length}
        elif fields is not None:
            table = np.frombuffer(data, np.dtype(fields), element.length, at)
            rows[element.name] = {field_[0]: table[field_[0]].ravel() for field_ in fields}
            at += table.nbytes
        else:
            rows[element.name], at = _ragged(data, at, element, order)
    return rows


def _ragged(data: bytes, at: int, element: _Element, order: str) -> tuple[dict[str, np.ndarray], int]:
    """Rows whose lists differ in length: gone through one by one."""
    starts: list[list[int]] = [[] for _ in element.properties]
    counts: list[list[int]] = [[] for _ in element.properties]
    steps = [
        (starts[k], counts[k], np.dtype(type_).itemsize, np.dtype(length).itemsize if length else 0)
        for k, (_, type_, length) in enumerate(element.properties)
    ]
    for _ in range(element.length):
        for first, many, size, prefix in steps:
            # Read without a sign: a negative length becomes one that no file holds.
            count = int.from_bytes(data[at : at + prefix], "little" if order == "<" else "big") if prefix else 1
            at += prefix
            first.append(at)
            many.append(count)
            at += count * size
        if at > len(data):
            raise ValueError("it ends within a list")
    raw, own = np.frombuffer(data, np.uint8), {}
    for (name, type_, length), first, many in zip(element.properties, starts, counts, strict=True):
        size = np.dtype(type_).itemsize
        bytes_ = raw[_ranges(np.array(first, np.int64), np.array(many, np.int64) * size)]
        own[name] = bytes_.view(order + type_)
        if length:
            own[f"{name} count"] = np.array(many, np.int64)
    return own, at


def _uniform(data: bytes, at: int, element: _Element, order: str) -> list | None:
    """The fields of a row when all rows have lists of the same lengths as the first one; otherwise nothing."""
    fields: list = []
    position = at
    for name, kind, length in element.properties:
        if not length:
            fields.append((name, order + kind))
        else:
            count = _whole(float(np.frombuffer(data, order + length, 1, position)[0]))
            if count * np.dtype(kind).itemsize * element.length > len(data) - at:
                return None
            fields += [(f"{name} count", order + length), (name, order + kind, (count,))]
        position = at + np.dtype(fields).itemsize
    row = np.dtype(fields)
    if row.itemsize * element.length > len(data) - at:
        return None
    table = np.frombuffer(data, row, element.length, at)
    lengths = [table[f"{name} count"] for name, _, length in element.properties if length]
    return fields if all((lengths_ == lengths_[0]).all() for lengths_ in lengths) else None


def _whole(value: float) -> int:
    if not (value >= 0 and value % 1 == 0 and value < 2**31):
        raise ValueError(f"a list has the length {value:g}")
    return int(value)


def _ranges(first: Int64[np.ndarray, " n"], counts: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " m"]:
    """The numbers first, first + 1, ... of each range, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(first - (ends - counts), counts)
