"""The figure of a sweep's PSNR over the swept option, measured and predicted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from neuralfield.viz.explain_style import MARGIN, WIDTH, sheet
from neuralfield.viz.style import GREY, HELDOUT, SMALL, TRAIN, is_number, plain_axes

if TYPE_CHECKING:
    from neuralfield.explain.sweep import SweepExplanation

_LEFT, _CHART = 84, 400  # pixels


def predicted_sweep_figure(explained: SweepExplanation, path: str | Path) -> None:
    """Write measured and predicted PSNR over the first swept option, by its value where that is a number.

    Raises OutputError when the file cannot be written.
    """
    key = explained.keys[0] if explained.keys else "run"
    runs = explained.runs
    given = [run.swept.get(key) for run in runs]
    numeric = all(is_number(value) and float(str(value)) > 0 for value in given) and len(set(map(str, given))) == len(
        runs
    )
    places = [math.log2(float(str(v))) for v in given] if numeric else [float(i) for i in range(len(runs))]
    order = sorted(range(len(runs)), key=lambda i: places[i])
    what = "held-out" if explained.kind == "psnr_heldout" else "training"
    page, top = sheet(
        f"Predicted and measured {what} PSNR over {' and '.join(explained.keys)}",
        f"Blue: measured. Grey: predicted before training, {explained.error:.2f} dB off on average.",
        _CHART + 110,
    )
    page.text(MARGIN, top, "PSNR in dB, higher is better", SMALL, color=GREY)
    axes = page.axes(_LEFT, top + 28, WIDTH - _LEFT - MARGIN, _CHART)
    plain_axes(axes)
    x = [places[i] for i in order]
    axes.plot(x, [runs[i].predicted for i in order], color=TRAIN, linewidth=2, marker="s", markersize=6, zorder=3)
    axes.plot(x, [runs[i].measured for i in order], color=HELDOUT, linewidth=3, marker="o", markersize=6, zorder=4)
    axes.set_xticks(x)
    labels = [str(given[i]) if numeric else runs[i].name for i in order]
    shown = [label if len(label) <= 24 else f"{label[:23]}…" for label in labels]
    turned = 0 if max(map(len, shown)) * len(shown) < 90 else 20
    axes.set_xticklabels(shown, fontsize=SMALL, rotation=turned, ha="right" if turned else "center", parse_math=False)
    page.save(path)
