"""`scripts/benchmark.py`: tables on the terminal, JSON beside them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from neuralfield import devices
from neuralfield.benchmarks import cases, ntk_cases, ntk_peers, waves
from neuralfield.checks import choice, integer
from neuralfield.cli.arguments import Parser
from neuralfield.cli.guard import guarded
from neuralfield.files import write_json
from neuralfield.fitting.options import PRECISIONS
from neuralfield.signals.image import load_image


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _run(arguments))


def _run(arguments: list[str]) -> int:
    parser = Parser(prog="benchmark.py", description="Speed against the peers that are installed, alternating.")
    what = (
        "encode: the grid; step: training; fit: PSNR; tancik: Fourier features, all pixels a step; ntk: tangent kernels"
    )
    parser.add_argument("what", choices=("encode", "step", "fit", "tancik", "ntk"), help=what)
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of encode, step and ntk (default 9)")
    parser.add_argument("--seconds", type=float, default=10.0, help="training time of fit (default 10)")
    parser.add_argument("--compact", action="store_true", help="fit: at most one parameter for every 4 pixel values")
    parser.add_argument("--steps", type=int, default=60, help="tancik: steps on the full batch (default 60)")
    parser.add_argument(
        "--crop", type=int, default=512, help="tancik: pixels of the square that is fitted (default 512)"
    )
    parser.add_argument("--precision", default="auto", help="tancik: ours; auto, float32, bfloat16 (the peer: float32)")
    parser.add_argument("--image", help="image of step, fit (default: coffee sample) and tancik (astronaut)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--large", action="store_true", help="ntk: also what takes minutes and gigabytes")
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="ntk: interpreter that has neural-tangents, a peer")
    parser.add_argument("-o", "--output", help="JSON file (default: outputs/benchmark_WHAT.json)")
    given = parser.parse_args(arguments)
    device = devices.resolve(given.device)
    load = _load()
    if given.what == "encode":
        rows = cases.encode(given.rounds, device)
    elif given.what == "ntk":
        rows = ntk_cases.ntk(given.rounds, device, given.large, given.neural_tangents)
    elif given.what == "tancik":
        steps = integer("--steps", given.steps, 2)
        rows = waves.tancik(steps, device, given.image, given.crop, choice("--precision", given.precision, PRECISIONS))
    else:
        signal = load_image(given.image, name="coffee")
        rows = (
            cases.step(given.rounds, device, signal)
            if given.what == "step"
            else cases.fit(given.seconds, device, signal, given.compact)
        )
    Console().print(_table(rows))
    output = Path(given.output or f"outputs/benchmark_{given.what}.json")
    about = {"device": devices.describe(device), "versions": devices.versions(), "load": load}
    write_json(output, {**about, "rows": rows})
    print(f"{devices.describe(device)}, torch {torch.__version__}; {output}")
    if given.what == "ntk" and not given.neural_tangents:
        print(f"Without neural-tangents, which needs an environment of its own: {ntk_peers.RECIPE}")
    if load is not None and load > (os.cpu_count() or 1) / 2:
        print(f"The machine was busy (load average {load:.1f} before this began): measure again when it is quiet")
    return 0


def _load() -> float | None:
    """Processes that want to run, on the average of the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in rows[0]:
        table.add_column(key, justify="left" if key in ("case", "what") else "right")
    before = None
    for row in rows:
        shown = {key: _shown(key, value) for key, value in row.items()}
        table.add_row(*({**shown, "case": ""} if row["case"] == before else shown).values())
        before = row["case"]
    return table


def _shown(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "ratio":
        return f"{value:.1f}x"
    if key == "deviation":
        return f"{value:.0e}"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
