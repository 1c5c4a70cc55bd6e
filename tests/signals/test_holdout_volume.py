import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralfield.errors import ConfigError
from neuralfield.signals import holdout_volume
from neuralfield.signals.holdout import RandomSplit
from neuralfield.signals.holdout_volume import OneOfEachRun, make_volume_split, mixed


def members(split):
    return split.train(torch.arange(split.n_train)), split.heldout(torch.arange(split.n_heldout))


@given(st.integers(2, 7), st.integers(2, 7), st.integers(2, 7))
def test_every_other_is_the_slices(depth, height, width):
    flat = np.arange(depth * height * width).reshape(depth, height, width)
    train, held = members(make_volume_split("every_other", depth, height, width, 0))
    assert train.tolist() == flat[::2, ::2, ::2].reshape(-1).tolist()
    assert held.tolist() == flat[1::2, 1::2, 1::2].reshape(-1).tolist()


def test_none_and_small_random():
    assert make_volume_split("none", 3, 4, 5, 0).n_train == 60
    split = make_volume_split("random:0.1", 10, 11, 12, 0)
    assert isinstance(split, RandomSplit) and split.n_heldout == 132


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 9), st.floats(0.01, 0.99), st.integers(0, 3))
def test_runs_are_a_partition_in_order(depth, height, width, fraction, seed):
    count = depth * height * width
    wanted = round(fraction * count)
    if not 0 < wanted < count:
        return
    split = one_of_each_run(depth, height, width, fraction, seed)
    train, held = members(split)
    assert len(held) == wanted and torch.equal(torch.sort(torch.cat([train, held])).values, torch.arange(count))
    assert (train.diff() > 0).all() and (held.diff() > 0).all()


def one_of_each_run(depth, height, width, fraction, seed):
    before = holdout_volume.STORED
    try:
        holdout_volume.STORED = 0
        split = make_volume_split(f"random:{fraction}", depth, height, width, seed)
    finally:
        holdout_volume.STORED = before
    assert isinstance(split, OneOfEachRun)
    return split


def test_each_voxel_of_a_run_is_equally_likely():
    counts = np.zeros(8 * 8 * 10)
    for seed in range(2000):
        split = one_of_each_run(8, 8, 10, 0.1, seed)
        counts[split.heldout(torch.arange(split.n_heldout)).numpy()] += 1
    # 2000 draws with probability 1/10: standard deviation 13.4; five of them
    assert np.abs(counts - 200).max() < 67
    assert abs(counts.reshape(-1, 10).std() / 13.4 - 1) < 0.2


def test_billions_of_voxels():
    split = make_volume_split("random:0.1", 2048, 2048, 1024, 0)
    count = 2**32
    assert isinstance(split, OneOfEachRun) and split.n_heldout == round(count / 10)
    train = split.train(torch.arange(split.n_train - 9000, split.n_train))
    held = split.heldout(torch.arange(split.n_heldout - 1001, split.n_heldout))
    first = int(train.min())
    assert torch.equal(torch.sort(torch.cat([train, held[held > first]])).values, torch.arange(first, count))
    most = make_volume_split("random:0.75", 1000, 1000, 1000, 0)
    few, many = most.train(torch.arange(1000)), most.heldout(torch.arange(2900))
    last = int(many.max())
    assert torch.equal(torch.sort(torch.cat([few[few < last], many])).values, torch.arange(last + 1))
    with pytest.raises(ConfigError, match="every_other"):
        make_volume_split("random:0.5", 2048, 2048, 2048, 0)


def test_the_hash_is_splitmix64():
    def reference(state):
        mask = 2**64 - 1
        z = state & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    numbers = [1, 2, 77, 2**31, 2**40 + 5]
    expected = [reference(n * 0x9E3779B97F4A7C15 + 12345) & (2**63 - 1) for n in numbers]
    assert mixed(torch.tensor(numbers), 12345).tolist() == expected
    assert reference(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF  # the first number of SplitMix64 from the seed 0


@pytest.mark.parametrize("wrong", ["random:0", "random:x", "random:1.5", "random", "every_second", ""])
@pytest.mark.parametrize("shape", [(4, 4, 4), (1000, 1000, 1000)])
def test_wrong_strings(wrong, shape):
    with pytest.raises(ConfigError, match=r"random:0\.25") as caught:
        make_volume_split(wrong, *shape, 0)
    assert "pixel" not in str(caught.value)
