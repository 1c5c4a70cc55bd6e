"""The figure of one run: truth beside fit beside error, with a part enlarged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from neuralfield.errors import SignalError
from neuralfield.viz.style import BODY, GREY, INK, SMALL, TITLE, Number, Page, caption_line, picture

_MARGIN, _GAP, _HEAD, _BAR = 36, 18, 34, 96  # pixels; _BAR: colour bar with its numbers and label
_NARROWEST = 330.0  # room for the line above the error
_FRAME = "#ffd43b"  # of the enlarged region: seen on photographs and on the dark colours of the error map alike
_ERROR_SCALES = (1, 2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 255)


@dataclass(frozen=True)
class _Layout:
    """Sizes in pixels: one panel, its enlarged region, whether the three panels stand in a row or in a column."""

    panel: tuple[float, float]
    crop: tuple[float, float]
    in_a_row: bool


def comparison(
    truth: UInt8[np.ndarray, "height width 3"],
    fit: UInt8[np.ndarray, "_height _width 3"],
    error: Float[np.ndarray, "_height _width"],
    title: str,
    path: str | Path,
    *,
    captions: Mapping[str, Any],
) -> None:
    """Write a PNG with truth, fit and error, each with the same region enlarged.

    The region, about a sixth of the side, is the one where the product of detail (of the truth) and error is largest;
    it is framed in the large panels. Images of at most 48 pixels have no enlargement, their pixels are seen anyway.
    The colours of the error end at a round number of 8-bit steps above the 99.5th percentile; values that are not
    finite are drawn in cyan.

    Args:
        truth: image, sRGB bytes.
        fit: image of the same size.
        error: mean over the channels of the absolute error of each pixel, in [0, 1].
        title: one line, literally; shortened if too long.
        path: where the PNG goes, at most 1800 pixels a side; its folder is made if missing.
        captions: values for the line below the title, see :func:`caption_line`.

    Raises:
        SignalError: the three images differ in size.
        OutputError: the file cannot be written.
    """
    if truth.shape != fit.shape or truth.shape[:2] != error.shape:
        raise SignalError(f"truth {truth.shape}, fit {fit.shape} and error {error.shape} must have the same size")
    height, width = error.shape
    layout = _layout(height, width)
    cell_w = max(layout.panel[0], layout.crop[0], _NARROWEST)
    cell_h = _HEAD + layout.panel[1] + (_GAP / 2 + layout.crop[1] if layout.in_a_row and layout.crop[1] else 0)
    if not layout.in_a_row:
        cell_w = layout.panel[0] + (_GAP + layout.crop[0] if layout.crop[0] else 0)
        cell_h = _HEAD + max(layout.panel[1], layout.crop[1])
    columns, lines = (3, 1) if layout.in_a_row else (1, 3)
    top = 104
    page_w = max(2 * _MARGIN + columns * cell_w + (columns - 1) * _GAP + _BAR, 900)
    page = Page(page_w, top + lines * cell_h + (lines - 1) * _GAP + _MARGIN)
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    page.text(_MARGIN, 64, caption_line(captions), BODY, page.width - 2 * _MARGIN, color=GREY)

    steps = np.ma.masked_invalid(np.asarray(error, np.float64) * 255)
    limit, note = _error_scale(steps)
    region = _region(truth, steps.filled(0)) if layout.crop[0] else None
    left = (page.width - _BAR - columns * cell_w - (columns - 1) * _GAP) / 2
    for i, (name, image) in enumerate((("Truth", truth), ("Fit", fit), ("Error", steps))):
        x = left + (i * (cell_w + _GAP) if layout.in_a_row else 0)
        y = top + (0 if layout.in_a_row else i * (cell_h + _GAP))
        page.text(x, y, name, BODY, fontweight="bold")
        if name == "Error":
            page.text(x + 62, y + 1.5, note, SMALL, cell_w - 62, color=GREY)
        y += _HEAD
        options: dict[str, Any] = {"cmap": _error_colours(), "vmin": 0, "vmax": limit} if name == "Error" else {}
        inset = (cell_w - layout.panel[0]) / 2 if layout.in_a_row else 0
        axes = page.axes(x + inset, y, *layout.panel)
        shown = picture(axes, image, **options)
        if region is not None:
            _frame(axes, region)
            box = (x, y + layout.panel[1] + _GAP / 2) if layout.in_a_row else (x + layout.panel[0] + _GAP, y)
            _enlarge(page, box, layout.crop, image, region, options)
        if name == "Error":
            bar_h = cell_h - _HEAD
            bar = page.axes(x + cell_w + 14, y, 16, bar_h)
            page.figure.colorbar(shown, cax=bar, extend="max" if steps.max() > limit else "neither", extendfrac=0.03)
            _label_bar(bar, bar_h)
    page.save(path)


def _layout(height: int, width: int) -> _Layout:
    aspect = width / height
    zoom = max(height, width) > 48
    if aspect > 2.4:  # wide images: one below the other, the enlargement at the right
        room = 1800 - 2 * _MARGIN - _BAR
        panel_w = (room - _GAP) / (1 + 1.5 / aspect) if zoom else room
        panel_h = max(panel_w / aspect, 8)
        crop_h = max(panel_h, 130.0)
        panel_w = min(panel_w, room - _GAP - 1.5 * crop_h) if zoom else panel_w
        return _Layout(
            (panel_w, max(panel_w / aspect, 8)), (1.5 * crop_h, crop_h) if zoom else (0.0, 0.0), in_a_row=False
        )
    panel_w = min((1800 - 2 * _MARGIN - _BAR - 2 * _GAP) / 3, 800 * aspect)
    panel_h = max(min(panel_w / aspect, 800), 8)
    crop_w = max(panel_w, _NARROWEST)
    return _Layout((max(panel_w, 8), panel_h), (crop_w, crop_w / 1.5) if zoom else (0.0, 0.0), in_a_row=True)


def _region(truth: np.ndarray, error: np.ndarray) -> tuple[int, int, int, int]:
    """``(x, y, width, height)`` of the region with the largest detail times error; the first of equals."""
    height, width = error.shape
    side = math.sqrt(height * width) / 6
    w = min(width, max(12, round(side * math.sqrt(1.5))))
    h = min(height, max(8, round(side / math.sqrt(1.5))))
    grey = truth.astype(np.float64).mean(axis=2)
    detail = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    detail, error = _window_means(detail, h, w), _window_means(error, h, w)
    score = (detail + 1e-6) * (error + 1e-6 * max(1.0, float(error.max())))  # equal images: detail alone decides
    y, x = np.unravel_index(int(np.argmax(score)), score.shape)
    return int(x), int(y), w, h


def _window_means(values: np.ndarray, h: int, w: int) -> np.ndarray:
    total = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    return (total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]).clip(0) / (h * w)


def _error_scale(steps: np.ma.MaskedArray) -> tuple[float, str]:
    """Upper end of the colours in 8-bit steps, and the line that states mean and largest error."""
    values = steps.compressed()
    if values.size == 0:
        return 1.0, "no finite value"
    high = float(np.percentile(values, 99.5))
    limit = next((s for s in _ERROR_SCALES if s >= high), _ERROR_SCALES[-1])
    note = f"mean {values.mean():.2g}, largest {values.max():.3g} of 255"
    return float(limit), "none: equal everywhere" if values.max() == 0 else note


def _error_colours() -> Any:
    from matplotlib import colormaps

    return colormaps["inferno"].with_extremes(bad="cyan")


def _frame(axes: Any, region: tuple[int, int, int, int]) -> None:
    from matplotlib.patches import Rectangle

    x, y, w, h = region
    for colour, line in ((INK, 4.0), (_FRAME, 2.0)):  # dark below bright: seen on every background
        axes.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=colour, linewidth=line, clip_on=False))


def _enlarge(page: Page, corner: Any, room: Any, image: np.ndarray, region: Any, options: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    x, y, w, h = region
    scale = min(room[0] / w, room[1] / h)
    axes = page.axes(corner[0] + (room[0] - w * scale) / 2, corner[1], w * scale, h * scale)
    picture(axes, image[y : y + h, x : x + w], **options)
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=_FRAME, linewidth=4, transform=axes.transAxes))


def _label_bar(bar: Any, height: Number) -> None:
    from matplotlib.ticker import MaxNLocator

    bar.yaxis.set_major_locator(MaxNLocator(nbins=max(1, min(6, int(height / 45))), integer=True))
    bar.tick_params(colors=GREY, labelsize=SMALL, length=3)
    bar.set_ylabel("absolute error, 8-bit steps" if height > 250 else "8-bit steps", color=GREY, fontsize=SMALL)
    for spine in bar.spines.values():
        spine.set_visible(False)
