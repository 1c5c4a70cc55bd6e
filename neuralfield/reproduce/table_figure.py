"""The page of `fourier_2d_table`: what each encoding reconstructs, the table beside the paper's, and the search for sigma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neuralfield.reproduce.sheet import EDGE, WIDTH, name_axes
from neuralfield.viz.style import (
    BEST,
    BODY,
    FAINT,
    GREY,
    HELDOUT,
    INK,
    SMALL,
    TITLE,
    Page,
    picture,
    plain_axes,
    tick_labels,
)

PIXELS, SPACE, LEFT = 216, 14, 150  # side of a picture, between two, names of the rows
COLUMNS = ("truth", "none", "basic", "positional", "Gaussian")


def draw(title: str, numbers: dict[str, Any], pictures: Mapping[str, Sequence[np.ndarray]]) -> Page:
    """The page.

    **Arguments**

    - `pictures`: for each kind the truth and a reconstruction with each encoding, [h, w, 3] uint8.
    """
    rows = list(pictures)
    top = 178
    below = top + len(rows) * (PIXELS + SPACE + 26) + 30
    page = Page(WIDTH, below + 400)
    page.text(EDGE, 28, title, TITLE, fontweight="bold")
    budget = numbers["budget"]
    side, batch = budget["size"], budget["batch_size"]
    notes = (
        f"Even rows and columns of {side} x {side} pixels train, PSNR on the odd ones; network 3 x "
        f"{budget['width']}, {budget['n_features']} frequencies, {budget['steps']} steps of Adam on "
        f"{'all' if batch == 'full' else batch} pixels",
        "The paper: 512 x 512, 2000 steps on all training pixels, 16 images of each kind",
    )
    for i, note in enumerate(notes):
        page.text(EDGE, 68 + 26 * i, note, BODY, WIDTH - 2 * EDGE, color=GREY)
    for c, column in enumerate(COLUMNS):
        page.text(
            EDGE + LEFT + c * (PIXELS + SPACE) + PIXELS / 2, top - 34, column, BODY, ha="center", fontweight="bold"
        )
    for r, kind in enumerate(rows):
        y = top + r * (PIXELS + SPACE + 26)
        page.text(EDGE, y + PIXELS / 2 - 22, kind, BODY, fontweight="bold")
        page.text(EDGE, y + PIXELS / 2, numbers["images"][kind][0], SMALL, LEFT - 20, color=GREY)
        for c, image in enumerate(pictures[kind]):
            x = EDGE + LEFT + c * (PIXELS + SPACE)
            picture(page.axes(x, y, PIXELS, PIXELS), image)
            if c:
                first = numbers["psnr"][kind][COLUMNS[c]][0]
                page.text(x + PIXELS / 2, y + PIXELS + 4, f"{first:.1f} dB", SMALL, ha="center")
    _table(page, EDGE, below, numbers)
    _search(page, 880, below, WIDTH - 880 - EDGE - 90, numbers)
    return page


def _table(page: Page, x: float, y: float, numbers: dict[str, Any]) -> None:
    page.text(x, y, "Held-out PSNR in dB, mean ± standard deviation over images", BODY, fontweight="bold")
    for k, kind in enumerate(numbers["mean"]):
        left = x + 150 + 330 * k
        count = len(numbers["psnr"][kind]["none"])
        page.text(left, y + 40, kind, BODY, fontweight="bold")
        page.text(left, y + 66, f"here, {count}", SMALL, color=GREY)
        page.text(left + 165, y + 66, "paper, 16", SMALL, color=GREY)
        for e, name in enumerate(numbers["mean"][kind]):
            line = y + 100 + 40 * e
            page.text(x, line, name, BODY) if k == 0 else None
            bold = "bold" if name == max(numbers["mean"][kind], key=numbers["mean"][kind].get) else "normal"
            here = f"{numbers['mean'][kind][name]:.2f} ± {numbers['std'][kind][name]:.2f}"
            page.text(left, line, here, BODY, fontweight=bold)
            mean, deviation = numbers["paper"][kind][name]
            page.text(left + 165, line, f"{mean:.2f} ± {deviation:.2f}", BODY, color=GREY)
    best = numbers["best"]
    chosen = "; ".join(f"{k}: sigma {v['Gaussian']:g}, octaves {v['positional']:g}" for k, v in best.items())
    page.text(x, y + 280, f"Scales found on other images: {chosen}", SMALL, color=GREY)


def _search(page: Page, x: float, y: float, width: float, numbers: dict[str, Any]) -> None:
    page.text(x, y, "The search for sigma of Gaussian features", BODY, fontweight="bold")
    axes = page.axes(x, y + 44, width, 240)
    plain_axes(axes)
    axes.set_xscale("log", base=2)
    for (kind, found), colour in zip(numbers["search"].items(), (HELDOUT, INK), strict=True):
        scales, psnr = found["Gaussian"]["scales"], found["Gaussian"]["psnr"]
        axes.plot(scales, psnr, color=colour, linewidth=2.2, marker="o", markersize=6, clip_on=False)
        top = int(np.argmax(psnr))
        axes.plot(scales[top], psnr[top], "o", ms=15, mfc="none", mec=BEST, mew=2.5, clip_on=False)
        axes.annotate(
            kind, (scales[-1], psnr[-1]), (10, 0), textcoords="offset points", color=colour, fontsize=SMALL, va="center",
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    tick_labels(axes, "x", scales, [f"{s:g}" for s in scales])
    axes.grid(axis="y", color=FAINT)
    name_axes(axes, "sigma in cycles per image side", "held-out PSNR, dB")
