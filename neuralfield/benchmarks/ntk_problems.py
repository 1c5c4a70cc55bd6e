"""What `benchmark.py ntk` works on, made the same way wherever it is timed or its memory measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from neuralfield.benchmarks.ntk_peers import contraction, product_by_autograd
from neuralfield.encodings import Fourier
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk.empirical import empirical_ntk
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.ntk_operator import NTKOperator

W_STD, B_STD = 2**0.5, 0.1
OUTPUTS = 3
_CHECKED = 24  # points at which a kernel is compared with another way to compute it


@dataclass(frozen=True)
class Sizes:
    """Points, widths, counts. The defaults are what is measured; tests take small ones.

    - `kernel`: points of the infinite-width kernel; `dimensions` of each.
    - `width`, `depth`, `features`: hidden layers of the field and of the kernels, numbers of the Fourier encoding.
    - `empirical`: points of the finite-width kernels, `contraction`: those of torch.func's.
    - `side`: of the image whose pixels are the points of the product.
    - `grid`, `eigenpairs`: of the spectrum.
    - `prediction`: training points, and as many to test; `times`: how many.
    - `large_empirical`, `large_grid`: with --large.
    """

    kernel: int = 2048
    dimensions: int = 256
    width: int = 256
    depth: int = 4
    features: int = 256
    empirical: tuple[int, ...] = (512, 2048)
    contraction: int = 512
    side: int = 512
    grid: tuple[int, int] = (256, 256)
    eigenpairs: int = 100
    prediction: int = 1024
    times: int = 16
    large_empirical: int = 32768
    large_grid: tuple[int, int] = (512, 768)


@dataclass(frozen=True)
class InfiniteWidth:
    """The tangent kernel of an infinitely wide ReLU network at normal points."""

    sizes: Sizes
    n: int
    dtype: torch.dtype
    device: torch.device

    @cached_property
    def x(self) -> Tensor:
        """Points, float32 numbers in any dtype, so that all dtypes speak of the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.n, self.sizes.dimensions, generator=generator).to(self.device, self.dtype)

    @cached_property
    def kernel(self) -> MLPKernel:
        return MLPKernel(self.sizes.depth, "relu", W_STD, B_STD)

    def prepare(self) -> None:
        """Make the inputs."""
        assert self.x is not None and self.kernel is not None

    def run(self) -> Tensor:
        """The kernel."""
        return self.kernel.ntk(self.x)

    def check(self, result: Tensor) -> float:
        """The largest deviation from float64, as a part of the largest entry."""
        return deviation(result, replace(self, dtype=torch.float64).run())


@dataclass(frozen=True)
class FiniteWidth:
    """A field at its initial weights, and points of the unit square."""

    sizes: Sizes
    n: int
    dtype: torch.dtype
    device: torch.device

    @cached_property
    def field(self) -> Field:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoding = Fourier(2, self.sizes.features // 2, sigma=10.0)
            network = MLP(encoding.out_dim, OUTPUTS, self.sizes.width, self.sizes.depth, output_scale=1.0)
        return Field(encoding, network).to(self.device, self.dtype)

    @cached_property
    def x(self) -> Tensor:
        """Points, float32 numbers in any dtype."""
        return torch.rand(self.n, 2, generator=torch.Generator().manual_seed(1)).to(self.device, self.dtype)

    def prepare(self) -> None:
        """Make the inputs."""
        assert self.field is not None and self.x is not None

    def run(self) -> Tensor:
        """The kernel, traced."""
        return empirical_ntk(self.field, self.x)

    def check(self, result: Tensor) -> float:
        """The largest deviation from torch.func's in float64 at some points, as a part of the largest entry."""
        exact, chosen = replace(self, dtype=torch.float64), self._chosen()
        return deviation(result[chosen][:, chosen], contraction(exact.field, exact.x[chosen]))

    def _chosen(self) -> Tensor:
        return torch.linspace(0, self.n - 1, min(self.n, _CHECKED), device=self.device).long()


@dataclass(frozen=True)
class Product(FiniteWidth):
    """One product of the full kernel with a vector, nothing kept from a product before it; and a pass forward."""

    @cached_property
    def v(self) -> Tensor:
        """The vector, [n C]."""
        generator = torch.Generator().manual_seed(2)
        return torch.randn(self.n * OUTPUTS, generator=generator).to(self.device, self.dtype)

    def prepare(self) -> None:
        """Make the inputs."""
        super().prepare()
        assert self.v is not None

    def run(self) -> Tensor:
        """The product, [n C]."""
        return NTKOperator(self.field, self.x) @ self.v

    def check(self, result: Tensor) -> float:
        """The largest deviation from autograd's product at some points, as a part of the largest number.

        In the same precision: in another, some of the n x width ReLUs that are nearly zero are on the other side of it, which
        moves the sum over n points by 1e-4.
        """
        rows, v = self._chosen(), self.v.view(self.n, OUTPUTS)
        wanted = product_by_autograd(self.field, self.x, v, self.x[rows])
        return deviation(result.view(self.n, OUTPUTS)[rows], wanted)

    @torch.no_grad()
    def forward(self, chunk: int = 4096) -> Tensor:
        """The field's values at all points."""
        return torch.cat([self.field(part) for part in self.x.split(chunk)])


def deviation(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a part of the largest number."""
    return float((found.to(wanted) - wanted).abs().max() / wanted.abs().max())


Problem = InfiniteWidth | FiniteWidth
PROBLEMS: dict[str, Callable[[Sizes, int, torch.dtype, torch.device], Problem]] = {
    "kernel": InfiniteWidth,
    "empirical": FiniteWidth,
    "product": Product,
}


def composed_kernel(device: torch.device, features: int = 512, depth: int = 3) -> MLPKernel:
    """The stationary kernel of a ReLU network on Fourier features of sigma 10 (Tancik et al. 2020, section 6)."""
    return MLPKernel(depth, "relu", W_STD, B_STD, encoding=Fourier(2, features // 2, sigma=10.0).to(device))
