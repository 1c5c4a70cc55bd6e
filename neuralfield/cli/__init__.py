"""The command line: `neuralfield fit | explain | reproduce | render | export | view | ...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from neuralfield.cli.guard import guarded
from neuralfield.errors import ConfigError, nearest

COMMANDS = {
    "fit": "fit an image, a shape or a volume; `neuralfield fit --help` lists every option",
    "explain": "which encoding will serve an image, and why, before training",
    "reproduce": "an experiment of a paper, with the claims that it checks",
    "render": "draw a fitted image at any resolution",
    "export": "a fitted shape as a mesh, a fitted volume as voxels or a surface",
    "view": "look at runs in the browser, also over ssh",
    "info": "describe a run or a field file",
    "summarize": "table, CSV and picture of a folder of runs",
    "doctor": "versions, device, engines, and what is missing",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code (0 well, 2 something to mend, 130 interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] in ("-V", "--version"):
        from neuralfield.version import __version__

        print(f"neuralfield {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise ConfigError(f"unknown command '{name}' (known: {', '.join(COMMANDS)}){nearest(name, COMMANDS)}")
    return _command(name)(rest)


def _command(name: str) -> Callable[[list[str]], int]:
    # Imported on demand: rendering needs no Hydra.
    if name == "fit":
        from neuralfield.cli.fit import fit

        return fit
    if name == "explain":
        from neuralfield.cli.explain import explain

        return explain
    if name == "reproduce":
        from neuralfield.cli.reproduce import reproduce

        return reproduce
    if name == "render":
        from neuralfield.cli.render import render

        return render
    if name == "export":
        from neuralfield.cli.export import export

        return export
    if name == "view":
        from neuralfield.cli.view import view

        return view
    if name == "doctor":
        from neuralfield.cli.doctor import doctor

        return doctor
    from neuralfield.cli import inspect

    return inspect.info if name == "info" else inspect.summarize


def _usage() -> str:
    lines = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return f"usage: neuralfield COMMAND ...\n\n{lines}\n\n`neuralfield COMMAND --help` says more."
