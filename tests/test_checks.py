"""Checks of single options: what passes, what does not, and in which words."""

from __future__ import annotations

import math

import pytest

from neuralfield.checks import choice, flag, integer, number
from neuralfield.errors import ConfigError


@pytest.mark.parametrize(("value", "expected"), [(3, 3), (3.0, 3), (0, 0), (10, 10), (1e1, 10)])
def test_integer_takes_whole_numbers(value: float, expected: int) -> None:
    result = integer("width", value, 0, 10)
    assert result == expected and type(result) is int


@pytest.mark.parametrize("value", [2.5, True, False, "3", None, [3], math.nan, math.inf, -math.inf, 1e-9], ids=str)
def test_integer_refuses_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(ConfigError, match="width must be a whole number, got "):
        integer("width", value, 0)


def test_integer_bounds() -> None:
    assert integer("width", 2**62, 0) == 2**62
    with pytest.raises(ConfigError, match="width must be at least 1, got 0"):
        integer("width", 0, 1)
    for wrong in (0, 9):
        with pytest.raises(ConfigError, match=f"width must be between 1 and 8, got {wrong}"):
            integer("width", wrong, 1, 8)
    assert [integer("width", value, 1, 8) for value in (1, 8)] == [1, 8]


@pytest.mark.parametrize("value", [0, 0.0, -1e300, 5, 1e-30])
def test_number_takes_finite_numbers(value: float) -> None:
    result = number("sigma", value)
    assert result == value and type(result) is float


@pytest.mark.parametrize("value", [True, "1", None, [1.0], {}, 1j], ids=str)
def test_number_refuses_other_types(value: object) -> None:
    with pytest.raises(ConfigError, match="sigma must be a number, got "):
        number("sigma", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400], ids=["nan", "inf", "-inf", "10**400"])
def test_number_refuses_what_is_not_finite(value: float) -> None:
    """A whole number beyond the range of floats is not finite as a float."""
    with pytest.raises(ConfigError, match="sigma must be a finite number, got"):
        number("sigma", value)


@pytest.mark.parametrize(
    ("low", "high", "above", "good", "bad", "message"),
    [
        (0, math.inf, False, [0, 1], [-1e-9], "finite number at least 0, got"),
        (0, math.inf, True, [1e-9], [0, -1], "finite number above 0, got"),
        (0, 1, False, [0, 1], [-0.1, 1.1], "finite number at least 0 and at most 1, got"),
        (0, 1, True, [0.1, 1], [0], "finite number above 0 and at most 1, got"),
        (-math.inf, 2.5, False, [-9, 2.5], [3], "finite number at most 2.5, got"),
    ],
)
def test_number_bounds(low: float, high: float, above: bool, good: list, bad: list, message: str) -> None:
    assert [number("sigma", value, low, high, above=above) for value in good] == good
    for value in bad:
        with pytest.raises(ConfigError, match=message):
            number("sigma", value, low, high, above=above)


def test_choice() -> None:
    assert choice("loss", "mse", {"mse": 1, "l1": 2}) == "mse"
    assert choice("loss", "l1", iter(["mse", "l1"])) == "l1"
    with pytest.raises(ConfigError, match=r"loss must be one of mse, l1, got 'msee'; did you mean 'mse'\?"):
        choice("loss", "msee", ["mse", "l1"])
    for unlike in ("zzzz", None, ["q"], 3):
        with pytest.raises(ConfigError, match=r"one of mse, l1, got [^;]*$"):
            choice("loss", unlike, ["mse", "l1"])


def test_flag() -> None:
    assert flag("bias", True) is True and flag("bias", False) is False
    for wrong in (0, 1, "true", None):
        with pytest.raises(ConfigError, match="bias must be true or false, got "):
            flag("bias", wrong)
