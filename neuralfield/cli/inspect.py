"""`neuralfield info` and `neuralfield summarize`: what is in a run, and in a folder of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuralfield.cli.arguments import Parser, add_run, field_file
from neuralfield.errors import ConfigError
from neuralfield.plugins import import_modules
from neuralfield.run_folder import METRICS, read_json


def info(arguments: list[str]) -> int:
    """Describe a run or a field file."""
    parser = Parser(prog="neuralfield info", description="Describe a run, or a field.safetensors.")
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    given = parser.parse_args(arguments)
    from neuralfield import field as fields

    import_modules(given.imports)
    path = field_file(given.run)
    field = fields.load(path)
    metrics = read_json(path.parent / METRICS) or {}
    if given.json:
        print(json.dumps({**field.config, "signal": field.signal, "metrics": metrics}, indent=2))
        return 0
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    signal = field.signal
    if signal:
        table.add_row("signal", Text(_signal(signal)))  # a name is no markup, whatever brackets it holds
    for part in ("encoding", "network"):
        table.add_row(part, Text(_words(field.config[part])))
    table.add_row("parameters", f"{field.n_parameters:,} ({path.stat().st_size / 2**20:.1f} MiB on disk)")
    for key, title, unit in _LINES:
        if metrics.get(key) is not None:
            value = metrics[key]
            table.add_row(title, f"{value:.4g}{unit}" if isinstance(value, float) else f"{value}{unit}")
    Console().print(table, highlight=False)
    return 0


def _signal(signal: dict[str, Any]) -> str:
    """What a field was fitted to, in one line."""
    kind = signal.get("type", "image")
    if kind == "shape":
        faces = f", {signal['faces']:,} triangles" if signal.get("faces") else ""
        return f"{signal.get('name')}: {signal.get('kind')} of a shape{faces}, {signal.get('n_train'):,} points"
    sides = " x ".join(str(signal.get(side)) for side in ("width", "height", "depth") if side in signal)
    space = f", {signal['space']}" if "space" in signal else ""
    return f"{signal.get('name')}: {sides}, {signal.get('channels')} channels{space}, holdout {signal.get('holdout')}"


_LINES = (
    ("psnr", "PSNR", " dB"),
    ("psnr_heldout", "held-out PSNR", " dB"),
    ("ssim", "SSIM", ""),
    ("iou_uniform", "IoU", ""),
    ("iou_surface", "IoU near the surface", ""),
    ("lpips", "LPIPS", ""),
    ("steps", "steps", ""),
    ("train_seconds", "training", " s"),
    ("stopped_by", "stopped by", ""),
    ("device", "device", ""),
    ("engine", "engine", ""),
)


def summarize(arguments: list[str]) -> int:
    """Table, summary.csv and summary.png of a folder of runs."""
    parser = Parser(prog="neuralfield summarize", description="Table, summary.csv and summary.png of a folder of runs.")
    parser.add_argument("folder", help="the folder of a sweep, with one folder for each run")
    given = parser.parse_args(arguments)
    from neuralfield.summary import summarize as write_summary

    folder = Path(given.folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    write_summary(folder)
    return 0


def _words(options: dict[str, Any]) -> str:
    shown = ", ".join(f"{k}={v}" for k, v in options.items() if k != "name" and v is not None)
    return f"{options['name']}: {shown}"
