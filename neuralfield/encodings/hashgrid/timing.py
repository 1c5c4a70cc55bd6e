"""Which of two engines is the faster one for batches of a kind: measured by the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings.hashgrid.layout import GridLayout

_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """How an engine did.

    - `seconds`: median, for one batch.
    - `difference`: of its features from the first engine's, as a fraction of the largest.
    """

    seconds: float
    difference: float


def clock(task: Callable[[], object], device: torch.device) -> float:
    """Seconds that a task takes, from an idle device until the device is idle again."""
    _synchronize(device)
    start = time.perf_counter()
    task()
    _synchronize(device)
    return time.perf_counter() - start


def race(
    engines: Mapping[str, ModuleType],
    x: Float[Tensor, "n dim"],
    params: Float[Tensor, " parameters"],
    layout: GridLayout,
    interpolation: str,
    training: bool,
) -> dict[str, Timing]:
    """Time engines on a batch in turns: forward, and in training backward to the table too.

    The first round is not counted: it compiles and allocates.
    """
    x, params = x.detach(), params.detach()
    features: dict[str, Tensor] = {}

    def task(name: str) -> None:
        engine = engines[name]
        features[name] = engine.forward(x, params, layout, interpolation)
        if training:
            engine.backward(features[name], x, params, layout, interpolation, False, True)

    with torch.no_grad():
        rounds = [{name: clock(lambda name=name: task(name), x.device) for name in engines} for _ in range(_ROUNDS + 1)]  # type: ignore[misc]
    first = next(iter(features.values())).nan_to_num()
    largest = float(first.abs().max().clamp(min=1e-30))
    return {
        name: Timing(
            statistics.median(took[name] for took in rounds[1:]),
            float((found.nan_to_num() - first).abs().max()) / largest,
        )
        for name, found in features.items()
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
