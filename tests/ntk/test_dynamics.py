"""Closed-form dynamics: independent software, training in parameter space, and differential equations."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from neuralfield.errors import ConfigError, DeviceError
from neuralfield.ntk import memory
from neuralfield.ntk.conventions import rate
from neuralfield.ntk.dynamics import Dynamics, predict
from neuralfield.ntk.modes import Descent, clip_spectrum

FILE = Path(__file__).parents[1] / "oracles" / "dynamics.json"


@pytest.fixture(scope="module")
def oracle() -> dict[str, Tensor]:
    """Numbers of neural-tangents; the file says the conventions."""
    values = json.loads(FILE.read_text(encoding="utf-8"))
    return {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items() if isinstance(v, list)}


class Linear:
    """f(x) = phi(x) theta: 30 random features, 12 training points, 7 test points, 2 outputs; theta0 is not zero."""

    def __init__(self, features: int = 30, n: int = 12, outputs: int = 2, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
        self.train, self.test = draw(n, features) / math.sqrt(features), draw(7, features) / math.sqrt(features)
        self.theta, self.y = draw(features, outputs), draw(n, outputs)
        self.kernels = (self.train @ self.train.T, self.test @ self.train.T)
        self.f0, self.f0_test = self.train @ self.theta, self.test @ self.theta

    def descend(
        self, steps: int, step: float, momentum: float, loss: str, ridge: float = 0.0
    ) -> tuple[list[Tensor], list[Tensor]]:
        """torch.optim.SGD on the parameters; the values before each step and after the last one."""
        theta = self.theta.clone().requires_grad_()
        optimizer = torch.optim.SGD([theta], lr=step, momentum=momentum)
        trains, tests = [], []
        for _ in range(steps + 1):
            values = self.train @ theta
            trains.append(values.detach())
            tests.append((self.test @ theta).detach())
            square = (values - self.y).square()
            value = {"sum": 0.5 * square.sum(), "mean": 0.5 * square.mean(), "mse": square.mean()}[loss]
            scale = rate(loss, *self.y.shape) * ridge / 2
            value = value + scale * (theta - self.theta).square().sum()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return trains, tests


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# Against neural-tangents.


def test_oracle_flow(oracle: dict[str, Tensor]) -> None:
    """All times from one decomposition; the file's step size, 0.5, is above the stable 0.4532, and must be insisted on."""
    found = predict(
        oracle["K"], oracle["Ks"], oracle["Y"], oracle["t"], loss="mean", learning_rate=0.5, check_stability=False
    )
    close(found.train, oracle["zero_init_train"], 1e-12)
    close(found.test, oracle["zero_init_test"], 1e-12)
    assert not found.discrete_stable
    same = predict(oracle["K"], oracle["Ks"], oracle["Y"], oracle["t"] * 0.5 / 28)  # loss 1/2 sum: t / (n C)
    close(same.test, oracle["zero_init_test"], 1e-12)


@pytest.mark.parametrize("also", [[], [3.0]], ids=["cholesky", "eigh"])
def test_oracle_infinity(oracle: dict[str, Tensor], also: list[float]) -> None:
    dynamics = Dynamics(oracle["K"], oracle["Ks"])
    found = dynamics.predict(oracle["Y"], [*also, math.inf], oracle["f0"], f0_test=oracle["f0t"])
    close(found.train[-1], oracle["inf_train"], 1e-12)
    close(found.test[-1], oracle["inf_test"], 1e-12)


def test_oracle_momentum(oracle: dict[str, Tensor]) -> None:
    """Their numbers come from a numerical solver, and are good to 2e-7."""
    options = {"loss": "mean", "learning_rate": 0.5, "momentum": 0.9}
    found = predict(oracle["K"], oracle["Ks"], oracle["Y"], 10, **options)
    close(found.train, oracle["ode_momentum0.9_t10_train"], 4e-7)
    close(found.test, oracle["ode_momentum0.9_t10_test"], 4e-7)


# Against training.


