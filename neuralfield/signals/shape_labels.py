"""What is known at the points of a shape: :func:`labelled_points`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuralfield.signals import label_cache
from neuralfield.signals.label_cache import Labelled
from neuralfield.signals.shape_points import ShapePoints, surface_test, uniform_test
from neuralfield.signals.solid import Solid

KINDS = ("occupancy", "sdf")
TEST_POINTS = 2**18

_BLOCK = 1 << 18
_DRAWING = 0.1  # the part of the progress for where the points lie; the rest is what is known there


def labelled_points(
    solid: Solid,
    kind: str,
    sampling: ShapePoints,
    test_points: int,
    *,
    cache: bool = True,
    on_progress: Callable[[float], None] | None = None,
) -> Labelled:
    """Training points, points uniform in the bounding box, points near the surface, and the truth at each, float32.

    They are labelled in blocks of 2^18; a mesh's winding number works on all cores within a block. From the cache, if the
    solid has an identity and this was made before.

    **Arguments**

    - `solid`: what is asked.
    - `kind`: "occupancy": whether each point lies inside. "sdf": its signed distance in cube units.
    - `sampling`: the training points.
    - `test_points`: in each of the two other sets.
    - `cache`: read and write the cache.
    - `on_progress`: called with a fraction, up to 1.
    """
    tell = on_progress or (lambda fraction: None)
    recipe = {
        "solid": solid.identity,
        "kind": kind,
        "n": sampling.n,
        "uniform": sampling.uniform,
        "widths": list(sampling.widths),
        "test_points": test_points,
        "seed": sampling.seed,
    }

    def make() -> tuple[np.ndarray, np.ndarray]:
        points = _points(solid, sampling, test_points, lambda fraction: tell(_DRAWING * fraction))
        return points, _labels(solid, kind, points, lambda fraction: tell(_DRAWING + (1 - _DRAWING) * fraction))

    found = label_cache.labelled(recipe, make, use=cache and solid.identity is not None)
    tell(1.0)
    return found


def _points(solid: Solid, sampling: ShapePoints, test_points: int, on_progress: Callable[[float], None]) -> np.ndarray:
    pool = sampling.draw(solid, on_progress)
    tests = uniform_test(solid, test_points, sampling.seed), surface_test(solid, test_points, sampling.seed)
    return np.concatenate([pool, *tests])


def _labels(solid: Solid, kind: str, points: np.ndarray, on_progress: Callable[[float], None]) -> np.ndarray:
    labels = np.empty(len(points), bool if kind == "occupancy" else np.float32)
    ask = solid.inside if kind == "occupancy" else solid.signed_distance
    for first in range(0, len(points), _BLOCK):
        labels[first : first + _BLOCK] = ask(points[first : first + _BLOCK].astype(np.float64))
        on_progress(min(1.0, (first + _BLOCK) / len(points)))
    return labels
