"""Points and their labels, made once and kept on disk: :func:`labelled`, :func:`cache_folder`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32
from safetensors import SafetensorError, safe_open

from neuralfield.errors import OutputError
from neuralfield.files import write_tensors

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of the files and of how labels are computed: part of their names, so that old ones are never read."""

MOST_BYTES = 4 * 2**30
"""All files together; beyond, those that were not used for longest go."""

_SUFFIX = ".safetensors"
_ABANDONED_SECONDS = 24 * 3600


@dataclass(frozen=True)
class Labelled:
    """Points and what is known at each.

    - `points`: coordinates, float32 ``[n, 3]``.
    - `labels`: inside or not (bool), or a distance (float32), ``[n]``.
    - `digest`: SHA-256 (hex) of both.
    """

    points: Float32[np.ndarray, "n 3"]
    labels: Bool[np.ndarray, " n"] | Float32[np.ndarray, " n"]
    digest: str


class _Damaged(Exception):
    """A file of the cache that does not hold what its name says."""


def cache_folder() -> Path:
    """Where things are kept that can be made again: ``$NEURALFIELD_CACHE``, else the platform's folder for such.

    That is ``~/Library/Caches/neuralfield`` on macOS, ``%LOCALAPPDATA%\\neuralfield`` on Windows, and elsewhere
    ``$XDG_CACHE_HOME/neuralfield`` or ``~/.cache/neuralfield``. Nothing is created.
    """
    chosen = os.environ.get("NEURALFIELD_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    try:
        home = Path.home()
    except RuntimeError:  # no home, as in some containers
        home = Path(tempfile.gettempdir())
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "neuralfield"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "neuralfield"
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (given if given.is_absolute() else home / ".cache") / "neuralfield"  # the standard ignores relative ones


def key(recipe: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of everything that points and labels depend on, given as plain values."""
    canonical = json.dumps({"format": FORMAT, **recipe}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def labelled(
    recipe: Mapping[str, Any], make: Callable[[], tuple[np.ndarray, np.ndarray]], *, use: bool = True
) -> Labelled:
    """What ``make()`` returns, from the cache if it was made before with an equal recipe.

    A file that is damaged is made again, and a folder that cannot be written to is a warning in the log: the cache never
    stops anything.

    **Arguments**

    - `recipe`: plain values that determine the result: the solid, the kind, every option, the seed.
    - `make`: gives points, float32 ``[n, 3]``, and labels, bool or float32 ``[n]``.
    - `use`: read and write the cache; False only makes.
    """
    path = cache_folder() / "labels" / f"{key(recipe)}{_SUFFIX}"
    if use:
        try:
            found = _read(path)
        except _Damaged as why:
            logger.warning("the labels kept in %s are damaged (%s) and are made again", path, why)
        else:
            if found is not None:
                return found
    points, labels = make()
    result = Labelled(points, labels, _digest(points, labels))
    if use:
        _write(path, result)
    return result


def _digest(points: np.ndarray, labels: np.ndarray) -> str:
    digest = hashlib.sha256(f"{len(points)} {labels.dtype.name} ".encode())
    digest.update(np.ascontiguousarray(points).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()


def _read(path: Path) -> Labelled | None:
    with suppress(OSError):  # what cannot be looked at is not there; that it cannot be written either is said later
        if not path.is_file():
            return None
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            points, labels = file.get_tensor("points"), file.get_tensor("labels")
        if metadata["kind"] == "bits":
            labels = np.unpackbits(labels, count=len(points)).astype(bool)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise _Damaged(str(error) or type(error).__name__) from error
    if (points.dtype, points.shape[1:], labels.shape) != (np.float32, (3,), points.shape[:1]):
        raise _Damaged("another shape")
    if _digest(points, labels) != metadata.get("digest"):
        raise _Damaged("the checksum differs")
    with suppress(OSError):
        os.utime(path)  # what is used stays longest
    return Labelled(points, labels, metadata["digest"])


def _write(path: Path, result: Labelled) -> None:
    occupancy = result.labels.dtype == bool
    labels = np.packbits(result.labels) if occupancy else result.labels
    if result.points.nbytes + labels.nbytes > MOST_BYTES:
        logger.warning("the labels of %d points are too many to keep for another run", len(result.points))
        return
    tensors = {"points": torch.from_numpy(result.points), "labels": torch.from_numpy(labels)}
    try:
        write_tensors(path, tensors, {"kind": "bits" if occupancy else "distances", "digest": result.digest})
        _trim(path)
    except (OutputError, OSError) as error:
        logger.warning(
            "labels cannot be kept for another run: %s. Point NEURALFIELD_CACHE at a folder that can be written to, or "
            "switch this off with signal.cache=false",
            error,
        )


def _trim(newest: Path) -> None:
    """Remove what was not used for longest until all files fit, and what writers that were killed left."""
    others = []
    for path in newest.parent.iterdir():
        with suppress(OSError):  # another process may be tidying up, too
            state = path.stat()
            if path.name.startswith(".writing-") and path.name.endswith(_SUFFIX):
                if time.time() - state.st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
            elif path.suffix == _SUFFIX and path != newest:
                others.append((state.st_mtime, state.st_size, path))
    room = MOST_BYTES - newest.stat().st_size
    for _, size, path in sorted(others, key=lambda other: other[0], reverse=True):
        room -= size
        if room < 0:
            with suppress(OSError):
                path.unlink()
