"""Weighted sums of Toeplitz operators against dense sums."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.toeplitz import ToeplitzOperator
from neuralfield.ntk.toeplitz_sum import ToeplitzSum


def _tables(shape: tuple[int, ...], count: int, even: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(shape))
    drawn = [torch.randn([2 * n - 1 for n in shape], generator=generator, dtype=torch.float64) for _ in range(count)]
    return [t + t.flatten().flip(0).view_as(t) if even else t for t in drawn]


@pytest.mark.parametrize("shape", [(7,), (6, 5), (1, 4), (3, 4, 5)], ids=str)
def test_sums_and_forms_are_the_dense_ones(shape: tuple[int, ...]) -> None:
    operators = [ToeplitzOperator(table) for table in _tables(shape, 3, even=True)]
    dense = torch.stack([o.to_dense() for o in operators])
    weights = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    v = torch.randn(dense.shape[1], 4, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    together = ToeplitzSum(operators)
    z = together.transform(v)
    expected = torch.einsum("g,gnm->nm", weights, dense)
    torch.testing.assert_close(together.product(z, weights), expected @ v)
    torch.testing.assert_close(together.forms(z), torch.einsum("nk,gnm,mk->g", v, dense, v))
    torch.testing.assert_close(together.forms(z[1:2]), torch.einsum("n,gnm,m->g", v[:, 1], dense, v[:, 1]))
    torch.testing.assert_close(together.total(weights).to_dense(), expected)
    torch.testing.assert_close(together.diagonal(), dense[:, 0, 0])


def test_operators_between_two_grids() -> None:
    shape = (4, 5)
    operators = [ToeplitzOperator(table, shape) for table in _tables(shape, 2, even=False)]
    weights = torch.tensor([1.5, 0.25], dtype=torch.float64)
    v = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    together = ToeplitzSum(operators)
    expected = sum(w * (o @ v) for w, o in zip(weights, operators, strict=True))
    torch.testing.assert_close(together.product(together.transform(v), weights), expected)
    torch.testing.assert_close(together.total(weights) @ v, expected)


def test_other_grids_are_refused() -> None:
    one, other = (ToeplitzOperator(_tables((n, 3), 1, even=True)[0]) for n in (3, 4))
    for operators in ([one, other], []):
        with pytest.raises(ConfigError, match="one grid"):
            ToeplitzSum(operators)
