"""Gaussian Fourier features: the kernel that they stand for, their randomness and what is saved of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neuralfield.encodings import Fourier
from neuralfield.errors import ConfigError


def pairs(n: int, in_dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(n, in_dim, dtype=torch.float64, generator=generator),
        torch.rand(n, in_dim, dtype=torch.float64, generator=generator),
    )


def test_features_by_hand() -> None:
    """All cosines, then all sines, of 2 pi b.x, times the amplitude."""
    module = Fourier(2, n_features=2, sigma=1.0, amplitudes=[1.0, 3.0])
    b, x = module.frequencies.tolist(), (0.3, 0.8)
    phases = [2 * math.pi * (b[0][j] * x[0] + b[1][j] * x[1]) for j in range(2)]
    expected = [math.cos(phases[0]), 3 * math.cos(phases[1]), math.sin(phases[0]), 3 * math.sin(phases[1])]
    assert module(torch.tensor(x)).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("in_dim", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"decay": 1.0}, {"normalize": True}, {"sigma": 3.0}], ids=str)
def test_inner_product_is_a_sum_of_cosines(in_dim: int, options: dict) -> None:
    """gamma(x).gamma(x') = sum_j a_j^2 cos(2 pi b_j.(x - x'))"""
    amplitudes = [0.5 + 0.1 * j for j in range(20)]
    module = Fourier(in_dim, n_features=20, amplitudes=amplitudes, **options).double()
    x, y = pairs(50, in_dim)
    phases = 2 * math.pi * (x - y) @ module.frequencies
    expected = (module.amplitudes**2 * torch.cos(phases)).sum(1)
    torch.testing.assert_close((module(x) * module(y)).sum(1), expected, rtol=1e-10, atol=1e-10)


def test_expected_kernel_is_gaussian() -> None:
    """The mean over frequencies is exp(-2 pi^2 sigma^2 |x - x'|^2), within its standard error."""
    sigma, count = 1.5, 20_000
    module = Fourier(2, n_features=count, sigma=sigma, seed=1).double()
    x, y = pairs(40, 2)
    y = x + 0.3 * (y - 0.5)
    spread = 2 * math.pi * sigma * (x - y).norm(dim=1)
    expected = torch.exp(-(spread**2) / 2)
    # cos of a normal phase of deviation s has variance (1 - e^{-s^2})^2 / 2.
    error = (1 - torch.exp(-(spread**2))) / math.sqrt(2 * count)
    deviations = ((module(x) * module(y)).sum(1) / count - expected) / error
    assert deviations.abs().max() < 4.5
    assert deviations.abs().mean() > 0.2  # and not closer than chance allows
    assert (expected.max() - expected.min()) > 0.5


def test_sigma_for_each_axis() -> None:
    both, first = Fourier(2, sigma=[2.0, 5.0], n_features=4000), Fourier(2, sigma=2.0, n_features=4000)
    assert both.frequencies.std(dim=1).tolist() == pytest.approx([2.0, 5.0], rel=0.05)
    assert torch.equal(both.frequencies[0], first.frequencies[0])
    torch.testing.assert_close(both.frequencies[1], 2.5 * first.frequencies[1])


def test_a_sweep_over_sigma_varies_sigma_alone() -> None:
    draws = [Fourier(3, sigma=sigma, n_features=30).frequencies / sigma for sigma in (1.0, 10.0, 0.3)]
    for draw in draws[1:]:
        torch.testing.assert_close(draw, draws[0], rtol=1e-6, atol=0)


def test_own_seed_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = Fourier(2, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(Fourier(2, seed=7).frequencies, first.frequencies)
    assert not torch.equal(Fourier(2, seed=8).frequencies, first.frequencies)


def test_frequencies_are_trained_only_on_request() -> None:
    frozen, free = Fourier(2, n_features=4), Fourier(2, n_features=4, trainable=True)
    assert not list(frozen.parameters())
    assert [name for name, _ in free.named_parameters()] == ["frequencies"]
    x = torch.rand(5, 2)
    assert torch.equal(frozen(x), free(x))
    free(x)[:, 0].sum().backward()
    assert (free.frequencies.grad[:, 0] != 0).all()
    assert (free.frequencies.grad[:, 1:] == 0).all()
    assert set(frozen.state_dict()) == set(free.state_dict())


def test_normalized_features_have_unit_norm() -> None:
    x = torch.rand(30, 2)
    for options in ({}, {"amplitudes": [3.0, 0.0, 1.0, 2.0]}, {"decay": 2.0}):
        norms = Fourier(2, n_features=4, normalize=True, **options)(x).norm(dim=1)
        torch.testing.assert_close(norms, torch.ones(30))
    plain = Fourier(2, n_features=4)(x).norm(dim=1)
    torch.testing.assert_close(plain, torch.full((30,), 2.0))


def test_decay_multiplies_amplitudes_by_a_power_of_the_frequency() -> None:
    module = Fourier(2, n_features=50, sigma=2.0, decay=1.5, amplitudes=[2.0] * 50)
    length = module.frequencies.norm(dim=0)
    assert (length < 1).any() and (length > 3).any()
    torch.testing.assert_close(module.amplitudes, 2.0 * torch.clamp(length, min=1.0) ** -1.5)


@pytest.mark.parametrize("trainable", [False, True])
def test_saved_frequencies_are_exact(trainable: bool, tmp_path: Path) -> None:
    """Whatever draws the noise elsewhere, a saved encoding brings its frequencies along, bit for bit."""
    options = {"in_dim": 2, "n_features": 100, "sigma": 7.0, "trainable": trainable}
    module = Fourier(seed=3, **options)
    save_file(module.state_dict(), tmp_path / "fourier.safetensors")
    other = Fourier(seed=4, **options)
    other.load_state_dict(load_file(tmp_path / "fourier.safetensors"))
    assert module.frequencies.shape == (2, 100)
    assert np.array_equal(
        other.frequencies.detach().numpy().view(np.uint32), module.frequencies.detach().numpy().view(np.uint32)
    )


def test_loaded_amplitudes_count() -> None:
    """The amplitudes of a state_dict take effect in an encoding that was built without any."""
    weighted, plain = Fourier(2, n_features=2, amplitudes=[1.0, 3.0]), Fourier(2, n_features=2)
    plain.load_state_dict(weighted.state_dict())
    x = torch.rand(5, 2)
    assert torch.equal(plain(x), weighted(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be .* above 0"),
        ({"sigma": math.nan}, "sigma"),
        ({"sigma": [1.0, 2.0, 3.0]}, r"one number, or 2 \(one per axis\); got 3"),
        ({"n_features": 0}, "n_features"),
        ({"n_features": 10**9}, "n_features must be between 1 and"),
        ({"seed": -1}, "seed"),
        ({"n_features": 3, "amplitudes": [1.0]}, "amplitudes needs 3 numbers"),
        ({"n_features": 1, "amplitudes": [0.0]}, "all zero"),
        ({"n_features": 1, "amplitudes": [-1.0]}, "amplitudes"),
        ({"decay": -1.0}, "decay"),
    ],
    ids=str,
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Fourier(2, **options)


def test_unit_amplitudes_are_left_out_only_while_they_are_one() -> None:
    module, x = Fourier(2, n_features=8), torch.rand(50, 2)
    plain = module(x)
    phase = x @ (2 * math.pi * module.frequencies)
    assert torch.equal(plain, torch.cat([phase.cos(), phase.sin()], dim=1) * 1.0)
    module.amplitudes[3] = 2.5
    assert torch.equal(module(x)[:, 3], 2.5 * plain[:, 3]) and torch.equal(module(x)[:, 11], 2.5 * plain[:, 11])
    assert torch.equal(module(x)[:, 4], plain[:, 4])
