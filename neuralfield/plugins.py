"""Modules of a user's own, imported so that the encodings and networks they register are known."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from neuralfield.errors import ConfigError


def import_modules(names: str | Sequence[str]) -> None:
    """Import one module or several; those in the current folder are found too.

    Raises :class:`~neuralfield.errors.ConfigError` for a module that cannot be imported.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:  # a script's path begins with the script's own folder
        sys.path.insert(0, here)
    for name in [names] if isinstance(names, str) else names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"the module '{name}' cannot be imported ({error}); is it on PYTHONPATH?") from error
