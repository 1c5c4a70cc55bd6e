"""Names, options and their errors; what an instance remembers of its construction."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from neuralfield.errors import ConfigError, NeuralFieldError
from neuralfield.registry import Configurable, Registry


@pytest.fixture
def instruments() -> Registry:
    registry: Registry = Registry("instrument")

    @registry.register("violin")
    class Violin(Configurable):
        def __init__(self, strings: int, tuning: float = 440.0, *, bow: str = "light") -> None:
            self.strings, self.tuning, self.bow = strings, tuning, bow

    @registry.register("drum")
    class Drum:
        def __init__(self, **anything: object) -> None:
            self.anything = anything

    return registry


@pytest.fixture
def unchecked() -> Callable[[str], str]:
    """Run a program in a process of its own, where no shape or type is checked: what people have."""

    def run(program: str) -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_builds_by_name(instruments: Registry) -> None:
    violin = instruments.build("violin", strings=4, bow="heavy")
    assert (violin.strings, violin.tuning, violin.bow) == (4, 440.0, "heavy")
    assert instruments.name_of(violin) == "violin"
    assert list(instruments) == ["violin", "drum"]
    assert "violin" in instruments and "harp" not in instruments


def test_options_are_those_of_the_signature(instruments: Registry) -> None:
    assert list(instruments.options("violin")) == ["strings", "tuning", "bow"]
    assert instruments.options("violin")["tuning"].default == 440.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("violn", {}, "unknown instrument 'violn' .known: violin, drum.; did you mean 'violin'"),
        ("xyz", {}, r"known: violin, drum\)$"),
        (
            "violin",
            {"strings": 4, "tunning": 1},
            "no option 'tunning' .known: strings, tuning, bow.; did you mean 'tuning'",
        ),
        ("violin", {"tuning": 432.0}, "'violin' needs the option strings"),
    ],
)
def test_what_is_unknown_or_missing_is_named(instruments: Registry, name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        instruments.build(name, **options)


def test_a_name_belongs_to_one_class(instruments: Registry) -> None:
    with pytest.raises(ConfigError, match=r"instrument 'drum' is already .*Drum"):

        @instruments.register("drum")
        class Other:
            pass


def test_the_same_class_may_come_again() -> None:
    """As when a notebook cell runs twice: the later definition counts."""
    registry: Registry = Registry("thing")

    def cell(value: int) -> type:
        @registry.register("thing")
        class Thing:
            number = value

        return Thing

    _, second = cell(1), cell(2)
    assert registry.get("thing") is second


def test_an_unregistered_class_has_no_name(instruments: Registry) -> None:
    class Flute(instruments.get("violin")):
        pass

    with pytest.raises(ConfigError, match=r"Flute is not a registered instrument; .*@register"):
        instruments.name_of(Flute(strings=0))


def test_config_has_all_arguments_by_name() -> None:
    class Shape(Configurable):
        def __init__(self, width: int, sizes: tuple = (1, 2), name: str | None = None) -> None:
            self.width = -width

    assert Shape(3).config == {"width": 3, "sizes": [1, 2], "name": None}
    assert Shape(3, name="a").config == Shape(name="a", width=3).config
    shape = Shape(3)
    shape.config["width"] = 5
    assert shape.config["width"] == 3  # a copy


def test_config_is_that_of_the_outermost_class() -> None:
    class Base(Configurable):
        def __init__(self, size: int) -> None:
            self.size = size

    class Derived(Base):
        def __init__(self, half: int) -> None:
            super().__init__(2 * half)

    class Silent(Base):
        pass

    assert Derived(3).config == {"half": 3} and Derived(3).size == 6
    assert Silent(3).config == {"size": 3}


def test_wrong_arguments_are_pythons_own_error() -> None:
    class Base(Configurable):
        def __init__(self, size: int) -> None:
            """How it is built."""

    with pytest.raises(TypeError, match="size"):
        Base()
    assert Base.__init__.__doc__ == "How it is built."


def test_errors_are_also_the_built_in_ones() -> None:
    assert issubclass(ConfigError, NeuralFieldError) and issubclass(ConfigError, ValueError)


_WRONG_TYPES = """
import warnings; warnings.simplefilter("error")
from neuralfield import encodings, networks
from neuralfield.errors import ConfigError
words = ["abc", None, True, [1.0], {"a": 1}, float("nan"), float("inf"), -1, 0, 1.5, 10**30, [], "1"]
tried = refused = 0
fixed = {"none": {"in_dim": 2}, "positional": {"in_dim": 2}, "fourier": {"in_dim": 2, "n_features": 4},
         "hashgrid": {"in_dim": 2, "log2_hashmap_size": 3}, "bounded": {"encoding": {"name": "none", "in_dim": 2}}}
rows = [(encodings.registry, name, options) for name, options in fixed.items()]
rows.append((networks.registry, "mlp", {"in_dim": 2, "out_dim": 1, "depth": 3, "activation": "sine"}))
for registry, name, options in rows:
    for option in registry.options(name):
        for word in words:
            if option == "encoding" or (name == "mlp" and option in ("in_dim", "out_dim")):  # set by the package
                continue
            tried += 1
            try:
                registry.build(name, **{**options, option: word})
            except ConfigError as error:
                refused += 1
                if not str(error) or "\\n" in str(error):
                    print(f"{name}.{option}={str(word)[:9]}: not one line: {error}")
            except Exception as error:
                print(f"{name}.{option}={str(word)[:9]}: {type(error).__name__}: {str(error)[:80]}")
print("refused", refused, "of", tried)
"""


# amplitudes, seed, infinite whole numbers).
def test_wrong_types_as_configuration_files_give_them(unchecked: Callable[[str], str]) -> None:
    """Every option of every class, given words, lists and absurd numbers: accepted, or one line that says why."""
    *wrong, summary = unchecked(_WRONG_TYPES).splitlines()
    assert wrong == []
    refused, tried = (int(word) for word in summary.split() if word.isdigit())
    assert tried > 300 and refused > 0.7 * tried
