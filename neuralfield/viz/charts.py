"""The chart of a sweep: PSNR or IoU as lines over numbers, or as bars over names, whichever the swept options are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuralfield.viz.measure import PSNR, Measure
from neuralfield.viz.style import (
    BEST,
    FAILED,
    FAINT,
    GREY,
    GROUPS,
    HELDOUT,
    INK,
    SLOT,
    SMALL,
    TRAIN,
    Axes,
    Number,
    Page,
    is_number,
    plain_axes,
    printable,
    spread,
    text_width,
    tick_labels,
    unique,
)

LEFT, RIGHT = 90, 210  # pixels beside the chart: numbers of the axis, names of the lines
MOST_BARS = 40


@dataclass(frozen=True)
class Point:
    """One run as the charts see it: two numbers of its quality; none at all means that it failed."""

    label: str
    swept: tuple[Any, ...]
    train: float | None
    heldout: float | None
    best: bool = False
    measure: Measure = PSNR

    @property
    def main(self) -> float | None:
        """What runs are compared by: held-out where it was measured."""
        return self.train if self.heldout is None else self.heldout


def kind_of_chart(points: Sequence[Point], keys: Sequence[str]) -> str:
    """``lines``, ``bars`` (upright), ``grouped`` (upright, coloured by the second key) or ``rows`` (level bars)."""
    columns = list(zip(*(p.swept for p in points), strict=True))
    numeric = [all(is_number(v) for v in column) and len(set(column)) > 1 for column in columns]
    if len(keys) == 1 and numeric[0]:
        return "lines"
    if len(keys) == 2 and any(numeric):
        groups = columns[1 - _across(columns, numeric)]
        return "lines" if len(set(map(str, groups))) <= len(GROUPS) else "rows"
    if len(keys) == 2 and len(points) <= 24 and min(len(set(map(str, c))) for c in columns) > 1:
        return "grouped" if len(set(map(str, columns[1]))) <= len(GROUPS) else "rows"
    longest = max((len(_name(p, keys)) for p in points), default=0)
    return "bars" if len(points) <= 10 and longest * len(points) <= 130 else "rows"


def chart_height(points: Sequence[Point], keys: Sequence[str]) -> int:
    """Pixels that :func:`draw_chart` needs, with axis labels."""
    if kind_of_chart(points, keys) == "rows":
        return 60 + 34 * min(len(points), MOST_BARS) + 40
    return 560


def draw_chart(page: Page, y: Number, points: Sequence[Point], keys: Sequence[str]) -> None:
    """Draw between the left and right edge of the page, the top at pixel ``y``."""
    kind, width, height = kind_of_chart(points, keys), page.width - LEFT - RIGHT, chart_height(points, keys)
    if kind == "lines":
        axes = page.axes(LEFT, y + 50, width, height - 130)
        _lines(axes, points, keys)
    elif kind == "rows":
        names = [_name(p, keys) for p in points]
        left = min(max(text_width(printable(n), SMALL) for n in names) + 60, page.width * 0.4)
        names = [page.shorten(printable(n), SMALL, left - 56) for n in names]
        axes = page.axes(left, y + 50, page.width - left - 120, height - 60)
        _rows(axes, points, names)
    else:
        axes = page.axes(LEFT, y + 50, page.width - LEFT - 40, height - 130)
        _bars(axes, points, keys) if kind == "bars" else _grouped(axes, points, keys)
    page.text(36, y, points[0].measure.heading, 13, color=GREY)
    _legend(page, y, kind, points, keys)


def _legend(page: Page, y: Number, kind: str, points: Sequence[Point], keys: Sequence[str]) -> None:
    """What colours and strokes mean, from the right; lines are named at their ends instead."""
    both = any(p.heldout is not None for p in points) and any(p.train is not None for p in points)
    entries: list[tuple[str, str, str]] = []  # sign, its colour, text
    first, second = points[0].measure.names
    if kind == "lines" and len(keys) == 2 and both:
        entries = [("", GREY, f"solid: {second}, dashed: {first}")]
    elif kind == "bars" and both:
        entries = [("■", HELDOUT, second), ("■", TRAIN, first)]
    elif kind == "rows" and both:
        entries = [("■", HELDOUT, second), ("|", INK, first)]
    elif kind == "grouped":
        entries = [("■", GROUPS[i], f"{keys[1]}={g}") for i, g in enumerate(unique(p.swept[1] for p in points))]
        entries += [("", GREY, f"bar: {second}, line: {first}")] if both else []
    x = float(page.width - 40)
    for sign, colour, text in reversed(entries):
        x -= text_width(printable(text), 13)
        page.text(x, y, text, 13, color=GREY)
        page.text(x - 6, y, sign, 13, color=colour, ha="right", fontweight="bold")
        x -= 48 if sign else 26


def _lines(axes: Axes, points: Sequence[Point], keys: Sequence[str]) -> None:
    columns = list(zip(*(p.swept for p in points), strict=True))
    across = 0 if len(keys) == 1 else _across(columns, [all(is_number(v) for v in c) for c in columns])
    values = sorted({p.swept[across] for p in points})
    plain_axes(axes)
    ends: list[tuple[float, str, str]] = []
    both = any(p.heldout is not None for p in points)
    if len(keys) == 1:
        measure = points[0].measure
        series = [("train", measure.names[0] if both else measure.label, TRAIN if both else HELDOUT, list(points))]
        series += [("heldout", measure.names[1], HELDOUT, list(points))] if both else []
    else:
        other = 1 - across
        groups = unique(p.swept[other] for p in points)
        series = []
        for group, colour in zip(groups, GROUPS, strict=False):
            members = [p for p in points if p.swept[other] == group]
            series += [("train", "", colour, members)] if both else []
            series += [("heldout" if both else "train", f"{keys[other]}={group}", colour, members)]
    for which, label, colour, members in series:
        line = sorted((p.swept[across], getattr(p, which)) for p in members if _drawable(getattr(p, which)))
        if line:
            style: dict[str, Any] = {"linewidth": 2.6, "marker": "o", "markersize": 8} if label else {"linestyle": "--"}
            axes.plot(*zip(*line, strict=True), color=colour, clip_on=False, **style)
            if label:
                ends.append((line[-1][1], label, GREY if colour == TRAIN else colour))
    if values[0] > 0 and values[-1] / values[0] >= 8:
        axes.set_xscale("log")
    axes.margins(x=0.03, y=0.12)
    _mark_best(axes, points, across)
    _mark_failures(axes, points, across)
    kept = values if len(values) <= 14 else values[:: math.ceil(len(values) / 14)]
    tick_labels(axes, "x", kept, [_short(v) for v in kept])
    axes.set_xlabel(printable(keys[across]), fontsize=13, color=GREY, labelpad=8, parse_math=False)
    low, high = axes.get_ylim()
    ends.sort(key=lambda end: end[0])
    places = spread([(value - low) / (high - low) for value, _, _ in ends], 0.055, 0.0, 1.0)
    for (_, label, colour), place in zip(ends, places, strict=True):
        text = axes.text(1.012, place, _clip(label, 24), transform=axes.transAxes, va="center", color=colour)
        text.set(fontsize=SMALL, fontweight="bold", parse_math=False)


def _mark_best(axes: Axes, points: Sequence[Point], across: int) -> None:
    for p in points:
        if p.best and p.main is not None and math.isfinite(p.main):
            place = (float(p.swept[across]), p.main)
            axes.plot(*place, marker="o", ms=17, mfc="none", mec=BEST, mew=2.5)
            at = axes.transAxes.inverted().transform(axes.transData.transform(place))[0]
            note = f"best: {p.measure.words(p.main)} at {_short(p.swept[across])}"
            side = "right" if at > 0.9 else "left" if at < 0.1 else "center"
            style: dict[str, Any] = {"color": BEST, "fontsize": SMALL, "fontweight": "bold", "parse_math": False}
            style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.85}
            axes.annotate(note, place, (0, 14), textcoords="offset points", ha=side, **style)


def _mark_failures(axes: Axes, points: Sequence[Point], across: int) -> None:
    edge = axes.get_xaxis_transform()  # values across, fractions of the height upwards
    for p in points:
        if p.main is None:
            axes.plot(p.swept[across], 0.02, marker="x", color=FAILED, ms=9, mew=2.5, transform=edge)
            axes.text(p.swept[across], 0.05, "failed", color=FAILED, fontsize=SMALL, ha="center", transform=edge)
        elif p.main == math.inf:
            axes.text(
                p.swept[across], 0.96, p.measure.words(p.main), color=INK, fontsize=SMALL, ha="center", transform=edge
            )


def _bars(axes: Axes, points: Sequence[Point], keys: Sequence[str]) -> None:
    series = [name for name in ("heldout", "train") if any(getattr(p, name) is not None for p in points)]
    top = _top(points)
    for i, p in enumerate(points):
        if p.main is None:
            _failed_slot(axes, i, 0.8, top)
        for k, name in enumerate(series):
            value, x, width = getattr(p, name), i + (k - (len(series) - 1) / 2) * 0.4, 0.38
            colour = HELDOUT if name == series[0] else TRAIN
            if value is not None:
                axes.bar(x, _height(value, top), width, color=colour)
                _print_value(
                    axes,
                    x,
                    p.measure.number(value),
                    _height(value, top),
                    top,
                    best=p.best and name == series[0],
                    crowded=len(points) > 8,
                )
    _upright(axes, [_name(p, keys) for p in points], top, keys[0] if len(keys) == 1 else "")


def _grouped(axes: Axes, points: Sequence[Point], keys: Sequence[str]) -> None:
    names, groups, top = unique(p.swept[0] for p in points), unique(p.swept[1] for p in points), _top(points)
    width = 0.84 / len(groups)
    for p in points:
        x = names.index(p.swept[0]) + (groups.index(p.swept[1]) - (len(groups) - 1) / 2) * width
        if p.main is None:
            _failed_slot(axes, x, width * 0.9, top)
            continue
        axes.bar(x, _height(p.main, top), width * 0.94, color=GROUPS[groups.index(p.swept[1])])
        if p.heldout is not None and p.train is not None:
            axes.hlines(_height(p.train, top), x - width * 0.47, x + width * 0.47, color=INK, linewidth=2)
        high = max(_height(v, top) for v in (p.main, p.train) if v is not None)
        place, colour, va = (p.main, "white", "top") if p.main > 0.15 * top else (high, INK, "bottom")
        place = _height(place, top) + (-0.015 if va == "top" else 0.015) * top
        size = SMALL - 1.5 if len(points) > 16 else SMALL
        axes.text(x, place, p.measure.number(p.main), color=colour, va=va, ha="center", fontsize=size)
        if p.best:
            axes.text(x, high + 0.015 * top, "best", color=BEST, va="bottom", ha="center", size=size, weight="bold")
    _upright(axes, [str(n) for n in names], top, keys[0])


def _rows(axes: Axes, points: Sequence[Point], names: list[str]) -> None:
    top = _top(points)
    plain_axes(axes, grid=False)
    for i, p in enumerate(points):
        if p.main is None:
            axes.text(0.01 * top, i, "failed", color=FAILED, fontsize=SMALL, va="center")
            continue
        axes.barh(i, _height(p.main, top), 0.7, color=HELDOUT if p.heldout is not None else TRAIN)
        end = _height(p.main, top)
        if p.heldout is not None and p.train is not None:
            axes.vlines(_height(p.train, top), i - 0.35, i + 0.35, color=INK, linewidth=2)
        inside = end > 0.1 * top
        place, colour, side = (end - 0.006 * top, "white", "right") if inside else (end + 0.006 * top, INK, "left")
        axes.text(place, i, p.measure.number(p.main), color=colour, fontsize=SMALL, va="center", ha=side)
        if p.best:
            far = max(end, _height(p.train, top) if p.train is not None else end) + 0.01 * top
            axes.text(far, i, "best", color=BEST, fontsize=SMALL, va="center", fontweight="bold")
    axes.set(ylim=(len(points) - 0.4, -0.6), xlim=(min(0.0, *(p.main or 0.0 for p in points), 0.0), top * 1.02))
    axes.tick_params(labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    tick_labels(axes, "y", range(len(points)), names)


def _upright(axes: Axes, names: list[str], top: Number, label: str) -> None:
    plain_axes(axes)
    room = max(0.0, (3 - len(names)) / 2)  # one or two bars do not fill the page
    axes.set(xlim=(-0.6 - room, len(names) - 0.4 + room), ylim=(min(0.0, axes.get_ylim()[0]), top * 1.18))
    tick_labels(axes, "x", range(len(names)), names)
    axes.set_xlabel(printable(label), fontsize=13, color=GREY, labelpad=8, parse_math=False)


def _print_value(axes: Axes, x: Number, number: str, height: Number, top: Number, *, best: bool, crowded: bool) -> None:
    text = axes.text(x, max(height, 0) + 0.012 * top, number, ha="center")
    text.set(fontsize=SMALL - 1.5 if crowded else SMALL, color=BEST if best else INK, va="bottom")
    if best:
        text.set(fontweight="bold", text=f"best\n{number}")


def _failed_slot(axes: Axes, x: Number, width: Number, top: Number) -> None:
    axes.bar(x, top, width, facecolor=SLOT, edgecolor=FAINT, hatch="//", linewidth=0)
    axes.text(
        x, top / 2, "failed", color=FAILED, fontsize=SMALL, fontweight="bold", ha="center", va="center", rotation=90
    )


def _top(points: Sequence[Point]) -> float:
    values = [v for p in points for v in (p.train, p.heldout) if _drawable(v)]
    return max([1.0, *(float(v) for v in values if v is not None)])


def _height(value: Number, top: Number) -> float:
    """Equal images have infinite PSNR: their bars reach a little above the others."""
    return top * 1.05 if value == math.inf else value


def _drawable(value: Number | None) -> bool:
    return value is not None and math.isfinite(value)


def _name(point: Point, keys: Sequence[str]) -> str:
    return _short(point.swept[0]) if len(keys) == 1 else point.label


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clip(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else text[: most // 2] + "…" + text[-(most // 2 - 1) :]


def _across(columns: Sequence[Sequence[Any]], numeric: Sequence[bool]) -> int:
    """Of two options the one for the horizontal axis: a number, and of two numbers the one with more values."""
    return max((0, 1), key=lambda i: (numeric[i], len(set(map(str, columns[i]))), -i))
