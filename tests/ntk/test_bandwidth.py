"""Widths and power spectra of kernels whose Fourier transforms are known."""

from __future__ import annotations

import math

import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.ntk.bandwidth import bandwidth
from tests.ntk.stationary_standin import Fourier, Moving, grid


class Gaussian:
    """The expected kernel of Fourier features with sigma = 5: its Fourier transform is their distribution."""

    stationary = True

    def __init__(self, constant: float = 0.0) -> None:
        self.constant = constant

    def of_offsets(self, dv: torch.Tensor, which: str = "ntk") -> torch.Tensor:
        return self.constant + torch.exp(-2 * math.pi**2 * 25 * (dv**2).sum(1))


def test_bandwidth_of_a_gaussian() -> None:
    width = math.sqrt(2 * math.log(2)) / (math.pi * 5)
    for axis in (0, 1, (1.0, 1.0), (3.0, -4.0)):
        found = bandwidth(Gaussian(), 2, axis)
        assert found.fwhm == pytest.approx(width, rel=1e-9)
        assert found.in_pixels(512) == pytest.approx(512 * width, rel=1e-9)
    exact = torch.exp(-(found.frequencies**2) / 50) / math.sqrt(2 * math.pi * 25)
    assert float((found.power - exact).abs().max()) < 0.03 * float(
        exact.max()
    )  # blurred by one cycle: an interval of 1
    assert float(found.power.min()) >= 0
    assert float(2 * found.power.sum() - found.power[0] - found.power[-1]) == pytest.approx(1, rel=1e-12)
    assert found.frequency_below(0.6827) == 5  # one standard deviation of the frequencies
    assert "half of the power below" in repr(found)


def test_bandwidth_and_constants() -> None:
    assert bandwidth(Gaussian(2.0), 2).fwhm == math.inf
    assert bandwidth(Gaussian(0.0), 2, baseline="mean").fwhm < bandwidth(Gaussian(), 2).fwhm
    assert bandwidth(Gaussian(2.0), 2, baseline="mean").fwhm == pytest.approx(
        bandwidth(Gaussian(0.0), 2, baseline="mean").fwhm, rel=1e-6
    )
    constant = bandwidth(Gaussian(2.0), 2)
    assert float(constant.power[0]) > 2 and constant.frequency_below(0.5) == bandwidth(Gaussian(), 2).frequency_below(
        0.5
    )


def test_power_is_the_mean_of_a_random_functions() -> None:
    """Against its definition: the expected periodogram of functions drawn with this covariance."""
    n = 16
    kernel = Fourier(1)
    found = bandwidth(kernel, 1, n_samples=n)
    waves = torch.exp(2j * math.pi * torch.outer(torch.arange(n // 2 + 1), torch.arange(n)) / n).to(torch.complex128)
    covariance = kernel.ntk(grid(n)).to(torch.complex128)
    periodogram = torch.einsum("fi,ij,fj->f", waves, covariance, waves.conj()).real / n**2
    assert torch.allclose(found.power, periodogram, atol=1e-14)


def test_bandwidth_refuses() -> None:
    with pytest.raises(ConfigError, match="not stationary"):
        bandwidth(Moving(), 2)
    for axis in (2, (1.0,), (0.0, 0.0)):
        with pytest.raises(ConfigError, match="axis must be"):
            bandwidth(Gaussian(), 2, axis)
