"""What can go wrong because of what a person gave, as opposed to a fault of the package.

Every message says what was given, what was expected and how to mend it. The command line prints the message alone
and exits with code 2; Python users catch :class:`NeuralFieldError`, or the built-in class each error also is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NeuralFieldError(Exception):
    """Base of every error that a person can mend."""


class ConfigError(NeuralFieldError, ValueError):
    """An option has a wrong name or a wrong value."""


class SignalError(NeuralFieldError, ValueError):
    """A file or array cannot be used as the signal to fit."""


class FieldFileError(NeuralFieldError, ValueError):
    """A saved field or checkpoint cannot be read, or belongs to another configuration."""


class OutputError(NeuralFieldError, OSError):
    """Results cannot be written."""


class DeviceError(NeuralFieldError, RuntimeError):
    """The device that was asked for is not there, or has too little memory."""


class DivergedError(NeuralFieldError, ArithmeticError):
    """Training left the finite numbers."""


class MissingDependency(NeuralFieldError, ImportError):
    """An optional package is needed; the message names the command that installs it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the closest known word, else the empty string."""
    match = difflib.get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""
