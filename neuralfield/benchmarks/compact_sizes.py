"""Sizes for a race at a budget of parameters: at most one for every four pixel values."""

from __future__ import annotations

import itertools
from typing import Any

from neuralfield.encodings.hashgrid.layout import growth_factor, make_layout
from neuralfield.signals.image import ImageSignal

VALUES_PER_PARAMETER = 4
WIDTH, DEPTH = 64, 2
BASE = 16

FEATURES = 2
LEVELS = range(10, 17)
"""What the search goes through: with the finest level at the lattice's own resolution, more levels of smaller tables did
better on the coffee sample than fewer levels, and than a coarser finest one."""


def network_parameters(inputs: int, outputs: int, width: int = WIDTH, depth: int = DEPTH) -> int:
    """Weights and biases of an MLP."""
    sizes = [inputs] + [width] * depth + [outputs]
    return sum((n + 1) * m for n, m in itertools.pairwise(sizes))


def our_grid(signal: ImageSignal) -> dict[str, Any]:
    """Options of the hash grid that, with its network, comes nearest to the budget from below.

    Tables are a power of two, so the number of levels takes up what that leaves over. An image too small for any of them
    gets the smallest.
    """
    budget = signal.n_values // VALUES_PER_PARAMETER
    finest = max(2.0 * BASE, float(round(signal.lattice)))

    def parameters(levels: int, log2: int) -> int:
        layout = make_layout(2, levels, FEATURES, log2, BASE, growth_factor(levels, BASE, finest))
        return layout.n_parameters + network_parameters(levels * FEATURES, signal.out_dim)

    counts = {(levels, log2): parameters(levels, log2) for levels in LEVELS for log2 in range(6, 23)}
    fitting = {sizes: count for sizes, count in counts.items() if count <= budget}
    # Tables that are never full have equal counts: the smaller number says the same.
    levels, log2 = max(fitting, key=lambda sizes: (fitting[sizes], -sizes[1]), default=(LEVELS[0], 6))
    return {
        "name": "hashgrid", "n_levels": levels, "n_features_per_level": FEATURES, "base_resolution": BASE,
        "max_resolution": finest, "log2_hashmap_size": log2,
    }  # fmt: skip


def naive_sizes(parameters: int, outputs: int) -> dict[str, int]:
    """Levels and table size of the naive stack whose number of parameters is nearest to another's.

    It has 2^T rows of two features on every level; the usual 16 levels or fewer, as the count asks.
    """

    def distance(levels: int, log2: int) -> int:
        return abs(levels * 2**log2 * 2 + network_parameters(2 * levels, outputs) - parameters)

    choices = [(distance(levels, log2), -levels, log2) for levels in range(4, 17) for log2 in range(4, 23)]
    _, levels, log2 = min(choices)
    return {"n_levels": -levels, "log2_size": log2}