@pytest.mark.parametrize("loss", ["sum", "mean", "mse"])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_equals_descent_of_the_parameters(loss: str, momentum: float, ridge: float) -> None:
    model = Linear()
    dynamics = Dynamics(*model.kernels, method="gd", momentum=momentum, loss=loss, ridge=ridge)
    step = 0.9 * dynamics.max_learning_rate(2)
    trains, tests = model.descend(200, step, momentum, loss, ridge)
    found = dynamics.replace(learning_rate=step).predict(model.y, range(201), model.f0, f0_test=model.f0_test)
    close(found.train, torch.stack(trains), 1e-12)
    close(found.test, torch.stack(tests), 1e-12)
    close(found.train_mse, torch.stack([(f - model.y).square().mean() for f in trains]), 1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("loss", ["sum", "mse"])
def test_the_named_step_is_the_largest(momentum: float, loss: str) -> None:
    """Just below it training converges, just above it explodes; above it the prediction refuses and names it."""
    model = Linear()
    kernels = {"k_train": model.kernels[0], "momentum": momentum, "loss": loss}
    bound = Dynamics(**kernels).max_learning_rate(2)
    top = Dynamics(**kernels).eigenvectors[:, 0]
    for factor, low, high in ((0.99, 0.0, 0.1), (1.01, 100.0, math.inf)):
        values = model.descend(300, bound * factor, momentum, loss)[0]
        first, last = (float((top @ (values[index] - model.y)).norm()) for index in (0, -1))
        assert low < last / first < high
    for method in ("gd", "flow"):
        Dynamics(**kernels, method=method, learning_rate=bound * 0.99).predict(model.y, 10)
        with pytest.raises(ConfigError, match=f"largest stable one is {bound:.6g}"):
            Dynamics(**kernels, method=method, learning_rate=bound * 1.01).predict(model.y, 10)
    free = Dynamics(**kernels, method="gd", learning_rate=bound * 1.01, check_stability=False)
    found = free.predict(model.y, 300, model.f0)
    assert not found.discrete_stable and "UNSTABLE" in repr(found)
    torch.testing.assert_close(found.train, model.descend(300, bound * 1.01, momentum, loss)[0][-1], rtol=1e-8, atol=0)


def test_a_bare_flow_claims_no_step() -> None:
    kernel = 1000 * torch.eye(3, dtype=torch.float64)
    found = predict(kernel, None, torch.ones(3), 0.001)
    close(found.train, torch.full((3,), 1 - math.exp(-1), dtype=torch.float64), 1e-14)
    assert found.max_learning_rate == pytest.approx(0.002) and "own time" in repr(found)
    with pytest.raises(ConfigError, match=r"learning_rate=1: the largest stable one is 0\.002"):
        predict(kernel, None, torch.ones(3), 1, method="gd")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_flow_solves_its_equation(momentum: float) -> None:
    model = Linear(outputs=1)
    kernel, test, step = model.kernels[0].numpy(), model.kernels[1].numpy(), 0.2
    y, n, start = model.y[:, 0].numpy(), len(model.y), np.concatenate([model.f0[:, 0], model.f0_test[:, 0]])
    both = np.concatenate([kernel, test])

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        force = -step * both @ (state[:n] - y)
        if not momentum:
            return force
        speed = state[len(start) :]
        return np.concatenate([speed, force - (1 - momentum) * speed])

    state = start if not momentum else np.concatenate([start, 0 * start])
    times = np.array([0.0, 0.5, 3.0, 40.0])
    solved = solve_ivp(slope, (0, 40), state, t_eval=times, rtol=1e-11, atol=1e-12, method="DOP853").y.T
    dynamics = Dynamics(*model.kernels, learning_rate=step, momentum=momentum)
    found = dynamics.predict(model.y[:, 0], times, model.f0[:, 0], f0_test=model.f0_test[:, 0])
    close(found.train, torch.from_numpy(solved[:, :n]), 1e-8)
    close(found.test, torch.from_numpy(solved[:, n : len(start)]), 1e-8)


# Single modes, against a recurrence in exact fractions of many digits.


@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.5, 0.9, 0.99])
def test_modes_of_steps(beta: float) -> None:
    """Slow, fast, critical, oscillating, nearly diverging modes, by a recurrence in 60 digits."""
    from decimal import Decimal, localcontext

    root = math.sqrt(beta)
    x = [1e-12, 1e-6, 1e-3, 0.3, 1.0, 1.7, 1 + beta, 2 * (1 + beta) * (1 - 1e-9), 2 * (1 + beta)]
    x += [e * f for e in ((1 - root) ** 2, (1 + root) ** 2) for f in (1 - 1e-8, 1.0, 1 + 1e-12)] if beta else []
    x = [value for value in x if value > 0]
    times = [0, 1, 2, 3, 10, 101, 1000]
    law = Descent("gd", 1.0, beta)
    left, gain = law.contraction(torch.tensor(x, dtype=torch.float64), torch.tensor(times, dtype=torch.float64), 1.0)
    with localcontext() as context:
        context.prec = 60
        for column, value in enumerate(x):
            before = now = Decimal(1)
            for step in range(times[-1] + 1):
                if step in times:
                    row = times.index(step)
                    assert left[row, column].item() == pytest.approx(float(now), rel=1e-9, abs=1e-12), (value, step)
                    expected = float((1 - now) / Decimal(value))
                    assert gain[row, column].item() == pytest.approx(expected, rel=1e-9, abs=1e-11), (value, step)
                before, now = now, (1 + Decimal(beta) - Decimal(value)) * now - Decimal(beta) * before


