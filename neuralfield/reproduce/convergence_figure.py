"""The page of `ntk_convergence`: kernel rows above, trained functions below; the narrow networks left, the wide right."""

from __future__ import annotations

import math
from typing import Any

from neuralfield.reproduce.sheet import legend, name_axes, sheet
from neuralfield.viz.style import BEST, GREY, HELDOUT, INK, Axes, Page, tick_labels

BAND = "#c9ced8"


def draw(title: str, subtitle: str, numbers: dict[str, Any]) -> Page:
    """The four panels, from the numbers alone."""
    kernels, functions = numbers["kernels"], numbers["functions"]
    rows = [
        [
            (
                f"Kernel Θ(x(0), x(γ)) at width {w:,}",
                f"spread at the start {100 * s:.1f} %, growth by training {_mean(g)}",
            )
            for w, s, g in zip(kernels["widths"], kernels["relative_spread"], kernels["growth"], strict=True)
        ],
        [
            (f"Trained on four points, width {w:,}", f"rms distance from kernel regression {d:.3f}")
            for w, d in zip(functions["widths"], functions["rms_from_regression"], strict=True)
        ],
    ]
    page, axes = sheet(title, subtitle, rows, 300)
    angles = numbers["angles"]
    everything = [v for name in ("initial", "trained") for width in kernels[name] for row in width for v in row]
    for i in range(2):
        _kernel_rows(axes[i], angles, kernels, i)
        axes[i].set_ylim(0, 1.05 * max(everything))
        _functions(axes[2 + i], angles, functions, i)
    reach = 1.05 * max(abs(v) for width in functions["trained"] for row in width for v in row)
    for panel in axes[2:]:
        panel.set_ylim(-reach, 1.55 * reach)  # room for the names of the lines
    for panel in axes:
        panel.set_xlim(-math.pi, math.pi)
        tick_labels(panel, "x", [-math.pi, -math.pi / 2, 0, math.pi / 2, math.pi], ["-π", "-π/2", "0", "π/2", "π"])
        name_axes(panel, "angle γ")
    return page


def _mean(growth: list[float]) -> str:
    return f"{100 * sum(growth) / len(growth):+.1f} %"


def _kernel_rows(axes: Axes, angles: list[float], kernels: dict[str, Any], i: int) -> None:
    for k, row in enumerate(kernels["initial"][i]):
        axes.plot(angles, row, color=HELDOUT, linewidth=1.1, alpha=0.7, label="" if k else "at initialisation")
    for k, row in enumerate(kernels["trained"][i]):
        axes.plot(angles, row, color=BEST, linewidth=1.1, alpha=0.7, label="" if k else "after training")
    axes.plot(angles, kernels["limit"], color=INK, linewidth=2.2, linestyle="--", label="infinite width")
    legend(axes, "upper right")


def _functions(axes: Axes, angles: list[float], functions: dict[str, Any], i: int) -> None:
    percentiles = functions["percentiles"]
    axes.fill_between(
        angles, percentiles["10"], percentiles["90"], color=BAND, linewidth=0, label="limit: 10 % to 90 %"
    )
    for k, row in enumerate(functions["trained"][i]):
        axes.plot(angles, row, color=HELDOUT, linewidth=1.1, alpha=0.8, label="" if k else "trained networks")
    axes.plot(angles, percentiles["50"], color=INK, linewidth=2.2, linestyle="--", label="limit: median")
    axes.plot(functions["train_angles"], functions["target"], "o", color=INK, markersize=8, label="training points")
    legend(axes, "upper center", ncols=2)
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
