"""Matrix-free dynamics against the dense ones, over many decades of time."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from neuralfield.errors import ConfigError, DeviceError
from neuralfield.ntk import memory
from neuralfield.ntk.dynamics import Dynamics, predict
from neuralfield.ntk.krylov import LanczosRun, evolve, largest_eigenvalue
from neuralfield.ntk.modes import Descent
from neuralfield.ntk.operator import Dense, KernelOperator
from neuralfield.ntk.solve import conjugate_gradients

N, M = 400, 60
TIMES = torch.logspace(-4, 8, 13, dtype=torch.float64)


class Products(KernelOperator):
    """A matrix that gives its products alone, and counts the vectors."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.count = matrix, 0
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def matmat(self, v: Tensor) -> Tensor:
        self.count += v.shape[1]
        return self.matrix @ v


@pytest.fixture(scope="module")
def points() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(N + M, 2, generator=generator, dtype=torch.float64)
    y = torch.stack(
        [torch.sin(9 * x[:, 0]) * x[:, 1], (x[:, 0] > 0.5).double(), torch.randn(N + M, generator=generator)], 1
    )
    return x, y.double()


@pytest.fixture(scope="module")
def whole(points: tuple[Tensor, Tensor]) -> Tensor:
    """A Matern kernel (smoothness 1/2) of condition 2e4, all points."""
    return torch.exp(-torch.cdist(points[0], points[0]) / 0.3)


@pytest.mark.parametrize(
    ("method", "momentum", "ridge"), [("flow", 0.0, 0.0), ("flow", 0.9, 0.0), ("gd", 0.0, 0.05), ("gd", 0.9, 0.0)]
)
def test_equals_dense(points: tuple[Tensor, Tensor], whole: Tensor, method: str, momentum: float, ridge: float) -> None:
    """Twelve decades of time and infinity in one call, on training and test points, within the tolerance."""
    y, times = points[1][:N], [*TIMES.tolist(), math.inf]
    if method == "gd":
        times = [0.0, 1.0, 10.0, 1e3, 1e5, math.inf]
    step = 0.01
    options = {"method": method, "momentum": momentum, "ridge": ridge, "learning_rate": step}
    start = {"f0": 0.1 * y.flip(0), "f0_test": torch.ones(M, 3, dtype=torch.float64)}
    dense = predict(whole[:N, :N], whole[N:, :N], y, times, **start, **options)
    operator = Products(whole)
    train, test = torch.arange(N), torch.arange(N, N + M)
    pair = operator.restricted(train, train), operator.restricted(test, train)
    found = predict(*pair, y, times, **start, **options, tolerance=1e-8)
    size = (y - start["f0"]).norm()
    for index in range(len(times)):
        assert (found.train[index] - dense.train[index]).norm() < 2e-8 * size
        assert (found.test[index] - dense.test[index]).norm() < 2e-8 * size
    torch.testing.assert_close(found.train_mse, dense.train_mse, rtol=1e-6, atol=1e-10)
    assert 0 < found.error_estimate <= 1e-8 and found.solver == "lanczos, conjugate gradients"
    assert found.max_learning_rate == pytest.approx(dense.max_learning_rate, rel=1e-10)
    assert f"{found.error_estimate:.1e}" in repr(found)


def test_early_stop_costs_little(points: tuple[Tensor, Tensor], whole: Tensor) -> None:
    """Short times need few products, and the true error stays below the estimate."""
    v, exact = points[1][:N], Dynamics(whole[:N, :N]).predict
    steps = []
    for time in (1e-3, 0.1, 10.0):
        operator = Products(whole[:N, :N])
        found = evolve(operator, v, torch.tensor([time], dtype=torch.float64), tolerance=1e-4)
        error = float((v - found.left[0] - exact(v, time).train).norm() / v.norm())
        assert error <= float(found.error_estimate[0]) <= 1e-4
        assert operator.count == 3 * found.steps
        steps.append(found.steps)
    assert steps[0] <= 12 and steps[0] < steps[1] < steps[2] < N / 3


def test_full_orthogonalisation_pays(points: tuple[Tensor, Tensor], whole: Tensor) -> None:
    """Without it the same accuracy needs more than twice the products once lambda_max t is large."""
    v, late = points[1][:N], torch.tensor([1e4], dtype=torch.float64)
    kernel, test = whole[:N, :N], whole[N:, :N]
    exact = Dynamics(kernel, test).predict(v, 1e4).test
    full, short = (evolve(Dense(kernel), v, late, tolerance=1e-6, orthogonalize=flag) for flag in (True, False))
    for found in (full, short):
        assert float((test @ found.gained[0] - exact).norm()) < 2e-6 * float(v.norm())
    assert 2 * full.steps < short.steps
    run = LanczosRun(Dense(whole[:N, :N]), v)
    run.extend(150)
    gram = run.basis @ run.basis.mT
    assert (gram - torch.eye(151, dtype=torch.float64)).abs().max() < 1e-13


def test_float32(points: tuple[Tensor, Tensor], whole: Tensor) -> None:
    kernel, y = whole[:N, :N].float(), points[1][:N].float()
    dense = predict(kernel, whole[N:, :N].float(), y, [0.01, 1.0, 100.0])
    found = predict(Products(kernel), Products(whole[N:, :N].float()), y, [0.01, 1.0, 100.0])
    assert found.train.dtype == torch.float32
    assert (found.train - dense.train).norm() < 3e-5 * y.norm() and (found.test - dense.test).norm() < 3e-4 * y.norm()


