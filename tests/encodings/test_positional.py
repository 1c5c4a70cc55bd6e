"""Positional encoding: its frequencies, and the feature order of each convention written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralfield.encodings import Positional
from neuralfield.errors import ConfigError

CONVENTIONS = ("neuralfield", "nerfstudio", "tinycudann", "nerf", "nerfacc")
# Radians per unit of the octave 2^0.
FACTOR = {"neuralfield": 2 * math.pi, "nerfstudio": 2 * math.pi, "tinycudann": math.pi, "nerf": 1.0, "nerfacc": 1.0}
POINT = (0.1, 0.2, 0.3)


def by_hand(convention: str, point: tuple[float, ...], frequencies: list[float], include_input: bool) -> list[float]:
    """One point in plain loops, in the order that each project documents."""
    factor, raw = FACTOR[convention], list(point) if include_input else []
    sin = {(d, k): math.sin(factor * f * x) for d, x in enumerate(point) for k, f in enumerate(frequencies)}
    cos = {(d, k): math.cos(factor * f * x) for d, x in enumerate(point) for k, f in enumerate(frequencies)}
    axes, octaves = range(len(point)), range(len(frequencies))
    axis_first = [(d, k) for d in axes for k in octaves]
    octave_first = [(d, k) for k in octaves for d in axes]
    if convention == "neuralfield":
        return raw + [sin[i] for i in axis_first] + [cos[i] for i in axis_first]
    if convention == "nerfstudio":
        return [sin[i] for i in axis_first] + [cos[i] for i in axis_first] + raw
    if convention == "tinycudann":
        return [table[i] for i in axis_first for table in (sin, cos)]
    if convention == "nerf":
        return raw + [table[d, k] for k in octaves for table in (sin, cos) for d in axes]
    return raw + [sin[i] for i in octave_first] + [cos[i] for i in octave_first]


def test_check_value_of_nerfstudio() -> None:
    """Made with nerfstudio 1.1.5: NeRFEncoding(3, 2, min_freq_exp=0, max_freq_exp=1, include_input=True)."""
    module = Positional(3, n_frequencies=2, include_input=True, convention="nerfstudio")
    sines, cosines = (
        [0.5878, 0.9511, 0.9511, 0.5878, 0.9511, -0.5878],
        [0.8090, 0.3090, 0.3090, -0.8090, -0.3090, -0.8090],
    )
    assert module(torch.tensor(POINT)).tolist() == pytest.approx([*sines, *cosines, *POINT], abs=5e-5)


def test_tinycudann_by_hand() -> None:
    """[axis][frequency][sine, cosine] of pi 2^k x."""
    features = Positional(2, n_frequencies=2, convention="tinycudann")(torch.tensor([0.1, 0.3]))
    phases = [math.pi * 0.1, math.pi * 0.2, math.pi * 0.3, math.pi * 0.6]
    expected = [value for phase in phases for value in (math.sin(phase), math.cos(phase))]
    assert features.tolist() == pytest.approx(expected, abs=1e-6)


def test_original_nerf_by_hand() -> None:
    """x, then for each k: sin(2^k x) of all axes, cos(2^k x) of all axes; no pi (also torch-ngp)."""
    features = Positional(2, n_frequencies=2, include_input=True, convention="nerf")(torch.tensor([0.1, 0.3]))
    s, c = math.sin, math.cos
    expected = [0.1, 0.3, s(0.1), s(0.3), c(0.1), c(0.3), s(0.2), s(0.6), c(0.2), c(0.6)]
    assert features.tolist() == pytest.approx(expected, abs=1e-6)


def test_nerfacc_by_hand() -> None:
    """x, sin(2^k x) of all axes for each k, then the same cosines (its SinusoidalEncoder adds pi/2 to the phase)."""
    features = Positional(2, n_frequencies=2, include_input=True, convention="nerfacc")(torch.tensor([0.1, 0.3]))
    s, c = math.sin, math.cos
    expected = [0.1, 0.3, s(0.1), s(0.3), s(0.2), s(0.6), c(0.1), c(0.3), c(0.2), c(0.6)]
    assert features.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("convention", CONVENTIONS)
@settings(max_examples=25, deadline=None)
@given(
    point=st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=4),
    n_frequencies=st.integers(1, 6),
    include_input=st.booleans(),
)
@example(point=[0.1, 0.7, -0.4], n_frequencies=3, include_input=True)
def test_every_convention(convention: str, point: list[float], n_frequencies: int, include_input: bool) -> None:
    include_input = include_input and convention != "tinycudann"
    module = Positional(len(point), n_frequencies, include_input=include_input, convention=convention)
    expected = by_hand(convention, tuple(point), [2.0**k for k in range(n_frequencies)], include_input)
    got = module(torch.tensor(point))
    assert module.out_dim == len(expected)
    np.testing.assert_allclose(got.numpy(), expected, atol=3e-5)  # phases up to 400 radians in float32


@pytest.mark.parametrize("include_input", [False, True])
def test_conventions_of_equal_frequencies_differ_by_the_documented_permutation(include_input: bool) -> None:
    """theirs = ours[:, ours_module.order().argsort()[theirs_module.order()]]"""
    x = torch.rand(9, 3)
    cycles = {"neuralfield": 1.0, "nerfstudio": 1.0, "tinycudann": 2.0, "nerf": 2 * math.pi, "nerfacc": 2 * math.pi}
    modules = {
        name: Positional(3, 4, min_frequency=cycle, include_input=include_input, convention=name)
        for name, cycle in cycles.items()
        if not (include_input and name == "tinycudann")
    }
    for ours in modules.values():
        assert ours.order().sort().values.tolist() == list(range(ours.out_dim))
        for theirs in modules.values():
            permuted = ours(x)[:, ours.order().argsort()[theirs.order()]]
            torch.testing.assert_close(theirs(x), permuted, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("options", "frequencies"),
    [
        ({}, [2.0**k for k in range(8)]),
        ({"n_frequencies": 3}, [1, 2, 4]),
        ({"n_frequencies": 3, "min_frequency": 0.5}, [0.5, 1, 2]),
        ({"n_frequencies": 3, "max_frequency": 9.0}, [1, 3, 9]),
        ({"n_frequencies": 1, "max_frequency": 1.0}, [1]),
        ({"n_frequencies": None, "max_frequency": 8.0}, [1, 2, 4, 8]),
        ({"n_frequencies": None, "max_frequency": 15.9}, [1, 2, 4, 8]),
        ({"n_frequencies": None, "max_frequency": 3.0, "min_frequency": 3.0}, [3]),
    ],
    ids=str,
)
def test_frequencies_by_count_or_maximum(options: dict, frequencies: list[float]) -> None:
    module = Positional(2, **options)
    assert module.frequencies.tolist() == pytest.approx(frequencies, rel=1e-6)
    assert module.n_frequencies == len(frequencies)
    assert torch.equal(module.state_dict()["frequencies"], module.frequencies)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_frequencies": None}, "give n_frequencies or max_frequency"),
        ({"n_frequencies": 0}, "n_frequencies must be between 1"),
        ({"n_frequencies": 65}, "without a max_frequency"),
        ({"n_frequencies": 1, "max_frequency": 2.0}, "one frequency cannot reach"),
        ({"max_frequency": 0.5}, "max_frequency must be .* at least 1"),
        ({"max_frequency": math.inf}, "max_frequency"),
        ({"min_frequency": 0.0}, "min_frequency must be .* above 0"),
        ({"convention": "nerfstudoi"}, "did you mean 'nerfstudio'"),
        ({"convention": "tinycudann", "include_input": True}, "no raw input"),
    ],
    ids=str,
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Positional(2, **options)
