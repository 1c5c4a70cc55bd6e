"""The contract of every kernel operator: products, diagonal, trace, submatrices, SciPy, against the dense matrix."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import cg, eigsh

from neuralfield.errors import ConfigError, DeviceError
from neuralfield.ntk import memory
from neuralfield.ntk.blocked import BlockedOperator, kernel_operator
from neuralfield.ntk.operator import Dense, KernelOperator, Restricted, as_operator
from neuralfield.ntk.toeplitz import ToeplitzOperator
from tests.ntk.stationary_standin import Fourier, Moving, grid

SHAPE = (6, 7)
X = grid(*SHAPE)
K = Fourier().ntk(X)
MOVING = Moving().ntk(X)
SOME = torch.tensor([3, 1, 4, 15, 9, 26, 5, 35, 8])
OTHERS = torch.tensor([0, 2, 4, 6, 33, 17, 40])


class Products(KernelOperator):
    """Knows nothing but its products: tests what the base class makes of them."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.shape = matrix, (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def matmat(self, v: torch.Tensor) -> torch.Tensor:
        return self.matrix @ v


@cache
def cases(dtype: torch.dtype) -> dict[str, tuple[KernelOperator, torch.Tensor]]:
    """Every operator with the matrix that it stands for."""
    toeplitz = ToeplitzOperator.of(Fourier(), SHAPE, dtype=dtype)
    blocked = BlockedOperator(Moving().ntk, X.to(dtype), block=10, budget=0)
    kept = BlockedOperator(Moving().ntk, X.to(dtype), block=16, budget=1e9)
    other = BlockedOperator(Moving().ntk, X.to(dtype), X[OTHERS].to(dtype), block=10)
    even, odd = (
        torch.arange(42).reshape(SHAPE)[::2, ::2].flatten(),
        torch.arange(42).reshape(SHAPE)[1::2, 1::2].flatten(),
    )
    return {
        "dense": (Dense(K.to(dtype)), K),
        "products": (Products(K.to(dtype)), K),
        "rectangular": (Products(K[:5].to(dtype)), K[:5]),
        "toeplitz": (toeplitz, K),
        "blocked": (blocked, MOVING),
        "blocked, kept": (kept, MOVING),
        "blocked, rectangular": (other, MOVING[:, OTHERS]),
        "restricted": (Restricted(toeplitz, SOME, SOME), K[SOME][:, SOME]),
        "restricted, rectangular": (toeplitz.restricted(SOME, OTHERS), K[SOME][:, OTHERS]),
        "restricted, square but not symmetric": (Restricted(toeplitz, SOME[:7], OTHERS), K[SOME[:7]][:, OTHERS]),
        "sub-lattice": (toeplitz.restricted(even, even), K[even][:, even]),
        "sub-lattices": (toeplitz.restricted(odd, even), K[odd][:, even]),
        "blocked, restricted": (blocked.restricted(SOME, SOME), MOVING[SOME][:, SOME]),
        "recognised grid": (kernel_operator(Fourier(), X.to(dtype)), K),
        "no grid": (kernel_operator(Fourier(), X[SOME].to(dtype)), K[SOME][:, SOME]),
        "not stationary": (kernel_operator(Moving(), X.to(dtype)), MOVING),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", list(cases(torch.float64)))
class TestContract:
    def operator(self, name: str, dtype: torch.dtype) -> tuple[KernelOperator, torch.Tensor, Callable[..., None]]:
        operator, matrix = cases(dtype)[name]

        def close(a: torch.Tensor, b: torch.Tensor) -> None:
            allowed = (2e-5 if dtype == torch.float32 else 1e-13) * float(b.abs().max())
            assert a.shape == b.shape and float((a.to(torch.float64) - b).abs().max()) <= allowed

        return operator, matrix, close

    def test_products(self, name: str, dtype: torch.dtype) -> None:
        operator, matrix, close = self.operator(name, dtype)
        assert operator.shape == tuple(matrix.shape) and operator.dtype == dtype
        v = torch.randn(matrix.shape[1], 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for _ in range(2):  # blocks may have been kept
            close(operator @ v, matrix @ v)
        close(operator @ v[:, 0], matrix @ v[:, 0])
        close(operator @ v.T.contiguous().T, matrix @ v)
        close(operator @ v[:, :1], matrix @ v[:, :1])
        assert (operator @ v[:, :0]).shape == (operator.shape[0], 0)
        product = operator @ v.numpy()[:, ::-1]
        assert isinstance(product, np.ndarray)
        close(torch.from_numpy(product), matrix @ v.flip(1))
        frozen = v.numpy().copy()
        frozen.flags.writeable = False
        close(torch.from_numpy(operator @ frozen), matrix @ v)

    def test_dense_diagonal_and_trace(self, name: str, dtype: torch.dtype) -> None:
        operator, matrix, close = self.operator(name, dtype)
        close(operator.to_dense(), matrix)
        if matrix.shape[0] == matrix.shape[1]:
            close(operator.diagonal(), matrix.diagonal())
            assert operator.trace() == pytest.approx(
                float(matrix.trace()), rel=2e-6 if dtype == torch.float32 else 1e-13
            )
        else:
            with pytest.raises(ConfigError, match="square"):
                operator.diagonal()

    def test_restricted(self, name: str, dtype: torch.dtype) -> None:
        operator, matrix, close = self.operator(name, dtype)
        rows, columns = torch.tensor([4, 0, 2]), torch.tensor([1, 3])
        close((operator.restricted(rows, columns)).to_dense(), matrix[rows][:, columns])

    def test_symmetric(self, name: str, dtype: torch.dtype) -> None:
        operator, matrix, _ = self.operator(name, dtype)
        assert operator.symmetric == (matrix.shape[0] == matrix.shape[1] and torch.allclose(matrix, matrix.T))

    def test_frobenius(self, name: str, dtype: torch.dtype) -> None:
        operator, matrix, _ = self.operator(name, dtype)
        if hasattr(operator, "frobenius"):
            assert operator.frobenius() == pytest.approx(float(matrix.norm()), rel=2e-6)

    def test_scipy(self, name: str, dtype: torch.dtype) -> None:
        operator, matrix, close = self.operator(name, dtype)
        linear = operator.to_scipy()
        v = np.random.default_rng(0).standard_normal((matrix.shape[1], 3))
        assert linear.dtype == np.dtype(str(dtype).removeprefix("torch.")) and linear.shape == operator.shape
        close(torch.from_numpy(linear.matvec(v[:, 0])), matrix @ torch.from_numpy(v[:, 0]))
        close(torch.from_numpy(linear.matmat(v)), matrix @ torch.from_numpy(v))
        w = v[:, 0] if operator.symmetric else np.ones(matrix.shape[0])
        if operator.symmetric:
            close(torch.from_numpy(linear.rmatvec(w)), matrix.T @ torch.from_numpy(w))
        else:  # a wrong adjoint would be worse than none
            with pytest.raises(NotImplementedError):
                linear.rmatvec(w)

    def test_a_wrong_shape_is_refused(self, name: str, dtype: torch.dtype) -> None:
        operator, _, _ = self.operator(name, dtype)
        for bad in (torch.zeros(operator.shape[1] + 1), torch.zeros(operator.shape[1], 1, 1), "vector"):
            with pytest.raises(ConfigError, match=rf"takes \[{operator.shape[1]}\]"):
                operator @ bad


@pytest.mark.parametrize("name", ["dense", "toeplitz", "blocked", "restricted", "products"])
def test_scipy_solvers(name: str) -> None:
    operator, matrix = cases(torch.float64)[name]
    values, _ = eigsh(operator.to_scipy(), k=5, v0=np.ones(matrix.shape[0]))
    assert np.allclose(np.sort(values), torch.linalg.eigvalsh(matrix)[-5:].numpy(), rtol=1e-10)
    y = np.linspace(-1, 1, matrix.shape[0])
    solution, info = cg(operator.to_scipy(), y, rtol=1e-10, maxiter=2000)
    assert info == 0 and np.allclose(matrix.numpy() @ solution, y, atol=1e-7)


def test_as_operator() -> None:
    operator = as_operator(K)
    assert isinstance(operator, Dense) and as_operator(operator) is operator
    assert "Dense(shape=(42, 42), dtype=torch.float64" in repr(operator)


def test_to_dense_refuses_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1000.0)
    with pytest.raises(DeviceError, match="42 x 42 kernel in float64"):
        ToeplitzOperator.of(Fourier(), SHAPE, dtype=torch.float64).to_dense()


def test_blocks_are_kept_within_the_budget() -> None:
    calls = []

    def function(x1: torch.Tensor, x2: torch.Tensor | None) -> torch.Tensor:
        calls.append(None if x2 is None else len(x2))
        return Moving().ntk(x1, x2)

    v = torch.ones(42, 1, dtype=torch.float64)
    none = BlockedOperator(function, X, block=14, budget=0)
    none @ v, none @ v
    assert len(calls) == 2 * 6 and calls.count(None) == 2 * 3  # three diagonal blocks, three above them
    calls.clear()
    one = BlockedOperator(function, X, block=14, budget=14 * 14 * 8)
    one @ v, one @ v
    assert len(calls) == 6 + 5
    calls.clear()
    every = BlockedOperator(function, X, block=14, budget=1e6)
    every @ v, every @ v
    assert len(calls) == 6


def test_kernel_operator_picks_the_cheapest() -> None:
    assert isinstance(kernel_operator(Fourier(), X), ToeplitzOperator)
    assert isinstance(kernel_operator(Fourier(), X.float()), ToeplitzOperator)
    assert isinstance(kernel_operator(Moving(), X), BlockedOperator)
    assert isinstance(kernel_operator(Fourier(), X + 1e-6 * torch.rand(42, 2, dtype=torch.float64)), BlockedOperator)
    assert torch.equal(kernel_operator(Fourier(), X, "nngp").diagonal(), torch.ones(42, dtype=torch.float64))
    given = kernel_operator(Fourier(), X, grid=SHAPE)
    assert isinstance(given, ToeplitzOperator) and given.rows_shape == SHAPE


def test_kernel_operator_refuses() -> None:
    with pytest.raises(ConfigError, match=r"regular grid of shape \(7, 6\)"):
        kernel_operator(Fourier(), X, grid=(7, 6))
    with pytest.raises(ConfigError, match="finite"):
        kernel_operator(Fourier(), torch.full((4, 2), float("nan")))
    with pytest.raises(ConfigError, match="which"):
        kernel_operator(Fourier(), X, "both")
