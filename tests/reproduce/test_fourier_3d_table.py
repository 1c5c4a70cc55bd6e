"""The occupancy table in miniature; the turned solids and frequencies against formulas; claims that can fail."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError, SignalError
from neuralfield.reproduce import Reproduction
from neuralfield.reproduce.fourier_3d_table import BUDGETS, ENCODINGS, SETS, Setup, Turned, check, reproduce, rotation
from neuralfield.signals.analytic import SOLIDS, Sphere
from tests.signals.meshes import torus

SMALL: dict[str, Any] = {
    "seed": 0, "device": "cpu", "budget": "small", "shapes": ["sphere"], "meshes": None, "points": None, "test_points": 3000,
    "steps": 160, "batch_size": 512, "lr": 1e-2, "width": 32, "depth": 2, "n_features": 32, "gaussian_sigma": 0.6,
    "positional_octaves": 1.0, "resolution": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Reproduction:
    return reproduce(**SMALL)


def setup(budget: str = "small", **changes: Any) -> Setup:
    return Setup(0, "cpu", {**BUDGETS[budget], "test_points": 2000, **changes}, changes.get("points", 4000))


def made_up(near: dict[str, list[float]], standing: dict[str, list[float]] | None) -> dict[str, Any]:
    return {
        "iou": dict.fromkeys(SETS, near),
        "standing": standing,
        "shapes": [f"s{i}" for i in range(len(near["none"]))],
    }


def test_the_file_has_exactly_these_options() -> None:
    assert set(yaml.safe_load((config_folder() / "reproduce" / "fourier_3d_table.yaml").read_text())) == set(SMALL)
    assert BUDGETS["small"].keys() == BUDGETS["full"].keys() <= set(SMALL)


def test_a_miniature_fits_and_is_written(result: Reproduction, tmp_path: Path) -> None:
    near = result.numbers["iou"]["iou_surface"]
    assert list(near) == list(ENCODINGS) and all(len(v) == 1 and 0 <= v[0] <= 1 for v in near.values())
    assert near["hash grid"][0] > 0.6 and result.numbers["iou"]["iou_uniform"]["Gaussian"][0] > 0.9
    assert len(result.claims) == 4 and result.numbers["standing"].keys() == {"positional", "Gaussian"}
    assert result.numbers["budget"]["points"] == 160 * 512
    result.save(tmp_path)
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width == 1440
        pixels = np.asarray(image.convert("L"), float)
    assert pixels[180:400, 40:260].std() > 10  # the truth is drawn


def test_own_meshes_stand_as_they_are_and_nothing_inside_is_drawn_too(tmp_path: Path) -> None:
    mesh, paths = torus(24, 12), []
    for name in ("one",):
        lines = [f"v {x} {2 * y} {z}" for x, y, z in mesh.vertices] + [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
        paths.append(str(tmp_path / f"{name}.obj"))
        Path(paths[-1]).write_text("\n".join(lines))
    result = reproduce(**{**SMALL, "meshes": paths, "steps": 1, "points": 2000, "lr": 1e-9})
    assert result.numbers["shapes"] == ["one"] and result.numbers["standing"] is None
    assert len(result.claims) == 3 and not result.holds
    assert result.numbers["box_share"][0] == pytest.approx(0.96**3 * 0.5 * 0.12 / 0.94, rel=0.02)
    result.save(tmp_path)  # also where a fit has no surface
    with pytest.raises(SignalError, match="missing"):
        reproduce(**{**SMALL, "meshes": [str(tmp_path / "missing.obj")]})


def test_a_claim_fails_for_numbers_that_contradict_it() -> None:
    near = {name: [0.5 + 0.1 * i, 0.4 + 0.1 * i] for i, name in enumerate(ENCODINGS)}
    near["positional"], standing = [0.6, 0.5], {"positional": [0.8, 0.7], "Gaussian": [0.8, 0.7]}
    assert [claim.holds for claim in check(made_up(near, standing))] == [True] * 4
    for name, value, expected in (
        ("none", 0.6, [False, True, True, True]),
        ("Gaussian", 0.55, [True, False, True, False]),  # and then it lost as much by turning
        ("hash grid", 0.6, [True, True, False, True]),
    ):
        changed = {**copy.deepcopy(near), name: [value, value]}
        assert [claim.holds for claim in check(made_up(changed, standing))] == expected
    level = {"positional": [0.6, 0.5], "Gaussian": [0.8, 0.7]}
    assert [claim.holds for claim in check(made_up(near, level))] == [True, True, True, False]
    assert len(check(made_up(near, None))) == 3


def test_a_gain_that_another_seed_would_change_is_none() -> None:
    near = {name: [0.5 + 0.01 * i] for i, name in enumerate(ENCODINGS)}
    assert not any(claim.holds for claim in check(made_up(near, None))[1:])


def test_fits_that_have_not_begun_to_learn_are_counted() -> None:
    near = {name: [0.5, 0.5, 0.5] for name in ENCODINGS} | {"positional": [0.0, 0.4, 0.001]}
    claims = check(made_up(near, None))
    assert "2 of 3 fits (positional) have not begun to learn" in claims[1].measured
    assert "begun" not in claims[0].measured + claims[2].measured


def test_means_and_deviations() -> None:
    numbers = made_up({name: [0.2, 0.4] for name in ENCODINGS}, None)
    check(numbers)
    assert numbers["mean"]["iou_surface"]["none"] == pytest.approx(0.3)
    assert numbers["std"]["iou_uniform"]["Gaussian"] == pytest.approx(math.sqrt(0.02))


def test_the_full_budget_is_the_papers_network_and_encodings() -> None:
    full = setup("full")
    signal = full.solids(["sphere"], turned=False)[0]
    fields = {name: full.field(signal, name) for name in ENCODINGS}
    layers = [layer.out_features for layer in fields["Gaussian"].network.linear_layers()]
    assert layers == [256] * 7 + [1]
    assert [fields[n].encoding.out_dim for n in ENCODINGS[:4]] == [3, 6, 510, 512]
    x = torch.rand(5, 3)
    assert torch.equal(fields["none"].encoding(x), 2 * x - 1)
    for name in ("basic", "positional", "Gaussian"):
        assert fields[name].encoding(x).norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert float(fields["Gaussian"].encoding.frequencies.std()) == pytest.approx(12, rel=0.1)
    # The authors' matrix, written out: one frequency on one axis, 2^s - 1.
    rows = [2 ** (6 * k / 84) - 1 for k in range(85)]
    found = fields["positional"].encoding.frequencies.numpy()
    assert found.shape == (3, 255) and np.allclose(np.sort(found.max(axis=0)), np.repeat(rows, 3), rtol=1e-6)
    assert ((found != 0).sum(axis=0) <= 1).all() and np.allclose(found.sum(axis=1), sum(rows), rtol=1e-6)
    assert np.array_equal(fields["basic"].encoding.frequencies.numpy(), np.eye(3))


def test_the_rate_falls_to_a_tenth_in_5000_of_10000_steps() -> None:
    from neuralfield.fitting.schedule import factor

    assert factor("exponential", 0.5, 0.01) == pytest.approx(0.1)


def test_a_rotation_is_one() -> None:
    turn = rotation((1.0, 2.0, 3.0), 1.0)
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(turn @ (1, 2, 3), (1, 2, 3)) and np.trace(turn) == pytest.approx(1 + 2 * math.cos(1))
    assert np.allclose(rotation((0, 0, 1), math.pi / 2) @ (1, 0, 0), (0, 1, 0))  # the right-hand rule


@pytest.mark.parametrize("name", ["menger", "torus"])
def test_turned_solids_agree_with_themselves(name: str) -> None:
    solid, rng = Turned(SOLIDS[name](0.0)), np.random.default_rng(0)
    low, high = solid.box
    assert (high - low).max() == pytest.approx(0.96) and np.allclose(low + high, 1)
    on = solid.surface(3000, rng)
    assert on.min() > 0.01 and on.max() < 0.99
    mesh = solid.mesh(64)
    assert mesh.areas.sum() == pytest.approx(solid.area, rel=0.03)
    points = rng.random((40_000, 3))
    volume = float(solid.inside(points).mean())
    assert volume == pytest.approx(_volume(mesh), abs=0.01)
    # Normals of the mesh tell the two sides of the surface apart: inside, mesh and rotation belong together.
    centres, normals = mesh.vertices[mesh.faces].mean(axis=1), mesh.normals
    within, beyond = (solid.inside(centres + sign * 0.012 * normals) for sign in (-1, 1))
    assert within.mean() > 0.9 and beyond.mean() < 0.1


def _volume(mesh: Any) -> float:
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def test_a_turned_ball_is_a_ball_and_has_another_identity() -> None:
    ball, points = Turned(Sphere(0.0)), np.random.default_rng(1).random((5000, 3))
    away = np.linalg.norm(points - 0.5, axis=1)
    clear = np.abs(away - 0.48) > 1e-3  # the box is that of a mesh
    assert np.array_equal(ball.inside(points)[clear], (away < 0.48)[clear])
    assert ball.identity not in (None, Sphere(0.0).identity, Turned(SOLIDS["torus"](0.0)).identity)


def test_points_fill_the_cube_once() -> None:
    signal = setup(points=4000).solids(["torus"], turned=True)[0]
    index = signal.split.train(torch.arange(4000))
    assert (
        signal.split.n_train == 4000
        and torch.isclose(signal.coordinates(index).mean(0), torch.tensor(0.5), atol=0.03).all()
    )
    assert Setup(0, "cpu", BUDGETS["full"]).points == 2**24
    assert Setup(0, "cpu", BUDGETS["small"]).points == 600 * 2048


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "large"}, "budget must be"),
        ({"shapes": ["gyriod"]}, "did you mean 'gyroid'"),
        ({"shapes": []}, "shapes must be a list"),
        ({"shapes": [3]}, "shapes must be a list"),
        ({"shapes": ["torus", "torus"]}, "twice"),
        ({"meshes": {"a": 1}}, "meshes must be a list"),
        ({"steps": 0}, "steps must be"),
        ({"points": 0}, "points must be"),
        ({"n_features": 2}, "n_features must be"),
        ({"gaussian_sigma": 0}, "gaussian_sigma must be"),
        ({"positional_octaves": -1}, "positional_octaves must be"),
        ({"resolution": 1}, "resolution must be"),
        ({"lr": 0}, "lr must be"),
        ({"width": 0}, "network.width must be"),
    ],
)
def test_bad_options(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        reproduce(**{**SMALL, "points": 500, "test_points": 500, **changes})
