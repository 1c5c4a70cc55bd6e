"""Stationary kernels on regular grids: exact products by FFT, at the cost of a few convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuralfield.checks import choice, integer, number
from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import finite
from neuralfield.ntk.operator import KernelOperator
from neuralfield.ntk.regular import progression, unravel

_WORK = 2**25  # bytes of one batch of embedded vectors: larger ones leave the cache, smaller ones waste threads


@runtime_checkable
class StationaryKernel(Protocol):
    """What :class:`ToeplitzOperator` needs of a kernel; every stationary kernel of the package has it."""

    @property
    def stationary(self) -> bool:
        """Whether it depends on the difference of points alone."""

    def of_offsets(self, dv: Tensor, which: str = "ntk") -> Tensor:
        """k(x - x') for offsets dv, [m, D] -> [m]."""


class ToeplitzOperator(KernelOperator):
    r"""$K_{ij} = t(i - j)$ for multi-indices i, j of a regular grid of 1, 2 or 3 axes.

    A product is a linear convolution, and that is a circular one on a grid of at least $n_a + m_a - 1$ points along each
    axis (circulant embedding: Golub & Van Loan 2013, section 4.8.2; Dietrich & Newsam 1997). This is exact. Treating
    the kernel itself as periodic is not: single eigenvalues are then wrong by factors.

    Vectors run over the grid in row-major order: an image [H, W] flattened. Products are fastest on transposed
    tensors (``v.T`` of a contiguous [k, n]), whose grids lie in one piece.

    **Arguments**

    - `table`: t at every offset, [n_1 + m_1 - 1, ..., n_D + m_D - 1]; offset d of an axis at index d + m - 1. For a
      square operator [2 n_1 - 1, ...] with t(0) in the middle, and t(d) = t(-d).
    - `columns`: m, the grid of the vectors; None means the same as the rows'.
    - `name`: what the repr calls the kernel.

    **Attributes**

    - `symbol`: what transforms of vectors are multiplied by; see :meth:`transform`. `lengths`: of the circle along each axis.

    Raises ConfigError for sizes that do not fit, for numbers that are not finite, and where t(d) and t(-d) differ by
    more than rounding although the grids of rows and columns are the same.
    """

    def __init__(
        self, table: Float[Tensor, "*offsets"], columns: Sequence[int] | None = None, name: str | None = None
    ) -> None:
        sizes = tuple(table.shape)
        if table.ndim not in (1, 2, 3) or table.numel() == 0 or (columns is None and any(s % 2 == 0 for s in sizes)):
            raise ConfigError(
                "table must have 1, 2 or 3 axes of odd lengths 2 n - 1, the offset 0 in the middle (or give columns); "
                f"got shape {sizes}"
            )
        self.columns_shape = tuple((s + 1) // 2 for s in sizes) if columns is None else _shape("columns", columns)
        if len(self.columns_shape) != len(sizes) or any(m > s for m, s in zip(self.columns_shape, sizes, strict=True)):
            raise ConfigError(f"a table of shape {sizes} does not reach over columns of shape {self.columns_shape}")
        self.rows_shape = tuple(s - m + 1 for s, m in zip(sizes, self.columns_shape, strict=True))
        self.table, self.name = finite("table", table), name
        self._symmetric = columns is None
        if self.symmetric:
            _refuse_uneven(table)
        self.shape = (math.prod(self.rows_shape), math.prod(self.columns_shape))
        self.dtype, self.device = table.dtype, table.device
        self.lengths = tuple(_fft_length(s) for s in sizes)
        self.symbol = self._transformed()

    @classmethod
    def of(
        cls,
        kernel: StationaryKernel,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
        which: str = "ntk",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> ToeplitzOperator:
        r"""The kernel of all points of a grid.

        Array axes are the coordinates in reverse, as in images: row r and column c of [H, W] sit at
        $x = (c + 1/2)/W,\ y = (r + 1/2)/H$; a volume is [depth, H, W].

        **Arguments**

        - `kernel`: a stationary one.
        - `shape`: of the grid, for instance (H, W).
        - `spacing`: distance between neighbours along each axis of `shape`, in units of the unit cube; None means
          1 / size.
        - `which`: "ntk" or "nngp".
        - `dtype`, `device`: of the products.
        """
        shape = _shape("shape", shape)
        spacing = [1 / size for size in shape] if spacing is None else [number("spacing", s) for s in spacing]
        if len(spacing) != len(shape):
            raise ConfigError(f"spacing needs one number per axis of shape {shape}; got {len(spacing)}")
        steps = torch.diag(torch.tensor(spacing, dtype=torch.float64)).flip(1)
        return cls.on_lattice(kernel, shape, steps, which, dtype, device)

    @classmethod
    def on_lattice(
        cls,
        kernel: StationaryKernel,
        shape: Sequence[int],
        steps: Float[Tensor, "axes in_dim"],
        which: str = "ntk",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> ToeplitzOperator:
        """The kernel of the points x_0 + i_1 steps[0] + i_2 steps[1] + ...: any order of axes, any shear.

        **Arguments**

        - `shape`: how many points along each axis.
        - `steps`: what one step along each axis adds to the coordinates.
        - others: as in :meth:`of`.
        """
        choice("which", which, ("ntk", "nngp"))
        if not getattr(kernel, "stationary", False):
            raise ConfigError(
                f"{kernel!r} is not stationary, so its matrix on a grid is not Toeplitz; use "
                "ntk.kernel_operator(kernel, x), which computes it in blocks"
            )
        sizes = [2 * size - 1 for size in _shape("shape", shape)]
        steps = steps.to(device, torch.float64)
        # t(d) = t(-d): the second half of the raveled table is the first one reversed, which makes it even exactly.
        half = torch.arange(math.prod(sizes) // 2 + 1, device=device)
        index = unravel(half, sizes) - torch.tensor([size // 2 for size in sizes], device=device)
        offsets = index.to(torch.float64) @ steps
        # float64 whatever the products' dtype: phases of many turns lose digits in float32, and this is done once.
        values = torch.cat([kernel.of_offsets(part, which).detach().to(dtype) for part in offsets.split(2**14)])
        table = torch.cat([values, values[:-1].flip(0)]).reshape(sizes)
        return cls(table, name=f"{which} of {kernel!r}")

    @property
    def symmetric(self) -> bool:
        return self._symmetric

    @property
    def points(self) -> int:
        """Of the circle: the product of its lengths."""
        return math.prod(self.lengths)

    def matmat(self, v: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        r"""$K V$, a view of a contiguous [k, rows]; some columns at a time, so that memory stays small."""
        count = v.shape[1]
        out = torch.empty(count, self.shape[0], dtype=self.dtype, device=self.device)
        step = max(1, _WORK // (2 * self.dtype.itemsize * self.symbol.numel()))
        for start in range(0, count, step):
            part = v[:, start : start + step].T.reshape(-1, *self.columns_shape)
            out[start : start + step] = self._convolved(part).reshape(-1, self.shape[0])
        return out.T

    def diagonal(self) -> Float[Tensor, " n"]:
        self._square("diagonal")
        if self.symmetric:
            return self.table.flatten()[self.table.numel() // 2].expand(self.shape[0]).clone()
        return super().diagonal()

    def trace(self) -> float:
        if self.symmetric:
            return self.shape[0] * float(self.table.flatten()[self.table.numel() // 2])
        return super().trace()

    def frobenius(self) -> float:
        r"""$\lVert K \rVert_F$, exact: each offset counted as often as it occurs."""
        total = self.table.to(torch.float64) ** 2
        for axis, (n, m) in enumerate(zip(self.rows_shape, self.columns_shape, strict=True)):
            d = torch.arange(-(m - 1), n, device=self.device)
            count = torch.minimum(torch.minimum(n - d, m + d), torch.tensor(min(n, m), device=self.device))
            total = (total.movedim(axis, -1) * count).movedim(-1, axis)
        return math.sqrt(float(total.sum()))

    def restricted(self, rows: Int[Tensor, " r"], columns: Int[Tensor, " c"]) -> KernelOperator:
        """The submatrix; Toeplitz itself, and cheaper, for sub-lattices of equal steps (every other pixel)."""
        found = [progression(i, s) for i, s in ((rows, self.rows_shape), (columns, self.columns_shape))]
        if found[0] is None or found[1] is None:
            return super().restricted(rows, columns)
        table, counts = self.table, []
        for axis, (row, column) in enumerate(zip(*found, strict=True)):
            (first, step, n), (other_first, other_step, m) = row, column
            step = step if n > 1 else other_step  # a single row or column fits any step
            if m > 1 and other_step != step:
                return super().restricted(rows, columns)
            lowest = first - other_first - (m - 1) * step + self.columns_shape[axis] - 1
            table = table.narrow(axis, lowest, (n + m - 2) * step + 1)
            table = table.index_select(axis, torch.arange(0, table.shape[axis], step, device=self.device))
            counts.append(m)
        same = torch.equal(rows, columns) and self.symmetric
        return ToeplitzOperator(table.contiguous(), None if same else counts, self.name)

    def is_periodic(self, tolerance: float | None = None) -> bool:
        """Whether t(d) = t(d - n) for all offsets and axes to `tolerance` times the largest; None means 64 roundings."""
        return self.symmetric and self._aperiodicity() <= self._periodic_tolerance(tolerance)

    def periodic_spectrum(self, tolerance: float | None = None) -> Float[Tensor, "*grid"]:
        r"""All eigenvalues of a kernel that is periodic on the grid, $\lambda_f = \sum_d t(d)\, e^{-2\pi i f \cdot d / n}$.

        Such are kernels of integer frequencies, positional encodings without $\pi$, and circles. Eigenvectors are the
        waves $\cos, \sin\, 2\pi f \cdot i / n$.

        **Returns**

        the eigenvalue of frequency f at index f, in the order of ``torch.fft.fftfreq``, float64, of the grid's shape.

        Raises ConfigError if the kernel is not periodic: the FFT of a row is no approximation of its spectrum then.
        """
        gap, allowed = self._aperiodicity() if self.symmetric else math.inf, self._periodic_tolerance(tolerance)
        if gap > allowed:
            raise ConfigError(
                f"the kernel is not periodic on this grid (opposite offsets differ by {gap:.1e} of its largest value, "
                f"more than {allowed:.1e}), so an FFT of one row would give wrong eigenvalues, some of them negative; "
                "use ntk.spectrum(operator, k=100), or integer frequencies"
            )
        row = self.table.to(torch.float64)[tuple(slice(n - 1, None) for n in self.rows_shape)]
        return torch.fft.fftn(row).real

    def _aperiodicity(self) -> float:
        """The largest |t(d) - t(d - n)|, as a part of the largest |t|."""
        gap = 0.0
        for axis, n in enumerate(self.rows_shape):
            if n > 1:
                after, before = self.table.narrow(axis, n, n - 1), self.table.narrow(axis, 0, n - 1)
                gap = max(gap, float((after - before).abs().max()))
        return gap / max(float(self.table.abs().max()), torch.finfo(self.dtype).tiny)

    def _periodic_tolerance(self, tolerance: float | None) -> float:
        return 64 * torch.finfo(self.dtype).eps if tolerance is None else number("tolerance", tolerance, 0)

    def _transformed(self) -> Tensor:
        """The Fourier transform of the table laid around the circle: offset d at index d modulo the length."""
        # float64 here, once, keeps the rounding of a float32 product to that of its own transforms.
        circle = torch.zeros(self.lengths, dtype=torch.float64, device=self.device)
        circle[tuple(slice(size) for size in self.table.shape)] = self.table.to(torch.float64)
        circle = circle.roll([1 - m for m in self.columns_shape], tuple(range(circle.ndim)))
        return torch.fft.rfftn(circle).to(torch.complex64 if self.dtype == torch.float32 else torch.complex128)

    def _convolved(self, v: Float[Tensor, "k ..."]) -> Float[Tensor, "k ..."]:
        return self.inverse(self.transform(v).mul_(self.symbol))

    def transform(self, v: Float[Tensor, "k ..."]) -> Tensor:
        """Fourier transforms of k vectors [k, *columns_shape] on the longer grid, complex.

        Axis by axis, so that rows of zeros are never transformed, nor in :meth:`inverse` results that are thrown away.
        """
        z = torch.fft.rfft(v, n=self.lengths[-1], dim=-1)
        for axis in range(v.ndim - 2, 0, -1):
            z = torch.fft.fft(z, n=self.lengths[axis - 1], dim=axis)
        return z

    def inverse(self, z: Tensor) -> Float[Tensor, "k ..."]:
        """The vectors [k, *rows_shape] that transforms times :attr:`symbol` belong to."""
        for axis in range(1, z.ndim - 1):
            z = torch.fft.ifft(z, dim=axis).narrow(axis, 0, self.rows_shape[axis - 1])
        return torch.fft.irfft(z, n=self.lengths[-1], dim=-1)[..., : self.rows_shape[-1]]

    def __repr__(self) -> str:
        grid = " x ".join(map(str, self.rows_shape))
        by = "" if self.symmetric else f" by {' x '.join(map(str, self.columns_shape))}"
        name = "" if self.name is None else f"{self.name}, "
        return f"ToeplitzOperator({name}grid={grid}{by}, dtype={self.dtype}, device={self.device})"


def _shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(integer(name, size, 1) for size in shape)
    if len(sizes) not in (1, 2, 3):
        raise ConfigError(f"{name} must have 1, 2 or 3 axes, such as (height, width); got {tuple(shape)}")
    return sizes


def _refuse_uneven(table: Tensor) -> None:
    flat = table.detach().flatten()
    gap, allowed = (flat - flat.flip(0)).abs(), 64 * torch.finfo(table.dtype).eps * flat.abs().max()
    if bool((gap > allowed).any()):
        raise ConfigError(
            f"a kernel's table is even, t(d) = t(-d); this one differs by up to {float(gap.max()):.3g} of "
            f"{float(flat.abs().max()):.3g} (is the offset 0 in the middle?)"
        )


def _fft_length(least: int) -> int:
    """The smallest even number of factors 2, 3 and 5 that is not below `least`; those have fast transforms."""
    if least == 1:
        return 1
    best = 2 ** math.ceil(math.log2(least))
    for three, five in itertools.product(range(20), range(14)):
        odd = 3**three * 5**five
        if odd < best:
            best = min(best, odd * 2 ** max(1, math.ceil(math.log2(least / odd))))
    return best
