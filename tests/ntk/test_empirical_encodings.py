"""The encodings' own part in the tangent kernel: tables, frequencies, what others register."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralfield import encodings
from neuralfield.encodings.hashgrid import HashGrid, Level
from neuralfield.errors import ConfigError, DeviceError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import generic, memory, parts, structure, tables
from neuralfield.ntk.empirical import empirical_ntk, empirical_parts
from neuralfield.ntk.ntk_operator import NTKOperator
from tests.ntk.test_empirical import MODES, ORACLES, error, expected, make, points, reduced, rows


def grid(in_dim: int = 2, **options: Any) -> encodings.Encoding:
    """Two dense levels and one where corners collide: 8 rows for many vertices."""
    small = {"n_levels": 3, "log2_hashmap_size": 3 + (in_dim > 2), "base_resolution": 2, "max_resolution": 7, "seed": 0}
    return encodings.build("hashgrid", in_dim=in_dim, **{**small, **options})


def bounded(inner: encodings.Encoding) -> encodings.Bounded:
    return encodings.Bounded(inner, low=[-0.5, 0.25], high=[1.5, 0.75])


ENCODINGS = {
    "none": lambda: encodings.Identity(2),
    "centered": lambda: encodings.Identity(2, centered=True),
    **{
        f"positional-{c}": lambda c=c: encodings.Positional(2, 3, convention=c)
        for c in ("neuralfield", "nerfstudio", "tinycudann", "nerf", "nerfacc")
    },
    "fourier": lambda: encodings.Fourier(2, 4, 1.5),
    "fourier-trainable": lambda: encodings.Fourier(2, 4, [0.5, 1.5], decay=0.5, normalize=True, trainable=True),
    "fourier-1d": lambda: encodings.Fourier(1, 3, 1.0, amplitudes=[1.0, 0.0, 2.0], trainable=True),
    **{
        f"grid-{kind}-{outside}": lambda kind=kind, outside=outside: grid(interpolation=kind, outside=outside)
        for kind in ("linear", "smoothstep", "nearest")
        for outside in ("clamp", "wrap", "zero", "error")
    },
    "grid-1d": lambda: grid(1, n_features_per_level=1),
    "grid-3d": lambda: grid(3, n_features_per_level=3),
    "grid-4d": lambda: grid(4, n_levels=2),
    "bounded-fourier": lambda: bounded(encodings.Fourier(2, 4, 1.5, trainable=True)),
    "bounded-grid": lambda: bounded(grid(outside="zero")),
    "bounded-bounded-grid": lambda: bounded(bounded(grid(interpolation="smoothstep"))),
    "bounded-positional": lambda: bounded(encodings.Positional(2, 2)),
}


def around(encoding: encodings.Encoding, n: int, seed: int = 1) -> Tensor:
    """Points of the cube and, where the encoding takes them, around it; two of them equal."""
    x = points(n, encoding.in_dim, seed)
    x[-1] = x[0]
    return x if getattr(encoding, "outside", "") == "error" else 1.6 * x - 0.3


@pytest.mark.parametrize("outputs", MODES)
@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_against_its_jacobian(name: str, outputs: str) -> None:
    encoding = ENCODINGS[name]()
    field = make(encoding, activation="tanh", skip=1, output_activation="sigmoid")
    x1, x2 = around(encoding, 9), around(encoding, 5, seed=2)
    x2[1] = x1[3]
    with torch.no_grad():  # the explicit Jacobian must see what the kernel is for
        assert all(p.abs().max() > 1e-2 for p in field.parameters())
    assert error(empirical_ntk(field, x1, x2, outputs, method="structured"), expected(field, x1, x2, outputs)) < 1e-12
    assert error(empirical_ntk(field, x1, outputs=outputs), expected(field, x1, x1, outputs)) < 1e-12


@pytest.mark.parametrize("kind", ["linear", "smoothstep", "nearest"])
def test_levels_are_the_parts_of_a_grid(kind: str) -> None:
    """Each level's part against the explicit Jacobian to that level's rows; the output linear in the features or not."""
    field = make(grid(interpolation=kind, n_levels=2))
    x1, x2 = points(8), points(6, seed=2)
    found = empirical_parts(field, x1, x2, "full")
    assert list(found)[:3] == ["encoding.level00", "encoding.level01", "network.layers.0.weight"]
    one, two = rows(field, x1)["encoding.params"], rows(field, x2)["encoding.params"]
    layout = field.encoding.layout
    for index, level in enumerate(layout.levels):
        span = slice(level.offset * layout.n_features, (level.offset + level.entries) * layout.n_features)
        wanted = torch.einsum("icp,jdp->icjd", one[..., span], two[..., span])
        assert error(found[f"encoding.level{index:02d}"], wanted) < 1e-12
    whole = empirical_ntk(field, x1, x2, "full")
    assert error(sum(found.values(), torch.zeros(())), whole) < 1e-14
    scaled = empirical_ntk(field, x1, x2, "full", scales={"encoding.params": 3.0, "encoding.level01": 0.5})
    weights = {"encoding.level00": 3.0, "encoding.level01": 0.5}
    assert error(scaled, sum((weights.get(k, 1.0) * part for k, part in found.items()), torch.zeros(()))) < 1e-13


@pytest.mark.parametrize("outputs", MODES)
@pytest.mark.parametrize("active", [1, 2, 3, None])
def test_levels_that_are_not_active_have_no_part(active: int | None, outputs: str) -> None:
    """During coarse-to-fine training; the names of the parts, and so the keys of scales, do not change with it."""
    encoding = grid(outside="wrap")
    encoding.active_levels = active  # type: ignore[assignment]
    field = make(bounded(encoding), activation="tanh")
    x1, x2 = points(7), points(5, seed=2)
    wanted = expected(field, x1, x2, outputs)
    assert error(empirical_ntk(field, x1, x2, outputs), wanted) < 1e-12
    found = empirical_parts(field, x1, x2, outputs)
    assert list(found)[:4] == [*(f"encoding.encoding.level{k:02d}" for k in range(3)), "network.layers.0.weight"]
    for level in range(3):
        assert bool((found[f"encoding.encoding.level{level:02d}"] != 0).any()) is (level < (active or 3))
    assert error(sum(found.values(), torch.zeros(())), wanted) < 1e-12
    assert error(empirical_ntk(field, x1, outputs=outputs), expected(field, x1, x1, outputs)) < 1e-12


@pytest.mark.parametrize("active", [1, 2, None])
def test_the_operator_with_inactive_levels_and_scales_is_the_matrix(active: int | None) -> None:
    encoding = grid(n_features_per_level=1)
    encoding.active_levels = active  # type: ignore[assignment]
    field, x = make(encoding, activation="tanh"), points(6)
    scales = {"encoding.level00": 2.0, "encoding.level02": 0.5}
    operator = NTKOperator(field, x, scales=scales)
    wanted = empirical_ntk(field, x, outputs="full", scales=scales).reshape(12, 12)
    assert error(operator.to_dense(), wanted) < 1e-12
    assert error(operator.diagonal(), wanted.diagonal()) < 1e-12
    sizes = [level.entries for level in encoding.layout.levels]  # type: ignore[attr-defined]
    by_level = rows(field, x)["encoding.params"].flatten(0, 1).split(sizes, dim=1)
    tables_alone = sum((r * j @ j.T for r, j in zip((2.0, 1.0, 0.5), by_level, strict=True)), torch.zeros(()))
    found = empirical_parts(field, x, outputs="full", scales=scales)
    assert (
        error(sum((found[f"encoding.level{k:02d}"] for k in range(3)), torch.zeros(())).reshape(12, 12), tables_alone)
        < 1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_rounded_table(dtype: torch.dtype) -> None:
    """The features are those of the rounded copy, which the network's signals see; derivatives are to `params` itself."""
    encoding = grid()
    field = make(encoding, activation="tanh")
    x1, x2 = points(7), points(5, seed=2)
    unrounded = empirical_ntk(field, x1, x2)
    encoding.table_dtype = dtype  # type: ignore[assignment]
    found = empirical_ntk(field, x1, x2)
    assert error(found, expected(field, x1, x2, "trace")) < 1e-12
    assert error(found, unrounded) > 1e-6


