"""`scripts/benchmark.py`: tables on the terminal, JSON beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from neuralfield import devices
from neuralfield.benchmarks import cases
from neuralfield.cli.arguments import Parser
from neuralfield.cli.guard import guarded
from neuralfield.files import write_json
from neuralfield.signals.image import load_image


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    parser = Parser(prog="benchmark.py", description="Speed against the peers that are installed, alternating.")
    parser.add_argument("what", choices=("encode", "step", "fit"), help="encode: the grid; step: training; fit: PSNR")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of encode and step (default 9)")
    parser.add_argument("--seconds", type=float, default=10.0, help="training time of fit (default 10)")
    parser.add_argument("--image", help="image of step and fit (default: the coffee sample)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("-o", "--output", help="JSON file (default: outputs/benchmark_WHAT.json)")
    given = parser.parse_args(arguments)
    device = devices.resolve(given.device)
    if given.what == "encode":
        rows = cases.encode(given.rounds, device)
    else:
        signal = load_image(given.image, name="coffee")
        rows = (
            cases.step(given.rounds, device, signal)
            if given.what == "step"
            else cases.fit(given.seconds, device, signal)
        )
    Console().print(_table(rows))
    output = Path(given.output or f"outputs/benchmark_{given.what}.json")
    write_json(output, {"device": devices.describe(device), "versions": devices.versions(), "rows": rows})
    print(f"{devices.describe(device)}, torch {torch.__version__}; {output}")
    return 0


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        table.add_column(key, justify="left" if key in ("case", "what") else "right")
    for row in rows:
        table.add_row(*(_shown(key, value) for key, value in row.items()))
    return table


def _shown(key: str, value: Any) -> str:
    if key == "ratio":
        return f"{value:.1f}x"
    if isinstance(value, float):
        return f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
