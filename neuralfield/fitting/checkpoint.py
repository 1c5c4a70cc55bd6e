"""The state of a running fit on disk: one safetensors file, replaced whole, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from neuralfield.errors import FieldFileError
from neuralfield.files import remove_leftovers, write_tensors

FOLDER = "checkpoint"
_FILE = "latest.safetensors"


@dataclass
class State:
    """What a fit is made of besides its tensors.

    - `step`: optimiser steps done; `seconds`: training time spent on them.
    - `history`: one row per evaluation.
    - `best_quality`, `best_step`: the best evaluation so far.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_quality: float | None = None
    best_step: int = 0


def save(folder: Path, state: State, tensors: Mapping[str, Tensor], identity: Mapping[str, Any]) -> None:
    """Replace the folder's checkpoint; `identity` is the configuration that may continue it."""
    metadata = {"state": json.dumps(asdict(state)), "identity": json.dumps(identity)}
    write_tensors(folder / FOLDER / _FILE, tensors, metadata)


def exists(folder: Path) -> bool:
    """Whether the folder holds a checkpoint."""
    return (folder / FOLDER / _FILE).is_file()


def load(folder: Path, identity: Mapping[str, Any]) -> tuple[State, dict[str, Tensor]] | None:
    """The folder's checkpoint, or None if there is none.

    Raises :class:`~neuralfield.errors.FieldFileError` when it cannot be read or another configuration wrote it.
    """
    path = folder / FOLDER / _FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state, written_by = State(**json.loads(metadata["state"])), json.loads(metadata["identity"])
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise FieldFileError(
            f"the checkpoint {path} cannot be read ({error}); delete that file, or run without fit.resume, to start over"
        ) from error
    differences = _differences(written_by, json.loads(json.dumps(identity)))
    if differences:
        raise FieldFileError(
            f"the checkpoint in {folder} belongs to another configuration: {'; '.join(differences[:4])}. Use the same "
            f"options to resume, another hydra.run.dir, or fit.resume=false to start over"
        )
    return state, tensors


def remove(folder: Path) -> None:
    """Delete the folder's checkpoint, and what a killed writer left beside it."""
    checkpoint = folder / FOLDER
    if checkpoint.is_dir():
        (checkpoint / _FILE).unlink(missing_ok=True)
        remove_leftovers(checkpoint)
        if not any(checkpoint.iterdir()):
            checkpoint.rmdir()


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Leaves that differ, as "key: old there, new now"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = list(dict.fromkeys([*old, *new]))
        return [d for k in keys for d in _differences(old.get(k), new.get(k), f"{prefix}.{k}" if prefix else k)]
    return [] if old == new else [f"{prefix} is {old!r} there, {new!r} now"]
