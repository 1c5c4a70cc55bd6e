"""Products with the Jacobian: against explicit Jacobians by reverse mode, row by row, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import neuralfield as nf
from neuralfield import encodings, networks
from neuralfield.errors import ConfigError
from neuralfield.ntk import structure
from neuralfield.ntk.jacobian import flatten, jvp, unflatten, vjp
from neuralfield.ntk.module_jacobian import ModuleJacobian, no_forward_mode

ENCODINGS: dict[str, Callable[[], encodings.Encoding]] = {
    "none": lambda: encodings.Identity(2, centered=True),
    "positional": lambda: encodings.Positional(2, n_frequencies=3, include_input=True),
    "fourier": lambda: encodings.Fourier(2, n_features=5, sigma=2.0),
    "trainable_fourier": lambda: encodings.Fourier(2, n_features=5, sigma=2.0, trainable=True, decay=0.5),
    "hashgrid": lambda: grid(2),
    "smoothstep": lambda: grid(2, interpolation="smoothstep", outside="wrap"),
    "colliding": lambda: grid(3, log2_hashmap_size=3, outside="zero"),
    "bounded_hashgrid": lambda: encodings.Bounded(grid(2), low=-1, high=2),
    "bounded_fourier": lambda: encodings.Bounded(encodings.Fourier(2, 4, 1.0, trainable=True), low=[-1, 0], high=3),
}


def grid(in_dim: int, **options: Any) -> encodings.HashGrid:
    """A small grid whose table is of order one, so that no error hides behind 1e-4."""
    settings = {"n_levels": 3, "log2_hashmap_size": 5, "base_resolution": 2, "max_resolution": 12, **options}
    made = encodings.HashGrid(in_dim, seed=1, **settings)
    with torch.no_grad():
        made.params.mul_(1e4)
    return made


def field_of(encoding: encodings.Encoding, seed: int = 0, **options: Any) -> nf.Field:
    """A float64 field with three outputs, biases other than zero and a last layer of order one."""
    torch.manual_seed(seed)
    settings = {"width": 6, "depth": 3, "output_scale": 1.0, "initialization": "pytorch", **options}
    return nf.Field(encoding, networks.MLP(encoding.out_dim, 3, **settings)).double()


def explicit(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """J by name, [n, C, *shape]: one backward pass for every number of the output."""
    parameters = structure.trainable(module)
    rows = []
    output = module(x)
    for number in output.flatten():
        gradients = torch.autograd.grad(
            number, list(parameters.values()), retain_graph=True, materialize_grads=True, allow_unused=True
        )
        rows.append(gradients)
    columns = [torch.stack(parts).unflatten(0, output.shape) for parts in zip(*rows, strict=True)]
    return dict(zip(parameters, columns, strict=True))


def check(field: nn.Module, x: Tensor, chunk: int | None = None, tolerance: float = 1e-12) -> None:
    """jvp and vjp, of one vector and of two at once, against the explicit Jacobian."""
    dense = explicit(field, x)
    n, channels = field(x).shape
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(x.dtype)  # noqa: E731
    tangents = {name: draw(2, *J.shape[2:]) for name, J in dense.items()}
    expected = sum(torch.einsum("ncp,kp->knc", J.flatten(2), tangents[name].flatten(1)) for name, J in dense.items())
    scale = max(float(expected.abs().max()), 1.0)
    assert float((jvp(field, x, tangents, chunk=chunk) - expected).abs().max()) < tolerance * scale
    one = jvp(field, x, {name: t[1] for name, t in tangents.items()}, chunk=chunk)
    assert float((one - expected[1]).abs().max()) < tolerance * scale
    seeds = draw(2, n, channels)
    pulled, second = vjp(field, x, seeds, chunk=chunk), vjp(field, x, seeds[1], chunk=chunk)
    assert list(pulled) == list(dense)
    for name, J in dense.items():
        expected = torch.einsum("nc...,knc->k...", J, seeds)
        scale = max(float(expected.abs().max()), 1.0)
        assert float((pulled[name] - expected).abs().max()) < tolerance * scale, name
        assert float((second[name] - expected[1]).abs().max()) < tolerance * scale, name


def points(field: nn.Module, n: int = 7) -> Tensor:
    """Reaching outside the cube, where an encoding says what becomes of them."""
    x = torch.rand(n, int(field.in_dim), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return 1.4 * x - 0.2


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_and_activation(encoding: str, activation: str) -> None:
    scale = {"sine": 2.0, "gaussian": 0.7}.get(activation)
    field = field_of(ENCODINGS[encoding](), activation=activation, activation_scale=scale)
    assert structure.unsupported(field) is None
    check(field, points(field), chunk=3)  # 3 + 3 + 1 points


@pytest.mark.parametrize("output", networks.OUTPUTS)
def test_every_output_activation(output: str) -> None:
    check(*with_points(field_of(ENCODINGS["hashgrid"](), activation="silu", output_activation=output)))


@pytest.mark.parametrize(
    "options",
    [{"skip": 1}, {"skip": [1, 2]}, {"skip": 2, "bias": False}, {"bias": False}, {"depth": 0}, {"depth": 1}],
    ids=str,
)
@pytest.mark.parametrize("encoding", ["fourier", "trainable_fourier", "colliding"])
def test_skips_biases_and_depths(encoding: str, options: dict[str, Any]) -> None:
    check(*with_points(field_of(ENCODINGS[encoding](), activation="tanh", **options)))


def with_points(field: nf.Field) -> tuple[nf.Field, Tensor]:
    return field, points(field)


@pytest.mark.parametrize(
    "frozen",
    [
        ["encoding.params"],
        ["network.layers.0.weight", "network.layers.2.bias"],
        ["network.layers.1.weight", "network.layers.1.bias", "encoding.params"],
        [f"network.layers.{index}.{kind}" for index in range(4) for kind in ("weight", "bias")],
    ],
    ids=len,
)
def test_frozen_parameters_have_no_part(frozen: list[str]) -> None:
    field = field_of(ENCODINGS["hashgrid"](), skip=1)
    for name in frozen:
        field.get_parameter(name).requires_grad_(False)
    check(field, points(field))


@pytest.mark.parametrize("missing", ["network.layers.0.weight", "network.layers.3.weight", "encoding.params"])
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_a_missing_tangent_is_zero(missing: str, kind: str) -> None:
    field = field_of(ENCODINGS["hashgrid"](), skip=[1, 2])
    x = points(field)
    full = {
        name: torch.randn_like(p) for name, p in structure.trainable(field).items() if name.endswith((kind, "params"))
    }
    partial = {name: t for name, t in full.items() if name != missing}
    zero = {name: torch.zeros_like(p) for name, p in structure.trainable(field).items()}
    torch.testing.assert_close(jvp(field, x, partial), jvp(field, x, {**zero, **partial}), rtol=0, atol=1e-14)


@pytest.mark.parametrize("encoding", ["fourier", "hashgrid", "trainable_fourier"])
def test_float32_with_the_fast_engine(encoding: str) -> None:
    field = field_of(ENCODINGS[encoding]()).float()
    check(field, points(field).float(), chunk=2, tolerance=3e-6)


def test_a_flat_vector_is_the_same() -> None:
    field = field_of(ENCODINGS["hashgrid"]())
    x, parameters = points(field), structure.trainable(field)
    vector = torch.randn(2, sum(p.numel() for p in parameters.values()), dtype=torch.float64)
    named = unflatten(vector, parameters)
    assert torch.equal(jvp(field, x, vector), jvp(field, x, named))
    assert torch.equal(jvp(field, x, vector[0]), jvp(field, x, {name: t[0] for name, t in named.items()}))
    assert torch.equal(flatten(unflatten(vector[1], parameters)), vector[1])
    assert torch.equal(flatten(parameters), torch.nn.utils.parameters_to_vector(field.parameters()).detach())


class WithoutForwardMode(torch.autograd.Function):
    """A cube whose backward is differentiable, and which says nothing about forward mode."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (z,) = ctx.saved_tensors
        return 3 * z**2 * grad


