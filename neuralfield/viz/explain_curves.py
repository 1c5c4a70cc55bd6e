"""Figures of predicted PSNR: against steps, and against what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from neuralfield.errors import ConfigError
from neuralfield.explain.explanation import Explanation
from neuralfield.explain.words import in_words
from neuralfield.viz.explain_style import MARGIN, WIDTH, best, colours, end_labels, mixed, save, sheet, shown, step_axis
from neuralfield.viz.style import (
    BEST,
    BODY,
    FAINT,
    GREY,
    SLOT,
    SMALL,
    Axes,
    is_number,
    plain_axes,
)

_LEFT, _RIGHT, _CHART = 84, 310, 470  # pixels
_MOST = 12  # candidates that are drawn


def curves_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write predicted held-out and training PSNR against steps, and what real fits gave where there are any.

    Raises OutputError when the file cannot be written.
    """
    some, shades, chosen = shown(explanation, _MOST), colours(explanation.candidates), best(explanation)
    trained = any(c.trained for c in some)
    title = f"{chosen.name} is predicted to reach {chosen.heldout:.1f} dB on held-out pixels "
    title += f"after {explanation.steps:,} steps"
    if chosen.measured is not None:
        title += f"; trained, it reached {chosen.measured:.1f} dB"
    note = (
        "Thick: held-out pixels, predicted. Thin: the pixels that train. "
        "Where thin rises alone, the field errs between them."
    )
    note += " Dots: measured on real fits (hollow: training pixels)." if trained else ""
    page, top = sheet(in_words(title, explanation.signal), in_words(note, explanation.signal), _CHART + 100)
    page.text(MARGIN, top, "PSNR in dB, higher is better", SMALL, color=GREY)
    axes = page.axes(_LEFT, top + 28, WIDTH - _LEFT - _RIGHT, _CHART)
    plain_axes(axes)
    ends, heights = [], []
    start = explanation.steps / 50  # what Adam does in its first steps says nothing about where it ends
    for candidate in some:
        curve, colour, strong = candidate.curve, shades[candidate.name], candidate is chosen
        style: dict[str, Any] = {"color": colour, "zorder": 4 if strong else 3}
        late = curve.steps >= start
        steps = curve.steps[late]
        axes.plot(steps, curve.train_psnr[late], linewidth=1.3 if strong else 0.9, alpha=0.8, **style)
        axes.plot(steps, curve.heldout_psnr[late], linewidth=3.4 if strong else 2, solid_capstyle="round", **style)
        for key, face, size in (("psnr_train", "white", 4.5), ("psnr_heldout", colour, 6)):
            rows = [(row["step"], row[key]) for row in candidate.trained if _drawable(row, key, start)]
            if rows:
                axes.plot(
                    *zip(*rows, strict=True),
                    "o",
                    ms=size,
                    mec=colour,
                    mfc=face,
                    color=colour,
                    zorder=6,
                    clip_on=key == "psnr_train",
                )
                heights += [value for _, value in rows] if key == "psnr_heldout" else []
        value = f"{candidate.heldout:.1f}" + ("" if trained else " dB")
        if candidate.measured is not None:
            value += f" | {candidate.measured:.1f}"
        ends.append((candidate.heldout, f"{candidate.name}  {value}", colour, strong))
        heights += curve.heldout_psnr[late].tolist()
    heights = [h for h in heights if math.isfinite(h)]
    high = max(heights)
    axes.set_ylim(max(min(heights), high - 30) - 1, high + max(3.0, 0.2 * (high - min(heights))))
    step_axis(axes, "training steps")
    first = min(float(c.curve.steps[c.curve.steps >= start].min()) for c in some)
    axes.set_xlim(first if first < explanation.steps else 0.5 * first, explanation.steps)
    if trained:
        page.text(WIDTH - _RIGHT + 24, top, "predicted | measured, dB", SMALL, color=GREY)
    end_labels(axes, ends, _RIGHT)
    save(page, *paths)


def sweep_figure(
    predicted: Sequence[float],
    measured: Sequence[float],
    names: Sequence[str],
    path: str | Path,
    what: str = "held-out",
) -> None:
    """Write a scatter of predicted against measured PSNR of several runs, in dB; ``what`` says on which pixels.

    Raises ConfigError for lists of different or no length, OutputError when the file cannot be written.
    """
    x, y = np.asarray(predicted, float), np.asarray(measured, float)
    if not (len(x) == len(y) == len(names) and len(x)):
        raise ConfigError(
            "a sweep needs as many predictions as measurements and names, one at least; "
            f"got {len(x)}, {len(y)}, {len(names)}"
        )
    size, error = 560, float(np.abs(x - y).mean())
    order = rank_correlation(x, y)
    title = f"Predictions miss the trained fields by {error:.2f} dB on average"
    if math.isfinite(order):
        title += f" and rank them with Spearman {order:.2f}"
    note = "One dot per run. On the line, the prediction is exact; above it, training did better."
    page, top = sheet(title, note, size + 110)
    page.text(MARGIN, top, f"measured {what} PSNR, dB", SMALL, color=GREY)
    axes = page.axes(_LEFT, top + 28, size, size - 20)
    plain_axes(axes)
    both = np.concatenate([x, y])
    room = max(0.5, 0.08 * float(both.max() - both.min()))
    limits = (float(both.min()) - room, float(both.max()) + room)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.fill_between(limits, np.array(limits) - 0.5, np.array(limits) + 0.5, color=SLOT, linewidth=0, zorder=0)
    axes.plot(limits, limits, color=GREY, linewidth=1.2, zorder=2)
    ramp = [mixed("#3d8fe0", "#063b78", i / max(len(x) - 1, 1)) for i in range(len(x))]
    for i in range(len(x)):
        axes.plot([x[i]], [y[i]], "o", ms=10, color=ramp[i], zorder=4)
    top_run = int(y.argmax())
    axes.plot([x[top_run]], [y[top_run]], "o", ms=17, mfc="none", mec=BEST, mew=2.4, zorder=5)
    axes.set(xlim=limits, ylim=limits)
    axes.set_xlabel(f"predicted {what} PSNR, dB", fontsize=BODY, color=GREY, labelpad=8)
    listed = np.argsort(-y, kind="stable")
    beside = [
        (float(y[i]), f"{names[i]}  {y[i]:.1f} ({round(x[i] - y[i], 1) + 0.0:+.1f})", ramp[i], bool(i == top_run))
        for i in listed
    ]
    _names_beside(axes, beside)
    page.text(
        MARGIN, top + size + 80,
        "Grey band: within 0.5 dB. Beside the names: measured (prediction minus measured). Ringed: the best run.",
        SMALL, WIDTH - 2 * MARGIN, color=GREY,
    )  # fmt: skip
    page.save(path)


def rank_correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Spearman's; nan where it is not defined: fewer than three runs, or all of them equal."""
    from neuralfield.explain.verify import correlation

    found = correlation(x, y)
    return math.nan if found is None else found


def _names_beside(axes: Axes, ends: list[tuple[float, str, str, bool]]) -> None:
    """Names at their runs' heights; of very many runs, the best and the worst."""
    most = 24
    kept = ends if len(ends) <= most else [*ends[: most // 2], *ends[-most // 2 :]]
    end_labels(axes, kept, WIDTH - _LEFT - axes.get_window_extent().width - 12)


def _drawable(row: dict[str, Any], key: str, start: float) -> bool:
    return is_number(row.get(key)) and row["step"] >= max(start, 1)
