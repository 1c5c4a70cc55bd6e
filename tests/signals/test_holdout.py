import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralfield.errors import ConfigError
from neuralfield.signals import holdout
from neuralfield.signals.holdout import make_split


def members(split):
    return split.train(torch.arange(split.n_train)), split.heldout(torch.arange(split.n_heldout))


def test_none_trains_on_everything():
    split = make_split("none", 3, 5, 0)
    assert (split.n_train, split.n_heldout) == (15, 0)
    assert torch.equal(split.train(torch.arange(15)), torch.arange(15))
    with pytest.raises(ConfigError, match="every_other"):
        split.heldout(torch.arange(1))


@given(st.integers(2, 17), st.integers(2, 17))
def test_every_other_is_the_slices_of_the_paper(height, width):
    flat = np.arange(height * width).reshape(height, width)
    train, held = members(make_split("every_other", height, width, 0))
    assert train.numpy().tolist() == flat[::2, ::2].reshape(-1).tolist()
    assert held.numpy().tolist() == flat[1::2, 1::2].reshape(-1).tolist()
    assert train.dtype == held.dtype == torch.int64


@given(st.integers(2, 23), st.integers(2, 23), st.floats(0.02, 0.98), st.integers(0, 5))
def test_random_is_a_partition_in_order(height, width, fraction, seed):
    count = height * width
    wanted = round(fraction * count)
    if not 0 < wanted < count:
        return
    train, held = members(make_split(f"random:{fraction}", height, width, seed))
    assert len(held) == wanted and train.dtype == held.dtype == torch.int64
    assert torch.equal(torch.sort(torch.cat([train, held])).values, torch.arange(count))
    assert (train.diff() > 0).all() and (held.diff() > 0).all()


def test_random_depends_on_the_seed_alone():
    state = torch.random.get_rng_state()
    first, second, other = (members(make_split("random:0.3", 20, 20, seed))[1] for seed in (7, 7, 8))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())


@settings(max_examples=20)
@given(st.integers(2, 60), st.integers(1, 59), st.integers(0, 3))
def test_blocks_do_not_show(count, wanted, seed):
    wanted = min(wanted, count - 1)
    before = holdout._BLOCK
    try:
        holdout._BLOCK = 7
        few = holdout._choose(count, wanted, seed)
    finally:
        holdout._BLOCK = before
    assert len(few) == wanted == len(set(few.tolist())) and few.min() >= 0 and few.max() < count
    assert few.tolist() == sorted(few.tolist())


def test_random_is_uniform_also_over_blocks(monkeypatch):
    monkeypatch.setattr(holdout, "_BLOCK", 5)
    counts = np.zeros(12)
    for seed in range(4000):
        counts[holdout._choose(12, 4, seed)] += 1
    # 4000 draws with probability 1/3: standard deviation 30; five of them
    assert np.abs(counts - 4000 / 3).max() < 150


def test_large_splits_are_exact_and_small():
    arithmetic = make_split("every_other", 10**6, 10**6, 0)
    assert arithmetic.n_train == 25 * 10**10
    assert arithmetic.train(torch.tensor([arithmetic.n_train - 1])).item() == (10**6 - 2) * 10**6 + 10**6 - 2
    split = make_split("random:0.001", 3000, 3000, 0)
    assert split.few.dtype == torch.int32 and len(split.few) == 9000
    assert split.train(torch.tensor([split.n_train - 1])).item() >= split.n_train - 1
    with pytest.raises(ConfigError, match="every_other"):
        make_split("random:0.5", 10**5, 10**5, 0)


def test_any_shape_of_the_two_sizes_is_balanced():
    mostly_held = make_split("random:0.9", 10, 10, 0)
    assert (mostly_held.n_train, mostly_held.n_heldout) == (10, 90)
    train, held = members(mostly_held)
    assert set(train.tolist()).isdisjoint(held.tolist()) and len(set(held.tolist())) == 90


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "random",
        "random:",
        "random:0",
        "random:1",
        "random:1.5",
        "random:nan",
        "random:x",
        "random:-0.1",
        "every_second",
        "None",
        3,
    ],
)
def test_wrong_strings(wrong):
    with pytest.raises(ConfigError, match=r"random:0\.25"):
        make_split(str(wrong), 8, 8, 0)


def test_nearest_name_is_offered():
    with pytest.raises(ConfigError, match="did you mean 'every_other'"):
        make_split("every_othr", 8, 8, 0)


@pytest.mark.parametrize(
    ("text", "height", "width", "what"),
    [("every_other", 1, 9, "measure"), ("random:0.01", 3, 3, "measure"), ("random:0.99", 3, 3, "train")],
)
def test_empty_sides_are_refused(text, height, width, what):
    with pytest.raises(ConfigError, match=what):
        make_split(text, height, width, 0)
