"""Checks of single options, so that each constructor rejects a bad value in one line and in the same words."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

from neuralfield.errors import ConfigError, nearest


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int in ``[low, high]``; bools and fractions are refused."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:  # nan and inf leave nan
        raise ConfigError(f"{name} must be a whole number, got {value!r}")
    high = 2**63 - 1 if high is None else high  # what torch and NumPy can hold
    if value < low or value > high:
        bounds = f"at least {low}" if high == 2**63 - 1 and value < low else f"between {low} and {high}"
        raise ConfigError(f"{name} must be {bounds}, got {value}")
    return int(value)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> float:
    """``value`` as a finite float in ``[low, high]``, or in ``(low, high]`` with ``above``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, got {value!r}")
    finite = abs(value) <= sys.float_info.max  # an int can be larger than any float
    if not finite or value < low or value > high or (above and value == low):
        lower = "" if low == -math.inf else f" {'above' if above else 'at least'} {low:g}"
        upper = "" if high == math.inf else f"{' and' if lower else ''} at most {high:g}"
        raise ConfigError(f"{name} must be a finite number{lower}{upper}, got {value}")
    return float(value)


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """``value`` if it is one of ``choices``; otherwise an error that lists them and names the nearest."""
    known = list(choices)
    if value not in known:
        raise ConfigError(f"{name} must be one of {', '.join(known)}, got {value!r}{nearest(str(value), known)}")
    return str(value)


def flag(name: str, value: Any) -> bool:
    """``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return value
