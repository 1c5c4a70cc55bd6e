"""Reading a mesh from a file: :func:`read_mesh`.

The suffix says the format, as it does for every program that reads meshes; where the first bytes contradict it, the
message says so. Here is the one place where whatever a reader raises on a damaged file becomes a :class:`SignalError`.
"""

from __future__ import annotations

import logging
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from neuralfield.errors import NeuralFieldError, SignalError, nearest
from neuralfield.signals import mesh_gltf, mesh_ply, mesh_stl, mesh_text
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.mesh_polygons import triangulated

SUFFIXES = (".obj", ".ply", ".stl", ".glb", ".gltf", ".off")

_POLYGONS = {".obj": mesh_text.read_obj, ".off": mesh_text.read_off, ".ply": mesh_ply.read_ply}
# What the first bytes say about a file whose suffix says otherwise.
_MAGIC: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"ply", "a PLY file", (".ply",)),
    (b"glTF", "a binary glTF file", (".glb",)),
    (b"OFF", "an OFF file", (".off",)),
    (b"\x1f\x8b", "a gzip file: unpack it first", ()),
    (b"PK\x03\x04", "a zip archive: unpack it first", ()),
    (b"version https://git-lfs", "a Git LFS pointer, not the mesh itself: fetch it with git lfs pull", ()),
    (b"<!DOCTYPE", "a web page: the download probably gave an error page", ()),
    (b"<html", "a web page: the download probably gave an error page", ()),
)


def read_mesh(path: str | Path) -> TriangleMesh:
    """Read all triangles of an OBJ, PLY, STL, OFF or glTF 2 file (.glb, .gltf), as they are.

    Polygons become triangles; the parts of a scene are put where its transforms say and joined; materials, textures,
    normals, points and lines do not matter. Nothing is mended: see :func:`~neuralfield.signals.mesh_repair.repaired`.

    Args:
        path: the file; ``~`` is expanded. Memory of about ten times its size is needed while it is read.

    Raises:
        SignalError: the file is missing, a folder, of an unknown format, empty, damaged or cut short, or holds no
            triangles, vertices that are NaN or infinite, vertex numbers out of range or no area. Nothing else is
            raised for a bad file.
    """
    path = Path(path).expanduser()
    try:
        _check_file(path)
        suffix = path.suffix.lower()
        with path.open("rb") as file:
            _check_beginning(file.read(256), path, suffix)
        if suffix in _POLYGONS:
            vertices, counts, corners = _POLYGONS[suffix](path)
            with np.errstate(all="ignore"):  # infinite vertices are refused by name below
                faces = triangulated(vertices, counts, corners)
        elif suffix == ".stl":
            vertices, faces = mesh_stl.read_stl(path)
        else:
            with _quiet():
                vertices, faces = mesh_gltf.read_gltf(path)
        return TriangleMesh(vertices, faces)
    except NeuralFieldError as error:
        said = str(error)
        raise (error if str(path) in said else SignalError(f"{path}: {said}")) from error.__cause__
    except PermissionError as error:
        raise SignalError(f"no permission to read {path}; change it with: chmod u+r {path}") from error
    except MemoryError as error:
        raise SignalError(f"{path} does not fit into memory; simplify the mesh first") from error
    except OSError as error:
        raise SignalError(f"{path} cannot be opened: {error.strerror or _one_line(error)}; check the path") from error
    except Exception as error:
        raise SignalError(
            f"{path} cannot be read as {path.suffix[1:].upper()}: it is damaged, cut short or of an unusual kind "
            f"({_one_line(error)}); export it again, for example as PLY"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what trimesh and NumPy remark reaches the terminal."""
    import trimesh  # noqa: F401  (before its loggers are looked for)

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "trimesh"]
    loggers = [log for log in map(logging.getLogger, names) if not log.disabled]
    for log in loggers:
        log.disabled = True
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        for log in loggers:
            log.disabled = False


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        names = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, names) or f"; check the name (relative paths start in {Path.cwd()})"
        raise SignalError(f"{path} does not exist{hint}") from None
    except ValueError as error:  # a null byte in the name
        raise SignalError(f"{str(path)!r} is not a file name ({error}); give the path of a mesh") from error
    if stat.S_ISDIR(mode):
        inside = sorted(child.name for child in path.iterdir() if child.suffix.lower() in SUFFIXES)[:1]
        example = f", for example {path / inside[0]}" if inside else ""
        raise SignalError(f"{path} is a folder; give one mesh file{example}")
    if not stat.S_ISREG(mode):
        raise SignalError(f"{path} is a device or pipe, not a regular file; store the mesh in a file first")
    if path.suffix.lower() not in SUFFIXES:
        raise SignalError(
            f"{path} has the suffix {path.suffix or '(none)'}, expected one of {', '.join(SUFFIXES)}"
            f"{nearest(path.suffix.lower(), SUFFIXES)}"
        )


def _check_beginning(head: bytes, path: Path, suffix: str) -> None:
    if not head.strip():
        raise SignalError(f"{path} is an empty file; copy or download it again")
    for magic, what, suffixes in _MAGIC:
        if head.lstrip().startswith(magic) and suffix not in suffixes:
            cure = f", not {suffix[1:].upper()}; rename it to *{suffixes[0]}" if suffixes else ""
            raise SignalError(f"{path} is {what}{cure}")
    if suffix == ".ply" and not head.startswith(b"ply"):
        raise SignalError(f"{path} does not begin with ply, as such a file must; give it the suffix of what it holds")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
