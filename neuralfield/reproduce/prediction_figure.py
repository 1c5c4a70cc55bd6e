"""The page of `prediction`: predicted against real fits, what each way of choosing sigma loses, and every image's sweep."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralfield.reproduce.prediction_statistics import STRATEGIES, last, swept
from neuralfield.reproduce.sheet import legend, name_axes, sheet
from neuralfield.viz.style import (
    BEST,
    FAINT,
    GREY,
    GROUPS,
    HELDOUT,
    INK,
    SMALL,
    TRAIN,
    Axes,
    Page,
    tick_labels,
)

COLOURS = {"none": GROUPS[6], "positional": GROUPS[2], "fourier": GROUPS[0], "hashgrid": GROUPS[1]}
"""By encoding, the hues of an explanation's figures."""

COLUMNS, MOST = 4, 12  # sweeps in a row, and at all
SHOWN = ("auto", "rule", "short_10", "short_5", "average", "nyquist", "random")


def draw(title: str, numbers: dict[str, Any]) -> Page:
    """The page; ``numbers`` with their measures and means."""
    records, measures = numbers["images"][:MOST], numbers["measures"][:MOST]
    budget, count = numbers["budget"], len(numbers["images"])
    note = (
        f"{count} image{'s' * (count != 1)} of {' x '.join(map(str, records[0]['size']))} pixels, every other one held out, "
        f"{len(records[0]['settings'])} settings each: network {budget['depth']} x {budget['width']}, "
        f"{budget['n_features']} frequencies, {records[0]['steps'][-1]} steps of Adam. Nothing is fitted to these images or "
        f"their fits"
    )
    rows = [records[start : start + COLUMNS] for start in range(0, len(records), COLUMNS)]
    headings = [
        [
            ("Predicted against trained", "held-out PSNR in dB; on the line: exact"),
            ("What a way to choose sigma costs", "dB below the sweep's best, mean over images"),
            ("Against what is wanted", "means over images"),
        ]
    ]
    for r, row in enumerate(rows):
        shown = measures[r * COLUMNS : r * COLUMNS + len(row)]
        names = [(_short(one["name"]), _sweep_note(m)) for one, m in zip(row, shown, strict=True)]
        headings.append(names + [("", "")] * ((COLUMNS if len(rows) > 1 else len(row)) - len(row)))
    page, panels = sheet(title, note, headings, height=280)
    _scatter(panels[0], numbers)
    _losses(panels[1], numbers)
    _aims(panels[2], numbers)
    for i, axes in enumerate(panels[3:]):
        if i < len(records):
            _sweep(axes, records[i], i == 0, i % COLUMNS == 0)
        else:
            axes.set_axis_off()
    return page


def _scatter(axes: Axes, numbers: dict[str, Any]) -> None:
    everything: list[float] = []
    for kind, colour in COLOURS.items():
        trained, predicted = [], []
        for one in numbers["images"]:
            chosen = np.array(one["kinds"]) == kind
            trained += last(one, "trained")[chosen].tolist()
            predicted += last(one, "predicted")[chosen].tolist()
        axes.plot(
            trained, predicted, "o", color=colour, markersize=5.5, alpha=0.65, markeredgewidth=0, label=_NAMES[kind]
        )
        everything += trained + predicted
    low, high = min(everything) - 1, max(everything) + 1
    axes.plot([low, high], [low, high], color=GREY, linewidth=1.2, zorder=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xticks([tick for tick in axes.get_yticks() if low <= tick <= high])
    legend(axes, "upper left", handletextpad=0.1)
    name_axes(axes, "trained", "predicted")


def _losses(axes: Axes, numbers: dict[str, Any]) -> None:
    """A bar for every way, its number at the end; where one is several times the others, it is cut off, its number inside."""
    lost = numbers["mean"]["lost"]
    ways = [way for way in SHOWN if lost[way] is not None]
    values = [lost[way] for way in ways]
    end = max([1.6 * sorted(values)[-2] if len(values) > 1 else values[0], 0.05])
    for i, (way, value) in enumerate(zip(ways, values, strict=True)):
        ours = way in ("auto", "rule")
        axes.barh(i, min(max(value, 0), end), color=BEST if ours else TRAIN, height=0.62)
        inside = value > end
        axes.annotate(
            f"{value:.2f}", (min(max(value, 0), end), i), (-6 if inside else 6, 0), textcoords="offset points",
            va="center", ha="right" if inside else "left", fontsize=SMALL, color="white" if inside else INK,
            fontweight="bold" if ours else "normal",
        )  # fmt: skip
    tick_labels(axes, "y", range(len(ways)), [_WAYS[way] for way in ways])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * end)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    # Names of ways are longer than numbers: they get room inside the panel.
    box, figure = axes.get_position(), axes.figure
    moved = 92 / figure.get_figwidth() / figure.dpi
    axes.set_position([box.x0 + moved, box.y0, box.width - moved, box.height])
    axes.tick_params(pad=3)


