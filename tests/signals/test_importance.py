import numpy as np
import pytest
import torch
from scipy import stats

from neuralfield.errors import ConfigError
from neuralfield.signals import importance
from neuralfield.signals.holdout_volume import make_volume_split
from neuralfield.signals.importance import ImportanceBatches, gradient_weights
from neuralfield.signals.sampling import Batches


def counts_of(batches, steps):
    drawn = torch.cat([batches.batch(step) for step in range(steps)])
    return np.bincount(drawn.numpy(), minlength=batches.n)


def test_frequencies_are_the_weights():
    weights = np.random.default_rng(0).gamma(0.5, size=300)
    # One draw in a batch: independent draws, of which the statistic has its chi-squared distribution.
    counts = counts_of(ImportanceBatches(weights, 1, seed=3), 20000)
    expected = 20000 * weights / weights.sum()
    kept = expected >= 5
    observed = np.append(counts[kept], counts[~kept].sum())
    assert stats.chisquare(observed, np.append(expected[kept], expected[~kept].sum())).pvalue > 1e-3
    # the test can fail: against equal weights it does
    assert stats.chisquare(counts, np.full(300, 20000 / 300)).pvalue < 1e-10


def test_stratified_draws_have_the_same_expectation_and_less_variance():
    weights = np.random.default_rng(1).gamma(0.5, size=200)
    batches, steps = ImportanceBatches(weights, 50, seed=1), 4000
    per_step = np.stack([np.bincount(batches.batch(step).numpy(), minlength=200) for step in range(steps)])
    p = weights / weights.sum()
    error = per_step.mean(0) - 50 * p
    # at most the binomial variance; five standard deviations
    assert (np.abs(error) <= 5 * np.sqrt(50 * p * (1 - p) / steps) + 1e-12).all()
    assert per_step.var(0).sum() < 0.75 * (50 * p * (1 - p)).sum()
    assert (np.abs(per_step - 50 * p) < 2).all()  # one of m strata each: never off by two


def test_zero_weights_are_never_drawn():
    weights = np.zeros(100)
    weights[[3, 40, 97]] = 1, 2, 1
    counts = counts_of(ImportanceBatches(weights, 64, seed=0), 100)
    assert set(np.flatnonzero(counts)) == {3, 40, 97} and abs(counts[40] / counts.sum() - 0.5) < 0.02


def test_a_pure_function_of_seed_and_step():
    weights = np.arange(1.0, 50.0)
    first, second, other = (ImportanceBatches(weights, 16, seed) for seed in (5, 5, 6))
    later = first.batch(7)
    assert torch.equal(second.batch(7), later) and not torch.equal(first.batch(8), later)
    assert not torch.equal(other.batch(7), later)
    assert later.dtype == torch.int64 and len(later) == 16 and (later.diff() >= 0).all()
    assert isinstance(first, Batches) and not first.full
    assert ImportanceBatches(weights, 10**6).batch_size == 49 and not ImportanceBatches(weights, 10**6).full


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -0.5], [1.0, np.nan], [1.0, np.inf]])
def test_weights_that_are_refused(weights):
    with pytest.raises(ConfigError, match="finite, at least 0"):
        ImportanceBatches(np.array(weights), 2)


@pytest.mark.parametrize("planes", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("holdout", ["none", "every_other", "random:0.4"])
def test_weights_are_the_gradient_of_numpy(planes, holdout):
    values = np.random.default_rng(0).random((7, 6, 5, 2)).astype(np.float32)
    steps = (0.3, 0.1, 0.2)
    squared = sum(np.square(part) for c in range(2) for part in np.gradient(values[..., c].astype(np.float64), *steps))
    split = make_volume_split(holdout, 7, 6, 5, 0)
    magnitude = np.sqrt(squared).reshape(-1)[split.train(torch.arange(split.n_train)).numpy()]
    found = gradient_weights(lambda a, b: values[a:b], (7, 6, 5), steps, split, planes, floor=0.5)
    assert np.allclose(found, magnitude + 0.5 * magnitude.mean(), rtol=1e-4)
    assert found.dtype == np.float32


def test_flat_volumes_and_too_many_voxels(monkeypatch):
    split = make_volume_split("none", 4, 4, 4, 0)
    flat = gradient_weights(lambda a, b: np.ones((b - a, 4, 4, 1), np.float32), (4, 4, 4), (1, 1, 1), split, 2)
    assert (flat == 1).all()
    monkeypatch.setattr(importance, "MOST", 63)
    with pytest.raises(ConfigError, match=r"signal\.sampling=uniform"):
        gradient_weights(lambda a, b: np.ones((b - a, 4, 4, 1), np.float32), (4, 4, 4), (1, 1, 1), split, 2)