def test_coordinates_of_a_half_precision_grid_are_not_rounded() -> None:
    """A level of 4,096 cells: in bfloat16 no two of these points would differ."""
    encoding = encodings.HashGrid(2, 1, 2, 8, 4096, 4096, seed=0).bfloat16()
    x = 0.5 + torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) / 1000
    field = Field(encoding, MLP(2, 1, width=4, depth=1, activation="tanh"))
    part = empirical_parts(field, x, outputs="diagonal")["encoding.level00"][:, :, 0]
    row = tables.interpolation(x, encoding.layout.levels[0], "linear")
    w = torch.zeros(40, encoding.layout.levels[0].entries).scatter_add(1, row.index, row.weight)
    assert torch.equal(part != 0, w @ w.T != 0) and bool((part == 0).any())


def test_a_table_is_local_and_collisions_are_not() -> None:
    """Points of far cells have no row of a dense level in common; with 8 rows for 64 vertices some have."""
    options = {"n_levels": 1, "base_resolution": 8, "max_resolution": 8}
    dense, hashed = grid(log2_hashmap_size=6, **options), grid(**options)
    axis = (torch.arange(7, dtype=torch.float64) + 0.5) / 7
    x = torch.cartesian_prod(axis, axis)
    near = (x[:, None] - x[None]).abs().amax(-1) * 7 < 1.5
    for encoding, local in ((dense, True), (hashed, False)):
        part = empirical_parts(make(encoding, activation="tanh"), x, outputs="diagonal")["encoding.level00"]
        assert bool((part[near] != 0).any()) and bool((part[~near] == 0).all()) is local


