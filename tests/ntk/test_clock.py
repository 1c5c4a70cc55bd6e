"""Adam's clock: it is recovered from curves that it made, noise and spikes included."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.ntk.clock import AdamClock
from neuralfield.ntk.dynamics import Dynamics

STEPS = np.unique(np.geomspace(1, 600, 60).round())


def problem(width: float = 0.1, seed: int = 0) -> tuple[Dynamics, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(120, 2, generator=generator, dtype=torch.float64)
    y = torch.sin(7 * x) + 0.2 * torch.randn(120, 2, generator=generator, dtype=torch.float64)
    return Dynamics(torch.exp(-torch.cdist(x, x) / width)), y


def curve(dynamics: Dynamics, y: torch.Tensor, clock: AdamClock, f0: torch.Tensor | None = None) -> np.ndarray:
    return dynamics.predict(y, clock.tau(STEPS), f0).train_mse.numpy()


def test_both_ways() -> None:
    clock = AdamClock(-2.0, 1.5)
    assert clock.tau(4.0).item() == pytest.approx(0.08)
    assert clock.tau([0, 4]).tolist() == pytest.approx([0.0, 0.08])
    assert clock.steps(clock.tau(STEPS)).numpy() == pytest.approx(STEPS)
    assert clock.a_std is None and clock.rms_db is None


@pytest.mark.parametrize("b", [0.4, 1.0, 1.9])
@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_recovered_from_its_own_curve(b: float, loss: str) -> None:
    dynamics, y = problem()
    f0 = 0.3 * y.flip(0)
    truth = AdamClock(-3.1 * b, b)
    found = AdamClock.fit(dynamics, y, STEPS, curve(dynamics, y, truth, f0), f0, loss=loss)
    assert found.a == pytest.approx(truth.a, abs=1e-6) and found.b == pytest.approx(b, abs=1e-6)
    assert found.rms_db < 1e-5 and found.b_std < 1e-5


def test_gradient_descent_keeps_time() -> None:
    """The clock of gradient descent with a small step is a = log10(step), b = 1."""
    dynamics, y = problem()
    step = 0.02 * dynamics.max_learning_rate(2)
    observed = dynamics.replace(method="gd", learning_rate=step).predict(y, STEPS).train_mse
    found = AdamClock.fit(dynamics, y, STEPS, observed)
    assert found.b == pytest.approx(1, abs=0.01) and found.a == pytest.approx(math.log10(step), abs=0.02)


def test_uncertainty_is_honest() -> None:
    """With noise of 0.05 in log10 the truth lies within the stated errors as often as it should; spikes do little."""
    dynamics, y = problem()
    truth = AdamClock(-2.5, 1.2)
    clean, random = np.log10(curve(dynamics, y, truth)), np.random.default_rng(0)
    scores = []
    for _ in range(30):
        noise = 0.05 * random.standard_normal(len(STEPS))
        found = AdamClock.fit(dynamics, y, STEPS, 10 ** (clean + noise), loss="linear")
        scores.append([(found.a - truth.a) / found.a_std, (found.b - truth.b) / found.b_std])
        assert 0.3 < found.rms_db < 0.7
    spread = np.sqrt(np.mean(np.square(scores), axis=0))
    assert (spread > 0.6).all() and (spread < 1.5).all()
    spiked = clean.copy()
    spiked[[20, 35, 45]] += 1.0
    robust, plain = (AdamClock.fit(dynamics, y, STEPS, 10**spiked, loss=loss) for loss in ("soft_l1", "linear"))
    assert abs(robust.b - truth.b) < 0.03 < 2 * abs(plain.b - truth.b)
    assert "+-" in repr(robust)


def test_one_clock_for_several_fits() -> None:
    pairs = [problem(0.05, 1), problem(0.4, 2)]
    truth = AdamClock(-2.0, 0.9)
    observed = [curve(dynamics, y, truth) for dynamics, y in pairs]
    found = AdamClock.fit([d for d, _ in pairs], [y for _, y in pairs], [STEPS, STEPS], observed)
    assert (found.a, found.b) == pytest.approx((-2.0, 0.9), abs=1e-6)


def test_bad_input() -> None:
    dynamics, y = problem()
    good = curve(dynamics, y, AdamClock(-2.0, 1.0))
    with pytest.raises(ConfigError, match="same length"):
        AdamClock.fit(dynamics, y, STEPS[:-1], good)
    with pytest.raises(ConfigError, match="must increase from above 0"):
        AdamClock.fit(dynamics, y, STEPS[::-1].copy(), good)
    with pytest.raises(ConfigError, match="above 0"):
        AdamClock.fit(dynamics, y, STEPS, 0 * good)
    with pytest.raises(ConfigError, match="observed_mse must be finite"):
        AdamClock.fit(dynamics, y, STEPS, good * math.nan)
    with pytest.raises(ConfigError, match="plain flow"):
        AdamClock.fit(dynamics.replace(momentum=0.9), y, STEPS, good)
    with pytest.raises(ConfigError, match="got 1, 1, 2, 1, 1"):
        AdamClock.fit([dynamics], [y], [STEPS, STEPS], [good])
    with pytest.raises(ConfigError, match="never move"):
        AdamClock.fit(dynamics, 0 * y, STEPS, good)
    with pytest.raises(ConfigError, match="b must be"):
        AdamClock(0.0, 0.0)
    with pytest.raises(ConfigError, match="steps must be finite and at least 0"):
        AdamClock(0.0, 1.0).tau(-1.0)
