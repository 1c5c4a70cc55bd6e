"""Timing that can be trusted on a machine that is shared: alternating rounds in one process, medians, ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Times of one contestant in seconds, one per round, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, Timing]:
    """Time each contestant once per round, after one round that does not count (compilation, first touch of memory).

    Alternating, so that a busy moment of the machine falls on all alike.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for round_number in range(rounds + 1):
        for name, task in contestants.items():
            _wait(device)
            started = time.perf_counter()
            task()
            _wait(device)
            if round_number:
                times[name].append(time.perf_counter() - started)
    return {name: Timing(tuple(values)) for name, values in times.items()}


def ratio(of: Timing, to: Timing) -> float:
    """Median of the round-by-round ratios of two contestants that were timed together."""
    return statistics.median(a / b for a, b in zip(of.seconds, to.seconds, strict=True))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
