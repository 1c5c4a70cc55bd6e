"""A folder of runs in one table, one CSV file and one picture."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuralfield.errors import ConfigError
from neuralfield.files import write_text
from neuralfield.run_folder import CONFIG, FAILED, METRICS, RECONSTRUCTION, TRUTH, read_json
from neuralfield.viz import RunRow, sweep_figure
from neuralfield.viz.measure import measure_of

_COLUMNS = (
    "psnr", "psnr_train", "psnr_heldout", "ssim", "lpips", "iou_uniform", "iou_surface", "steps", "train_seconds",
    "n_parameters",
)  # fmt: skip
_THUMBNAIL = 320


def summarize(folder: Path, console: Console | None = None) -> int:
    """Print a table of the runs below `folder`, and write `summary.csv` and `summary.png` there.

    Returns the number of failed runs. Raises :class:`~neuralfield.errors.ConfigError` where there is no run.
    """
    runs = run_folders(folder)
    if not runs:
        raise ConfigError(f"{folder} holds no runs (folders with a metrics.json or a failed.json)")
    overrides = [overrides_of(run) for run in runs]
    keys = list(dict.fromkeys(k for o in overrides for k in o))
    swept = [k for k in keys if len({str(o.get(k)) for o in overrides}) > 1] or keys[:1]
    rows = [_row(run, {k: o.get(k) for k in swept}) for run, o in zip(runs, overrides, strict=True)]
    console = console or Console()
    console.print(_table(rows, swept))
    for row in rows:
        if row.error is not None:
            console.print(f"failed: {row.label}: {row.error}", style="red", highlight=False, markup=False)
    _write_csv(folder / "summary.csv", runs, rows, swept)
    same_signal = not any(key.startswith("signal.") for key in swept)
    truth = None if not same_signal else next((picture for run in runs if (picture := _truth(run)) is not None), None)
    what = " and ".join(swept) if swept else "runs"
    sweep_figure(rows, swept, folder / "summary.png", truth=truth, title=f"Sweep over {what}")
    console.print(f"{folder / 'summary.csv'}, {folder / 'summary.png'}", highlight=False, soft_wrap=True)
    return sum(row.error is not None for row in rows)


def run_folders(folder: Path) -> list[Path]:
    found = {path.parent for name in (METRICS, FAILED) for path in folder.glob(f"*/{name}")}
    return sorted(found, key=lambda p: (0, int(p.name), "") if p.name.isdigit() else (1, 0, p.name))


def overrides_of(run: Path) -> dict[str, Any]:
    """What was given on the command line for this run, as values."""
    record = read_json(run / FAILED) or read_json(run / METRICS) or {}
    given = record.get("overrides") or [f"run={run.name}"]
    pairs = (str(item).lstrip("+").split("=", 1) for item in given if "=" in str(item))
    return {key: _value(value) for key, value in pairs}


def _value(text: str) -> Any:
    """A number where the text is one (YAML takes 1e-05 for a word), else what YAML makes of it, else the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    try:
        return yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        return text


def _row(run: Path, swept: dict[str, Any]) -> RunRow:
    label = ", ".join(f"{k.split('.')[-1]}={v}" for k, v in swept.items())
    metrics = read_json(run / METRICS)
    if (failure := read_json(run / FAILED)) is not None:
        return RunRow(label, swept, None, str(failure.get("error", "failed")), None)
    if metrics is None:
        return RunRow(label, swept, None, "metrics.json cannot be read", None)
    if metrics.get("mae") == 0.0:  # JSON has no infinity: the PSNR of an exact fit is null there
        metrics |= dict.fromkeys(("psnr", "psnr_train"), math.inf)
    return RunRow(label, swept, metrics, None, _picture(run / RECONSTRUCTION))


def _picture(path: Path) -> np.ndarray | None:
    from neuralfield.errors import SignalError
    from neuralfield.signals import load_image

    try:
        return load_image(path).preview(_THUMBNAIL)
    except SignalError:
        return None


def _truth(run: Path) -> np.ndarray | None:
    """What a run was fitted to: its picture of that, or the image, if it can still be read."""
    from neuralfield import signals
    from neuralfield.errors import NeuralFieldError

    if (run / TRUTH).is_file():
        return _picture(run / TRUTH)
    try:
        config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
        signal = signals.load(config["signal"])
        return signal.preview(_THUMBNAIL) if isinstance(signal, signals.ImageSignal) else None
    except (OSError, yaml.YAMLError, KeyError, TypeError, NeuralFieldError):
        return None


def _table(rows: list[RunRow], swept: list[str]) -> Table:
    measure = measure_of(row.metrics for row in rows)
    values = [measure.of(row.metrics or {}) for row in rows]
    both = any(second is not None for _, second in values)
    quality = [first if second is None else second for first, second in values]
    best = max((value for value in quality if value is not None), default=None)
    structure = any(row.metrics and row.metrics.get("ssim") is not None for row in rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in swept:
        table.add_column(key)
    titles = list(measure.headings) if both else [measure.label]
    for title in [*titles, *(["SSIM"] if structure else []), "steps", "seconds", "parameters"]:
        table.add_column(title, justify="right")
    for row, numbers, main in zip(rows, values, quality, strict=True):
        options = [escape(str(row.swept.get(key))) for key in swept]
        if row.metrics is None:
            table.add_row(*options, "failed", style="red")
            continue
        m = row.metrics
        table.add_row(
            *options,
            *(_fixed(value, measure.digits + 1) for value in numbers[: len(titles)]),
            *([_fixed(m.get("ssim"), 4)] if structure else []),
            f"{m['steps']:,}",
            _fixed(m["train_seconds"], 1),
            f"{m['n_parameters']:,}",
            style="bold green" if main is not None and main == best else "",
        )
    return table


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _write_csv(path: Path, runs: list[Path], rows: list[RunRow], swept: list[str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *swept, *_COLUMNS, "error"])
    for run, row in zip(runs, rows, strict=True):
        metrics = row.metrics or {}
        writer.writerow(
            [run.name, *(row.swept.get(k) for k in swept), *(metrics.get(c) for c in _COLUMNS), row.error or ""]
        )
    write_text(path, text.getvalue())