def _aims(axes: Axes, numbers: dict[str, Any]) -> None:
    """A table: what, found, wanted."""
    axes.set_axis_off()
    m, aims = numbers["mean"], numbers["aims"]
    best = m["lost_encoding"]["predicted"]
    rows = [
        ("final error, dB", m["error"], aims["error"], True),
        ("  of Fourier features", m["error_fourier"], None, True),
        ("  bicubic + offset", m["error_bicubic"], None, True),
        ("curve from step 100, dB", m["curve"], aims["curve"], True),
        ("rank correlation, sigma", m["spearman_sigma"], aims["spearman_sigma"], False),
        ("rank correlation, all", m["spearman"], aims["spearman"], False),
        ("sigma=auto loses, dB", m["lost"]["auto"], aims["auto"], True),
        ("best of all missed by, dB", best, aims["encoding"], True),
        ("cost, part of one fit", m["cost"], aims["cost"], True),
    ]
    style: dict[str, Any] = {"transform": axes.transAxes, "fontsize": SMALL, "va": "center", "parse_math": False}
    left, found, wanted = -0.12, 0.8, 1.0
    axes.text(found, 1.0, "found", color=GREY, ha="right", **style)
    axes.text(wanted, 1.0, "wanted", color=GREY, ha="right", **style)
    for i, (text, value, aim, below) in enumerate(rows):
        y = 1 - 0.107 * (i + 1)
        met = None if aim is None or value is None else (value <= aim if below else value >= aim)
        colour = INK if met is None else GROUPS[1] if met else BEST
        axes.text(left, y, text.strip(), color=GREY if text.startswith(" ") else INK, **style)
        shown = "–" if value is None else f"{value:.2f}"
        axes.text(found, y, shown, color=colour, ha="right", fontweight="normal" if met is None else "bold", **style)
        if aim is not None:
            axes.text(wanted, y, f"{aim:.2f}", color=GREY, ha="right", **style)


def _sweep(axes: Axes, one: dict[str, Any], first: bool, leftmost: bool) -> None:
    """Predicted line, trained dots, what sigma=auto takes."""
    chosen = swept(one)
    sigmas = [s for s in one["sigmas"] if s is not None]
    trained, predicted = last(one, "trained")[chosen], last(one, "predicted")[chosen]
    axes.set_xscale("log", base=2)
    axes.plot(sigmas, predicted, color=HELDOUT, linewidth=2.4, label="predicted", zorder=2)
    axes.plot(sigmas, trained, "o", color=INK, markersize=7, label="trained", zorder=3)
    auto = one["auto"]
    axes.axvline(auto["sigma"], color=FAINT, linewidth=1.6, zorder=0)
    axes.plot(
        auto["sigma"], auto["trained"], "o", ms=14, mfc="none", mec=BEST, mew=2.4, label="sigma=auto", zorder=4,
        clip_on=False,
    )  # fmt: skip
    low, high = min([*sigmas, auto["sigma"]]), max([*sigmas, auto["sigma"]])
    axes.set_xlim(low / 1.25, high * 1.25)
    tick_labels(axes, "x", sigmas, [f"{s:g}" for s in sigmas])
    values = np.array([*trained, *predicted, auto["trained"]])
    room = max(float(np.ptp(values)), 2.0)
    axes.set_ylim(
        values.max() - 1.12 * room if np.ptp(values) < 2 else values.min() - 0.12 * room, values.max() + 0.18 * room
    )
    if first:
        legend(axes, "lower left")
    name_axes(axes, "sigma, cycles per image side", "held-out PSNR, dB" if leftmost else "")


def _sweep_note(measured: dict[str, Any]) -> str:
    rank = measured["spearman_sigma"]
    ranks = "" if rank is None else f", ranks {rank:.2f}"
    return f"auto loses {measured['lost']['auto']:.2f} dB{ranks}"


def _short(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0] if "." in name else name


_NAMES = {"none": "no encoding", "positional": "positional", "fourier": "Fourier", "hashgrid": "hash grid"}
_WAYS = {**STRATEGIES, "average": "best of other images", "nyquist": "share of Nyquist", "random": "at random"}
