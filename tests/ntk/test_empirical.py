"""The structured tangent kernel against an explicit Jacobian, and against numbers of other software."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralfield import encodings
from neuralfield.errors import ConfigError, DeviceError
from neuralfield.field import Field
from neuralfield.networks import ACTIVATIONS, MLP, OUTPUTS
from neuralfield.ntk import empirical, memory, parts
from neuralfield.ntk.empirical import empirical_ntk, empirical_parts, ntk_scales

ORACLES = Path(__file__).parents[1] / "oracles"
MODES = ("trace", "diagonal", "full")


def make(encoding: encodings.Encoding | None = None, out_dim: int = 2, seed: int = 0, **options: Any) -> Field:
    """A small field in float64 with parameters of order one, biases included."""
    torch.manual_seed(seed)
    encoding = encoding or encodings.build("positional", in_dim=2, n_frequencies=2)
    network = MLP(encoding.out_dim, out_dim, **{"width": 5, "depth": 2, "output_scale": 1.0, **options})
    field = Field(encoding, network).double()
    with torch.no_grad():
        for name, parameter in field.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif "layers" not in name and parameter.abs().max() < 1e-3:
                parameter.normal_()
    return field


def points(n: int, dim: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rows(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The Jacobian by reverse-mode autograd, one number of the output at a time: [n, C, parameters] by parameter."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    output = module(x).reshape(len(x), -1)
    grads = [
        torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        for value in output.flatten()
    ]
    return {
        name: torch.stack(
            [torch.zeros(p.numel(), dtype=p.dtype) if g[k] is None else g[k].flatten() for g in grads]
        ).reshape(*output.shape, -1)
        for k, (name, p) in enumerate(parameters.items())
    }


def reduced(full: Tensor, outputs: str) -> Tensor:
    """[n, C, m, C] as each of the modes defines it."""
    if outputs == "full":
        return full
    diagonal = torch.einsum("icjc->ijc", full)
    return diagonal if outputs == "diagonal" else diagonal.mean(-1)


def expected(
    module: nn.Module, x1: Tensor, x2: Tensor, outputs: str, scales: Mapping[str, float] | None = None
) -> Tensor:
    one, two = rows(module, x1), rows(module, x2)
    parts = (torch.einsum("icp,jdp->icjd", one[k], two[k]) * (scales or {}).get(k, 1.0) for k in one)
    return reduced(sum(parts, torch.zeros(())), outputs)


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


NETWORKS = [
    *({"activation": name} for name in ACTIVATIONS),
    {"activation": "sine", "activation_scale": 3.0},
    *({"activation": "tanh", "output_activation": name} for name in OUTPUTS),
    *({"activation": "relu", "output_activation": name} for name in ("sigmoid", "relu")),
    *({"activation": "silu", "skip": skip, "depth": 4} for skip in (1, 3, [1, 2, 3])),
    {"activation": "softplus", "skip": 2, "depth": 3, "output_activation": "exp", "bias": False},
    *({"activation": "gelu", "depth": depth, "bias": bias} for depth in (0, 1, 3) for bias in (True, False)),
    {"depth": 0, "output_activation": "sigmoid"},
    {"depth": 1, "out_dim": 1},
    {"depth": 3, "out_dim": 7, "width": 3},
]


@pytest.mark.parametrize("outputs", MODES)
@pytest.mark.parametrize("options", NETWORKS, ids=lambda o: "-".join(f"{k}={v}" for k, v in o.items()))
def test_every_network_against_its_jacobian(options: dict[str, Any], outputs: str) -> None:
    field = make(**options)
    x1, x2 = points(7), points(4, seed=2)
    assert error(empirical_ntk(field, x1, x2, outputs), expected(field, x1, x2, outputs)) < 1e-12
    kernel = empirical_ntk(field, x1, outputs=outputs, method="structured")
    assert error(kernel, expected(field, x1, x1, outputs)) < 1e-12
    assert not kernel.requires_grad


@pytest.mark.parametrize("outputs", MODES)
@pytest.mark.parametrize(
    "options", [{}, {"output_activation": "tanh", "skip": 1}, {"depth": 0}, {"bias": False}], ids=str
)
def test_parts_sum_to_the_whole_and_are_those_of_their_parameters(options: dict[str, Any], outputs: str) -> None:
    field = make(encodings.Fourier(2, 3, 0.7, trainable=True), **options)
    x1, x2 = points(6), points(5, seed=2)
    found = empirical_parts(field, x1, x2, outputs)
    assert list(found) == [name for name, _ in field.named_parameters()]
    one, two = rows(field, x1), rows(field, x2)
    for name, part in found.items():
        assert error(part, reduced(torch.einsum("icp,jdp->icjd", one[name], two[name]), outputs)) < 1e-12
    assert error(sum(found.values(), torch.zeros(())), empirical_ntk(field, x1, x2, outputs)) < 1e-14


def test_frozen_parameters_have_no_part() -> None:
    field = make(encodings.Fourier(2, 3, 0.7, trainable=True))
    field.network.layers[0].requires_grad_(False)
    field.network.layers[1].weight.requires_grad_(False)
    field.network.layers[2].bias.requires_grad_(False)
    x = points(6)
    assert list(empirical_parts(field, x)) == [
        "encoding.frequencies",
        "network.layers.1.bias",
        "network.layers.2.weight",
    ]
    for outputs in MODES:
        assert error(empirical_ntk(field, x, outputs=outputs), expected(field, x, x, outputs)) < 1e-12
    with pytest.raises(ConfigError, match="no trainable parameters"):
        empirical_ntk(field.requires_grad_(False), x)


@pytest.mark.parametrize("outputs", MODES)
def test_scales_weight_the_parts(outputs: str) -> None:
    field, x = make(), points(6)
    scales = {"network": 2.0, "network.layers.1": 0.5, "network.layers.1.bias": 3.0, "network.layers.2.bias": 0.0}
    weights = {
        "network.layers.0.weight": 2.0,
        "network.layers.0.bias": 2.0,
        "network.layers.1.weight": 0.5,
        "network.layers.1.bias": 3.0,
        "network.layers.2.weight": 2.0,
        "network.layers.2.bias": 0.0,
    }
    wanted = expected(field, x, x, outputs, weights)
    assert error(empirical_ntk(field, x, outputs=outputs, scales=scales), wanted) < 1e-12
    assert error(empirical_ntk(field, x, outputs=outputs, scales=weights, method="generic"), wanted) < 1e-12
    parts = empirical_parts(field, x, outputs=outputs, scales=scales)
    assert error(sum(parts.values(), torch.zeros(())), wanted) < 1e-12


def from_oracle(
    oracle: dict[str, Any], activation: str, parameterization: str
) -> tuple[Field, dict[str, float] | None]:
    """The oracle's network as a field (weights that hold the products), and the scales that belong to it."""
    options = {"activation_scale": 1.0} if activation == "sine" else {}
    field = make(encodings.Identity(3), 2, width=8, depth=2, activation=activation, **options)
    ntk = parameterization == "ntk"
    for index, layer in enumerate(field.network.linear_layers()):
        weight = torch.tensor(oracle[f"W{index}"], dtype=torch.float64).T
        factor = oracle["w_std"] / math.sqrt(weight.shape[1]) if ntk else 1.0
        layer.weight.data = weight * factor
        layer.bias.data = torch.tensor(oracle[f"b{index}"], dtype=torch.float64) * (oracle["b_std"] if ntk else 1.0)
    return field, ntk_scales(field, oracle["w_std"], oracle["b_std"]) if ntk else None


