"""The learning rate over a fit, as a factor of its first value."""

from __future__ import annotations

import math

SCHEDULES = ("constant", "cosine", "exponential")


def factor(schedule: str, progress: float, final: float) -> float:
    r"""The factor at `progress` (0 at the start, 1 at the end), falling from 1 to `final`.

    cosine: $r + (1 - r)(1 + \cos \pi p)/2$ (Loshchilov & Hutter 2017, eq. 5, one cycle); exponential: $r^p$.
    """
    progress = min(max(progress, 0.0), 1.0)
    if schedule == "cosine":
        return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
    if schedule == "exponential":
        return float(final**progress)
    return 1.0


def warmup(step: int, steps: int) -> float:
    """Linear warm-up: (step + 1) / (steps + 1) for the first `steps` steps, then 1."""
    return min(1.0, (step + 1) / (steps + 1))
