"""What the commands without Hydra share: a parser that errs in our words, and finding a run's field."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn

from neuralfield.errors import ConfigError, FieldFileError, nearest
from neuralfield.run_folder import FIELD


class Parser(argparse.ArgumentParser):
    """Raises a ConfigError with the nearest option instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        hint = ""
        if match := re.search(r"unrecognized arguments: (\S+)", message):
            known = [option for action in self._actions for option in action.option_strings]
            hint = nearest(match[1].split("=")[0], known)
        raise ConfigError(f"{message}{hint} (`{self.prog} --help` lists the options)")


def add_run(parser: argparse.ArgumentParser) -> None:
    """The arguments that name a run, and the modules that its own encoding needs."""
    parser.add_argument("run", help="folder of a run, or a field.safetensors")
    parser.add_argument("--import", dest="imports", action="append", default=[], help="module with your own encoding")


def field_file(run: str) -> Path:
    """The field of a run's folder, or the file itself.

    Raises :class:`~neuralfield.errors.FieldFileError` when there is none.
    """
    path = Path(run)
    if not path.is_dir():
        return path
    if (path / FIELD).is_file():
        return path / FIELD
    below = sorted(str(p.parent) for p in path.glob(f"*/{FIELD}"))
    hint = f"; there is one in {below[0]}" if below else "; a run leaves it there when it ends"
    raise FieldFileError(f"{path} holds no {FIELD}{hint}")
