"""Lengths and resolutions of the specification, to the number."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralfield.encodings.hashgrid.layout import PRIMES, GridLayout, growth_factor, make_layout
from neuralfield.errors import ConfigError
from tests.encodings.hashgrid import scalar_oracle


def growing(dim: int, base: int, highest: int, table: int = 19, n_levels: int = 16) -> GridLayout:
    return make_layout(dim, n_levels, 2, table, base, growth_factor(n_levels, base, highest))


def resolutions(layout: GridLayout) -> list[int]:
    return [level.resolution for level in layout.levels]


def first_hashed(layout: GridLayout) -> int:
    hashed = [level.hashed for level in layout.levels]
    assert hashed == sorted(hashed), "once a level is hashed, all finer ones are"
    return hashed.index(True)


BY_HALVES = [16, 24, 36, 54, 81, 122, 183, 274]  # s = 1.5 from 16


# grid, parameters, its first resolutions, the last one, first hashed level: the specification's table
TABLE = {
    "tiny-cuda-nn's unit test": (make_layout(3, 20, 2, 16, 32, 1.5), 2_555_904, [], None, None),
    "2D, s 1.5": (make_layout(2, 16, 2, 15, 16, 1.5), 708_368, BY_HALVES, 7007, 6),
    "3D, s 1.5": (make_layout(3, 16, 2, 15, 16, 1.5), 953_344, BY_HALVES, 7007, 2),
    "tiny-cuda-nn's defaults": (make_layout(3, 16, 2, 19, 16, 2.0), 14_229_504, [16, 32, 64, 128], 16 * 2**15, 3),
    "nerfacto": (growing(3, 16, 2048), 12_196_240, [16, 23, 31, 43, 59, 81], 2048, 5),
    "16 to 1024": (growing(3, 16, 1024), 11_445_040, [16, 22, 28, 37, 49, 65, 85], 1025, None),
    "nerfacc's NGP": (growing(3, 16, 4096), 12_599_920, [16], None, 5),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
def test_table_of_the_specification(row: tuple) -> None:
    layout, n_parameters, start, last, hashed_from = row
    assert layout.n_parameters == n_parameters
    assert resolutions(layout)[: len(start)] == start
    assert last is None or resolutions(layout)[-1] == last
    assert hashed_from is None or first_hashed(layout) == hashed_from


def test_scales_are_computed_in_float32() -> None:
    """In float64, 16 * 64^(5/15) is 64 to the last bit or just below it, and the level loses a vertex per axis."""
    level = growing(3, 16, 1024).levels[5]
    assert (level.resolution, level.entries) == (65, (65**3 + 7) // 8 * 8)


def test_coarsest_level_has_exactly_the_base_resolution() -> None:
    assert [make_layout(2, 1, 2, 19, base, 2.0).levels[0].resolution for base in range(1, 40)] == list(range(1, 40))


def test_dense_up_to_and_including_a_full_table() -> None:
    """16^2 vertices fill a table of 2^8 rows exactly: no collision is possible, so no hash."""
    full, fuller = make_layout(2, 1, 2, 8, 16, 2.0).levels[0], make_layout(2, 1, 2, 8, 17, 2.0).levels[0]
    assert (full.hashed, full.entries) == (False, 256)
    assert (fuller.hashed, fuller.entries) == (True, 256)


def test_primes() -> None:
    assert PRIMES[:4] == scalar_oracle.PRIMES


@settings(max_examples=60, deadline=None)
@given(
    dim=st.integers(1, 4),
    n_levels=st.integers(1, 12),
    table=st.integers(3, 20),
    base=st.integers(1, 32),
    growth=st.floats(1.0, 2.5),
    n_features=st.integers(1, 8),
)
def test_agrees_with_the_scalar_oracle(
    dim: int, n_levels: int, table: int, base: int, growth: float, n_features: int
) -> None:
    layout = make_layout(dim, n_levels, n_features, table, base, growth)
    expected = scalar_oracle.levels(dim, n_levels, table, base, growth)
    for level, truth in zip(layout.levels, expected, strict=True):
        assert level.scale == pytest.approx(float(truth.scale), rel=3e-7, abs=1e-6)  # log2f and exp2f may be an ulp off
        if level.scale == truth.scale:
            assert (level.resolution, level.entries, level.hashed) == (truth.resolution, truth.entries, truth.hashed)
        assert level.entries % 8 == 0
        assert level.entries <= 2**table
        assert level.hashed == (level.resolution**dim > 2**table)
    ends = [level.offset + level.entries for level in layout.levels]
    assert [level.offset for level in layout.levels] == [0, *ends[:-1]]
    assert layout.n_parameters == ends[-1] * n_features
    assert layout.out_dim == n_levels * n_features


def test_growth_factor() -> None:
    assert growth_factor(16, 16, 16) == 1.0
    assert growth_factor(1, 16, 2048) == 1.0
    assert growth_factor(8, 16, 2048) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 16, 2, 19, 16, 2.0), "in_dim must be between 1 and 7"),
        ((8, 16, 2, 19, 16, 2.0), "in_dim must be between 1 and 7"),
        ((2, 0, 2, 19, 16, 2.0), "n_levels"),
        ((2, 16, 0, 19, 16, 2.0), "n_features_per_level"),
        ((2, 16, 2, 2, 16, 2.0), "log2_hashmap_size must be between 3 and 30"),
        ((2, 16, 2, 31, 16, 2.0), "log2_hashmap_size"),
        ((2, 16, 2, 19, 0, 2.0), "base_resolution"),
        ((2, 16, 2, 19, 16, 0.5), "per_level_scale"),
        ((2, 16, 2, 19, 16, float("nan")), "per_level_scale"),
        ((2, 32, 2, 19, 16, 2.0), r"level 19 would have 8,388,60\d vertices .* fewer levels"),
    ],
)
def test_values_out_of_range(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_layout(*arguments)