class Cube(nn.Module):
    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.plain, self.out_dim = plain, 3
        self.inner, self.outer = nn.Linear(2, 4), nn.Linear(4, 3)
        self.idle = nn.Parameter(torch.ones(2))  # plays no part in the output

    def forward(self, x: Tensor) -> Tensor:
        z = self.inner(x)
        return self.outer(z**3 if self.plain else WithoutForwardMode.apply(z))


@pytest.mark.parametrize("plain", [True, False])
def test_any_module_takes_the_generic_path(plain: bool) -> None:
    torch.manual_seed(0)
    module = Cube(plain).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    check(module, x, chunk=2)
    reason = no_forward_mode(module)
    assert (reason is None) if plain else "setup_context" in str(reason)


def test_a_field_with_another_network_takes_the_generic_path() -> None:
    torch.manual_seed(0)
    encoding = ENCODINGS["hashgrid"]()  # its autograd function has no forward mode
    field = nf.Field(encoding, Cube(True).double() if encoding.out_dim == 2 else Wide(encoding.out_dim)).double()
    assert "Wide" in str(structure.unsupported(field))
    check(field, points(field), chunk=4)


class Wide(nn.Module):
    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, 2
        self.layers = nn.Sequential(nn.Linear(in_dim, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


def test_tied_layers_count_twice() -> None:
    field = field_of(ENCODINGS["fourier"]())
    field.network.layers[2].weight = field.network.layers[1].weight  # type: ignore[union-attr]
    assert structure.unsupported(field) is not None
    check(field, points(field))


def test_no_points() -> None:
    field = field_of(ENCODINGS["hashgrid"]())
    x = torch.zeros(0, 2, dtype=torch.float64)
    assert jvp(field, x, {"encoding.params": torch.ones_like(field.encoding.params)}).shape == (0, 3)
    assert all(not part.any() for part in vjp(field, x, torch.zeros(0, 3, dtype=torch.float64)).values())


def test_the_fields_gradients_are_left_alone() -> None:
    field = field_of(ENCODINGS["hashgrid"]())
    x = points(field)
    field(x).sum().backward()
    before = {name: p.grad.clone() for name, p in field.named_parameters() if p.grad is not None}
    pulled = vjp(field, x, torch.ones(7, 3, dtype=torch.float64))
    jvp(field, x, pulled)
    for name, p in field.named_parameters():
        assert p.grad is not None and torch.equal(p.grad, before[name]) and not pulled[name].requires_grad


def test_bad_input_says_what_is_wrong() -> None:
    field = field_of(ENCODINGS["hashgrid"]())
    x = points(field)
    with pytest.raises(ConfigError, match=r"'encoding.param'.*did you mean 'encoding.params'"):
        jvp(field, x, {"encoding.param": torch.zeros(3)})
    with pytest.raises(ConfigError, match=r"network.layers.0.bias.*\(6,\).*\(5,\)"):
        jvp(field, x, {"network.layers.0.bias": torch.zeros(5)})
    with pytest.raises(ConfigError, match="different number: 2, one"):
        jvp(field, x, {"network.layers.0.bias": torch.zeros(6), "network.layers.1.bias": torch.zeros(2, 6)})
    with pytest.raises(ConfigError, match=r"has \d+ numbers, got 4"):
        jvp(field, x, torch.zeros(4))
    with pytest.raises(ConfigError, match=r"tangent of 'network.layers.0.bias' must be finite"):
        jvp(field, x, {"network.layers.0.bias": torch.full((6,), torch.nan)})
    with pytest.raises(ConfigError, match=r"x must be finite: 1 of 14"):
        jvp(
            field,
            x.index_fill(0, torch.tensor([2]), 0.5).index_put(
                (torch.tensor(3), torch.tensor(1)), x.new_tensor(torch.inf)
            ),
            {},
        )
    with pytest.raises(ConfigError, match="Dropout in training mode"):
        vjp(nn.Sequential(nn.Linear(2, 3), nn.Dropout()), torch.zeros(1, 2), torch.zeros(1, 3))
    with pytest.raises(ConfigError, match=r"must turn \[n, D\] into \[n, C\]"):
        ModuleJacobian(nn.Flatten(0), torch.zeros(4, 2), {})


@pytest.mark.parametrize("setting", [{"active_levels": 2}, {"table_dtype": torch.float16}], ids=str)
def test_coarse_and_rounded_tables(setting: dict[str, Any]) -> None:
    field = field_of(ENCODINGS["bounded_hashgrid"]()).float()
    inner = field.encoding.encoding
    for name, value in setting.items():
        setattr(inner, name, value)
    check(field, points(field).float(), tolerance=3e-6)
    assert all(getattr(inner, name) == value for name, value in setting.items())
