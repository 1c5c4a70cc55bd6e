"""One figure for all runs of a sweep: a chart of PSNR or IoU above, the reconstructions below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from neuralfield.viz.charts import MOST_BARS, Point, chart_height, draw_chart, kind_of_chart
from neuralfield.viz.measure import measure_of
from neuralfield.viz.style import (
    BEST,
    BODY,
    FAILED,
    FAINT,
    GREY,
    SLOT,
    SMALL,
    TITLE,
    Number,
    Page,
    picture,
    wrap,
)

_WIDTH, _MARGIN, _GAP = 1600, 36, 20  # pixels
_MOST_THUMBNAILS = 24


@dataclass(frozen=True)
class RunRow:
    """One run of a sweep.

    Attributes:
        label: how to call it, for example ``encoding=hashgrid``.
        swept: the value of every option that differs between runs.
        metrics: its results; used are ``psnr_train`` (or ``psnr``) and ``psnr_heldout``, in dB or ``None``, or
            ``iou_uniform`` and ``iou_surface``. ``None`` in place of the mapping if the run failed.
        error: why it failed, else ``None``.
        thumbnail: the reconstruction, small, sRGB bytes.
    """

    label: str
    swept: dict[str, Any]
    metrics: dict[str, Any] | None
    error: str | None = None
    thumbnail: UInt8[np.ndarray, "height width 3"] | None = None


def sweep_figure(
    rows: Sequence[RunRow],
    swept_keys: list[str],
    path: str | Path,
    *,
    truth: UInt8[np.ndarray, "height width 3"] | None,
    title: str,
) -> None:
    """Write a PNG that compares the runs of a sweep.

    One swept option that is a number gives lines of PSNR over its value (logarithmic if the values span at least a
    factor of eight), one that is a name gives bars; two options give lines or bars grouped by the other option, more
    give one bar per run. Train and held-out PSNR stand side by side; the best run (by held-out PSNR if measured) is
    marked. Failed runs keep their place and say why. Of more than 24 reconstructions the best, the worst and some
    evenly spaced ones are shown, and the figure says so; likewise of more than 40 bars.

    Args:
        rows: the runs in the order to be shown; may be empty.
        swept_keys: names of the options that differ.
        path: where the PNG goes, 1600 pixels wide; its folder is made if missing.
        truth: the image that was fitted, shown first.
        title: one line, literally; shortened if too long.

    Raises:
        OutputError: the file cannot be written.
    """
    points = _points(rows, swept_keys)
    done = [p for p in points if p.main is not None]
    bars = points
    if done and kind_of_chart(points, swept_keys) == "rows" and len(points) > MOST_BARS:
        bars = [points[i] for i in _pick(points, MOST_BARS)]
    shown = _pick(points, _MOST_THUMBNAILS)
    strip = _Strip(rows, points, shown, truth)
    chart = chart_height(bars, swept_keys) if done else 0
    top = 116
    page = Page(_WIDTH, top + (chart + 30 if done else 0) + (strip.height + _MARGIN if strip.height else 40))
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    page.text(_MARGIN, 66, _summary(points, done, len(bars)), BODY, page.width - 2 * _MARGIN, color=GREY)
    if done:
        draw_chart(page, top, bars, swept_keys)
    strip.draw(page, top + (chart + 30 if done else 0))
    page.save(path)


def _points(rows: Sequence[RunRow], keys: Sequence[str]) -> list[Point]:
    points = []
    measure = measure_of(row.metrics for row in rows)
    for row in rows:
        metrics = row.metrics if row.error is None and row.metrics is not None else {}
        swept = tuple(row.swept.get(k) for k in keys)
        points.append(Point(row.label, swept, *measure.of(metrics), measure=measure))
    best = _best(points)
    return [replace(p, best=i == best) for i, p in enumerate(points)]


def _best(points: Sequence[Point]) -> int | None:
    """The first run of the highest quality; none if there is only one, or if the second number is known of a few only."""
    known = [i for i, p in enumerate(points) if p.main is not None]
    mixed = len({points[i].heldout is None for i in known}) > 1
    return None if len(known) < 2 or mixed else max(known, key=lambda i: points[i].main or 0.0)


def _summary(points: Sequence[Point], done: Sequence[Point], bars: int) -> str:
    if not points:
        return "no runs"
    parts = [f"{len(points)} run{'s' if len(points) > 1 else ''}"]
    failed = len(points) - len(done)
    if failed:
        parts.append("all failed" if not done else f"{failed} failed")
    if bars < len(points):
        parts.append(f"{bars} of them shown: best, worst and evenly spaced ones")
    best = next((p for p in points if p.best), None)
    if best is not None:
        parts.append(f"best: {best.label} with {_quality(best)}")
    return " · ".join(parts)


def _quality(point: Point) -> str:
    return point.measure.words(point.main) + ("" if point.heldout is None else f" {point.measure.names[1]}")


def _pick(points: Sequence[Point], most: int) -> list[int]:
    """All indices, or the best, the worst and evenly spaced others, ``most`` in total, in order."""
    if len(points) <= most:
        return list(range(len(points)))
    ranked = [i for i in sorted(range(len(points)), key=lambda i: points[i].main or 0.0) if points[i].main is not None]
    chosen = {ranked[0], ranked[-1]} if ranked else set()
    others = [i for i in range(len(points)) if i not in chosen]
    room = most - len(chosen)
    chosen |= {others[round(k * (len(others) - 1) / (room - 1))] for k in range(room)}
    return sorted(chosen)


class _Strip:
    """The reconstructions in rows, truth first, each above its name and quality."""

    def __init__(
        self, rows: Sequence[RunRow], points: Sequence[Point], shown: Sequence[int], truth: np.ndarray | None
    ) -> None:
        self.cells: list[tuple[RunRow | None, Point | None]] = [(None, None)] if truth is not None else []
        self.cells += [(rows[i], points[i]) for i in shown]
        self.truth, self.left_out = truth, len(rows) - len(shown)
        images = [truth, *(row.thumbnail for row in rows)]
        first = next((image for image in images if image is not None), None)
        failed = any(p.main is None for p in points)
        n = len(self.cells)
        if first is None and not failed:
            self.height = 0.0
            return
        aspect = 1.5 if first is None else min(max(first.shape[1] / first.shape[0], 0.6), 4.0)
        # Few wide pictures per row, many narrow ones; and no single one alone in the last row.
        most = 5 if aspect > 2 else 6 if n <= 12 else 8
        self.columns = math.ceil(n / math.ceil(n / most))
        self.cell = min((_WIDTH - 2 * _MARGIN - (self.columns - 1) * _GAP) / self.columns, 360.0)
        self.image = (self.cell, min(self.cell / aspect, 360.0))
        self.names = [["truth"] if row is None else self._wrapped(row.label) for row, _ in self.cells]
        self.pitch = self.image[1] + 48 + 20 * max(len(lines) for lines in self.names)
        self.head = 40.0
        self.height = self.head + math.ceil(n / self.columns) * self.pitch

    def draw(self, page: Page, y: Number) -> None:
        """Draw with the top at pixel ``y``."""
        if not self.height:
            return
        note = f", without {self.left_out} of them: best, worst and evenly spaced ones" if self.left_out else ""
        page.text(_MARGIN, y, f"Reconstructions{note}", BODY, color=GREY)
        for i, (row, point) in enumerate(self.cells):
            x = _MARGIN + (i % self.columns) * (self.cell + _GAP)
            top = y + self.head + (i // self.columns) * self.pitch
            axes = page.axes(x, top, *self.image)
            if row is None or point is None:
                self._image(page, axes, x, top, self.truth, best=False)
            elif point.main is None:
                self._failed(page, axes, x, top, row.error or "nothing was measured")
            else:
                self._image(page, axes, x, top, row.thumbnail, point.best)
            below = top + self.image[1] + 9
            for line in self.names[i]:
                page.text(x, below, line, SMALL, fontweight="bold")
                below += 20
            if point is not None and point.main is not None:
                text = _quality(point) + (", best" if point.best else "")
                page.text(x, below + 2, text, SMALL, self.cell, color=BEST if point.best else GREY)

    def _wrapped(self, label: str) -> list[str]:
        """One line if it fits, else one option per line as far as there is room."""
        return wrap(label, SMALL, self.cell, 3, "bold") or [""]

    def _image(self, page: Page, axes: Any, x: Number, y: Number, image: np.ndarray | None, best: bool) -> None:
        if image is None:
            self._slot(axes, hatch="")
            page.text(x + self.cell / 2, y + self.image[1] / 2 - 8, "no picture", SMALL, color=GREY, ha="center")
            return
        scale = min(self.image[0] / image.shape[1], self.image[1] / image.shape[0])
        w, h = max(image.shape[1] * scale, 4), max(image.shape[0] * scale, 4)
        if (w, h) != self.image:
            axes.remove()
            axes = page.axes(x, y + self.image[1] - h, w, h)  # stands on its name
        picture(axes, image)
        if best:
            from matplotlib.patches import Rectangle

            frame = Rectangle((0, 0), 1, 1, fill=False, ec=BEST, lw=4, transform=axes.transAxes, clip_on=False)
            axes.add_patch(frame)

    def _slot(self, axes: Any, hatch: str) -> None:
        from matplotlib.patches import Rectangle

        axes.set_axis_off()
        box = Rectangle((0, 0), 1, 1, fc=SLOT, ec=FAINT, hatch=hatch, lw=1, transform=axes.transAxes)
        axes.add_patch(box)

    def _failed(self, page: Page, axes: Any, x: Number, y: Number, reason: str) -> None:
        self._slot(axes, hatch="//")
        lines = ["failed", *wrap(reason, SMALL - 1, self.cell - 40, max(1, min(5, int(self.image[1] / 20) - 2)))]
        start = y + self.image[1] / 2 - 10 * len(lines)
        for k, line in enumerate(lines):
            style: dict[str, Any] = {"color": FAILED, "fontweight": "bold"} if k == 0 else {"color": GREY}
            box = {"facecolor": SLOT, "edgecolor": "none", "pad": 2}
            page.text(x + self.cell / 2, start + 20 * k, line, SMALL - (k > 0), ha="center", bbox=box, **style)
