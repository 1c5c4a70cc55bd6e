"""Small grids for the tests of what all engines have in common."""

from __future__ import annotations

import pytest
import torch

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import cpu

ENGINES = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(cpu.available() is not None, reason="no numba"))]
each_engine = pytest.mark.parametrize("engine", ENGINES)


def grid(engine: str = "reference", **options: object) -> HashGrid:
    """Four levels, the last two hashed, and a table that is standard normal."""
    sizes = {"n_levels": 4, "log2_hashmap_size": 6, "base_resolution": 4, "per_level_scale": 1.7}
    module = HashGrid(2, engine=engine, **{**sizes, **options})
    with torch.no_grad():
        module.params.normal_(generator=torch.Generator().manual_seed(0))
    return module


def points(n: int = 50) -> torch.Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(1))


def gradients(module: HashGrid, x: torch.Tensor, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(module(x), (x, module.params), grad)
