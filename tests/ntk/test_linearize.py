"""The linearised field: against explicit Jacobians, the closed form of gradient descent, and autograd's own checks."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import neuralfield as nf
from neuralfield import encodings
from neuralfield.errors import ConfigError
from neuralfield.ntk.jacobian import flatten, jvp, vjp
from neuralfield.ntk.linearize import Linearized, linearize, scaled
from tests.ntk.test_jacobian import ENCODINGS, Wide, explicit, field_of, grid, points


def moved(model: nn.Module, size: float = 0.3, seed: int = 0) -> nn.Module:
    """The model after a random step of all parameters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    return model


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_is_the_first_order_taylor_model(encoding: str) -> None:
    field = field_of(ENCODINGS[encoding](), activation="silu", output_activation="tanh", skip=1)
    x, dense = points(field), explicit(field, points(field))
    model = linearize(field)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in field.named_parameters()}
    assert (model.in_dim, model.out_dim) == (field.in_dim, field.out_dim)
    torch.testing.assert_close(model(x), field(x), rtol=0, atol=1e-14)
    moved(model)
    step = model.displacement()
    expected = field(x) + sum(torch.einsum("nc...,...->nc", J, step[name]) for name, J in dense.items())
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    # Its gradient is that at w0, whatever the weights.
    seed = torch.randn(len(x), 3, dtype=torch.float64)
    (model(x) * seed).sum().backward()
    for name, gradient in vjp(field, x, seed).items():
        found = model.get_parameter(name).grad
        assert found is not None
        torch.testing.assert_close(found, gradient, rtol=0, atol=1e-12)


