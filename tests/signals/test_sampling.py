"""Batches of samples: each sample once an epoch, spread over the image, and a function of the step alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralfield.errors import ConfigError
from neuralfield.signals.sampling import StratifiedBatches

sizes = given(n=st.integers(1, 400), batch_size=st.integers(1, 450), seed=st.integers(0, 5), epoch=st.integers(0, 3))


def epoch_of(batches: StratifiedBatches, epoch: int) -> list[torch.Tensor]:
    count = batches.batches_per_epoch
    return [batches.batch(epoch * count + k) for k in range(count)]


@settings(max_examples=150, deadline=None)
@sizes
def test_every_sample_once_in_an_epoch(n: int, batch_size: int, seed: int, epoch: int) -> None:
    parts = epoch_of(StratifiedBatches(n, batch_size, seed), epoch)
    assert torch.cat(parts).sort().values.tolist() == list(range(n))


@settings(max_examples=150, deadline=None)
@sizes
def test_batches_are_increasing_nearly_equal_and_no_larger_than_asked(
    n: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = StratifiedBatches(n, batch_size, seed)
    parts = epoch_of(batches, epoch)
    lengths = [len(part) for part in parts]
    assert max(lengths) == batches.n_strata <= batch_size
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == -(-n // batch_size)
    for part in parts:
        assert part.dtype == torch.int64
        assert (part.diff() > 0).all()


@settings(max_examples=60, deadline=None)
@sizes
def test_one_sample_from_each_stratum(n: int, batch_size: int, seed: int, epoch: int) -> None:
    batches = StratifiedBatches(n, batch_size, seed)
    for part in epoch_of(batches, epoch):
        assert (part // batches.batches_per_epoch).tolist() == list(range(len(part)))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200), batch_size=st.integers(1, 60), steps=st.lists(st.integers(0, 90), min_size=1, max_size=12)
)
def test_a_function_of_the_step_alone(n: int, batch_size: int, steps: list[int]) -> None:
    """Resumed at any step, a run sees the batches that an uninterrupted one sees."""
    once = StratifiedBatches(n, batch_size, seed=1)
    in_order = [once.batch(step) for step in range(91)]
    jumping = StratifiedBatches(n, batch_size, seed=1)
    for step in steps:
        assert torch.equal(jumping.batch(step), in_order[step])
        assert torch.equal(StratifiedBatches(n, batch_size, seed=1).batch(step), in_order[step])


def test_epochs_and_seeds_differ() -> None:
    batches = StratifiedBatches(10_000, 100)
    first, second = epoch_of(batches, 0), epoch_of(batches, 1)
    assert not any(torch.equal(a, b) for a in first for b in second)
    other = epoch_of(StratifiedBatches(10_000, 100, seed=1), 0)
    assert not any(torch.equal(a, b) for a in first for b in other)
    # Samples that met in a batch part in the next epoch, as in a shuffle: one in a hundred stays by chance.
    kept = [len(set(first[0].tolist()) & set(part.tolist())) for part in second]
    assert max(kept) < 12


def test_a_batch_is_drawn_evenly_from_all_samples() -> None:
    """Over many seeds the first batch holds each sample equally often, within 5 standard errors."""
    n, batch_size, seeds = 60, 13, 2000
    counts = torch.zeros(n)
    for seed in range(seeds):
        counts[StratifiedBatches(n, batch_size, seed).batch(0)] += 1
    share = 1 / StratifiedBatches(n, batch_size).batches_per_epoch
    error = (seeds * share * (1 - share)) ** 0.5
    assert ((counts - seeds * share).abs() < 5 * error).all()
    assert (counts - seeds * share).abs().max() > error


@pytest.mark.parametrize("batch_size", [7, 8, 10**9])
def test_full_batch(batch_size: int) -> None:
    batches = StratifiedBatches(7, batch_size)
    assert batches.full and batches.batches_per_epoch == 1
    for step in (0, 1, 1000):
        assert batches.batch(step).tolist() == list(range(7))
    assert not StratifiedBatches(8, 7).full


@pytest.mark.parametrize(("n", "batch_size", "seed"), [(0, 1, 0), (5, 0, 0), (5, 1, -1)])
def test_bad_sizes(n: int, batch_size: int, seed: int) -> None:
    with pytest.raises(ConfigError):
        StratifiedBatches(n, batch_size, seed)


def test_memory_does_not_grow_with_the_samples() -> None:
    """A hundred megapixels in batches of 4096: nothing as long as the image is made."""
    batches = StratifiedBatches(10**8, 4096)
    part = batches.batch(123_456)
    assert len(part) in (batches.n_strata - 1, batches.n_strata)
    assert int(part[-1]) < 10**8
    held = [value for value in vars(batches).values() if hasattr(value, "__len__")]
    assert sum(len(value) for value in held) < 40_000