@pytest.mark.parametrize("parameterization", ["ntk", "standard"])
@pytest.mark.parametrize("activation", ["relu", "sine", "erf"])
def test_oracle(activation: str, parameterization: str) -> None:
    oracle = json.loads((ORACLES / "empirical.json").read_text())
    module: nn.Module
    module, scales = from_oracle(oracle, "relu" if activation == "erf" else activation, parameterization)
    method = "structured"
    if activation == "erf":  # none of the MLP's activations: the generic path, with the same layers
        layers = module.network.linear_layers()
        module = nn.Sequential(layers[0], Erf(), layers[1], Erf(), layers[2])
        method = "generic"
        if scales is not None:
            place = {f"network.layers.{k}": str(2 * k) for k in range(3)}
            scales = {f"{place[name[:16]]}{name[16:]}": rate for name, rate in scales.items()}
    x = torch.tensor(oracle["X"], dtype=torch.float64)
    key = f"{'sin' if activation == 'sine' else activation}_{parameterization}"
    wanted = {name: torch.tensor(oracle[f"{key}_{name}"], dtype=torch.float64) for name in ("fx", "full", "trace")}
    assert error(module(x).detach(), wanted["fx"]) < 1e-13
    full = empirical_ntk(module, x, outputs="full", scales=scales, method=method)
    assert error(full, wanted["full"].permute(0, 2, 1, 3)) < 1e-13
    assert error(empirical_ntk(module, x, scales=scales, method=method), wanted["trace"]) < 1e-13
    single = empirical_ntk(module.float(), x.float(), outputs="full", scales=scales, method=method).double()
    assert error(single, wanted["full"].permute(0, 2, 1, 3)) < 5e-6