def test_exact_after_few_steps() -> None:
    """A kernel of three distinct eigenvalues: the basis ends after three vectors, and a zero column costs nothing."""
    basis = torch.linalg.qr(torch.randn(50, 50, generator=torch.Generator().manual_seed(0)).double())[0]
    values = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64).repeat(17)[:50]
    kernel = basis @ torch.diag(values) @ basis.T
    v = torch.stack([basis.sum(1), torch.zeros(50, dtype=torch.float64)], 1)
    found = evolve(Dense((kernel + kernel.T) / 2), v, torch.tensor([0.7, 30.0], dtype=torch.float64), tolerance=1e-12)
    assert found.steps <= 8
    for index, time in enumerate((0.7, 30.0)):
        torch.testing.assert_close(found.left[index, :, 0], basis @ torch.exp(-values * time), rtol=0, atol=1e-13)
    assert not found.left[:, :, 1].any() and not found.gained[:, :, 1].any()


def test_conjugate_gradients(points: tuple[Tensor, Tensor], whole: Tensor) -> None:
    """The solution of the linear system; the preconditioner saves most of the products."""
    kernel, b = whole[:N, :N], points[1][:N]
    steps = {}
    for ridge in (0.0, 0.1):
        exact = torch.linalg.solve(kernel + ridge * torch.eye(N, dtype=torch.float64), b)
        for rank in (0, 64):
            found = conjugate_gradients(Dense(kernel), b, ridge, tolerance=1e-10, rank=rank)
            assert found.residual < 1e-10
            assert (found.x - exact).norm() < 1e-5 * exact.norm() and (
                kernel @ (found.x - exact)
            ).norm() < 1e-9 * b.norm()
            steps[ridge, rank] = found.steps
        assert steps[ridge, 64] < 0.5 * steps[ridge, 0]
    assert steps[0.1, 0] < steps[0.0, 0]


def test_largest_eigenvalue(whole: Tensor) -> None:
    assert largest_eigenvalue(Products(whole)) == pytest.approx(float(torch.linalg.eigvalsh(whole)[-1]), rel=1e-12)


def test_says_when_it_did_not_converge(points: tuple[Tensor, Tensor], whole: Tensor) -> None:
    y = points[1][:N]
    with pytest.warns(
        RuntimeWarning, match=r"Lanczos stopped after 20 products .* at t = 1e\+06, above tolerance=1e-05"
    ):
        found = predict(Products(whole[:N, :N]), None, y, [1.0, 1e6], max_iterations=20)
    assert found.error_estimate > 1e-3
    with pytest.warns(RuntimeWarning, match="conjugate gradients stopped after 5 products"):
        predict(Products(whole[:N, :N]), None, y, math.inf, max_iterations=5)


def test_bad_input(points: tuple[Tensor, Tensor], whole: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    y, kernel = points[1][:N], whole[:N, :N]
    operator = Products(whole)
    rows = torch.arange(N)
    with pytest.raises(ConfigError, match=r"diverges with learning_rate=1: the largest stable one is 0\.0"):
        predict(Products(kernel), None, y, 5, method="gd")
    with pytest.raises(ConfigError, match="with themselves"):
        predict(operator.restricted(rows, rows.flip(0)), None, y, 1.0)
    with pytest.raises(ConfigError, match=r"\[m, 400\].*\(400, 460\)"):
        predict(Products(kernel), Products(whole[:N]), y, 1.0)
    with pytest.raises(ConfigError, match=r"y must have the shape \[400\] or \[400, C\]"):
        predict(Products(kernel), None, y[1:], 1.0)
    with pytest.raises(ConfigError, match="not positive semidefinite"):
        predict(Products(kernel - 5 * torch.eye(N, dtype=torch.float64)), None, y, 1.0)
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1e5)
    with pytest.raises(DeviceError, match=r"Lanczos basis of 72 vectors for 3 outputs of 400 points"):
        predict(Products(kernel), None, y, 1e4)


def test_large_matrices_are_not_factorised(
    points: tuple[Tensor, Tensor], whole: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralfield.ntk.dynamics.DENSE_LIMIT", 100)
    found = predict(whole[:N, :N], whole[N:, :N], points[1][:N], 1.0)
    assert found.solver == "lanczos" and found.test.shape == (M, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predict(Dense(whole[:50, :50]), Products(whole[N:, :50]), points[1][:50], 1.0).solver == "eigh"


def test_speed_of_the_law(points: tuple[Tensor, Tensor], whole: Tensor) -> None:
    """`speed` multiplies time: e^{-s K} v is the flow at time s."""
    v, operator = points[1][:N], Dense(whole[:N, :N])
    a = evolve(operator, v, torch.tensor([2.0]).double(), speed=3.0, tolerance=1e-10).left[0]
    b = evolve(operator, v, torch.tensor([6.0]).double(), Descent(), tolerance=1e-10).left[0]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    torch.testing.assert_close(a, torch.linalg.matrix_exp(-6.0 * whole[:N, :N]) @ v, rtol=0, atol=1e-9)