@pytest.mark.parametrize(("method", "momentum"), [("flow", 0.0), ("gd", 0.0), ("flow", 0.9), ("gd", 0.9)])
def test_modes_continuous_at_zero_and_late(method: str, momentum: float) -> None:
    """The gain at eigenvalue 0 is the limit; a million steps are no trouble."""
    law = Descent(method, 1.0, momentum)
    left, gain = law.contraction(torch.tensor([0.0, 1e-13]).double(), torch.tensor([0.0, 5.0, 1e6]).double(), 1.0)
    torch.testing.assert_close(gain[:, 0], gain[:, 1], rtol=1e-6, atol=1e-12)
    close(left[:, 0], torch.ones(3, dtype=torch.float64), 0)
    # Slow modes forget the transient: after a million steps c = exp(-t x/(1 - momentum)).
    x = 2e-6 * (1 - momentum)
    late, _ = law.contraction(torch.tensor([x]).double(), torch.tensor([1e6]).double(), 1.0)
    assert late.item() == pytest.approx(math.exp(-2), rel=1e-4 if momentum else 1e-5)


# What follows from the decomposition.


def test_modes_and_energy() -> None:
    model = Linear()
    step = 0.05
    dynamics = Dynamics(*model.kernels, learning_rate=step)
    table = dynamics.modes(model.y, model.f0)
    close(table.energy.sum(), (model.y - model.f0).square().sum(), 1e-12)
    close(table.rates, step * table.eigenvalues, 0)
    assert (table.eigenvalues.diff() <= 0).all()
    energy = dynamics.residual_energy(model.y, [0, 7.0, math.inf], model.f0)
    close(energy[0], table.energy, 1e-13)
    found = dynamics.predict(model.y, 7.0, model.f0, f0_test=model.f0_test)
    close(energy[1].sum(), (found.train - model.y).square().sum(), 1e-12)
    assert float(energy[2].sum()) == 0
    # After its own time the energy of each mode has fallen to the fraction.
    times = table.time_to(0.01)
    for index in (0, 5, 11):
        later = dynamics.residual_energy(model.y, float(times[index]), model.f0)[index]
        assert float(later / table.energy[index]) == pytest.approx(0.01, rel=1e-10)
    whole = dynamics.replace(method="gd").modes(model.y, model.f0).time_to(0.01)
    for index in (0, 5, 11):
        law = dynamics.replace(method="gd")
        pair = law.residual_energy(model.y, [float(whole[index]) - 1, float(whole[index])], model.f0)[:, index]
        assert pair[0] > 0.01 * table.energy[index] >= pair[1]
    with pytest.raises(ConfigError, match="oscillates"):
        dynamics.replace(momentum=0.5).modes(model.y).time_to(0.1)
    smoothed = model.f0_test + dynamics.smoother(7.0) @ (model.y - model.f0)
    close(smoothed, found.test, 1e-12)


