"""Finding runs in folders, and opening one of them: :func:`find_runs`, :func:`open_run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from neuralfield import field as fields
from neuralfield import signals
from neuralfield.errors import ConfigError, FieldFileError, SignalError
from neuralfield.field import Field
from neuralfield.run_folder import CONFIG, FAILED, FIELD, METRICS, read_json
from neuralfield.signals.base import Signal
from neuralfield.summary import overrides_of, run_folders

_MARKS = (FIELD, METRICS, FAILED)
_SAME = ("width", "height", "depth", "channels", "space", "low", "high")


@dataclass(frozen=True)
class Entry:
    """A run that can be chosen: what to call it, its folder, and its field's file (which may not be there)."""

    name: str
    folder: Path
    file: Path


@dataclass(frozen=True, eq=False)
class Run:
    """A run that was read.

    - `kind`: "image", "shape" or "volume".
    - `metrics`: of metrics.json, empty where there is none. `overrides`: what was given on the command line, in words.
    """

    entry: Entry
    field: Field
    kind: str
    metrics: dict[str, Any]
    overrides: list[str]

    @property
    def signal(self) -> dict[str, Any]:
        """What the field was fitted to, as it says itself; empty where it does not."""
        return self.field.signal


def find_runs(paths: Sequence[str | Path]) -> list[Entry]:
    """The runs that folders of runs, folders of sweeps and field files name, each with a name of its own.

    Raises :class:`~neuralfield.errors.ConfigError` for a path that does not exist, and for a folder without runs.
    """
    several = len(paths) > 1
    found: list[Entry] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(Entry(path.stem if path.name != FIELD else _called(path.parent), path.parent, path))
        elif not path.is_dir():
            raise ConfigError(f"{path} does not exist; give the folder of a run, of a sweep, or a {FIELD}")
        elif any((path / mark).is_file() for mark in _MARKS):
            found.append(Entry(_called(path), path, path / FIELD))
        else:
            found += _sweep(path, f"{_called(path)}: " if several else "")
    return _distinct(found)


def _sweep(folder: Path, prefix: str) -> list[Entry]:
    runs = run_folders(folder) or sorted(file.parent for file in folder.glob(f"*/{FIELD}"))
    if not runs:
        below = sorted({str(file.parent.parent) for mark in _MARKS for file in folder.glob(f"*/*/{mark}")})
        hint = f"; there are some in {below[-1]}" if below else "; a run leaves its results when it ends"
        raise ConfigError(f"{folder} holds no runs{hint}")
    overrides = [overrides_of(run) for run in runs]
    keys = dict.fromkeys(key for one in overrides for key in one)
    swept = [key for key in keys if len({str(one.get(key)) for one in overrides}) > 1]
    names = [", ".join(f"{key.split('.')[-1]}={one.get(key)}" for key in swept) for one in overrides]
    return [Entry(prefix + (n or run.name), run, run / FIELD) for n, run in zip(names, runs, strict=True)]


def _called(folder: Path) -> str:
    return folder.resolve().name or str(folder.resolve())


def _distinct(entries: list[Entry]) -> list[Entry]:
    """The same with names that occur once: the folder's name is added, then a number."""
    names: list[str] = []
    for entry in entries:
        alike = sum(other.name == entry.name for other in entries) > 1
        name = (
            f"{entry.name} ({_called(entry.folder)})" if alike and entry.name != _called(entry.folder) else entry.name
        )
        number = 2
        unique = name
        while unique in names:
            unique, number = f"{name} ({number})", number + 1
        names.append(unique)
    return [Entry(name, entry.folder, entry.file) for name, entry in zip(names, entries, strict=True)]


def open_run(entry: Entry, device: str | torch.device = "cpu") -> Run:
    """Read a run's field and numbers.

    Raises :class:`~neuralfield.errors.FieldFileError` if the field is missing or broken, or has neither two nor three
    coordinates; what failed is said where the run left word of it.
    """
    if not entry.file.is_file():
        failure = read_json(entry.folder / FAILED)
        said = (
            f" failed: {failure['error']}" if failure and "error" in failure else f" holds no {entry.file.name} (yet)"
        )
        raise FieldFileError(f"the run in {entry.folder}{said}")
    field = fields.load(entry.file, device).eval()
    kind = str(field.signal.get("type") or ("image" if field.in_dim == 2 else "volume"))
    if field.in_dim != {"image": 2, "shape": 3, "volume": 3}.get(kind):
        raise FieldFileError(
            f"{entry.file} is a field of {field.in_dim} coordinates ({kind}): there is no view of that"
        )
    metrics = read_json(entry.folder / METRICS) or {}
    given = metrics.get("overrides")
    return Run(entry, field, kind, metrics, [str(one) for one in given] if isinstance(given, list) else [])


def signal_options(run: Run) -> dict[str, Any]:
    """The options in the run's config.yaml from which its signal was loaded.

    Raises :class:`~neuralfield.errors.SignalError` if there are none.
    """
    path = run.entry.folder / CONFIG
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))["signal"]
    except OSError as error:
        raise SignalError(f"what was fitted is not known: {path} cannot be read") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise SignalError(f"what was fitted is not known: {path} names no signal") from error
    if not isinstance(options, dict):
        raise SignalError(f"what was fitted is not known: {path} names no signal")
    return {str(key): value for key, value in options.items()}


def load_truth(run: Run, on_progress: Callable[[float], None] | None = None) -> Signal:
    """The image or volume that a run was fitted to, if it still is what it was.

    Raises one of the package's errors if it cannot be loaded, and :class:`~neuralfield.errors.SignalError` if it has changed
    since.
    """
    signal = signals.load(signal_options(run), on_progress)
    now = signal.describe()
    changed = [key for key in _SAME if key in run.signal and key in now and run.signal[key] != now[key]]
    known = run.metrics.get("fingerprint")
    if signal.type != run.kind or changed or (run.kind == "image" and known and known != signal.fingerprint()):
        what = f" ({changed[0]} was {run.signal[changed[0]]}, is {now[changed[0]]})" if changed else ""
        raise SignalError(f"{signal.source} has changed since the fit{what}")
    return signal