def test_the_error_is_of_second_order() -> None:
    field = field_of(ENCODINGS["fourier"](), activation="tanh")
    x, direction = points(field), moved(copy.deepcopy(field), seed=1)
    start, end = flatten(dict(field.named_parameters())), flatten(dict(direction.named_parameters()))
    errors = []
    for size in (1e-2, 1e-3):
        weights, model = copy.deepcopy(field), linearize(field)
        for module in (weights, model):
            torch.nn.utils.vector_to_parameters(start + size * (end - start), module.parameters())
        errors.append(float((weights(x) - model(x)).detach().norm()))
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize(
    "encoding",
    [encodings.Identity(2), grid(2, n_levels=1, log2_hashmap_size=3), encodings.Fourier(2, 2, 1.0, trainable=True)],
    ids=lambda encoding: type(encoding).__name__,
)
def test_gradcheck(encoding: encodings.Encoding) -> None:
    model = moved(linearize(field_of(encoding, activation="gelu", width=3, depth=2)))
    x = points(model, 2)
    names = [name for name, _ in model.named_parameters()]

    def value(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))

    inputs = tuple(p.detach().clone().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


@pytest.mark.parametrize("encoding", ["positional", "smoothstep", "bounded_fourier"])
def test_derivatives_in_space(encoding: str) -> None:
    model = moved(linearize(field_of(ENCODINGS[encoding](), activation="softplus", width=4, depth=2)))
    x = (0.3 + 0.1 * torch.rand(3, 2, dtype=torch.float64)).requires_grad_()
    torch.testing.assert_close(model(x), model(x.detach()), rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(model, (x,))
    # and from them back to the parameters, as a loss on normals needs
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    weight = model.get_parameter("network.layers.1.weight")
    assert weight.grad is not None
    step = torch.zeros_like(weight)
    step[0, 1] = 1e-5
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step
        (slope,) = torch.autograd.grad(model(x).sum(), x)
        values.append(float(slope.square().sum()))
        with torch.no_grad():
            weight -= sign * step
    assert float(weight.grad[0, 1]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("encoding", ["fourier", "hashgrid"])
def test_gradient_descent_follows_the_closed_form(encoding: str) -> None:
    """Loss 1/2 sum (f - y)^2: f_t - y = (I - eta K)^t (f_0 - y) where it trains, and elsewhere by the kernel in between."""
    field = field_of(ENCODINGS[encoding](), activation="tanh", width=8)
    x = points(field, 12)
    train = x[:8]
    y = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = torch.cat([J.flatten(2).flatten(0, 1) for J in explicit(field, x).values()], dim=1)  # [36, P]
    kernel, cross = dense[:24] @ dense[:24].T, dense[24:] @ dense[:24].T
    rate, steps = 1.2 / float(torch.linalg.eigvalsh(kernel)[-1]), 60
    f0 = field(x).detach()
    model = linearize(field)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (model(train) - y).square().sum()).backward()
        optimizer.step()
    contraction = torch.eye(24, dtype=torch.float64) - rate * kernel
    error, summed = (f0[:8] - y).flatten(), torch.zeros(24, dtype=torch.float64)
    for _ in range(steps):
        summed, error = summed + rate * error, contraction @ error
    expected = torch.cat([y + error.view(8, 3), f0[8:] - (cross @ summed).view(4, 3)])
    found = model(x).detach()
    assert float((found - f0).abs().max()) > 0.1  # it has learned something
    assert float((found - expected).abs().max()) < 1e-10
    torch.testing.assert_close(flatten(vjp(model, train, y)), flatten(vjp(field, train, y)), rtol=0, atol=1e-12)


def test_training_moves_neither_the_field_nor_the_base() -> None:
    field = field_of(grid(2))
    x, before = points(field), copy.deepcopy(field.state_dict())
    model = linearize(field)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    model(x).square().sum().backward()
    optimizer.step()
    assert all(bool(step.abs().max() > 0) for step in model.displacement().values())
    for state in (field.state_dict(), model.base.state_dict()):
        assert list(state) == list(before) and all(torch.equal(state[name], before[name]) for name in before)
    moved(field)
    moved(model.base)
    assert torch.equal(model.base(x), model.origin(x))
    assert all(torch.equal(model.base.state_dict()[name], before[name]) for name in before)
    assert isinstance(model.base, nf.Field) and all(p.requires_grad for p in model.base.parameters())


@pytest.mark.parametrize("encoding", ["hashgrid", "bounded_fourier"])
def test_state_dict_round_trip(encoding: str) -> None:
    make: Callable[[int], Linearized] = lambda seed: linearize(field_of(ENCODINGS[encoding](), seed=seed))  # noqa: E731
    model, other = moved(make(0)), make(1)
    x = points(model)
    assert not torch.allclose(model(x), other(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x), other(x))
    assert all(torch.equal(other.displacement()[name], step) for name, step in model.displacement().items())  # type: ignore[operator]
    single = copy.deepcopy(other).float()
    torch.testing.assert_close(single(x.float()).double(), model(x), rtol=0, atol=1e-5)


def test_frozen_parts_stay_frozen() -> None:
    field = field_of(grid(2))
    field.encoding.requires_grad_(False)
    model = linearize(field)
    assert not model.get_parameter("encoding.params").requires_grad
    assert "encoding.params" not in model.displacement()
    assert [p.requires_grad for p in model.base.parameters()] == [p.requires_grad for p in field.parameters()]
    model(points(field)).sum().backward()
    assert model.get_parameter("encoding.params").grad is None
    assert model.n_parameters == field.n_parameters


def test_leading_dimensions_and_empty_batches() -> None:
    model = moved(linearize(field_of(grid(2))))
    x = torch.rand(2, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(model(x), model(x.view(6, 2)).view(2, 3, 3), rtol=0, atol=1e-14)
    assert model(x[:0]).shape == (0, 3, 3)
    assert model(x[0, 0]).shape == (3,)


def test_any_module() -> None:
    torch.manual_seed(0)
    encoding = grid(2)
    field = nf.Field(encoding, Wide(encoding.out_dim)).double()
    x, model = points(field), linearize(field)
    assert "Wide" in str(model.reason)
    moved(model)
    expected = field(x) + jvp(field, x, model.displacement())
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)
    model(x).sum().backward()
    pulled = vjp(field, x, torch.ones_like(expected).detach())
    for name, gradient in pulled.items():
        torch.testing.assert_close(model.get_parameter(name).grad, gradient, rtol=0, atol=1e-12)


def test_what_cannot_be_linearised() -> None:
    with pytest.raises(ConfigError, match="Dropout in training mode"):
        linearize(nn.Sequential(nn.Linear(2, 3), nn.Dropout()))
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with pytest.raises(ConfigError, match=r"one parameter as 0\.weight and as 1\.weight"):
        linearize(tied)
    with pytest.raises(ConfigError, match="linear in its parameters already"):
        linearize(linearize(field_of(grid(2))))
    named = nn.Module()
    named.origin = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="a part 'origin'"):
        linearize(named)


def test_scaled_is_chizats_model() -> None:
    field = field_of(grid(2), activation="tanh")
    x, start = points(field), copy.deepcopy(field)
    model = scaled(field, 50.0)
    assert model.field is field and model.loss_factor == pytest.approx(1 / 2500)
    assert not model(x).any()
    moved(model, 0.1)
    torch.testing.assert_close(model(x), 50 * (field(x) - start(x)), rtol=1e-12, atol=0)
    assert [name for name, _ in model.named_parameters()] == [f"field.{name}" for name, _ in field.named_parameters()]
    plain = scaled(start, 3.0, centred=False)
    torch.testing.assert_close(plain(x), 3 * start(x), rtol=1e-12, atol=0)
    with pytest.raises(ConfigError, match="alpha must be a finite number above 0, got 0"):
        scaled(field, 0)


def test_a_large_scale_is_training_of_the_linearisation() -> None:
    """Gradient descent with alpha tends to that of the linearised model, as 1/alpha (Chizat et al. 2019, theorem 2.3)."""
    start = field_of(ENCODINGS["fourier"](), activation="tanh", width=8)
    x = points(start)
    y = torch.randn(len(x), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def train(model: nn.Module, factor: float, offset: Tensor | float = 0.0) -> Tensor:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
        for _ in range(40):
            optimizer.zero_grad()
            (factor * 0.5 * (model(x) - offset - y).square().sum()).backward()
            optimizer.step()
        return (model(x) - offset).detach()

    lazy = train(linearize(start), 1.0, start(x).detach())
    gaps, moves = [], []
    for alpha in (10.0, 100.0):
        field = copy.deepcopy(start)
        model = scaled(field, alpha)
        gaps.append(float((train(model, model.loss_factor) - lazy).norm() / lazy.norm()))
        step = flatten(dict(field.named_parameters())) - flatten(dict(start.named_parameters()))
        moves.append(float(step.norm()))
    assert float(lazy.norm()) > 0.3 and gaps[1] < 0.01
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.15)
    assert moves[0] / moves[1] == pytest.approx(10, rel=0.15)


def test_an_encoding_without_parameters_and_no_bias() -> None:
    field = field_of(encodings.Identity(2), bias=False, depth=0)
    model, x = linearize(field), points(field)
    moved(model)
    torch.testing.assert_close(model(x), x @ model.get_parameter("network.layers.0.weight").T, rtol=0, atol=1e-13)
