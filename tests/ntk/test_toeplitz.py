"""Products by FFT against the dense matrix on grids of every dimension; regular grids recognised; bad tables refused."""

from __future__ import annotations

import math

import pytest
import torch

from neuralfield.encodings import Encoding, Positional
from neuralfield.encodings import Fourier as Gauss
from neuralfield.errors import ConfigError
from neuralfield.ntk.blocked import BlockedOperator, kernel_operator
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.operator import Restricted
from neuralfield.ntk.regular import lattice, lattice_of, progression
from neuralfield.ntk.toeplitz import ToeplitzOperator, _fft_length
from tests.ntk.stationary_standin import Fourier, Moving, grid

SHAPES = [
    (1,),
    (2,),
    (7,),
    (64,),
    (97,),
    (1, 5),
    (5, 1),
    (6, 6),
    (7, 11),
    (13, 4),
    (16, 9),
    (2, 3, 4),
    (5, 5, 5),
    (1, 4, 3),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_the_dense_ones(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    kernel, x = Fourier(len(shape)), grid(*shape)
    operator = ToeplitzOperator.of(kernel, shape, dtype=dtype)
    dense = kernel.ntk(x)
    v = torch.randn(len(x), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    error = (operator @ v).to(torch.float64) - dense @ v
    # Rounding of the transforms: units of eps times the norm of what is transformed.
    allowed = 4 * torch.finfo(dtype).eps * float(dense.abs().sum(1).max()) * float(v.abs().max())
    assert float(error.abs().max()) <= allowed
    assert operator.dtype == dtype and operator.trace() == pytest.approx(float(dense.trace()), rel=1e-6)


@pytest.mark.parametrize("encoding", [Gauss(2, 16, sigma=4.0), Positional(2, 3)], ids=["fourier", "positional"])
def test_the_kernels_of_networks(encoding: Encoding) -> None:
    """The package's own kernels, whose dense path is another one than their offsets."""
    kernel, x = MLPKernel(3, w_std=1.3, b_std=0.2, encoding=encoding), grid(7, 10)
    for which, dense in (("ntk", kernel.ntk(x)), ("nngp", kernel.nngp(x))):
        operator = kernel_operator(kernel, x, which)
        assert isinstance(operator, ToeplitzOperator)
        assert float((operator.to_dense() - dense).abs().max()) <= 1e-13 * float(dense.max())
    assert isinstance(kernel_operator(MLPKernel(2), x), BlockedOperator)
    assert torch.allclose(kernel_operator(MLPKernel(2), x).to_dense(), MLPKernel(2).ntk(x), atol=1e-14)


def test_axes_are_those_of_images() -> None:
    """A kernel that reaches far in x and little in y: along a row of the image it must be wide."""

    class Wide:
        stationary = True

        def of_offsets(self, dv: torch.Tensor, which: str = "ntk") -> torch.Tensor:
            return torch.exp(-((dv / torch.tensor([1.0, 0.01], dtype=dv.dtype)) ** 2).sum(1))

    spike = torch.zeros(5, 9)
    spike[2, 4] = 1
    image = (ToeplitzOperator.of(Wide(), (5, 9)) @ spike.flatten()).reshape(5, 9)
    assert float(image[2, 0]) > 0.8 and float(image[0, 4]) < 1e-6


def test_spacing_and_lattices() -> None:
    kernel = Fourier()
    spaced = ToeplitzOperator.of(kernel, (4, 6), spacing=(0.05, 0.02), dtype=torch.float64)
    x = grid(4, 6) * torch.tensor([6 * 0.02, 4 * 0.05], dtype=torch.float64)
    assert torch.allclose(spaced.to_dense(), kernel.ntk(x), atol=1e-13)
    steps = torch.tensor([[0.03, 0.01], [-0.02, 0.05]], dtype=torch.float64)  # sheared, and one axis backwards
    index = torch.cartesian_prod(torch.arange(5), torch.arange(4)).to(torch.float64)
    sheared = ToeplitzOperator.on_lattice(kernel, (5, 4), steps, dtype=torch.float64)
    assert torch.allclose(sheared.to_dense(), kernel.ntk(index @ steps + 0.3), atol=1e-13)
    nngp = ToeplitzOperator.of(kernel, (4, 6), which="nngp", dtype=torch.float64)
    assert torch.allclose(nngp.to_dense(), kernel.nngp(grid(4, 6)), atol=1e-13)


def test_a_table_of_offsets() -> None:
    t = torch.tensor([0.5, 2.0, 5.0, 2.0, 0.5], dtype=torch.float64)
    assert torch.allclose(
        ToeplitzOperator(t).to_dense(), torch.tensor([[5, 2, 0.5], [2, 5, 2], [0.5, 2, 5]], dtype=torch.float64)
    )
    wide = ToeplitzOperator(torch.arange(4.0, dtype=torch.float64), columns=(3,))  # t(d) at index d + 2
    assert torch.allclose(wide.to_dense(), torch.tensor([[2, 1, 0], [3, 2, 1]], dtype=torch.float64), atol=1e-15)
    assert not wide.symmetric and "grid=2 by 3" in repr(wide)


def test_many_vectors_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = ToeplitzOperator.of(Fourier(), (6, 7), dtype=torch.float64)
    v = torch.randn(42, 11, dtype=torch.float64)
    whole = operator @ v
    monkeypatch.setattr("neuralfield.ntk.toeplitz._WORK", 1)
    assert torch.allclose(operator @ v, whole, atol=1e-13)


def test_sub_lattices_stay_toeplitz() -> None:
    operator = ToeplitzOperator.of(Fourier(), (9, 8), dtype=torch.float64)
    dense, index = operator.to_dense(), torch.arange(72).reshape(9, 8)
    parts = [
        index[::2, ::2],
        index[1::2, 1::2],
        index[1::2, ::2],
        index[2:5, 3:],
        index[4:5, ::2],
        index[:, 3:4],
        index[::4, ::2],
    ]
    for a in parts:
        for b in parts:
            rows, columns = a.flatten(), b.flatten()
            part = operator.restricted(rows, columns)
            assert torch.allclose(part.to_dense(), dense[rows][:, columns], atol=1e-13)
            assert part.symmetric == torch.equal(rows, columns)
    assert isinstance(operator.restricted(parts[0].flatten(), parts[1].flatten()), ToeplitzOperator)
    assert isinstance(operator.restricted(parts[0].flatten(), parts[-1].flatten()), Restricted)  # steps differ
    assert isinstance(operator.restricted(parts[0].flatten().flip(0), parts[0].flatten()), Restricted)
    again = operator.restricted(parts[0].flatten(), parts[0].flatten())
    assert torch.allclose(again.restricted(torch.arange(5), torch.arange(5)).to_dense(), again.to_dense()[:5, :5])


@pytest.mark.parametrize("shape", [(12,), (8, 8), (6, 9), (4, 5, 3)], ids=str)
def test_integer_frequencies_make_the_fft_of_one_row_exact(shape: tuple[int, ...]) -> None:
    kernel = Fourier(len(shape), whole=True)
    operator = ToeplitzOperator.of(kernel, shape, dtype=torch.float64)
    assert operator.is_periodic()
    by_frequency = operator.periodic_spectrum()
    assert by_frequency.shape == shape
    dense = torch.linalg.eigvalsh(kernel.ntk(grid(*shape)))
    assert torch.allclose(by_frequency.flatten().sort().values, dense, atol=1e-12 * float(dense.max()))
    assert ToeplitzOperator.of(kernel, shape).is_periodic()  # in float32 too


def test_eigenvalue_at_its_frequency() -> None:
    operator = ToeplitzOperator.of(Fourier(whole=True), (6, 9), dtype=torch.float64)
    r, c = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    wave = torch.cos(2 * math.pi * (2 * r / 6 - 3 * c / 9)).flatten().to(torch.float64)
    assert torch.allclose(operator @ wave, operator.periodic_spectrum()[2, -3] * wave, atol=1e-6)


def test_a_kernel_that_is_not_periodic_is_refused() -> None:
    operator = ToeplitzOperator.of(Fourier(), (8, 8), dtype=torch.float64)
    assert not operator.is_periodic()
    with pytest.raises(ConfigError, match="not periodic on this grid"):
        operator.periodic_spectrum()
    even = torch.arange(64).reshape(8, 8)
    with pytest.raises(ConfigError, match="not periodic"):
        ToeplitzOperator.of(Fourier(whole=True), (8, 8)).restricted(even[0], even[1]).periodic_spectrum()


@pytest.mark.parametrize(
    ("table", "columns", "message"),
    [
        (torch.ones(4), None, "odd lengths"),
        (torch.ones(3, 3, 3, 3), None, "1, 2 or 3 axes"),
        (torch.ones(0), None, "odd lengths"),
        (torch.tensor([1.0, 2.0, 3.0]), None, "is even"),
        (torch.tensor([1.0, float("nan"), 1.0]), None, "finite"),
        (torch.ones(3), (4,), "does not reach"),
        (torch.ones(3), (1, 2), "does not reach"),
    ],
)
def test_bad_tables(table: torch.Tensor, columns: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ToeplitzOperator(table, columns)


def test_bad_grids() -> None:
    with pytest.raises(ConfigError, match="is not stationary"):
        ToeplitzOperator.of(Moving(), (4, 4))
    with pytest.raises(ConfigError, match="one number per axis"):
        ToeplitzOperator.of(Fourier(), (4, 4), spacing=(0.1,))
    for shape in ((), (1, 2, 3, 4), (0, 3)):
        with pytest.raises(ConfigError, match="shape must"):
            ToeplitzOperator.of(Fourier(), shape)


def test_fft_lengths() -> None:
    def smooth(n: int) -> bool:
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    for least in [*range(2, 300), 1023, 1535, 4999]:
        expected = next(n for n in range(least, 2 * least + 1) if n % 2 == 0 and smooth(n))
        assert _fft_length(least) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_grids_are_recognised(dtype: torch.dtype) -> None:
    for shape in [(5,), (3, 4), (480, 7), (511, 3), (2, 3, 4)]:
        found = lattice(grid(*shape).to(dtype))
        assert found is not None and found[0] == shape
        exact = torch.diag(1 / torch.tensor(shape, dtype=torch.float64)).flip(1)
        assert torch.equal(found[1], exact)  # 1/511, not what float32 makes of it
    image = grid(8, 6).reshape(8, 6, 2).to(dtype)
    columns_first = lattice(image.transpose(0, 1).reshape(-1, 2))  # x runs slowest
    assert columns_first is not None and columns_first[0] == (6, 8) and float(columns_first[1][1, 0]) == 0
    every_other = lattice(image[1::2, ::2].reshape(-1, 2))
    assert every_other is not None and every_other[0] == (4, 3)
    assert every_other[1].tolist() == [[0, 0.25], [1 / 3, 0]]
    backwards = lattice(image.flip(0).reshape(-1, 2))
    assert backwards is not None and float(backwards[1][0, 1]) == -1 / 8
    assert lattice(image[:1, :1].reshape(1, 2)) is not None


def test_no_grid_is_recognised_where_there_is_none() -> None:
    x = grid(8, 6).float()
    assert lattice(x[:-1]) is None
    assert lattice(x[torch.randperm(48, generator=torch.Generator().manual_seed(0))]) is None
    moved = x.clone()
    moved[17, 0] += 1e-5
    assert lattice(moved) is None
    assert lattice(torch.rand(50, 2, generator=torch.Generator().manual_seed(0))) is None
    assert lattice_of(x, (6, 8)) is None and lattice_of(x, (8, 6)) is not None


def test_progressions() -> None:
    index = torch.arange(30).reshape(5, 6)
    assert progression(index[1::2, ::3].flatten(), (5, 6)) == [(1, 2, 2), (0, 3, 2)]
    assert progression(index.flatten(), (5, 6)) == [(0, 1, 5), (0, 1, 6)]
    assert progression(torch.tensor([0, 1, 3]), (5, 6)) is None
    assert progression(torch.tensor([0, 1, 7]), (5, 6)) is None
    assert progression(torch.tensor([1, 0]), (5, 6)) is None
    assert progression(torch.tensor([0, 0]), (5, 6)) is None
