"""Parts of the infinite-width kernel: they add up, carry the right names, and are what the weights of a wide field give."""

from __future__ import annotations

import pytest
import torch

import neuralfield as nf
from neuralfield.encodings import Fourier, HashGrid, Positional
from neuralfield.ntk.empirical import empirical_parts
from neuralfield.ntk.kernel_parts import kernel_parts
from neuralfield.ntk.kernels import MLPKernel


@pytest.mark.parametrize(
    "encoding", [None, Fourier(2, 8, 3.0), Positional(2, 3, include_input=True), Fourier(2, 8, trainable=True)]
)
@pytest.mark.parametrize("options", [{"depth": 3}, {"depth": 2, "activation": "erf", "b_std": None}, {"depth": 0}])
def test_the_parts_add_up(encoding: nf.encodings.Encoding | None, options: dict) -> None:
    kernel = MLPKernel(w_std=1.3, parameterization="standard", width=32, encoding=encoding, **options)
    x1, x2 = torch.rand(7, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    for points in ((x1, x2), (x1, None)):
        parts = kernel_parts(kernel, *points)
        whole = kernel.ntk(*points)
        assert torch.allclose(sum(parts.values()), whole, rtol=1e-12, atol=1e-12 * whole.abs().max())
        assert all(float(part.abs().max()) > 0 for part in parts.values())


def test_each_part_is_the_limit_of_the_same_part_of_wide_fields() -> None:
    x = torch.rand(6, 2)
    sums: dict[str, torch.Tensor] = {}
    for seed in range(12):
        torch.manual_seed(seed)
        field = nf.build(2, 2, {"name": "fourier", "n_features": 16, "sigma": 2.0}, {"width": 512, "depth": 2})
        for name, part in empirical_parts(field, x).items():
            sums[name] = sums.get(name, torch.zeros_like(part)) + part / 12
    limits = kernel_parts(MLPKernel.of(field), x)
    assert set(limits) == set(sums)
    for name, limit in limits.items():
        assert (sums[name] - limit).norm() < 0.06 * limit.norm(), name


def test_a_table_has_its_own_part() -> None:
    field = nf.build(
        2, 1, HashGrid(2, n_levels=2, base_resolution=4, max_resolution=8, seed=0), {"width": 16, "depth": 1}
    )
    parts = kernel_parts(MLPKernel.of(field), torch.rand(5, 2))
    assert "encoding" in parts
    assert parts["encoding"].norm() > 100 * parts["network.layers.0.weight"].norm()  # features of 1e-4 move no weights
