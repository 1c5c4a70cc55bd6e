"""The course of one training: PSNR (of a shape: IoU) and loss against steps and seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.viz.measure import measure_of
from neuralfield.viz.style import (
    BODY,
    FAINT,
    GREY,
    HELDOUT,
    INK,
    SMALL,
    TITLE,
    TRAIN,
    Axes,
    Page,
    plain_axes,
    spread,
)
from neuralfield.viz.style import seconds as duration


def training_curve(history: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> None:
    """Write a PNG with PSNR or IoU above and loss below against steps, seconds along the top.

    Args:
        history: one mapping per measurement in the order of time. ``step`` is needed; ``loss``, ``psnr_train`` (or
            ``psnr``, dB), ``psnr_heldout`` (dB), or ``iou_uniform`` and ``iou_surface``, and ``seconds`` (since the
            start) are drawn where they are given and finite. A panel without any value is left out.
        path: where the PNG goes; its folder is made if missing.
        title: one line, literally; shortened if too long.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.ticker import MaxNLocator

    measure = measure_of(history)
    lines = {
        name: next((found for key in keys if (found := _series(history, key))), [])
        for name, keys in zip(reversed(measure.names), (measure.second, measure.first), strict=True)
    }
    loss = _series(history, "loss")
    panels = [name for name, given in (("quality", any(lines.values())), ("loss", bool(loss))) if given]
    left, top, width, height, gap = 110, 132, 1030, 330, 34
    page = Page(1280, top + max(1, len(panels)) * (height + gap) + 54)
    page.text(36, 26, title, TITLE, page.width - 72, fontweight="bold")
    if not panels:
        page.text(36, 100, "nothing was measured during this training", BODY, color=GREY)
    for i, name in enumerate(panels):
        axes = page.axes(left, top + i * (height + gap), width, height)
        plain_axes(axes)
        if name == "quality":
            ends = []
            for (label, line), colour in zip(lines.items(), (HELDOUT, TRAIN), strict=True):
                if line:
                    _line(axes, line, colour)
                    shown = label.replace("near the surface", "near surface")
                    ends.append((line[-1], f"{shown}\n{measure.words(line[-1][1])}", colour))
            axes.set_ylabel(measure.axis, fontsize=BODY, color=GREY)
            _label_ends(axes, ends)
        else:
            _line(axes, loss, INK)
            positive = all(value > 0 for _, value in loss)
            if positive:
                axes.set_yscale("log")
            axes.set_ylabel(f"loss{' (log scale)' if positive else ''}", fontsize=BODY, color=GREY)
        axes.tick_params(which="minor", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(*_limits([line for line in (*lines.values(), loss) if line]))
        if i + 1 == len(panels):
            axes.set_xlabel("step", fontsize=BODY, color=GREY)
        else:
            axes.tick_params(labelbottom=False)
        if i == 0:
            _time_axis(axes, _series(history, "seconds"))
    page.save(path)


def _series(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    points = [(float(row["step"]), float(row[key])) for row in history if row.get(key) is not None]
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _line(axes: Axes, points: list[tuple[float, float]], colour: str) -> None:
    marker = "o" if len(points) <= 30 else ""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.2, marker=marker, markersize=5)


def _limits(lines: list[list[tuple[float, float]]]) -> tuple[float, float]:
    steps = [x for line in lines for x, _ in line]
    low, high = min(steps), max(steps)
    room = 0.02 * (high - low) or 1.0
    return low - room, high + room


def _label_ends(axes: Axes, ends: list[tuple[tuple[float, float], str, str]]) -> None:
    """The name of each line beside its last point; two that would touch are moved apart."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[0][1])
    places = spread([(end[0][1] - low) / (high - low) for end in ends], 0.16, 0.08, 0.92)
    for (_, label, colour), place in zip(ends, places, strict=True):
        dark = GREY if colour == TRAIN else colour  # the light grey of the line is too faint for text
        axes.annotate(
            label, (1.01, place), xycoords="axes fraction", va="center", color=dark, fontsize=SMALL, fontweight="bold"
        )


def _time_axis(axes: Axes, times: list[tuple[float, float]]) -> None:
    """Seconds along the top, at the steps where round numbers of seconds had passed."""
    from matplotlib.ticker import MaxNLocator

    if len(times) < 2 or times[-1][1] <= times[0][1]:
        return
    steps, passed = np.array(times).T
    ticks = [t for t in MaxNLocator(nbins=6).tick_values(passed[0], passed[-1]) if passed[0] <= t <= passed[-1]]
    top = axes.secondary_xaxis("top")
    top.set_xticks(np.interp(ticks, passed, steps), labels=[f"{t:g} s" if t < 100 else duration(t) for t in ticks])
    top.tick_params(colors=GREY, labelsize=SMALL, length=4, color=FAINT)
    top.spines["top"].set_color(FAINT)