def test_full_kernel_couples_outputs() -> None:
    """A full kernel [n, C, n, C] is the kernel of n C scalars; with K (x) I it is K for each output."""
    model = Linear()
    mixing = torch.tensor([[1.0, 0.4], [0.4, 2.0]], dtype=torch.float64)
    full, full_test = (torch.einsum("ij,cd->icjd", kernel, mixing) for kernel in model.kernels)
    options = {"loss": "mean", "learning_rate": 0.3, "method": "gd"}
    found = predict(full, full_test, model.y, [0, 9], model.f0, f0_test=model.f0_test, **options)
    # In the eigenbasis of the mixing, the outputs decouple.
    weights, axes = torch.linalg.eigh(mixing)
    for column in range(2):
        kernels = [weights[column] * kernel for kernel in model.kernels]
        parts = [value @ axes[:, [column]] for value in (model.y, model.f0, model.f0_test)]
        # A mean over n C numbers, of which this prediction sees n.
        alone = predict(*kernels, parts[0], [0, 9], parts[1], f0_test=parts[2], **{**options, "learning_rate": 0.15})
        close((found.test @ axes[:, [column]]), alone.test, 1e-12)
        close((found.train @ axes[:, [column]]), alone.train, 1e-12)


def test_rank_deficient() -> None:
    """Two equal points with different values, and a duplicate: the mean is learned, the difference stays."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(6, 4, generator=generator, dtype=torch.float64)  # rank 4 of 6
    kernel, test = features @ features.T, torch.randn(3, 4, generator=generator, dtype=torch.float64) @ features.T
    y = torch.randn(6, generator=generator, dtype=torch.float64)
    dynamics = Dynamics(kernel, test)
    assert dynamics.rank == 4
    found = dynamics.predict(y, [1e3, 1e12, math.inf])
    projected = features @ torch.linalg.lstsq(features, y[:, None]).solution[:, 0]
    best = test @ torch.linalg.pinv(kernel) @ y
    for index in (1, 2):
        close(found.train[index], projected, 1e-11)
        close(found.test[index], best, 1e-9)
    assert not torch.allclose(projected, y, atol=0.1)
    # A ridge goes over into it as it vanishes.
    close(Dynamics(kernel, test, ridge=1e-9).predict(y, math.inf).test, best, 1e-7)


def test_ridge_regression() -> None:
    model = Linear()
    kernel, test = model.kernels
    for relative, ridge in ((False, 0.1), (True, 0.1 / float(kernel.diagonal().mean()))):
        found = Dynamics(kernel, test, ridge=ridge, ridge_relative=relative).predict(model.y, math.inf)
        expected = torch.linalg.solve(kernel + 0.1 * torch.eye(12, dtype=torch.float64), model.y)
        close(found.test, test @ expected, 1e-12)
        close(found.train, kernel @ expected, 1e-12)
        assert found.ridge == pytest.approx(0.1)


def test_float32_is_factorised_in_float64() -> None:
    """A kernel of condition 1e6 in float32: the answer is that of the rounded matrix in float64, to float32."""
    x = torch.rand(150, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = torch.exp(-torch.cdist(x, x) / 0.3) + 0.1
    y = torch.sin(9 * x[:, :1]).float()
    single = predict(kernel[:100, :100].float(), kernel[100:, :100].float(), y[:100], [1.0, 1e3, math.inf])
    assert single.train.dtype == single.test.dtype == torch.float32
    double = predict(
        kernel[:100, :100].float().double(), kernel[100:, :100].float().double(), y[:100], [1.0, 1e3, math.inf]
    )
    assert double.test.dtype == torch.float64
    close(single.test.double(), double.test, 2e-7)
    close(single.train.double(), double.train, 2e-7)


def test_errors_and_metrics() -> None:
    model = Linear()
    found = Dynamics(*model.kernels, parameterization="ntk").predict(
        model.y, [1.0, 2.0], model.f0, f0_test=model.f0_test
    )
    truth = torch.zeros_like(model.f0_test)
    expected = found.test.square().mean((1, 2))
    close(found.mse(truth), expected, 1e-14)
    close(found.psnr(truth, peak=2.0), 10 * torch.log10(4 / expected), 1e-12)
    close(found.train_psnr(), -10 * torch.log10(found.train_mse), 1e-12)
    text = repr(found)
    for part in ("ntk", "1/2 sum", "float64", "max_learning_rate", "flow", "eigh", "2 times from 1 to 2"):
        assert part in text
    for single in (
        Dynamics(*model.kernels).predict(model.y[:, 0], 3.0),
        Dynamics(*model.kernels).predict(model.y, 3.0),
    ):
        assert single.train.shape[0] == 12 and single.test.shape[0] == 7 and single.mse(single.test).shape == ()
    with pytest.raises(ConfigError, match=r"y_test must have the shape \(7, 2\); got shape \(7,\)"):
        found.mse(truth[:, 0])
    with pytest.raises(ConfigError, match="no test points"):
        predict(model.kernels[0], None, model.y, 1.0).mse(truth)


def bad(**changes: Any) -> dict[str, Any]:
    model = Linear()
    return {"k_train": model.kernels[0], "k_test": model.kernels[1], "y": model.y, "t": 1.0, **changes}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (bad(y=torch.ones(11, 2)), r"\[12\] or \[12, C\].*\(11, 2\)"),
        (bad(k_test=torch.ones(7, 11)), r"\[m, 12\].*\(12, 12\).*\(7, 11\)"),
        (bad(k_train=torch.ones(7, 11)), r"\[n, n\] or \[n, C, n, C\].*\(7, 11\)"),
        (bad(f0=torch.ones(12), f0_test=torch.ones(7, 2)), r"f0 must have the shape of y, \(12, 2\)"),
        (bad(f0=torch.ones(12, 2)), "f0 was given without f0_test"),
        (bad(f0_test=torch.ones(12, 2)), r"f0_test must have the shape \(7, 2\)"),
        (bad(y=torch.full((12,), math.nan)), "y must be finite: 12 of 12"),
        (bad(k_train=torch.full((12, 12), math.inf)), "k_train must be finite"),
        (bad(k_test=torch.full((7, 12), math.nan)), "k_test must be finite"),
        (bad(k_train=torch.ones(12, 12).triu()), "must be symmetric.* by up to 1"),
        (bad(k_train=-torch.eye(12)), "not positive semidefinite"),
        (
            bad(k_train=torch.diag(torch.tensor([1.0, -0.01] * 6))),
            r"eigenvalue is -0\.01, 0\.01 of the largest",
        ),
        (bad(t=-1.0), "at least 0"),
        (bad(t=math.nan), "at least 0"),
        (bad(t=[]), "at least one"),
        (bad(t=torch.ones(2, 2)), r"got shape \(2, 2\)"),
        (bad(t=1.5, method="gd", learning_rate=0.1), "whole steps"),
        (bad(method="adam"), "flow, gd"),
        (bad(momentum=1.0), "below 1"),
        (bad(loss="l1"), "sum, mean, mse"),
        (bad(ridge=-1.0), "ridge"),
        (bad(learning_rate=0.0), "learning_rate"),
        (bad(parameterization="mup"), "ntk, standard"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predict(**arguments)


def test_rounding_is_no_error() -> None:
    """Negative eigenvalues of the size of a float32 kernel's rounding are zeros; larger ones are not."""
    values = torch.tensor([-2e-5, 1e-3, 10.0], dtype=torch.float64)
    assert clip_spectrum(values, 100, torch.float32).tolist() == [0.0, 1e-3, 10.0]
    with pytest.raises(ConfigError, match="computed in float32 must be passed in float32"):
        clip_spectrum(values, 100, torch.float64)


def test_too_large_to_factorise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the memory, Dynamics names the call that does without, and that call does."""
    model = Linear()
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 4000.0)
    with pytest.raises(DeviceError, match=r"12 x 12 kernel.*ntk\.predict"):
        Dynamics(*model.kernels).predict(model.y, 1.0)
    found = predict(*model.kernels, model.y, 1.0)
    monkeypatch.undo()
    assert found.solver == "lanczos"
    close(found.test, Dynamics(*model.kernels).predict(model.y, 1.0).test, 1e-5)
