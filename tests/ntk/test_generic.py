"""The tangent kernel of modules that the structured path does not know: by torch.func, and row by row."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralfield import encodings
from neuralfield.errors import ConfigError, DeviceError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import generic, memory
from neuralfield.ntk.empirical import empirical_ntk, empirical_parts
from neuralfield.ntk.generic import GenericPathWarning
from tests.ntk.test_empirical import MODES, error, expected, make, points, reduced, rows

DOUBLE = torch.float64


class Residual(nn.Module):
    """Weights used twice, a buffer, and a parameter that is in no output."""

    def __init__(self, squeeze: bool = False) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 2), nn.Linear(2, 1 if squeeze else 3)
        self.unused = nn.Parameter(torch.ones(3))
        self.register_buffer("scale", torch.tensor(1.3))
        self.squeeze = squeeze

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.tanh(self.inner(x))
        y = self.outer(self.scale * x + torch.tanh(self.inner(x)))
        return y[:, 0] if self.squeeze else y


class Cube(torch.autograd.Function):
    """An autograd function in the old style, which torch.func refuses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Branching(nn.Module):
    """Looks at its values, which vmap does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.low if bool(point[0] < 0.5) else self.high)(point) for point in x])


class Cubed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return Cube.apply(self.linear(x))


MODULES = {
    "residual": Residual,
    "one output": lambda: Residual(squeeze=True),
    "old autograd function": Cubed,
    "branching": Branching,
    "sequential": lambda: nn.Sequential(nn.Linear(2, 4), nn.LayerNorm(4), nn.SiLU(), nn.Linear(4, 2)),
    "evaluated": lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).eval(),
}


@pytest.mark.parametrize("outputs", MODES)
@pytest.mark.parametrize("name", MODULES)
def test_any_module_against_its_jacobian(name: str, outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    module = MODULES[name]().double()
    x1, x2 = points(7), points(4, seed=2)
    if name == "branching":
        assert 0 < int((x1[:, 0] < 0.5).sum()) < 7
    with pytest.warns(GenericPathWarning, match=f"Jacobian of {type(module).__name__} .*is not a neuralfield.Field"):
        found = empirical_ntk(module, x1, x2, outputs)
    assert error(found, expected(module, x1, x2, outputs)) < 1e-12
    monkeypatch.setattr(generic, "_CHUNK_BYTES", 1000)  # some points at a time
    assert error(empirical_ntk(module, x1, None, outputs, method="generic"), expected(module, x1, x1, outputs)) < 1e-12


def test_parts_are_those_of_the_parameters() -> None:
    torch.manual_seed(0)
    module, x = Residual().double(), points(5)
    module.outer.bias.requires_grad_(False)
    found = empirical_parts(module, x, outputs="full", method="generic", scales={"outer": 2.0})
    assert list(found) == ["unused", "inner.weight", "inner.bias", "outer.weight"]
    assert not found["unused"].any()
    jacobian = rows(module, x)
    wanted = reduced(torch.einsum("icp,jdp->icjd", jacobian["outer.weight"], jacobian["outer.weight"]), "full")
    assert error(found["outer.weight"], 2 * wanted) < 1e-12


def test_points_of_any_shape() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)).double()
    x = torch.rand(4, 1, 5, 5, dtype=DOUBLE)
    assert error(empirical_ntk(module, x, method="generic"), expected(module, x, x, "trace")) < 1e-12


def test_vectorised_and_row_by_row_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = Residual().double(), points(4)
    seeds = torch.randn(4, 5, 3, dtype=DOUBLE)
    calls = []
    monkeypatch.setattr(
        generic, "_point_by_point", lambda *a, real=generic._point_by_point: calls.append(1) or real(*a)
    )
    vectorised = generic.jacobian(module, x, seeds)
    assert not calls
    by_row = generic._point_by_point(module, x, seeds)
    explicit = rows(module, x)
    for name, values in vectorised.items():
        assert values.shape == (4, 5, explicit[name].shape[2])
        assert float((values - torch.einsum("isc,icp->isp", seeds, explicit[name])).abs().max()) < 1e-13
        assert float((values - by_row[name]).abs().max()) < 1e-13
    generic.jacobian(Cubed().double(), x, seeds[:, :, :2])
    assert calls == [1, 1]


def test_fields_that_only_look_structured() -> None:
    """Each would get a wrong kernel from the structured path; the warning says why it does not."""
    tied = make(depth=3)
    tied.network.layers[2].weight = tied.network.layers[1].weight
    reparametrised = make()
    nn.utils.parametrize.register_parametrization(reparametrised.network.layers[0], "weight", Squared())

    class Gained(Field):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    torch.manual_seed(0)
    gained = Gained(encodings.Identity(2), MLP(2, 2, width=4, depth=1)).double()
    other = Field(encodings.Identity(2), Network()).double()
    extra = make()
    extra.network.gain = nn.Parameter(torch.ones(1, dtype=DOUBLE))
    x = points(5)
    for field, reason in (
        (tied, "network.layers.1.weight and network.layers.2.weight are one parameter"),
        (reparametrised, "network.layers.0 is ParametrizedLinear"),
        (gained, "Gained has a forward pass of its own"),
        (other, "its network is Network"),
        (extra, "network.gain belongs to no layer"),
    ):
        with pytest.warns(GenericPathWarning, match=reason):
            assert error(empirical_ntk(field, x, outputs="full"), expected(field, x, x, "full")) < 1e-12
        with pytest.raises(ConfigError, match=f"method='structured' cannot take this module: {reason}"):
            empirical_ntk(field, x, method="structured")


class Squared(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight**2


class Network(nn.Module):
    in_dim, out_dim = 2, 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) ** 2


def test_what_is_asked_for_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empirical_ntk(Residual(), points(3).float(), method="generic")
        empirical_ntk(make(), points(3))


def test_the_warning_says_what_it_costs() -> None:
    module = nn.Linear(2, 64)
    with pytest.warns(GenericPathWarning) as caught:
        empirical_ntk(module, torch.rand(100, 2), torch.rand(28, 2))
    assert "128 points x 64 outputs x 192 parameters, 6 MiB" in str(caught[0].message)


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    x = points(4).float()
    for part in (nn.BatchNorm1d(2), nn.Dropout(0.5)):
        with pytest.raises(ConfigError, match=f"1 is a {type(part).__name__} in training mode.*eval"):
            empirical_ntk(nn.Sequential(nn.Linear(2, 2), part), x)
    with pytest.raises(ConfigError, match=r"Unflatten|must map \[n, ...\] to \[n, C\]"):
        empirical_ntk(nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (2, 2))), x)
    with pytest.raises(ConfigError, match=r"x2 has points of shape \(3,\), x1 of \(2,\)"):
        empirical_ntk(nn.Linear(2, 1), x, torch.rand(4, 3))
    with pytest.raises(ConfigError, match="x1 must be finite"):
        empirical_ntk(nn.Linear(2, 1), x / 0)
    with pytest.raises(ConfigError, match="no trainable parameters"):
        empirical_ntk(nn.ReLU(), x)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1e5)
    with pytest.raises(DeviceError, match=r"the Jacobian of Linear \(4 points .* parameters, .*ntk.NTKOperator"):
        empirical_ntk(nn.Linear(2, 100), x, method="generic")
