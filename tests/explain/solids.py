"""Small signals in three dimensions."""

from __future__ import annotations

from neuralfield import signals
from neuralfield.signals.shape import ShapeSignal
from neuralfield.signals.volume import VolumeSignal


def rings(n: int = 20, holdout: str = "every_other") -> VolumeSignal:
    """The density of Marschner and Lobb."""
    found = signals.load({"type": "volume", "name": "marschner_lobb", "resolution": n, "holdout": holdout})
    assert isinstance(found, VolumeSignal)
    return found


def csg(**options: object) -> ShapeSignal:
    """The solid of constructive geometry, or with `name` another."""
    given = {"type": "shape", "name": "csg", "points": 30_000, "test_points": 20_000, "cache": False}
    found = signals.load({**given, **options})
    assert isinstance(found, ShapeSignal)
    return found