def test_a_point_on_two_equal_rows() -> None:
    """Two corners of one cell with the same row: their weights add before they are squared."""
    x = points(400)
    encoding = grid(n_levels=1, base_resolution=64, max_resolution=64)
    level = encoding.layout.levels[0]
    part = tables.interpolation(x, level, "linear")
    twice = [len(set(row.tolist())) < 4 for row in part.index]
    assert any(twice)
    w = torch.zeros(400, level.entries, dtype=torch.float64)
    for k in range(4):
        w[torch.arange(400), part.index[:, k]] += part.weight[:, k]
    assert error(part.block(slice(0, 400)).gram(part.block(slice(100, 350))), w @ w[100:350].T) < 1e-14


def test_the_engine_of_float32_and_its_kernel_agree() -> None:
    """The interpolation weights are those of the compiled engine too: W_l T_l gives its features."""
    encoding = encodings.build("hashgrid", in_dim=3, n_levels=6, log2_hashmap_size=12, seed=0)
    x = torch.rand(300, 3)
    found = [part.weight[:, :, None] * table[part.index] for part, table in
             zip(tables.levels(encoding, x), encoding.level_tables(), strict=True)]  # fmt: skip
    features = torch.cat([values.sum(1) for values in found], dim=1)
    assert error(features.detach(), encoding(x).detach()) < 1e-5


def test_float32_grid() -> None:
    field = make(grid(n_levels=4, max_resolution=40, log2_hashmap_size=8), out_dim=3, width=64, activation="gelu")
    x = points(300).float()
    assert error(empirical_ntk(field.float(), x).double(), empirical_ntk(field.double(), x)) < 5e-6


def test_grid_oracle() -> None:
    """Vertices at whole numbers of the oracle's position N x, where ours are at N x + 1/2: hence the shifted points."""
    oracle = {k: v if k == "about" else torch.tensor(v, dtype=torch.float64)
              for k, v in json.loads((ORACLES / "grid_encoding.json").read_text()).items()}  # fmt: skip
    field = make(Vertices(oracle), width=8, depth=1, activation="relu")
    for layer, k in zip(field.network.linear_layers(), (1, 2), strict=True):
        layer.weight.data, layer.bias.data = oracle[f"W{k}"].T.contiguous(), oracle[f"b{k}"]
    x = oracle["V"]
    wanted = {name: oracle[f"ntk_{name}"].permute(0, 2, 1, 3) for name in ("table", "mlp", "total")}
    assert error(field(x).detach(), oracle["f"]) < 1e-14

    # The tables by our own interpolation matrices and the network's signals.
    tape = structure.forward(field.network, field.encoding(x).detach())
    signals = structure.unit_signals(field.network, tape, to_features=True)[1]
    assert signals is not None
    into = {"table": torch.zeros(12, 2, 12, 2, dtype=torch.float64)}
    for k, cells in enumerate((4, 7)):
        level = Level(scale=float(cells), resolution=cells + 1, entries=(cells + 1) ** 2, offset=0, hashed=False)
        row = tables.interpolation(x - 0.5 / cells, level, "linear")
        factor = parts.Factor(row, signals[:, :, 2 * k : 2 * k + 2], weight="table")
        factor.block(slice(0, 7)).add(factor.block(slice(0, 12)), {"table": into["table"][:7]}, {"table": 1.0}, "full")
        factor.block(slice(7, 12)).add(factor.block(slice(0, 12)), {"table": into["table"][7:]}, {"table": 1.0}, "full")
    assert error(into["table"], wanted["table"]) < 1e-13

    # The whole field, the tables as those of an encoding that the package does not know.
    found = empirical_parts(field, x, outputs="full")
    assert list(found)[:2] == ["encoding.table0", "encoding.table1"]
    assert error(found["encoding.table0"] + found["encoding.table1"], wanted["table"]) < 1e-13
    network = sum((part for name, part in found.items() if name.startswith("network")), torch.zeros(()))
    assert error(network, wanted["mlp"]) < 1e-13
    for method in ("structured", "generic"):
        assert error(empirical_ntk(field, x, outputs="full", method=method), wanted["total"]) < 1e-13
        assert error(empirical_ntk(field, x, method=method), reduced(wanted["total"], "trace")) < 1e-13


