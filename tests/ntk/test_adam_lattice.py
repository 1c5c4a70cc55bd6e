"""Adam in function space on a grid against the same with matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.ntk import adam_dense, adam_lattice
from neuralfield.ntk.adam import AdamPrediction, predict_adam
from neuralfield.ntk.adam_moments import Moments
from neuralfield.ntk.toeplitz import ToeplitzOperator


def _problem() -> dict[str, Any]:
    """Two kernels on a grid of 6 x 7 points, and between a shifted one and it."""
    generator = torch.Generator().manual_seed(2)
    rows, columns = torch.meshgrid(torch.arange(-5, 6), torch.arange(-6, 7), indexing="ij")
    bump = lambda width, shift: torch.exp(-((rows + shift) ** 2 + (columns + shift) ** 2) / width**2)  # noqa: E731
    parts = {"net.weight": ToeplitzOperator(bump(1.5, 0.0) + 0.2), "net.bias": ToeplitzOperator(torch.ones(11, 13))}
    test = {
        "net.weight": ToeplitzOperator(bump(1.5, 0.5) + 0.2, (6, 7)),
        "net.bias": ToeplitzOperator(torch.ones(11, 13), (6, 7)),
    }
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {
        "parts": parts, "parts_test": test, "sizes": {"net.weight": 50, "net.bias": 2}, "y": draw(42, 2),
        "y_test": draw(42, 2), "f0": 0.3 * draw(42, 2), "f0_test": 0.3 * draw(42, 2), "learning_rate": 2e-3,
    }  # fmt: skip


def _both(problem: dict[str, Any], steps: int, **options: Any) -> tuple[AdamPrediction, AdamPrediction]:
    dense = dict(problem)
    for name in ("parts", "parts_test"):
        dense[name] = {key: part.to_dense() for key, part in problem[name].items()}
    return tuple(predict_adam(**p, steps=steps, **options) for p in (problem, dense))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 5, "n_total": 420},
        {"last_layer": ("net.weight", 0.1), "last_biases": torch.tensor([0.1, -0.2])},
        {"counted": torch.cat([torch.ones(20, 2), torch.zeros(22, 2)])},
    ],
    ids=["plain", "batch", "growing", "counted"],
)
def test_single_steps_are_the_dense_ones(options: dict[str, Any]) -> None:
    on_grid, dense = _both(_problem(), 40, at=[1, 3, 10, 25], **options)
    assert on_grid.steps.tolist() == dense.steps.tolist() == [1, 3, 10, 25, 40]
    np.testing.assert_allclose(on_grid.train_mse, dense.train_mse, rtol=2e-4)
    assert on_grid.test_mse is not None and dense.test_mse is not None
    np.testing.assert_allclose(on_grid.test_mse, dense.test_mse, rtol=2e-4)
    torch.testing.assert_close(on_grid.test_residual, dense.test_residual, rtol=1e-3, atol=1e-4)
    assert on_grid.weights == pytest.approx(dense.weights, rel=1e-3)
    assert float(dense.train_mse[-1]) < 0.995 * float(dense.train_mse[0])


def test_the_initial_function_is_followed_in_one_output() -> None:
    problem = _problem()
    problem["f0"], problem["f0_test"] = problem["f0"][:, :1].repeat(1, 2), problem["f0_test"][:, :1].repeat(1, 2)
    on_grid, dense = _both(problem, 30)
    assert on_grid.f0_mse is not None and dense.f0_mse is not None
    np.testing.assert_allclose(on_grid.f0_mse, dense.f0_mse, rtol=1e-3)


@pytest.mark.parametrize("module", [adam_lattice, adam_dense], ids=["grid", "matrices"])
def test_intervals_agree_with_single_steps(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    schedule = lambda step: 0.5 * (1 + math.cos(math.pi * step / 1000))  # noqa: E731
    options = {"schedule": schedule, "at": [200, 400, 700], "last_layer": ("net.weight", 5.0)}
    problem = _problem()
    problem["learning_rate"] = 3e-3
    which = 0 if module is adam_lattice else 1
    quick = _both(problem, 1000, **options)[which]
    monkeypatch.setattr(module, "SINGLE_STEPS", 10**6)
    slow = _both(problem, 1000, **options)[which]
    assert slow.train_mse[-1] < 0.7 * slow.train_mse[0]
    assert np.abs(10 * np.log10(quick.train_mse / slow.train_mse)).max() < 0.15
    assert quick.test_mse is not None and slow.test_mse is not None
    assert np.abs(10 * np.log10(quick.test_mse / slow.test_mse)).max() < 0.05


@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.01, 0.02])
def test_momentum_makes_slow_modes_faster(rate: float) -> None:
    beta, r, m = 0.9, 1.0, 0.0
    path = []
    for _ in range(2000):
        m = beta * m + (1 - beta) * r
        r -= rate * m
        path.append(r)
    measured = math.log(path[-2] / path[-1])
    assert float(adam_dense.decay(torch.tensor([rate], dtype=torch.float64), beta)) == pytest.approx(measured, rel=1e-6)
    assert measured > -math.log(1 - rate) * (1 + 5 * rate)


def test_fast_modes_swing_and_fall_by_the_root_of_the_memory() -> None:
    found = adam_dense.decay(torch.tensor([0.1, 5.0, 100.0]), 0.9)
    torch.testing.assert_close(found, torch.full((3,), -0.5 * math.log(0.9)))


def test_matrices_and_operators_do_not_mix() -> None:
    problem = _problem()
    problem["parts"]["net.bias"] = torch.ones(42, 42)
    with pytest.raises(ConfigError, match="operators"):
        predict_adam(**problem, steps=3)


def test_the_edge_of_stability_is_that_of_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, seen = _problem(), []
    bounded = Moments.bounded

    def watched(self: Moments, rates: Any, square: Any, top: Any, count: int) -> Any:
        seen.append(top)
        return bounded(self, rates, square, top, count)

    monkeypatch.setattr(Moments, "bounded", watched)
    free, _ = _both(problem, 200)
    on_grid, dense = seen[0], seen[-1]
    assert torch.allclose(on_grid, dense, rtol=0.02) and float(dense[1]) == pytest.approx(
        42, rel=0.2
    )  # nearly constant
    # Points that are spread say how large the first eigenvalue is; here they exaggerate, and the edge is reached.
    spread = {name: 1e4 * part.to_dense()[::3, ::3] for name, part in problem["parts"].items()}
    both = _both(problem, 200, spread=spread)
    np.testing.assert_allclose(both[0].train_mse, both[1].train_mse, rtol=0.15)
    assert both[0].train_mse[-1] > 1.05 * free.train_mse[-1]
