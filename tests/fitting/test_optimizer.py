from __future__ import annotations

import torch

from neuralfield import field as fields
from neuralfield.fitting import optimizer
from neuralfield.fitting.options import FitOptions


def test_groups_keep_the_network_and_the_table_apart() -> None:
    field = fields.build(2, 3, {"name": "hashgrid", "log2_hashmap_size": 8, "n_levels": 2})
    network, table = optimizer.build(field, FitOptions(lr=1e-3, encoding_lr=2e-2, weight_decay=0.1)).param_groups
    assert (network["base_lr"], table["base_lr"]) == (1e-3, 2e-2)
    assert table["params"] == [field.encoding.params]
    assert (network["weight_decay"], table["weight_decay"]) == (0.1, 0.0)


def test_default_rates_depend_on_what_is_trained() -> None:
    grid = fields.build(2, 1, {"name": "hashgrid", "log2_hashmap_size": 8, "n_levels": 2})
    wrapped = fields.build(2, 1, {"name": "bounded", "encoding": grid.config["encoding"], "low": -1})
    plain, siren = fields.build(2, 1, "fourier"), fields.build(2, 1, "none", {"activation": "sine"})
    rates = [optimizer.learning_rates(f, FitOptions()) for f in (grid, wrapped, plain, siren)]
    assert rates[0] == rates[1] == (5e-3, 1e-2)
    assert rates[0][0] > rates[2][0] > rates[3][0]
    assert len(optimizer.build(plain, FitOptions()).param_groups) == 1  # frozen frequencies are no parameters


def test_a_row_with_a_tiny_gradient_still_moves_by_the_learning_rate() -> None:
    field = fields.build(2, 1, {"name": "hashgrid", "log2_hashmap_size": 8, "n_levels": 1})
    adam = optimizer.build(field, FitOptions(encoding_lr=1e-2))
    before = field.encoding.params.detach().clone()
    field.encoding.params.grad = torch.zeros_like(before)
    field.encoding.params.grad[5] = 1e-11
    adam.step()
    moved = before - field.encoding.params.detach()
    assert abs(moved[5].item() - 1e-2) < 1e-5
    assert moved[6] == 0


def test_state_goes_out_and_in_under_the_parameters_names() -> None:
    torch.manual_seed(0)
    options, x = FitOptions(), torch.rand(64, 2)

    def steps(field: fields.Field, adam: torch.optim.Adam, n: int) -> None:
        for _ in range(n):
            adam.zero_grad()
            field(x).square().mean().backward()
            adam.step()

    one = fields.build(2, 1, {"name": "hashgrid", "log2_hashmap_size": 8, "n_levels": 2, "seed": 1})
    adam = optimizer.build(one, options)
    steps(one, adam, 3)
    tensors = {k: v.clone() for k, v in optimizer.state_tensors(one, adam).items()}
    assert "encoding.params/exp_avg" in tensors
    two = fields.build(2, 1, one.config["encoding"])
    two.load_state_dict(one.state_dict())
    other = optimizer.build(two, options)
    optimizer.load_state_tensors(two, other, tensors)
    steps(one, adam, 3)
    steps(two, other, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
