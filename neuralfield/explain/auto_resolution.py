"""`max_resolution="predicted"`, `n_levels="predicted"`: a hash grid's finest level and number of levels, by prediction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from neuralfield.checks import integer, number
from neuralfield.encodings.hashgrid.layout import growth_factor
from neuralfield.errors import ConfigError, nearest
from neuralfield.explain.candidates import budget, judged
from neuralfield.explain.chosen import Chosen, flat_range, heldout_at_budget
from neuralfield.explain.patches import patches
from neuralfield.explain.verdict import TOLERANCE
from neuralfield.explain.words import stands_in, words
from neuralfield.fitting import defaults
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.base import Signal

PREDICTED = "predicted"

# By dimension: each prediction makes real steps first and has a kernel per level, so windows are smaller than sigma's.
_SIDE, _WINDOWS = {2: 12, 3: 6}, {2: 4, 3: 3}
_USUAL_LEVELS = 16  # Müller et al. 2022, table 1
_MOST_LEVELS = 32
_FEW = 8  # times the coarsest level: a lattice below that is few octaves above it


@dataclass(frozen=True, kw_only=True)
class AutoResolution(Chosen):
    """A hash grid's finest level and what it was chosen by.

    - `resolution`: vertices along each side of the finest level; `n_levels`: of the grid.
    - `resolutions`: those that were tried, ascending.
    """

    resolution: float
    n_levels: int
    resolutions: list[float]

    def __str__(self) -> str:
        curve = ", ".join(f"{r:g}: {v:.1f}" for r, v in zip(self.resolutions, self.heldout_psnr, strict=True))
        taken = f"max_resolution=predicted took {self.resolution:g} ({self.n_levels} levels)"
        return self._sentence(taken, "", f"dB by resolution: {curve};")


@dataclass(frozen=True)
class AutoLevels:
    """A number of levels, and the ratio from one to the next that it keeps."""

    n_levels: int
    growth: float

    def __str__(self) -> str:
        return (
            f"n_levels=predicted took {self.n_levels}: {self.growth:.2f} times finer from level to level, as by default"
        )


def resolutions(lattice: float, base: int) -> list[float]:
    """What is tried: the training lattice, one octave beyond, and octaves below it down to twice the coarsest level; half
    octaves between them where that makes few."""
    pitch = 2 if lattice < _FEW * base else 1
    found = {lattice * 2 ** (-k / pitch) for k in range(-pitch, 48)}
    rounded = sorted({float(round(r)) for r in found if r >= 2 * base or (r >= base and r >= 0.99 * lattice)})
    return rounded or [2.0 * base]


def levels_for(resolution: float, lattice: float, base: int) -> AutoLevels:
    """As many levels as keep the ratio between them that 16 levels have from the coarsest to the training lattice."""
    growth = growth_factor(_USUAL_LEVELS, base, max(lattice, base))
    if growth <= 1:
        return AutoLevels(_USUAL_LEVELS, growth)
    count = 1 + round(math.log(max(resolution / base, 1.0)) / math.log(growth))
    return AutoLevels(min(count, _MOST_LEVELS), growth)


def climb(evaluate: Callable[[float], float], places: list[float], start: int) -> dict[float, float]:
    """Values at neighbours of the highest one until both are lower, and down to where it is 0.1 dB lower than that."""
    found = {places[start]: evaluate(places[start])}
    while True:
        top = max(found, key=lambda place: found[place])
        good = places.index(min(place for place, value in found.items() if value >= found[top] - TOLERANCE))
        at = places.index(top)
        wanted = [places[i] for i in (at - 1, at + 1, good - 1) if 0 <= i < len(places) and places[i] not in found]
        if not wanted:
            return dict(sorted(found.items()))
        found[wanted[0]] = evaluate(wanted[0])


def resolution_for(
    signal: Signal,
    encoding: Mapping[str, Any],
    network: Mapping[str, Any] | nn.Module | None,
    options: FitOptions,
    seed: int = 0,
    device: torch.device | None = None,
) -> AutoResolution:
    """The coarsest finest level whose predicted held-out PSNR at the budget is within 0.1 dB of the highest.

    **Arguments**

    - `encoding`: options of a hash grid; its `max_resolution` is what is chosen, and `n_levels` where that is "predicted",
      by :func:`levels_for`.

    Raises :class:`~neuralfield.errors.ConfigError` where nothing can be predicted; the message says to give a number.
    """
    began = time.perf_counter()
    device = device or torch.device("cpu")
    _check(encoding)
    rest = {k: v for k, v in encoding.items() if k not in ("max_resolution", "per_level_scale")}
    base = integer("base_resolution", encoding.get("base_resolution", 16), 1)
    given = None if encoding.get("n_levels") == PREDICTED else encoding.get("n_levels", _USUAL_LEVELS)
    try:
        judge, assumed = judged(signal)
        steps = budget(options)
        windows = patches(judge, _SIDE[judge.in_dim], _WINDOWS[judge.in_dim])

        def levels(resolution: float) -> int:
            return levels_for(resolution, judge.lattice, base).n_levels if given is None else int(given)

        def evaluate(resolution: float) -> float:
            grid = {**rest, "name": "hashgrid", "max_resolution": resolution, "n_levels": levels(resolution)}
            return heldout_at_budget(judge, grid, network, options, windows, seed, device)

        places = resolutions(judge.lattice, base)
        found = climb(evaluate, places, int(np.argmin([abs(place - judge.lattice) for place in places])))
    except ConfigError as error:
        raise ConfigError(
            f"encoding.max_resolution=predicted: {error}; or give max_resolution a number, such as 256"
        ) from error
    at = max(found, key=lambda resolution: found[resolution])
    low, high = flat_range(list(found.values()))
    flat = list(found)[low], list(found)[high]
    good = [resolution for resolution, value in found.items() if value >= found[at] - TOLERANCE]
    return AutoResolution(
        resolution=good[0], n_levels=levels(good[0]), resolutions=list(found), heldout_psnr=list(found.values()),
        maximum=found[at], at=at, flat=flat, steps=steps, seconds=time.perf_counter() - began,
        assumed_holdout=assumed, sample=words(judge).sample, note=stands_in(judge),
    )  # fmt: skip


def resolve_grid(
    encoding: Mapping[str, Any],
    signal: Signal,
    network: Mapping[str, Any] | nn.Module | None,
    options: FitOptions,
    seed: int = 0,
    device: torch.device | None = None,
) -> tuple[dict[str, Any], AutoResolution | AutoLevels]:
    """A hash grid's options without "predicted", and why."""
    _check(encoding)
    if encoding.get("max_resolution") == PREDICTED:
        found = resolution_for(signal, encoding, network, options, seed, device)
        return {**encoding, "max_resolution": found.resolution, "n_levels": found.n_levels}, found
    if encoding.get("per_level_scale") is not None:
        raise ConfigError(
            "n_levels=predicted keeps the usual ratio between levels, and per_level_scale gives another; leave out one"
        )
    base = integer("base_resolution", encoding.get("base_resolution", 16), 1)
    given = encoding.get("max_resolution", defaults.AUTO)
    finest = max(float(base), signal.lattice) if given == defaults.AUTO else number("max_resolution", given, 1)
    levels = levels_for(finest, signal.lattice, base)
    return {**encoding, "n_levels": levels.n_levels}, levels


def _check(encoding: Mapping[str, Any]) -> None:
    for key, known, example in (
        ("max_resolution", (defaults.AUTO, PREDICTED), "a number, such as 256"),
        ("n_levels", (PREDICTED,), "a whole number, such as 16"),
    ):
        value = encoding.get(key)
        if isinstance(value, str) and value not in known:
            raise ConfigError(f"{key} must be {', '.join(known)} or {example}; got {value!r}{nearest(value, known)}")
    if encoding.get("max_resolution") == PREDICTED and encoding.get("per_level_scale") is not None:
        raise ConfigError(
            "per_level_scale decides the finest level, and so does max_resolution=predicted; leave out one"
        )


__all__ = ["AutoLevels", "AutoResolution", "climb", "levels_for", "resolution_for", "resolutions", "resolve_grid"]
