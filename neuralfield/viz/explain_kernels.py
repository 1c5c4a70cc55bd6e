"""Figures of the candidates' kernels: how far a pixel reaches, and how fast the image's modes are learned."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from neuralfield.explain.explanation import Explanation
from neuralfield.explain.words import in_words, words
from neuralfield.viz.explain_style import (
    MARGIN,
    WIDTH,
    best,
    colours,
    column,
    end_labels,
    frame,
    modes_for,
    panel_head,
    save,
    sheet,
    shown,
    step_axis,
)
from neuralfield.viz.style import BEST, FAINT, GREY, SMALL, Axes, picture, plain_axes, power_of_ten, tick_labels

_LEFT, _RIGHT = 84, 250  # pixels beside a chart: its numbers, the names of its lines
_MOST = 8  # candidates that are drawn
_ENDLESS = "does not fall off"


def kernels_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write the candidates' kernels as functions of the distance in pixels, and each as an image seen from above.

    Curves are relative to their value at the pixel itself. Raises OutputError when the file cannot be written.
    """
    some, shades, chosen = shown(explanation, _MOST), colours(explanation.candidates), best(explanation)
    say, unit = partial(in_words, signal=explanation.signal), words(explanation.signal).unit
    widths = [c.kernel.fwhm for c in some if math.isfinite(c.kernel.fwhm)]
    columns = min(4, len(some))
    gap, chart = 24.0, 330
    cell = (WIDTH - 2 * MARGIN - 3 * gap) / 4
    title = f"What {chosen.name} learns at one pixel spreads over {_pixels(chosen.kernel.fwhm, unit)}"
    if math.isinf(chosen.kernel.fwhm):
        title = f"What {chosen.name} learns at one pixel {_ENDLESS} around it"
    if chosen.kernel.row.max() > 1.05:  # a width would say nothing: neighbours move more than the pixel itself
        title = f"What {chosen.name} learns at one pixel moves others more than the pixel itself"
    elif widths and max(widths) > 1.5 * min(widths):
        title += f"; over the compared fields from {min(widths):.2g} to {_pixels(max(widths), unit)}"
    note = "Too wide: fine detail is learned late. Too narrow: the places between the training pixels are left alone."
    rows = math.ceil(len(some) / columns)
    page, top = sheet(say(title), say(note), 54 + chart + 118 + rows * (cell + 64))
    endless = "" if all(math.isfinite(c.kernel.fwhm) for c in some) else f" (∞: {_ENDLESS})"
    panel_head(
        page,
        top,
        say("How much a change at one pixel moves its neighbours"),
        say("share of the change at the pixel itself; width: until half of it") + endless,
    )
    axes = page.axes(_LEFT, top + 54, WIDTH - _LEFT - _RIGHT, chart)
    plain_axes(axes)
    far, own = max(float(c.kernel.pixels.max()) for c in some), chosen.kernel.fwhm
    reach = min(far, max(3 * own, 8.0)) if math.isfinite(own) else far
    lowest, highest, beside = 0.0, 1.0, []
    for candidate in some:
        view, strong = candidate.kernel, candidate is chosen
        inside = (view.pixels >= 0) & (view.pixels <= reach)
        order = np.argsort(view.pixels[inside])
        values = view.row[inside][order]
        axes.plot(
            view.pixels[inside][order],
            values,
            color=shades[candidate.name],
            linewidth=3.4 if strong else 1.8,
            zorder=4 if strong else 3,
        )
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
        beside.append((view.fwhm, _short(view.fwhm), candidate.name, shades[candidate.name], strong))
    axes.set(xlim=(0, reach), ylim=(lowest * 1.05, highest * 1.03))
    tick_labels(axes, "y", [0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    along = "a row" if explanation.signal.in_dim == 2 else "x"
    axes.set_xlabel(f"distance along {along}, {unit}", fontsize=SMALL + 1, color=GREY, labelpad=6)
    head = "width at half height" if explanation.signal.in_dim == 2 else "width"
    column(axes, f"{head}, {unit}", [b[1:] for b in sorted(beside, key=lambda b: -b[0])], _RIGHT)
    below = top + 54 + chart + 62
    panel_head(
        page,
        below,
        say("The same seen from above, the pixel in the middle")
        + (" (a slice across z)" if explanation.signal.in_dim == 3 else ""),
        "each from its own lowest (dark) to its highest value (bright)",
    )
    for i, candidate in enumerate(some):
        x, y = MARGIN + (i % columns) * (cell + gap), below + 56 + (i // columns) * (cell + 64)
        box = page.axes(x, y, cell, cell)
        picture(box, candidate.kernel.plane, cmap="magma")
        strong = candidate is chosen
        frame(box, BEST if strong else FAINT, 4 if strong else 1)
        page.text(x, y + cell + 8, candidate.name, SMALL, cell, fontweight="bold", color=shades[candidate.name])
        spread = f"width {_pixels(candidate.kernel.fwhm, unit)}" if math.isfinite(candidate.kernel.fwhm) else _ENDLESS
        page.text(x, y + cell + 28, spread, SMALL, cell, color=GREY)
    save(page, *paths)


def spectra_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write the kernels' eigenvalues and, over the same modes, how much of the image lies in the first ones.

    Raises OutputError when the file cannot be written.
    """
    some, shades, chosen = shown(explanation, _MOST), colours(explanation.candidates), best(explanation)
    needed = modes_for(chosen.energy)
    title = f"{chosen.name} holds 95 % of the image in its first {needed} of {len(chosen.energy)} modes"
    if needed is None:
        title = f"The {len(chosen.energy)} modes of {chosen.name} hold {100 * chosen.energy.sum():.0f} % of the image"
    note = "A mode is a pattern that the field learns as one. An image that lies in the first, fastest modes is learned soon."
    chart = 270
    say = partial(in_words, signal=explanation.signal)
    page, top = sheet(say(title), say(note), 2 * chart + 54 + 70 + 76)
    panel_head(page, top, "How fast each mode is learned", "eigenvalue, relative to the first mode")
    upper = page.axes(_LEFT, top + 54, WIDTH - _LEFT - _RIGHT, chart)
    second = top + 54 + chart + 16
    panel_head(
        page,
        second + 4,
        say("How much of the image the modes up to here hold"),
        "share of its energy around the mean; dot: 95 %",
    )
    lower = page.axes(_LEFT, second + 58, WIDTH - _LEFT - _RIGHT, chart)
    longest = max(len(c.eigenvalues) for c in some)
    ends, reached = [], []
    for candidate in some:
        colour, strong = shades[candidate.name], candidate is chosen
        style = {"color": colour, "linewidth": 3.4 if strong else 1.8, "zorder": 4 if strong else 3}
        values = np.asarray(candidate.eigenvalues, float)
        drawn = values > 1e-9 * values.max()
        modes = np.arange(1, len(values) + 1)
        upper.plot(modes[drawn], values[drawn], **style)
        ends.append((float(values[drawn][-1]), candidate.name, colour, strong))
        total = np.cumsum(candidate.energy)
        lower.plot(np.arange(1, len(total) + 1), total, **style)
        count = modes_for(candidate.energy)
        if count is not None:
            lower.plot([count], [0.95], "o", color=colour, markersize=9 if strong else 6, zorder=5, clip_on=False)
        reached.append(
            (math.inf if count is None else count, "–" if count is None else str(count), candidate.name, colour, strong)
        )
    for axes in (upper, lower):
        plain_axes(axes)
        step_axis(axes, "mode, fastest first")
        axes.set_xlim(0.95, max(longest, 2) * 1.02)
    upper.set_xlabel("")
    upper.tick_params(labelbottom=False)
    _powers(upper)
    lower.set_ylim(0, 1.02)
    tick_labels(lower, "y", [0, 0.25, 0.5, 0.75, 0.95], ["0", "25 %", "50 %", "75 %", "95 %"])
    end_labels(upper, ends, _RIGHT)
    column(lower, "modes for 95 %", [r[1:] for r in sorted(reached, key=lambda r: r[0])], _RIGHT)
    save(page, *paths)


def _powers(axes: Axes) -> None:
    """Powers of ten upwards, at most seven of them."""
    axes.set_yscale("log")
    low = max(math.floor(math.log10(axes.get_ylim()[0])), -9)
    axes.set_ylim(10.0**low, 2.0)
    places = list(range(0, low - 1, -max(1, math.ceil(-low / 6))))
    tick_labels(axes, "y", [10.0**p for p in places], [power_of_ten(p) for p in places])


def _pixels(width: float, unit: str) -> str:
    return f"{_short(width)} {unit}" if math.isfinite(width) else _ENDLESS


def _short(width: float) -> str:
    if not math.isfinite(width):
        return "∞"
    return f"{width:.0f}" if width >= 9.95 else f"{width:.1f}"