class Erf(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.erf(z)


def test_the_wide_network_tends_to_the_arc_cosine_kernel() -> None:
    """One hidden ReLU layer without biases in the NTK parameterisation has the limit S kappa_0 / 1 + kappa_1 (Cho & Saul
    2009); a width of 20000 comes within 3 % of it. A wrong fan-in in ntk_scales would be off by orders."""
    torch.manual_seed(0)
    field = Field(encodings.Identity(2), MLP(2, 1, width=20000, depth=1, bias=False)).double()
    for layer in field.network.linear_layers():
        nn.init.normal_(layer.weight, 0, 1 / math.sqrt(layer.in_features))
    x = torch.tensor([[math.cos(g), math.sin(g)] for g in (0.0, 0.5, 2.0)], dtype=torch.float64)
    kernel = empirical_ntk(field, x, scales=ntk_scales(field, w_std=1.0))
    s, angle = x @ x.T / 2, torch.arccos((x @ x.T).clamp(-1, 1))
    limit = s * (math.pi - angle) / (2 * math.pi) + 0.5 * (torch.sin(angle) + (math.pi - angle) * torch.cos(angle)) / (
        2 * math.pi
    )
    assert error(kernel, limit) < 0.03


@pytest.mark.parametrize("outputs", MODES)
def test_blocks_and_tiles_leave_no_seam(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = encodings.build("hashgrid", in_dim=2, n_levels=2, log2_hashmap_size=4, base_resolution=2, max_resolution=5)
    field = make(grid, out_dim=3, output_activation="sigmoid")
    x1, x2 = points(37), points(21, seed=2)
    whole = empirical_ntk(field, x1, outputs=outputs), empirical_ntk(field, x1, x2, outputs)
    assert error(whole[0][:4], expected(field, x1[:4], x1, outputs)) < 1e-12
    monkeypatch.setattr(empirical, "_BLOCK", 8)
    monkeypatch.setattr(empirical, "_TILE_BYTES", 1)  # tiles of one block
    calls = []
    made = parts.factors
    monkeypatch.setattr(parts, "factors", lambda f, x, outputs: calls.append(len(x)) or made(f, x, outputs))
    blocked = empirical_ntk(field, x1, outputs=outputs), empirical_ntk(field, x1, x2, outputs)
    assert set(calls) == {8, 37 % 8, 21 % 8}
    for one, two in zip(blocked, whole, strict=True):
        assert error(one, two) < 1e-14
    monkeypatch.setattr(empirical, "_TILE_BYTES", 2**15)  # several blocks in a tile
    for one, two in zip(
        (empirical_ntk(field, x1, outputs=outputs), empirical_ntk(field, x1, x2, outputs)), whole, strict=True
    ):
        assert error(one, two) < 1e-14


def test_symmetric_to_the_last_bit_and_positive_semidefinite() -> None:
    torch.manual_seed(0)
    field = Field(encodings.Fourier(2, 16, 3.0), MLP(32, 3, width=33, depth=3))
    x = torch.rand(700, 2)
    kernel = empirical_ntk(field, x)
    assert torch.equal(kernel, kernel.T)
    eigenvalues = torch.linalg.eigvalsh(empirical_ntk(field.double(), x))
    assert eigenvalues[0] > -1e-13 * eigenvalues[-1]
    full = empirical_ntk(field.float(), x[:100], outputs="full").flatten(2).flatten(0, 1)
    assert torch.equal(full, full.T)
    diagonal = empirical_ntk(field, x[:100], outputs="diagonal")
    assert torch.equal(diagonal, diagonal.transpose(0, 1))


@pytest.mark.parametrize("activation", ["relu", "gelu", "sine"])
def test_float32(activation: str) -> None:
    torch.manual_seed(0)
    field = Field(encodings.Fourier(2, 64, 3.0), MLP(128, 3, width=128, depth=3, activation=activation))
    x = torch.rand(200, 2)
    single = empirical_ntk(field, x)
    assert single.dtype == torch.float32
    # The same features in both, so that the comparison is of the kernel and not of cos(2 pi b x).
    features = field.encoding(x)
    double = Field(Fixed(features), field.network).double()
    index = torch.arange(200, dtype=torch.float64)[:, None]
    assert error(single.double(), empirical_ntk(double, index, method="structured")) < 5e-6


class Fixed(encodings.Encoding):
    """Given features, by number of the point."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(1)
        self.register_buffer("values", values)

    @property
    def out_dim(self) -> int:
        return self.values.shape[1]

    def encode(self, x: Tensor) -> Tensor:
        return self.values[x[:, 0].long()]


def test_where_it_is_called_does_not_matter() -> None:
    field, x = make().float(), points(6).float()
    kernel = empirical_ntk(field, x)
    with torch.inference_mode():
        inside = torch.rand(3, 2)
        assert torch.equal(empirical_ntk(field, x), kernel)
        assert empirical_ntk(field, inside).shape == (3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(empirical_ntk(field, x), kernel)
    assert torch.equal(empirical_ntk(field, x, x), kernel)
    assert torch.equal(empirical_ntk(field, x.double()), kernel)
    assert all(p.grad is None for p in field.parameters())


def test_no_points() -> None:
    field, none = make(), points(0)
    assert empirical_ntk(field, none).shape == (0, 0)
    assert empirical_ntk(field, points(3), none, "full").shape == (3, 2, 0, 2)
    assert empirical_ntk(field, none, points(3), "diagonal", method="generic").shape == (0, 3, 2)


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    field, x = make(), points(4)
    for wrong, message in (
        (x.index_fill(0, torch.tensor([2]), math.nan), "x1 must be finite: 2 of 8.*index \\(2, 0\\)"),
        (points(4, 3), r"shape \[n, 2\]; got shape \(4, 3\)"),
        (x[0], r"shape \[n, 2\]"),
        (x + 1j, "real tensor"),
    ):
        with pytest.raises(ConfigError, match=message):
            empirical_ntk(field, wrong)
    with pytest.raises(ConfigError, match="x2 must be finite"):
        empirical_ntk(field, x, x * math.inf)
    with pytest.raises(ConfigError, match="outputs must be one of trace, full, diagonal, got 'diag'; did you mean"):
        empirical_ntk(field, x, outputs="diag")
    with pytest.raises(ConfigError, match="method must be one of"):
        empirical_ntk(field, x, method="jvp")
    with pytest.raises(ConfigError, match=r"'network.layer'.*network.layers.0.weight"):
        empirical_ntk(field, x, scales={"network.layer": 2.0})
    with pytest.raises(ConfigError, match="at least 0"):
        empirical_ntk(field, x, scales={"network": -1.0})
    with pytest.raises(DeviceError, match=r"x1 is on meta, .* on cpu"):
        empirical_ntk(field, x.to("meta"))
    with pytest.raises(DeviceError, match="x2 is on meta"):
        empirical_ntk(field, x, x.to("meta"))
    with pytest.raises(ConfigError, match="ntk_scales takes a Field with an MLP, got Linear"):
        ntk_scales(nn.Linear(2, 2))  # type: ignore[arg-type]
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1e6)
    with pytest.raises(DeviceError, match=r"2000 x 2000 kernel in float64 takes 31 MiB.*ntk.NTKOperator\(field, x\)"):
        empirical_ntk(field, points(2000))


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    for encoding in (
        encodings.Fourier(2, 8, 1.0, trainable=True),
        encodings.build("hashgrid", in_dim=2, n_levels=3, log2_hashmap_size=6, seed=0),
    ):
        field, x = make(encoding, width=16), points(100)
        wanted = empirical_ntk(field, x, outputs="full")
        assert error(empirical_ntk(field.cuda(), x.cuda(), outputs="full").cpu(), wanted) < 1e-12


MEASURE = """
import resource, torch
from neuralfield import encodings
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import empirical
torch.set_num_threads(1)
empirical._TILE_BYTES = 2**24
field = Field(encodings.Fourier(2, 64), MLP(128, 3, width=32, depth=3))
empirical.empirical_ntk(field, torch.rand(600, 2))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kernel = empirical.empirical_ntk(field, torch.rand({n}, 2))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - kernel.numel() * 4)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_is_that_of_the_result() -> None:
    """Two tiles of 16 MiB and some blocks more; a copy of the result would be 125 MB, the Jacobian 440 MB."""
    ran = subprocess.run([sys.executable, "-c", MEASURE.format(n=5600)], capture_output=True, check=True, text=True)
    assert float(ran.stdout) < 80e6
