"""`neuralfield doctor`: what this machine has, what will be used, and why."""

from __future__ import annotations

import importlib.util

from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuralfield.cli.arguments import Parser

_OPTIONAL = {
    "numba": ("the compiled CPU engine of the hash grid", "pip install numba"),
    "tinycudann": (
        "tiny-cuda-nn itself: an engine of the hash grid on CUDA, and to exchange weights with",
        'pip install "setuptools<82" wheel ninja && pip install --no-build-isolation '
        '"git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"',
    ),
    "hydra_plugins.hydra_joblib_launcher": ("parallel sweeps", 'pip install "neuralfield[sweep]"'),
}


def doctor(arguments: list[str]) -> int:
    """Print versions, device, engines and what is missing."""
    Parser(prog="neuralfield doctor", description="Versions, device, engines, and what is missing.").parse_args(
        arguments
    )
    import torch

    from neuralfield import devices
    from neuralfield.cli.configuration import config_folder
    from neuralfield.encodings.hashgrid import engines
    from neuralfield.lpips import lpips_distance

    console = Console()
    device = devices.resolve("auto")
    chosen = engines.choose("auto", device)
    missing = engines.unavailable(device)
    console.print("[bold]Versions[/bold]")
    console.print(_rows({k: v or "not installed" for k, v in devices.versions().items()}))
    console.print("\n[bold]What will be used[/bold]")
    why = "CUDA is there" if device.type == "cuda" else _why_no_cuda()
    rows = {
        "device": f"{device.type} ({devices.describe(device)}): {why}",
        "hash grid": f"{chosen.name} engine: {chosen.reason}",
        "other encodings": f"torch on {device.type}",
        "configs": str(config_folder()),
    }
    probe = torch.zeros(64, 64, 3).numpy()
    distance = lpips_distance(probe, probe)
    rows["LPIPS"] = "weights are here" if distance.value is not None else f"not computed: {distance.reason}"
    console.print(_rows(rows))
    console.print(f"\n[bold]Engines of the hash grid[/bold] (encoding.engine=NAME; on {device.type})")
    console.print(
        _rows({name: f"cannot be used: {missing[name]}" if name in missing else _can(name == chosen.name)
               for name in engines.ENGINES})
    )  # fmt: skip
    console.print("\n[bold]Optional packages[/bold]")
    console.print(
        _rows({name.split(".")[-1]: f"{'there' if _found(name) else 'not installed'}: {purpose}"
               + ("" if _found(name) else f" ({install})")
               for name, (purpose, install) in _OPTIONAL.items()})
    )  # fmt: skip
    return 0


def _can(chosen: bool) -> str:
    return "can be used, and is by default" if chosen else "can be used"


def _why_no_cuda() -> str:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return f"torch {torch.__version__} has CUDA {torch.version.cuda}, but finds no usable GPU (see nvidia-smi)"


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _rows(values: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(f"  {key}", Text(value))  # not as markup: [sweep] is an extra, not a style
    return table
