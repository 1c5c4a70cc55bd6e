"""Spectral sums against exact spectra, and whether the error bars mean what they say."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.ntk.lanczos import Eigenpairs, lanczos
from neuralfield.ntk.operator import Dense
from neuralfield.ntk.slq import Estimate, SpectralDensity, spectral_density
from neuralfield.ntk.spectrum import spectrum
from neuralfield.ntk.toeplitz import ToeplitzOperator
from tests.ntk.stationary_standin import Fourier
from tests.ntk.test_lanczos import with_eigenvalues

KERNEL = ToeplitzOperator.of(Fourier(sigma=8, m=64), (20, 24), dtype=torch.float64)
EXACT = torch.linalg.eigvalsh(KERNEL.to_dense()).clamp_min(0)
SUMS = {
    "logarithm": (lambda d: d.log_determinant(0.1), float((EXACT + 0.1).log().sum())),
    "dimension, small ridge": (lambda d: d.effective_dimension(0.1), float((EXACT / (EXACT + 0.1)).sum())),
    "dimension, large ridge": (lambda d: d.effective_dimension(30.0), float((EXACT / (EXACT + 30)).sum())),
    "squares": (lambda d: d.sum(torch.square), float(EXACT.square().sum())),
}


@pytest.mark.parametrize("name", list(SUMS))
def test_sums_within_their_errors(name: str) -> None:
    estimate, exact = SUMS[name]
    found = estimate(spectral_density(KERNEL, deflate=24, probes=20, steps=50))
    low, high = found.interval(0.999)
    assert low < exact < high
    assert 0 < found.standard_error < 0.02 * abs(exact)  # and the interval says something


@pytest.fixture(scope="module")
def trials() -> list[SpectralDensity]:
    """Many independent small estimates."""
    pairs = lanczos(KERNEL, 16, 1e-9)
    return [spectral_density(KERNEL, pairs, probes=4, steps=24, seed=1000 + seed) for seed in range(60)]


@pytest.mark.parametrize("name", list(SUMS))
def test_the_error_bars_cover(name: str, trials: list[SpectralDensity]) -> None:
    """Of 60 estimates 90 % should hold the truth in their 90 % intervals: 54 +- 2.3, three and a half deviations allowed;
    and all of them would mean bars that are too long (probability 0.002).
    """
    estimate, exact = SUMS[name]
    intervals = [estimate(trial).interval(0.9) for trial in trials]
    assert 46 <= sum(low <= exact <= high for low, high in intervals) <= 59


def test_deflation_shrinks_the_error() -> None:
    plain = spectral_density(KERNEL, deflate=0, probes=10).effective_dimension(30.0)
    deflated = spectral_density(KERNEL, deflate=64, probes=10).effective_dimension(30.0)
    assert deflated.standard_error < 0.5 * plain.standard_error


def test_the_trace_and_the_count_are_exact() -> None:
    found = spectral_density(KERNEL, deflate=8, probes=3, steps=20)
    trace, count = found.sum(lambda x: x), found.sum(torch.ones_like)
    assert trace.value == pytest.approx(float(EXACT.sum()), rel=1e-12) and trace.standard_error < 1e-9
    assert count.value == pytest.approx(480, rel=1e-12) and count.standard_error < 1e-9
    assert found.weights.sum(1) == pytest.approx(1, abs=1e-12)


def test_quadrature_is_exact_for_few_eigenvalues() -> None:
    """With as many steps as distinct eigenvalues each probe is a Gauss rule with the eigenvalues as nodes."""
    values = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64).repeat_interleave(20)
    found = spectral_density(with_eigenvalues(values), deflate=0, probes=2, steps=10)
    exact = torch.tensor([0.5, 1, 2, 4], dtype=torch.float64)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        distance = (nodes[:, None] - exact).abs()
        assert float(distance.amin(1)[weights > 1e-6].max()) < 1e-9  # nothing in between
        assert (distance.amin(0) < 1e-9).all()  # and none missing


def test_everything_deflated_is_everything_known() -> None:
    kernel = Dense(KERNEL.to_dense()[:40, :40].contiguous())
    found = spectral_density(kernel, deflate=40, probes=2)
    exact = torch.linalg.eigvalsh(kernel.matrix)
    result = found.log_determinant(0.5)
    assert result.standard_error == 0 and result.value == pytest.approx(float((exact + 0.5).log().sum()), rel=1e-9)


def test_entropy_rank_counts_and_histogram() -> None:
    whole = spectrum(KERNEL)
    top = Eigenpairs(whole.eigenvalues[:24], whole.eigenvectors[:, :24], whole.residuals[:24], 0.0, 0)
    found = spectral_density(KERNEL, top, probes=20, steps=60)
    rank = found.entropy_rank()
    assert abs(rank.value - whole.entropy_rank) < 4 * rank.standard_error + 1e-6 * rank.value
    edges = torch.tensor([0.0, 0.5, 1.0, 2.0, 1e6], dtype=torch.float64)
    exact = torch.tensor([float(((a <= EXACT) & (b > EXACT)).sum()) for a, b in itertools.pairwise(edges)])
    counts, errors = found.histogram(edges)
    assert float(counts.sum()) == pytest.approx(480, abs=1e-6) and errors.shape == (4,)
    assert float((counts - exact).abs().max()) < 0.1 * 480
    above = found.count_above(1.0)
    assert abs(above.value - float((EXACT > 1).sum())) < 0.1 * 480


def test_intervals_are_students() -> None:
    estimate = Estimate(10.0, 1.0, 5)
    assert estimate.interval(0.95) == pytest.approx((10 - 2.776445, 10 + 2.776445), abs=1e-5)  # tables: 4 degrees
    assert str(estimate) == "10 ± 1"


def test_float32_and_seeds() -> None:
    single = ToeplitzOperator.of(Fourier(sigma=8, m=64), (20, 24))
    found = spectral_density(single, deflate=16, probes=10).log_determinant(0.1)
    assert abs(found.value - SUMS["logarithm"][1]) < 5 * found.standard_error
    assert spectral_density(single, 4, 2, 10).nodes.equal(spectral_density(single, 4, 2, 10).nodes)
    assert not spectral_density(single, 4, 2, 10).nodes.equal(spectral_density(single, 4, 2, 10, seed=5).nodes)


def test_refusals() -> None:
    found = spectral_density(with_eigenvalues(torch.cat([torch.ones(20), torch.zeros(20)])), 4, 3, 20)
    with pytest.raises(ConfigError, match="add a ridge"):
        found.sum(lambda x: torch.where(x < 1e-9, -math.inf, x))
    with pytest.raises(ConfigError, match="ridge"):
        found.log_determinant(0.0)
    negative = torch.linspace(2, -0.2, 60)
    with pytest.raises(ConfigError, match="not positive semidefinite"):
        spectral_density(with_eigenvalues(negative), 4)
    with pytest.raises(ConfigError, match="symmetric"):
        spectral_density(KERNEL.restricted(torch.arange(4), torch.arange(1, 5)))
    with pytest.raises(ConfigError, match="not of this kernel"):
        spectral_density(KERNEL, lanczos(with_eigenvalues(negative.abs()), 3))
