"""`neuralfield reproduce NAME` and `scripts/reproduce.py NAME`: an experiment of a paper, with the claims that it checks."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from neuralfield import reproduce as reproductions
from neuralfield.checks import integer
from neuralfield.cli import configuration
from neuralfield.cli.guard import guarded
from neuralfield.errors import ConfigError, nearest
from neuralfield.reproduce.report import FIGURE, NUMBERS, Reproduction

NOT_HELD = 1
"""Exit code when everything ran but a claim does not hold at these settings."""


def main(argv: list[str] | None = None) -> int:
    """The whole of `scripts/reproduce.py`: returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: reproduce(arguments))


def reproduce(arguments: list[str]) -> int:
    """Run the reproduction that the first argument names, with KEY=VALUE after it."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name = reproductions.check_name(arguments[0])
    if any(argument in ("-h", "--help") for argument in arguments[1:]):
        print((configuration.config_folder() / "reproduce" / f"{name}.yaml").read_text(encoding="utf-8"))
        return 0
    options = _options(name, arguments[1:])
    folder = Path(options.pop("folder") or Path("outputs") / "reproduce" / name)
    torch.manual_seed(integer("seed", options.get("seed", 0), 0))
    print(f"{name}: {reproductions.NAMES[name]}", flush=True)
    began = time.perf_counter()
    result = reproductions.run(name, options)
    result.options = options
    result.save(folder)
    _print(result, folder, time.perf_counter() - began)
    return 0 if result.holds else NOT_HELD


def _options(name: str, overrides: list[str]) -> dict[str, Any]:
    """The reproduction's options from its file and the command line; an unknown one names the nearest."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(configuration.config_folder() / "reproduce"), version_base="1.3"):
            known = [*compose(name), "folder"]
            for override in overrides:
                key, separator, _ = override.partition("=")
                if not separator or override.startswith("-"):
                    raise ConfigError(
                        f"cannot read the argument {override!r}: write KEY=VALUE, known keys: {', '.join(known)}"
                    )
                if key not in known:
                    raise ConfigError(f"{name} has no option '{key}' (known: {', '.join(known)}){nearest(key, known)}")
            config = compose(name, [o if not o.startswith("folder=") else f"+{o}" for o in overrides])
    except Exception as error:
        raise configuration.explain(error) or error from error
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {"folder": None, **plain}


def _print(result: Reproduction, folder: Path, seconds: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=result.title, title_justify="left", show_lines=True)
    for column in ("claim", "measured", "holds", "source"):
        table.add_column(column)
    for claim in result.claims:
        table.add_row(claim.text, claim.measured, "yes" if claim.holds else "NO", claim.source)
    Console().print(table)
    print(f"{seconds:.0f} s; figure and numbers in {folder / FIGURE} and {folder / NUMBERS}")


def _usage() -> str:
    lines = "\n".join(f"  {name:<17} {text}" for name, text in reproductions.NAMES.items())
    return (
        f"usage: reproduce.py NAME [KEY=VALUE ...]\n\n{lines}\n\n"
        "`reproduce.py NAME --help` lists its options. Figure and numbers go to outputs/reproduce/NAME (folder=...).\n"
        "Exit code 0: every claim holds; 1: one does not at these settings; 2: something to mend."
    )
