"""One kernel matrix by every path through the layers: blocks, derivatives, precisions, single points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuralfield.encodings import Bounded, Fourier, HashGrid, Positional
from neuralfield.ntk import blocks
from neuralfield.ntk.kernels import MLPKernel


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def distance(found: Tensor, expected: Tensor) -> Tensor:
    """Of each entry, in units of the largest."""
    return (found.double() - expected).abs() / expected.abs().max()


SMALL = {
    "none": lambda: None,
    "fourier": lambda: Fourier(2, 32, sigma=2.0),
    "trainable": lambda: Bounded(Fourier(2, 32, sigma=2.0, trainable=True), low=-1, high=[2.0, 1.0]),
    "input": lambda: Positional(2, 4, include_input=True),
    "grid": lambda: HashGrid(2, n_levels=3, base_resolution=4, max_resolution=16, seed=1),
}


@pytest.mark.parametrize("encoding", SMALL)
@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh"])
@pytest.mark.parametrize(
    "options",
    [
        {"w_std": 1.3, "b_std": 0.3},
        {"b_std": None, "parameterization": "standard", "width": [16, 32]},
        {"b_std": 0.0, "parameterization": "standard", "width": 16, "skip": 1, "output_activation": "sigmoid"},
    ],
    ids=["ntk", "standard", "skip"],
)
def test_one_matrix_by_every_path(
    encoding: str, activation: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks, recorded derivatives, two sets of points, the diagonal, float32: the same numbers; and no negative mode."""
    x = torch.rand(14, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[5], x[7], x[8] = x[3], 0, x[3] + 1e-6
    kernel = MLPKernel(2, activation, encoding=SMALL[encoding](), **options)
    nngp, ntk = kernel.both(x)
    diagonal = kernel.diagonal(x)
    assert bool(torch.isfinite(ntk).all()) and torch.equal(ntk, ntk.T) and torch.equal(nngp, nngp.T)
    assert float(distance(diagonal.ntk, ntk.diagonal()).max()) < 2e-12
    assert float(distance(diagonal.nngp, nngp.diagonal()).max()) < 2e-12
    assert torch.linalg.eigvalsh(ntk)[0] > -1e-13 * ntk.trace()
    assert torch.linalg.eigvalsh(nngp)[0] > -1e-13 * nngp.trace()
    monkeypatch.setattr(blocks, "_BLOCK", 7)
    assert float(distance(kernel.ntk(x), ntk).max()) < 1e-13
    assert float(distance(kernel.nngp(x), nngp).max()) < 1e-13
    assert float(distance(kernel.ntk(x, x.clone()), ntk).max()) < 1e-13
    recorded = x.clone().requires_grad_()
    with_graph = kernel.ntk(recorded)
    assert float(distance(with_graph.detach(), ntk).max()) < 1e-12
    (gradient,) = torch.autograd.grad(with_graph.sum(), recorded)
    assert bool(torch.isfinite(gradient).all())
    rounded = x.float()
    assert float(distance(kernel.ntk(rounded), kernel.ntk(rounded.double())).max()) < 3e-6
    assert float(distance(kernel.nngp(rounded), kernel.nngp(rounded.double())).max()) < 3e-6


@pytest.mark.parametrize("activation", ["relu", "sin", "elu"])
@pytest.mark.parametrize("encoding", ["none", "fourier", "trainable"])
def test_derivatives(activation: str, encoding: str) -> None:
    """Off the diagonal twice, in coordinates and deviations."""
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(1, 2, dtype=torch.float64, generator=generator).requires_grad_()
    y = torch.rand(2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    made = SMALL[encoding]()
    w, b = tensor([1.1, 0.9, 1.2]).requires_grad_(), tensor(0.4).requires_grad_()

    def value(x: Tensor, y: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        nngp, ntk = MLPKernel(2, activation, w, b, encoding=made).both(x, y)
        return nngp, ntk

    assert torch.autograd.gradcheck(value, (x, y, w, b), atol=1e-5)
    if encoding == "none" and activation == "relu":
        assert torch.autograd.gradgradcheck(value, (x, y, w, b), atol=1e-3, rtol=1e-3)


def test_derivatives_on_the_diagonal_are_finite() -> None:
    x = tensor([[0.3, 0.4], [0.3, 0.4], [-0.3, -0.4], [0.0, 0.0]]).requires_grad_()
    for kernel in (MLPKernel(2), MLPKernel(2, "sin", b_std=0.2), MLPKernel(2, encoding=Fourier(2, 16))):
        (first,) = torch.autograd.grad(kernel.ntk(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        assert bool(torch.isfinite(first).all()) and bool(torch.isfinite(second).all())


def test_opposite_points_in_float32() -> None:
    """Near u = 2 a float32 angle is good to 1e-4 only; the kernel of bias-free kinked networks is good to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 2, generator=generator)
    x = torch.cat([x, -x + 1e-4 * torch.randn(40, 2, generator=generator)])
    for activation in ("relu", "abs", "leaky_relu"):
        kernel = MLPKernel(2, activation, b_std=None)
        assert float(distance(kernel.ntk(x), kernel.ntk(x.double())).max()) < 1e-6
