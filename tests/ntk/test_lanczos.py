"""Top eigenpairs against dense decompositions: multiplicities, clusters, every size, both precisions."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch

from neuralfield.errors import ConfigError, DeviceError
from neuralfield.ntk import lanczos as module
from neuralfield.ntk import memory
from neuralfield.ntk.lanczos import lanczos
from neuralfield.ntk.operator import Dense, Restricted
from neuralfield.ntk.toeplitz import ToeplitzOperator
from tests.ntk.stationary_standin import Fourier


def with_eigenvalues(values: torch.Tensor, dtype: torch.dtype = torch.float64, seed: int = 0) -> Dense:
    """A dense symmetric matrix of random eigenvectors."""
    n = len(values)
    q, _ = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    matrix = (q * values.to(torch.float64)) @ q.T
    return Dense(((matrix + matrix.T) / 2).to(dtype))


def check(kernel: Dense | ToeplitzOperator, k: int, tol: float, **options: object) -> module.Eigenpairs:
    """Values, residuals and orthonormality of the top k against SciPy."""
    pairs = lanczos(kernel, k, tol, **options)  # type: ignore[arg-type]
    dense = kernel.to_dense().to(torch.float64)
    exact = torch.from_numpy(scipy.linalg.eigh(dense.numpy(), eigvals_only=True)).flip(0)
    first = float(exact[0])
    assert pairs.eigenvalues.shape == (k,) and pairs.eigenvectors.shape == (len(dense), k)
    assert float((pairs.eigenvalues - exact[:k]).abs().max()) <= tol * first
    vectors = pairs.eigenvectors.to(torch.float64)
    residuals = (dense @ vectors - vectors * pairs.eigenvalues).norm(dim=0)
    assert float(residuals.max()) <= 1.1 * tol * first
    assert float((residuals - pairs.residuals).abs().max()) <= 0.1 * tol * first + 1e-13 * first
    eps = torch.finfo(kernel.dtype).eps
    assert float((vectors.T @ vectors - torch.eye(k, dtype=torch.float64)).abs().max()) <= 30 * eps
    return pairs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_kernel_on_a_grid(dtype: torch.dtype) -> None:
    check(ToeplitzOperator.of(Fourier(sigma=10, m=256, depth=3), (24, 30), dtype=dtype), 40, 1e-6)


def test_to_ten_digits() -> None:
    check(ToeplitzOperator.of(Fourier(sigma=10), (20, 20), dtype=torch.float64), 30, 1e-10)


@pytest.mark.parametrize("multiplicity", [2, 5, 8, 13, 30])
def test_multiple_eigenvalues_are_all_found(multiplicity: int) -> None:
    """More copies than the block holds: a single Krylov space has no more than `block` of them."""
    values = torch.cat([torch.full((multiplicity,), 10.0 / (1 + j)) for j in range(3)])
    values = torch.cat([values, torch.linspace(2, 0.01, 300 - len(values))])
    k = min(2 * multiplicity + 3, 40)
    for block in (4, 8):
        check(with_eigenvalues(values), k, 1e-8, block=block, subspace=k + 48)


def test_without_the_check_copies_are_missed() -> None:
    """That the search beside the found pairs is what finds them: the test above would else prove nothing."""
    values = torch.cat([torch.full((30,), 10.0), torch.logspace(0.5, -3, 270)])
    kernel = with_eigenvalues(values)
    found = lanczos(kernel, 20, 1e-8, block=2, subspace=60, check=False)
    assert int((found.eigenvalues > 9).sum()) < 20
    assert int((lanczos(kernel, 20, 1e-8, block=2, subspace=60).eigenvalues > 9).sum()) == 20


def test_periodic_kernels_and_symmetric_grids() -> None:
    check(ToeplitzOperator.of(Fourier(whole=True), (18, 18), dtype=torch.float64), 25, 1e-9)

    class Round:
        stationary = True

        def of_offsets(self, dv: torch.Tensor, which: str = "ntk") -> torch.Tensor:
            return torch.exp(-8 * dv.norm(dim=1))

    check(ToeplitzOperator.of(Round(), (18, 18), dtype=torch.float64), 30, 1e-9)


def test_clusters_and_fast_decay() -> None:
    check(with_eigenvalues(torch.cat([5 + 1e-7 * torch.arange(10.0), torch.linspace(3, 0, 290)])), 10, 1e-9)
    check(with_eigenvalues(10.0 ** -torch.linspace(0, 14, 200, dtype=torch.float64)), 20, 1e-9)
    check(with_eigenvalues(torch.cat([torch.ones(3), torch.zeros(197)])), 8, 1e-9)  # rank below k
    check(with_eigenvalues(torch.zeros(50)), 4, 1e-9)
    check(with_eigenvalues(torch.ones(150)), 4, 1e-9)  # every vector is one


@pytest.mark.parametrize(("n", "k"), [(1, 1), (2, 1), (9, 9), (17, 3), (40, 39)])
def test_small_kernels(n: int, k: int) -> None:
    check(with_eigenvalues(torch.linspace(3, 1, n)), k, 1e-10)


def test_circle_law() -> None:
    """Basri et al. 2019: frequency k of the circle has an eigenvalue that falls as k^-2, cosine and sine alike."""
    n, depth = 2048, 1

    class Circle:
        stationary = True

        def of_offsets(self, dv: torch.Tensor, which: str = "ntk") -> torch.Tensor:
            cosine = torch.cos(2 * math.pi * dv[:, 0]).clamp(-1, 1)
            tangent = 1 + cosine  # a bias beside w x: with it odd frequencies are learned as well
            cosine = (1 + cosine) / 2
            angle = torch.arccos(cosine)
            return (torch.sin(angle) + (math.pi - angle) * cosine) / math.pi + tangent * (math.pi - angle) / math.pi

    pairs = lanczos(ToeplitzOperator.of(Circle(), (n,), dtype=torch.float64), 65 * depth, 1e-9)
    by_frequency = pairs.eigenvalues[1:].reshape(-1, 2)
    assert torch.allclose(by_frequency[:, 0], by_frequency[:, 1], rtol=1e-6)
    k = torch.arange(1, len(by_frequency) + 1).to(torch.float64)
    logs = torch.stack([k.log(), torch.ones_like(k)], 1)[7:]
    slope = torch.linalg.lstsq(logs, by_frequency[7:, :1].log()).solution[0]
    assert float(slope) == pytest.approx(-2, abs=0.1)


def test_same_seed_same_numbers() -> None:
    kernel = ToeplitzOperator.of(Fourier(sigma=8), (15, 15), dtype=torch.float64)
    first, again, other = lanczos(kernel, 12), lanczos(kernel, 12), lanczos(kernel, 12, seed=1)
    assert torch.equal(first.eigenvectors, again.eigenvectors) and torch.equal(first.eigenvalues, again.eigenvalues)
    assert torch.allclose(first.eigenvalues, other.eigenvalues, rtol=1e-5)
    before = torch.random.get_rng_state()
    lanczos(kernel, 3)
    assert torch.equal(before, torch.random.get_rng_state())  # nobody else's random numbers


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    lanczos(ToeplitzOperator.of(Fourier(sigma=8), (20, 20)), 12, progress=lambda done, k: seen.append((done, k)))
    assert seen[-1] == (12, 12) and all(0 <= done <= 12 for done, _ in seen)


def test_a_negative_eigenvalue_shows() -> None:
    values = torch.linspace(3, 0.1, 400)
    values[-1] = -0.5
    assert lanczos(with_eigenvalues(values), 5).lowest < -0.1


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = with_eigenvalues(torch.linspace(1, 0, 300), torch.float32)
    with pytest.raises(ConfigError, match=r"tol must be at least 5e-07.*torch.float32"):
        lanczos(kernel, 3, 1e-9)
    with pytest.raises(ConfigError, match="k must be between 1 and 300"):
        lanczos(kernel, 301)
    with pytest.raises(ConfigError, match="symmetric"):
        lanczos(Restricted(kernel, torch.arange(5), torch.arange(1, 6)), 2)
    with pytest.raises(ConfigError, match=r"of 8 eigenpairs reached the tolerance .* within \d+ products"):
        lanczos(with_eigenvalues(torch.linspace(1, 0.999, 300)), 8, 1e-12, subspace=24, max_products=40)
    broken = Dense(torch.full((300, 300), float("nan")))
    with pytest.raises(ConfigError, match="not finite"):
        lanczos(broken, 3)
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1000.0)
    with pytest.raises(DeviceError, match="a basis of"):
        lanczos(kernel, 3)
