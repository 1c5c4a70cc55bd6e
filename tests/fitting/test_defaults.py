from __future__ import annotations

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.encodings import HashGrid
from neuralfield.fitting import defaults


@pytest.mark.parametrize(
    ("size", "holdout", "resolution", "table"),
    [((64, 64), "none", 64, 12), ((64, 48), "every_other", 32, 10), ((8, 200), "none", 200, 11)],
)
def test_a_grid_follows_the_training_samples(size: tuple[int, int], holdout: str, resolution: int, table: int) -> None:
    signal = nf.ImageSignal.from_array(np.zeros(size), holdout=holdout)
    chosen = defaults.encoding_options(
        {"name": "hashgrid", "max_resolution": "auto", "log2_hashmap_size": "auto"}, signal
    )
    assert chosen["max_resolution"] == resolution
    assert chosen["log2_hashmap_size"] == table


def test_a_given_growth_factor_wins_over_the_automatic_resolution(signal: nf.ImageSignal) -> None:
    given = {"name": "hashgrid", "max_resolution": "auto", "per_level_scale": 1.5, "log2_hashmap_size": 12}
    assert defaults.encoding_options(given, signal)["max_resolution"] is None


def test_networks_are_small_behind_a_grid_and_keep_what_was_given() -> None:
    assert defaults.network_options({"width": "auto", "depth": "auto"}, "hashgrid") == {"width": 64, "depth": 2}
    given = {"width": 100, "depth": "auto", "initialization": "auto"}
    assert defaults.network_options(given, "fourier") == {"width": 100, "depth": 3, "initialization": "auto"}


@pytest.mark.parametrize(
    ("given", "steps"),
    [({}, 2000), ({"seconds": 3.0}, None), ({"target_psnr": 30.0}, None), ({"steps": 5, "seconds": 3.0}, 5)],
)
def test_steps_end_a_fit_only_where_nothing_else_does(given: dict, steps: int | None) -> None:
    assert defaults.fit_options(given)["steps"] == steps


def test_a_gpu_gets_larger_batches() -> None:
    for name in ("hashgrid", "fourier"):
        assert defaults.batch_size(name, torch.device("cuda")) > defaults.batch_size(name, torch.device("cpu"))


def test_batches_behind_a_grid_grow_with_the_signal() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    sizes = [defaults.batch_size("hashgrid", cpu, details) for details in (64**2, 512 * 768, 3 * 2**20, 10**8, 10**12)]
    assert sizes == [2**13, 2**13, 2**14, 2**17, 2**17]
    assert defaults.batch_size("hashgrid", cuda, 10**8) == 2**18
    assert {defaults.batch_size("fourier", cpu, details) for details in (1, 10**8)} == {2**12}


def test_an_icon_and_a_large_photograph_get_sizes_that_suit_them() -> None:
    """Rows about as many as pixels, the finest level no finer than the pixels."""
    icon = nf.ImageSignal.from_array(np.zeros((64, 64, 3)))
    assert icon.details == 64**2
    small = nf.encodings.build(in_dim=2, **defaults.encoding_options(defaults.automatic("hashgrid", {}), icon))
    assert isinstance(small, HashGrid)
    assert small.layout.levels[-1].resolution in (64, 65)  # as float32 rounds
    assert small.layout.n_parameters < 10 * icon.n_values
    photograph = nf.ImageSignal.from_array(np.broadcast_to(np.uint8(0), (10_000, 10_000, 1)))
    with torch.device("meta"):
        large = nf.encodings.build(
            in_dim=2, **defaults.encoding_options(defaults.automatic("hashgrid", {}), photograph)
        )
    assert isinstance(large, HashGrid)
    assert large.layout.levels[-1].resolution == 10_000 and large.layout.n_parameters < photograph.n_values


@pytest.mark.parametrize(
    ("side", "holdout", "highest"), [(64, "none", 16.0), (64, "every_other", 8.0), (2, "none", 1.0)]
)
def test_positional_frequencies_end_at_half_the_nyquist_frequency_of_the_lattice(
    side: int, holdout: str, highest: float
) -> None:
    signal = nf.ImageSignal.from_array(np.zeros((side, side)), holdout=holdout)
    chosen = defaults.encoding_options(defaults.automatic("positional", {}), signal)
    encoding = nf.encodings.build(in_dim=2, **chosen)
    assert encoding.frequencies.max().item() == pytest.approx(highest)
    assert encoding.frequencies.tolist() == [2.0**k for k in range(encoding.n_frequencies)]


def test_a_given_number_of_frequencies_stays(signal: nf.ImageSignal) -> None:
    from_yaml = {"name": "positional", "n_frequencies": 5, "max_frequency": "auto"}
    assert defaults.encoding_options(from_yaml, signal)["max_frequency"] is None
    assert defaults.automatic("positional", {"n_frequencies": 5}) == {"name": "positional", "n_frequencies": 5}
