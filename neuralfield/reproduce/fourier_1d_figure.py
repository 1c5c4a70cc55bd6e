"""The page of `fourier_1d`: kernels above, loss curves in the middle, distributions of frequencies below."""

from __future__ import annotations

import math
from typing import Any

from neuralfield.reproduce.sheet import legend, log_axis, name_axes, sheet
from neuralfield.viz.style import BEST, GROUPS, HELDOUT, INK, Axes, Page

TITLE = "Fourier features set the width of the tangent kernel, and with it which frequencies are learned, and how fast"
SUBTITLE = (
    "Amplitudes j^-p of the frequencies j = 1 to 16, 3 hidden ReLU layers, gradient descent; below: only the standard "
    "deviation of random frequencies matters, not their distribution"
)
BANDS = (HELDOUT, "#a07400", BEST)
SHADES = ("#0b2f57", "#0b6bcb", "#4a9be8", "#8a8f98", "#e08a5a", "#d9480f")


def draw(title: str, subtitle: str, numbers: dict[str, Any]) -> Page:
    """The eight panels, from the numbers alone."""
    kernels, courses, alphas = numbers["kernels"], numbers["courses"], numbers["alphas"]
    share = numbers["share_of_std"]
    headings = [
        [
            ("Composed kernel K(0, v)", "larger p: wider"),
            ("Its eigenvalues by frequency", "larger p: high frequencies are slower"),
        ],
        [(f"Error by frequency band, p = {c['power']}", "solid: trained, dashed: predicted") for c in courses],
        [
            (f"Test error, signals of 1/f^{a:g}", f"standard deviation explains {100 * s:.1f} % of the variance")
            for a, s in zip(alphas, share, strict=True)
        ],
    ]  # fmt: skip
    page, axes = sheet(title, subtitle, headings, 250)
    shades = SHADES if len(kernels) == len(SHADES) else GROUPS
    for kernel, colour in zip(kernels, shades, strict=False):
        row = kernel["row"]
        n = len(row)
        centred = row[n // 2 :] + row[: n // 2 + 1]
        axes[0].plot([i / n for i in range(-n // 2, n // 2 + 1)], centred, color=colour, label=f"p = {kernel['power']}")
        axes[1].plot(range(len(kernel["eigenvalues"])), kernel["eigenvalues"], color=colour, marker="o", markersize=4)
    log_axis(axes[1], "y")
    name_axes(axes[0], "v")
    name_axes(axes[1], "frequency in cycles per unit")
    legend(axes[0], "upper right")
    below = axes[2 : 2 + len(courses)]
    lowest = min(v for c in courses for band in c["observed"]["bands"].values() for v in band)
    for c, panel in zip(courses, below, strict=True):
        _course(panel, c)
        panel.set_ylim(max(0.3 * lowest, 1e-9), 3 * max(max(b) for b in c["observed"]["bands"].values()))
    legend(below[0], "lower left")
    panels = axes[2 + len(courses) :]
    for i, panel in enumerate(panels):
        _families(panel, numbers, i)
    legend(panels[min(1, len(panels) - 1)], "upper left")  # where there is room
    return page


def _course(axes: Axes, course: dict[str, Any]) -> None:
    steps = [max(s, 0.7) for s in course["steps"]]  # a logarithm has no place for the start
    for (band, seen), colour in zip(course["observed"]["bands"].items(), BANDS, strict=True):
        axes.plot(steps, seen, color=colour, linewidth=2, label=band)
        axes.plot(steps, course["theory"]["bands"][band], color=colour, linewidth=2, linestyle="--")
    log_axis(axes, "x")
    log_axis(axes, "y")
    name_axes(axes, "steps")


def _families(axes: Axes, numbers: dict[str, Any], alpha: int) -> None:
    colours = (INK, GROUPS[0], GROUPS[1], BEST)
    for f, (family, colour) in enumerate(zip(numbers["families"], colours, strict=True)):
        values = [10 ** row[alpha] for row in numbers["closed_form"][f]]
        axes.plot(numbers["stds"], values, color=colour, linewidth=1.8, label=family)
        if numbers["fitted"]:
            fitted = [10 ** row[alpha] for row in numbers["fitted"][f]]
            label = "trained (Adam)" if f == 3 else ""
            axes.plot(numbers["fit_stds"], fitted, "o", color=colour, markersize=5, mfc="white", label=label)
    log_axis(axes, "y")
    low, high = axes.get_ylim()
    axes.set_ylim(
        10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
    )  # at least two named powers of ten
    axes.set_xscale("log", base=2)
    axes.minorticks_off()
    name_axes(axes, "standard deviation, cycles per unit")
