"""What a figure compares runs by: PSNR of images and volumes, IoU of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A quality with two numbers for each run, the second of which decides where it is known.

    - `label`, `unit`, `digits`: "PSNR", " dB", 1.
    - `first`, `second`: the keys in metrics and histories; of several the first that is there.
    - `names`: what the two are called in a figure; `headings`: in a table.
    """

    label: str
    unit: str
    digits: int
    first: tuple[str, ...]
    second: tuple[str, ...]
    names: tuple[str, str]
    headings: tuple[str, str]

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.label} ({self.unit.strip()})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """The words above a chart."""
        return f"{self.label}{f' in {self.unit.strip()}' if self.unit else ''}, higher is better"

    def number(self, value: float | None) -> str:
        """``38.2``; an infinity sign for equal images, a dash for no value."""
        if value is None or math.isnan(value):
            return "–"
        return "∞" if value == math.inf else f"{value:.{self.digits}f}"

    def words(self, value: float | None) -> str:
        """``38.2 dB``, ``IoU 0.950``; ``–`` for no value."""
        if value is None or math.isnan(value):
            return "–"
        return f"{self.number(value)}{self.unit}" if self.unit else f"{self.label} {self.number(value)}"

    def of(self, metrics: Mapping[str, Any]) -> tuple[float | None, float | None]:
        """The two numbers of one run; NaN and -infinity count as unknown."""
        found = []
        for keys in (self.first, self.second):
            value = next((metrics[key] for key in keys if metrics.get(key) is not None), None)
            known = value is not None and not math.isnan(value) and value != -math.inf
            found.append(float(value) if value is not None and known else None)
        return found[0], found[1]


PSNR = Measure(
    "PSNR", " dB", 1, ("psnr_train", "psnr"), ("psnr_heldout",), ("train", "held-out"), ("train PSNR", "held-out PSNR")
)
IOU = Measure(
    "IoU", "", 3, ("iou_uniform",), ("iou_surface",), ("anywhere", "near the surface"), ("IoU", "IoU near surface")
)


def measure_of(runs: Iterable[Mapping[str, Any] | None]) -> Measure:
    """IoU where any of the runs (or rows of a history) has one, else PSNR."""
    return IOU if any(run is not None and run.get("iou_uniform") is not None for run in runs) else PSNR
