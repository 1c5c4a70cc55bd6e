"""Gaussian processes and ensembles: direct formulas, independent software, and Monte Carlo."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.posterior import ensemble, gp_posterior

FILE = Path(__file__).parents[1] / "oracles" / "dynamics.json"


@pytest.fixture(scope="module")
def oracle() -> dict[str, Tensor]:
    values = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items() if isinstance(v, list)}


def kernels(n: int = 20, m: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n + m, 2, generator=generator, dtype=torch.float64)
    whole = torch.exp(-(torch.cdist(x, x) ** 2) / 0.1)
    y = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return whole[:n, :n], whole[n:, :n], whole[n:, n:], y


@pytest.mark.parametrize("noise", [0.01, 0.5])
def test_gaussian_process(noise: float) -> None:
    """Conditioning the joint normal through the blocks of its precision matrix, which inverts nothing in common."""
    k, ks, kss, y = kernels()
    found = gp_posterior(k, ks, kss, y, noise)
    joint = torch.cat([torch.cat([k + noise * torch.eye(20), ks.T], 1), torch.cat([ks, kss], 1)])
    precision = torch.linalg.inv(joint + 1e-13 * torch.eye(26))
    block = torch.linalg.inv(precision[20:, 20:])
    torch.testing.assert_close(found.covariance, block, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.mean, -block @ precision[20:, :20] @ y, rtol=0, atol=1e-7)
    diagonal = gp_posterior(k, ks, kss.diagonal(), y, noise, covariance="diagonal")
    assert diagonal.covariance is None
    torch.testing.assert_close(diagonal.variance, found.covariance.diagonal(), rtol=0, atol=1e-13)
    torch.testing.assert_close(diagonal.std**2, diagonal.variance)
    assert gp_posterior(k.float(), ks.float(), kss.float(), y.float(), noise).covariance.dtype == torch.float32


def test_gaussian_process_without_noise() -> None:
    """At a training point: its value, no variance; far away: the prior. A singular kernel is inverted on its range."""
    k, _, _, y = kernels()
    both = torch.cat([k[:3], torch.zeros(1, 20, dtype=torch.float64)])
    prior = torch.eye(4, dtype=torch.float64)
    prior[:3, :3] = k[:3, :3]
    found = gp_posterior(k, both, prior, y)
    torch.testing.assert_close(found.mean[:3], y[:3], rtol=0, atol=1e-8)
    torch.testing.assert_close(found.variance, torch.tensor([0.0, 0.0, 0.0, 1.0]).double(), rtol=0, atol=1e-9)
    assert (found.variance >= 0).all()
    twice = torch.cat([k, k[:1]]), torch.cat([both, both[:, :1]], 1), torch.cat([y, y[:1]])
    again = gp_posterior(torch.cat([twice[0], twice[0][:, :1]], 1), twice[1], prior, twice[2])
    torch.testing.assert_close(again.mean, found.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(again.variance, found.variance, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("t", "name"), [(10.0, "ens_ntk_t10"), (math.inf, "ens_ntk_inf")])
def test_oracle_ensemble(oracle: dict[str, Tensor], t: float, name: str) -> None:
    """neural-tangents; in the file a ridge of 1e-4 of the mean diagonal, and a step size above the stable one."""
    dynamics = Dynamics(oracle["K"], oracle["Ks"], loss="mean", ridge=1e-4, ridge_relative=True)
    nngp = oracle["nngp_train"], oracle["nngp_test"], oracle["nngp_test_test"]
    found = ensemble(dynamics, *nngp, oracle["Y"], t)
    torch.testing.assert_close(found.mean, oracle[f"{name}_mean"], rtol=0, atol=1e-13)
    torch.testing.assert_close(found.covariance, oracle[f"{name}_cov"], rtol=0, atol=1e-13)
    several = ensemble(dynamics, *nngp, oracle["Y"], [t, 1.0], covariance="diagonal")
    assert several.covariance is None and several.variance.shape == (2, 5) and several.mean.shape == (2, 5, 2)
    torch.testing.assert_close(several.variance[0], oracle[f"{name}_cov"].diagonal(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", ["flow", "gd"])
def test_ensemble_of_linear_models(method: str) -> None:
    """f = phi theta with theta ~ N(0, S): every draw descended by itself; mean and covariance within sampling error."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    train, test, scale, y = draw(6, 9) / 3, draw(3, 9) / 3, 0.5 + draw(9).abs(), draw(6)
    dynamics = Dynamics(train @ train.T, test @ train.T, method=method, learning_rate=0.2)
    steps = 12
    # The prior covariance (NNGP) is not the kernel that it descends with (NTK), as in a network.
    prior = [a @ torch.diag(scale**2) @ b.T for a, b in ((train, train), (test, train), (test, test))]
    found = ensemble(dynamics, *prior, y, steps)
    draws = 40_000
    theta = scale[:, None] * draw(9, draws)
    if method == "gd":
        for _ in range(steps):
            theta = theta - 0.2 * train.T @ (train @ theta - y[:, None])
    else:
        shrink = torch.linalg.matrix_exp(-0.2 * steps * train.T @ train)
        goal = torch.linalg.pinv(train) @ y
        # In the row space of the features theta tends to the goal; beside it nothing moves.
        theta = goal[:, None] + shrink @ (theta - goal[:, None])
    values = test @ theta
    error = found.variance.sqrt() / math.sqrt(draws)
    assert ((values.mean(1) - found.mean).abs() < 4.5 * error).all()
    # The error of a sample covariance: sqrt((s_ii s_jj + s_ij^2)/draws).
    variance = found.variance
    tolerance = ((variance[:, None] * variance + found.covariance**2) / draws).sqrt()
    assert ((torch.cov(values) - found.covariance).abs() < 4.5 * tolerance).all()
    # And it can tell: the Gaussian-process posterior is far off.
    other = gp_posterior(prior[0], prior[1], prior[2], y)
    assert ((torch.cov(values) - other.covariance).abs() > 10 * tolerance).any()


def test_bad_input(oracle: dict[str, Tensor]) -> None:
    k, ks, kss, y = kernels()
    with pytest.raises(ConfigError, match=r"\(6, 6\); got \(6,\)"):
        gp_posterior(k, ks, kss.diagonal(), y)
    with pytest.raises(ConfigError, match=r"\(6, 6\) or \(6,\); got \(6, 20\)"):
        gp_posterior(k, ks, ks, y, covariance="diagonal")
    with pytest.raises(ConfigError, match="full, diagonal"):
        gp_posterior(k, ks, kss, y, covariance="none")
    with pytest.raises(ConfigError, match="noise"):
        gp_posterior(k, ks, kss, y, noise=-1.0)
    with pytest.raises(ConfigError, match=r"k_test must have the shape \[m, 20\]"):
        gp_posterior(k, ks.T, kss, y)
    with pytest.raises(ConfigError, match="with test points"):
        ensemble(Dynamics(k), k, ks, kss, y, 1.0)
    with pytest.raises(ConfigError, match=r"nngp_test must have the shape \(6, 20\).*got \(20, 6\)"):
        ensemble(Dynamics(k, ks), k, ks.T, kss, y, 1.0)
    assert "noise variance 0.1" in repr(gp_posterior(k, ks, kss, y, 0.1))
