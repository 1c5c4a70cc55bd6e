"""The kernel of a field's initialisation: wide fields, by automatic differentiation, tend to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from neuralfield.encodings import Bounded, Encoding, Fourier, HashGrid, Identity, Positional
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk.kernels import MLPKernel


def table() -> Encoding:
    grid = HashGrid(2, n_levels=4, base_resolution=3, max_resolution=16, seed=0)
    with torch.no_grad():
        grid.params.mul_(1e4)
    return grid


def waves() -> Encoding:
    return Fourier(2, 64, sigma=1.0)


FIELDS: dict[str, tuple[Callable[[], Encoding], dict]] = {
    "he": (waves, {"activation": "relu"}),
    "he_gelu": (waves, {"activation": "gelu", "output_scale": 1.0}),
    "xavier_silu": (waves, {"activation": "silu", "initialization": "xavier", "output_scale": 0.7}),
    "pytorch_tanh_sigmoid": (
        lambda: Positional(2, 16, max_frequency=4.0),
        {"activation": "tanh", "initialization": "pytorch", "output_activation": "sigmoid", "output_scale": 1.0},
    ),
    "siren": (waves, {"activation": "sine", "activation_scale": 8.0, "output_scale": 1.0}),
    "gaussian": (waves, {"activation": "gaussian", "activation_scale": 0.8}),
    "no_bias_skip": (waves, {"activation": "relu", "bias": False, "skip": 1, "output_scale": 1.0}),
    "trained_table_skip": (table, {"skip": [1], "output_scale": 1.0, "initialization": "pytorch"}),
    "trained_frequencies": (
        lambda: Bounded(Fourier(2, 64, sigma=0.5, trainable=True), -0.5, 1.5),
        {"activation": "elu", "output_scale": 1.0},
    ),
    "coordinates_exp": (lambda: Identity(2, True), {"activation": "leaky_relu", "output_activation": "exp"}),
    "affine": (waves, {"depth": 0, "output_scale": 1.0}),
}


@pytest.mark.parametrize("name", FIELDS)
def test_wide_fields_tend_to_their_kernel(name: str) -> None:
    """The mean over draws of J J^T of a field of width 256, by automatic differentiation, against MLPKernel.of."""
    torch.manual_seed(1)
    make, options = FIELDS[name]
    encoding = make()
    field = Field(encoding, MLP(encoding.out_dim, 1, **{"depth": 2, "width": 256, **options}))
    x = torch.rand(5, 2)
    nngp, ntk = MLPKernel.of(field).both(x.double())
    parameters, draws = list(field.parameters()), 24
    mean = torch.zeros(5, 5, dtype=torch.float64)
    values = []
    for _ in range(draws):
        field.network.reset_parameters()  # type: ignore[operator]
        f = field(x)[:, 0]
        rows = [torch.autograd.grad(f[k], parameters, retain_graph=True) for k in range(5)]
        jacobian = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        mean += (jacobian @ jacobian.T).double() / draws
        values.append(f.detach().double())
    # Of one draw some 2/sqrt(256) at these depths; the mean of 24 keeps a bias of about 1/256 per layer.
    tolerance = {"affine": 1e-5, "coordinates_exp": 0.1}.get(name, 0.06)
    assert float((mean - ntk).norm() / ntk.norm()) < tolerance
    second = torch.stack(values).square().mean()
    assert 0.55 < float(second / nngp.diagonal().mean()) < 1.6


def test_limit_is_approached_as_the_width_grows() -> None:
    """Relative distance of single draws falls about as width^-1/2."""
    torch.manual_seed(0)
    x, distances = torch.rand(6, 2), []
    for width in (64, 1024):
        field = Field(waves(), MLP(128, 1, width=width, depth=2))
        ntk, found = MLPKernel.of(field).ntk(x.double()), []
        for _ in range(8):
            field.network.reset_parameters()  # type: ignore[operator]
            f, parameters = field(x)[:, 0], list(field.parameters())
            rows = [torch.cat([g.flatten() for g in torch.autograd.grad(v, parameters, retain_graph=True)]) for v in f]
            jacobian = torch.stack(rows).double()
            found.append(float((jacobian @ jacobian.T - ntk).norm() / ntk.norm()))
        distances.append(sum(found) / len(found))
    assert 2.0 < distances[0] / distances[1] < 8.0  # 4 expected
    assert distances[1] < 0.12


def test_of_takes_present_tables_and_initial_variances() -> None:
    """Training the network changes nothing; training the encoding does."""
    field = Field(table(), MLP(8, 3, width=32))
    x = torch.rand(4, 2, dtype=torch.float64)
    kernel = MLPKernel.of(field)
    before = kernel.ntk(x)
    with torch.no_grad():
        field.network.layers[0].weight.mul_(5)  # type: ignore[index, union-attr, operator]
    assert torch.equal(MLPKernel.of(field).ntk(x), before)
    with torch.no_grad():
        field.encoding.params.mul_(5)  # type: ignore[operator, union-attr]
    assert not torch.allclose(kernel.ntk(x), before)
    without = MLPKernel.of(field, train_encoding=False)
    assert float((kernel.ntk(x) - without.ntk(x)).diagonal().min()) > 0


def test_other_networks_are_refused() -> None:
    field = Field(Fourier(2, 4), torch.nn.Linear(8, 1))
    with pytest.raises(ConfigError, match=r"its network is Linear.* MLPKernel\(depth, \.\.\.\)"):
        MLPKernel.of(field)