class Vertices(encodings.Encoding):
    """Trainable values at the vertices of two grids, the second axis fastest, bilinear between them."""

    def __init__(self, oracle: dict[str, Tensor]) -> None:
        super().__init__(2)
        self.table0, self.table1 = nn.Parameter(oracle["tab0"].clone()), nn.Parameter(oracle["tab1"].clone())

    @property
    def out_dim(self) -> int:
        return 4

    def encode(self, x: Tensor) -> Tensor:
        return torch.cat([self.bilinear(x * 4, self.table0, 5), self.bilinear(x * 7, self.table1, 8)], dim=1)

    @staticmethod
    def bilinear(position: Tensor, table: Tensor, size: int) -> Tensor:
        cell = position.floor()
        w = position - cell
        index = cell[:, 0].long() * size + cell[:, 1].long()
        weights = (1 - w[:, 0]) * (1 - w[:, 1]), (1 - w[:, 0]) * w[:, 1], w[:, 0] * (1 - w[:, 1]), w[:, 0] * w[:, 1]
        return sum(
            (
                weight[:, None] * table[index + step]
                for weight, step in zip(weights, (0, 1, size, size + 1), strict=True)
            ),
            torch.zeros(()),
        )


class Warped(encodings.Encoding):
    """Someone else's: a trainable warp before a grid of ours, whose autograd function torch.func cannot transform."""

    def __init__(self) -> None:
        super().__init__(2)
        self.shift = nn.Parameter(torch.tensor([0.1, -0.05]))
        self.unused = nn.Parameter(torch.ones(2))
        self.grid = grid(n_levels=2, interpolation="smoothstep")

    @property
    def out_dim(self) -> int:
        return self.grid.out_dim

    def encode(self, x: Tensor) -> Tensor:
        return self.grid(0.8 * x + 0.1 + self.shift)


class Doubled(HashGrid):
    """A subclass that computes something else than its parent."""

    def encode(self, x: Tensor) -> Tensor:
        return 2 * super().encode(x)


@pytest.mark.parametrize("outputs", MODES)
@pytest.mark.parametrize("kind", ["warped", "subclass", "partly frozen", "bounded"])
def test_an_encoding_of_somebody_else(kind: str, outputs: str) -> None:
    torch.manual_seed(0)
    encoding: encodings.Encoding = Warped()
    if kind == "subclass":
        encoding = Doubled(2, 2, 2, 4, 2, 5)
    elif kind == "bounded":
        encoding = bounded(encoding)
    field = make(encoding, activation="tanh")
    if kind == "partly frozen":
        encoding.grid.requires_grad_(False)  # type: ignore[union-attr]
    x1, x2 = points(6), points(5, seed=2)
    found = empirical_parts(field, x1, x2, outputs, method="structured")
    assert list(found) == [name for name, p in field.named_parameters() if p.requires_grad]
    one, two = rows(field, x1), rows(field, x2)
    for name, part in found.items():
        wanted = reduced(torch.einsum("icp,jdp->icjd", one[name], two[name]), outputs)
        assert float((part - wanted).abs().max()) <= 1e-12 * float(wanted.abs().max())
    assert error(empirical_ntk(field, x1, outputs=outputs), expected(field, x1, x1, outputs)) < 1e-12


def test_outside_is_refused_as_by_the_grid() -> None:
    field = make(grid(outside="error"))
    with pytest.raises(ConfigError, match="outside \\[0, 1\\]"):
        empirical_ntk(field, points(4) + 0.5)


def test_an_encoding_with_more_parameters_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    field = make(Warped())
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000.0)
    with pytest.raises(DeviceError, match=r"Warped's own parameters at .* points takes"):
        empirical_ntk(field, points(5))


def test_the_generic_path_of_a_grid_is_the_structured_one() -> None:
    field, x = make(grid()), points(5)
    assert error(empirical_ntk(field, x, method="generic"), empirical_ntk(field, x, method="structured")) < 1e-12
    assert "encoding.params" in generic.jacobian(field, x, torch.eye(2, dtype=torch.float64).expand(5, 2, 2))
