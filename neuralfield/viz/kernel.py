"""A figure of stationary kernels: how far one pixel's error moves its neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from neuralfield.checks import integer, number
from neuralfield.ntk.bandwidth import bandwidth
from neuralfield.ntk.toeplitz import StationaryKernel
from neuralfield.viz.spectra import _legend, _refuse_count
from neuralfield.viz.style import BODY, FAINT, GREY, GROUPS, SMALL, TITLE, Page, picture, plain_axes, tick_labels

_WIDTH, _MARGIN = 1600, 36  # pixels


def kernel_figure(
    kernels: Mapping[str, StationaryKernel],
    path: str | Path,
    *,
    title: str,
    pixels: int | None = None,
    reach: float | None = None,
    which: str = "ntk",
) -> None:
    """Write a PNG of stationary kernels of the plane: against distance, and each as an image.

    Kernels are relative to their maximum. Curves run along x (solid) and along the diagonal (dashed): where the two
    differ, the kernel prefers directions. A dot marks half of the maximum, whose full width the images' captions give.

    Args:
        kernels: by name, at most eight.
        path: where the PNG goes, 1600 pixels wide.
        title: one line.
        pixels: of the image per unit length; widths are given in them as well.
        reach: half the side of what is shown, in units of the cube; None means four times the largest full width at half
            maximum, at most 0.5.
        which: "ntk" or "nngp".

    Raises:
        ConfigError: no kernels, more than eight, or one that is not stationary.
        OutputError: the file cannot be written.
    """
    _refuse_count("kernels", len(kernels))
    bands = {name: bandwidth(kernel, 2, 0, which) for name, kernel in kernels.items()}
    widths = [b.fwhm for b in bands.values() if math.isfinite(b.fwhm)]
    reach = min(0.5, 4 * max(widths, default=1.0)) if reach is None else number("reach", reach, 0, 1, above=True)
    if pixels is not None:
        pixels = integer("pixels", pixels, 1)
    columns = min(len(kernels), 4)
    gap, top = 40.0, 176
    cell = (_WIDTH - 2 * _MARGIN - 3 * gap) / 4
    page = Page(_WIDTH, top + 420 + 110 + math.ceil(len(kernels) / columns) * (cell + 70) + 10)
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    _legend(page, 70, list(kernels))
    page.text(_MARGIN, 116, "How much a change at one place moves the places around it", BODY, fontweight="bold")
    page.text(_MARGIN, 142, "solid: along x, dashed: along the diagonal, dot: half of the maximum", SMALL, color=GREY)
    axes = page.axes(96, top + 10, page.width - 96 - _MARGIN, 390)
    plain_axes(axes)
    s = torch.linspace(0, reach, 801, dtype=torch.float64)
    lowest = 0.0
    for (name, kernel), colour in zip(kernels.items(), GROUPS, strict=False):
        for direction, style in (((1.0, 0.0), "-"), ((math.sqrt(0.5), math.sqrt(0.5)), "--")):
            values = kernel.of_offsets(s[:, None] * torch.tensor(direction, dtype=torch.float64), which).detach().cpu()
            values = values / values[0]
            lowest = min(lowest, float(values.min()))
            axes.plot(s.numpy(), values.numpy(), style, color=colour, linewidth=2.4 if style == "-" else 1.4)
        half = bands[name].fwhm / 2
        if half <= reach:
            axes.plot([half], [0.5], "o", color=colour, markersize=9, zorder=5)
    axes.set(xlim=(0, reach), ylim=(lowest * 1.05, 1.03))
    tick_labels(axes, "y", [0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlabel(_distance(pixels), fontsize=BODY, color=GREY, labelpad=8)
    for i, (name, kernel) in enumerate(kernels.items()):
        x = _MARGIN + (i % columns) * (cell + gap)
        y = top + 420 + 90 + (i // columns) * (cell + 70)
        frame = page.axes(x, y, cell, cell)
        image = _plane(kernel, reach, which)
        picture(frame, image, cmap="magma", vmin=min(0.0, float(image.min())), vmax=1.0)
        page.text(x, y + cell + 8, name, SMALL, cell, fontweight="bold", color=GROUPS[i])
        page.text(x, y + cell + 28, _width(bands[name].fwhm, pixels), SMALL, cell, color=GREY)
    line = f"The same seen from above, the square is {2 * reach:.2g} of the image's side wide; bright: moves with the centre"
    page.text(_MARGIN, top + 420 + 54, line, SMALL, color=GREY)
    axes.axhline(0.5, color=FAINT, linewidth=1, zorder=0)
    page.save(path)


def _plane(kernel: StationaryKernel, reach: float, which: str) -> np.ndarray:
    """k at offsets within the square of half side `reach`, relative to k(0), [201, 201]."""
    side = torch.linspace(-reach, reach, 201, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    values = kernel.of_offsets(torch.stack([x.flatten(), y.flatten()], 1), which).detach().cpu()
    return (values / values[len(values) // 2]).reshape(201, 201).numpy()


def _distance(pixels: int | None) -> str:
    unit = "distance as a part of the image's side"
    return unit if pixels is None else f"{unit} (one pixel is {1 / pixels:.4g})"


def _width(fwhm: float, pixels: int | None) -> str:
    if not math.isfinite(fwhm):
        return "never falls to half within the image"
    text = f"half-maximum width {fwhm:.2g}"
    return text if pixels is None else f"{text}, {fwhm * pixels:.3g} pixels"
