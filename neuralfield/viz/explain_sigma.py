"""The figure of Gaussian Fourier features' bandwidth: too smooth, right, aliasing."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from neuralfield.errors import ConfigError
from neuralfield.explain.explanation import Candidate, Explanation, SigmaCurve
from neuralfield.explain.words import in_words, words
from neuralfield.viz.explain_style import MARGIN, WIDTH, best, end_labels, save, sheet
from neuralfield.viz.style import (
    BEST,
    BODY,
    GREY,
    HELDOUT,
    INK,
    SLOT,
    SMALL,
    TRAIN,
    Axes,
    is_number,
    plain_axes,
    text_width,
    tick_labels,
)

_LEFT, _RIGHT, _CHART = 84, 270, 470  # pixels
_F0 = "#b4540a"


def sigma_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write predicted PSNR against the bandwidth sigma of Gaussian Fourier features: too smooth, right, aliasing.

    Raises ConfigError when the explanation has no such curve, OutputError when the file cannot be written.
    """
    curve = explanation.sigma
    if curve is None or not len(curve.sigmas):
        raise ConfigError("this explanation compared no Fourier features, so it has no curve over sigma")
    error, say = words(explanation.signal).uncertainty, partial(in_words, signal=explanation.signal)
    low, high = bandwidths(curve, words(explanation.signal).tie)
    pick = chosen_sigma(explanation, curve)
    title = f"sigma {pick:g} serves this image"
    title += " best" if high / low < 1.02 else f"; {low:.2g} to {high:.2g} would do nearly as well"
    note = (
        f"Thick: held-out PSNR after {explanation.steps:,} steps, predicted, within {error:.1f} dB. Too small a sigma learns "
        "detail too late; too large a one fits the training pixels and errs between them."
    )
    page, top = sheet(say(title), say(note), _CHART + 128)
    page.text(MARGIN, top, "PSNR in dB, higher is better", SMALL, color=GREY)
    axes = page.axes(_LEFT, top + 28, WIDTH - _LEFT - _RIGHT, _CHART)
    plain_axes(axes)
    x = np.log2(curve.sigmas)
    edges = (float(x.min()) - 0.15, float(x.max()) + 0.15)
    _regions(axes, edges, math.log2(low), math.log2(high))
    axes.fill_between(x, curve.heldout_psnr - error, curve.heldout_psnr + error, color=HELDOUT, alpha=0.16, linewidth=0)
    axes.plot(x, curve.heldout_psnr, color=HELDOUT, linewidth=3.2, marker="o", markersize=5, zorder=4)
    axes.plot(x, curve.train_psnr, color=TRAIN, linewidth=1.4, zorder=2)
    axes.plot(x, curve.f0_psnr, color=_F0, linewidth=1.8, linestyle=(0, (5, 3)), zorder=3)
    measured = [(float(c.encoding["sigma"]), c.measured) for c in explanation.candidates if _fourier(c)]
    known = sorted((math.log2(sigma), psnr) for sigma, psnr in measured if psnr is not None)
    if known:
        axes.plot(*zip(*known, strict=True), "o", ms=9, mfc="white", mec=INK, mew=2, zorder=6)
    values = [*curve.heldout_psnr.tolist(), *(psnr for _, psnr in known)]
    floor = min(values) - error - 0.5
    ceiling = max(values) + max(4.0, 0.45 * (max(values) - floor))
    axes.set(xlim=edges, ylim=(floor, ceiling))
    _mark(axes, math.log2(pick), float(np.interp(math.log2(pick), x, curve.heldout_psnr)), f"sigma {pick:g}")
    ends = [(float(curve.heldout_psnr[-1]), f"held-out, ± {error:.1f} dB", HELDOUT, True)]
    for line, word, colour in (
        (curve.train_psnr, say("training pixels"), GREY),
        (curve.f0_psnr, "ceiling that f0 sets", _F0),
    ):
        above = " (above)" if float(line.min()) > ceiling else ""
        ends.append((float(line[-1]), word + above, colour, False))
    if known:
        ends.append((known[-1][1], "measured (circles)", INK, False))
    end_labels(axes, ends, _RIGHT)
    whole = [i for i in range(math.floor(edges[0]), math.ceil(edges[1]) + 1) if edges[0] <= i <= edges[1]]
    tick_labels(axes, "x", whole, [f"{2.0**i:g}" for i in whole])
    axes.set_xlabel(say("sigma, cycles per image side (each step doubles it)"), fontsize=BODY, color=GREY, labelpad=8)
    f0 = "f0 is the random function before the first step: what of it stays between the training pixels limits every fit."
    page.text(MARGIN, top + _CHART + 98, say(f0), SMALL, WIDTH - 2 * MARGIN, color=GREY)
    save(page, *paths)


def bandwidths(curve: SigmaCurve, error: float) -> tuple[float, float]:
    """The least and the largest sigma around the predicted maximum that lie within ``error`` dB of it."""
    x = np.log2(curve.sigmas)
    fine = np.unique(np.concatenate([np.linspace(x[0], x[-1], 2001), x]))
    level = np.interp(fine, x, curve.heldout_psnr)
    low = high = int(level.argmax())
    near = level >= level[low] - error
    while low > 0 and near[low - 1]:
        low -= 1
    while high + 1 < len(fine) and near[high + 1]:
        high += 1
    return float(2 ** fine[low]), float(2 ** fine[high])


def chosen_sigma(explanation: Explanation, curve: SigmaCurve) -> float:
    """The recommended field's sigma; where that is no Fourier field, the smallest within 0.1 dB of the maximum."""
    chosen = best(explanation)
    if _fourier(chosen):
        return float(chosen.encoding["sigma"])
    return float(curve.sigmas[curve.heldout_psnr >= curve.heldout_psnr.max() - 0.1][0])


def _regions(axes: Axes, edges: tuple[float, float], low: float, high: float) -> None:
    """What is too smooth and what aliases, shaded; a region that no candidate lies in is not drawn."""
    width = axes.get_window_extent().width / (edges[1] - edges[0])
    for left, right, word in ((edges[0], low, "too smooth"), (low, high, "right"), (high, edges[1], "aliasing")):
        if word != "right" and right - left <= 0.16:
            continue
        if word != "right":
            axes.axvspan(left, right, color=SLOT, zorder=0, linewidth=0)
        # The middle one says what the others are not; it is named even where its name is wider than itself.
        if word == "right" or text_width(word, BODY, "bold") < (right - left) * width:
            text = axes.text(
                (left + right) / 2, 0.985, word, transform=axes.get_xaxis_transform(), ha="center", va="top"
            )
            text.set(color=HELDOUT if word == "right" else GREY, fontsize=BODY, fontweight="bold")


def _mark(axes: Axes, x: float, height: float, name: str) -> None:
    low, high = axes.get_xlim()
    floor, left = axes.get_ylim()[0], x < low + 0.75 * (high - low)
    axes.plot([x, x], [floor, height], color=BEST, linewidth=1.6, linestyle=":", zorder=3)
    axes.plot([x], [height], "o", ms=15, mfc="none", mec=BEST, mew=2.6, zorder=7)
    axes.annotate(
        f"{name}: {height:.1f} dB", (x, floor), (10 if left else -10, 12), ha="left" if left else "right",
        textcoords="offset points", color=BEST, fontsize=BODY, fontweight="bold", zorder=8, parse_math=False,
    )  # fmt: skip


def _fourier(candidate: Candidate) -> bool:
    return candidate.encoding.get("name") == "fourier" and is_number(candidate.encoding.get("sigma"))
