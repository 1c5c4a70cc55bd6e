"""The figure of one fit of a volume: truth, fit and error on three planes through the middle, and projected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from neuralfield.checks import choice, number
from neuralfield.errors import SignalError
from neuralfield.viz.style import BODY, GREY, SMALL, TITLE, Page, caption_line, picture, text_width

PLANES = (("Axial", "x", "y", "z"), ("Coronal", "x", "z", "y"), ("Sagittal", "y", "z", "x"))
"""Name, axis to the right, axis upwards, axis that the plane is perpendicular to."""

_MARGIN, _GAP, _HEAD, _BAR = 36, 18, 34, 96  # pixels
_WIDEST, _TALLEST = 1800, 1800  # of the page
_LEAST, _NARROWEST = 40.0, 220.0  # of a picture's side; of a column, for its heading
_ERROR_SCALES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)

Plane = Float[np.ndarray, "_rows _columns _channels"]


def middle_planes(volume: Any) -> list[np.ndarray]:
    """The three planes of :data:`PLANES` through the middle voxel ``n // 2``, in the order axial, coronal, sagittal.

    ``volume`` is anything that is indexed like an array [z, y, x, channels], such as a memory map: only the planes are read.
    Rows run along the axis that is drawn upwards.
    """
    if len(volume.shape) != 4 or 0 in volume.shape:
        raise SignalError(f"a volume is an array [z, y, x, channels], got one of shape {list(volume.shape)}")
    z, y, x = (size // 2 for size in volume.shape[:3])
    return [np.asarray(plane) for plane in (volume[z], volume[:, y], volume[:, :, x])]


def projection(slabs: Iterable[Float[np.ndarray, "_depth height width channels"]], axis: str = "y") -> Plane:
    """The maximum-intensity projection of a volume that comes in slabs [z, y, x, channels], in order of z.

    ``axis`` is the one that is looked along. For "y" the result is [z, x, channels], for "x" [z, y, channels], for "z"
    [y, x, channels], as the planes perpendicular to it. Memory: one slab and the result. NaN counts as no value.
    """
    across = {"z": 0, "y": 1, "x": 2}[choice("axis", axis, ("x", "y", "z"))]
    found: list[np.ndarray] = []
    for slab in slabs:
        if slab.shape[0] == 0:
            continue
        seen = np.fmax.reduce(slab, axis=across)
        found = [np.fmax(found[0], seen)] if across == 0 and found else [*found, seen]
    if not found:
        raise SignalError("there is nothing to project: the volume came without a slab")
    return found[0] if across == 0 else np.concatenate(found)


def volume_comparison(
    truth: Sequence[Plane],
    fit: Sequence[Plane],
    *,
    spacing: tuple[float, float, float],
    title: str,
    captions: Mapping[str, Any],
    path: str | Path,
    places: Sequence[str] = ("", "", ""),
    projections: Sequence[Plane] | None = None,
    projected_along: str = "y",
) -> None:
    r"""Write a PNG with truth, fit and error on an axial, a coronal and a sagittal plane, one below the other.

    All pictures have one scale in physical units; only what would be thinner than 40 pixels is drawn wider. The error is
    the mean over the channels of $|\text{fit} - \text{truth}|$; its colours end at a round number above the 99.5th
    percentile of all three planes; values that are not finite are cyan.
    One channel is shown as grey, three as red, green and blue, of any other number the first, which the figure says.

    Args:
        truth: three planes in the order and with the axes of :data:`PLANES`, as :func:`middle_planes` gives them; values
            0 to 1 are black to white.
        fit: the same planes of the fit.
        spacing: distances between voxels along x, y and z, in one physical unit.
        title: one line, literally; shortened if too long.
        captions: values for the line below the title, see :func:`~neuralfield.viz.caption_line`.
        path: where the PNG goes, at most 1800 pixels a side; its folder is made if missing.
        places: a few words about where each plane is, such as "z = 28 of 56".
        projections: of truth and fit, and if there is a third of the absolute error, see :func:`projection`; they make a
            fourth row.
        projected_along: the axis of the projections.

    Raises:
        SignalError: planes that do not belong together.
        ConfigError: a spacing that is not positive.
        OutputError: the file cannot be written.
    """
    steps = {axis: number(f"spacing along {axis}", s, 0, above=True) for axis, s in zip("xyz", spacing, strict=True)}
    choice("projected_along", projected_along, ("x", "y", "z"))
    _check(truth, fit, projections)
    names = [name for name, *_ in PLANES]
    rows = [[t, f, np.abs(f - t).mean(axis=2)] for t, f in zip(truth, fit, strict=True)]
    high = [row[2] for row in rows]
    axes = [plane[1:3] for plane in PLANES]
    if projections is not None:
        rows.append([projections[0], projections[1], projections[2].mean(axis=2) if len(projections) == 3 else None])
        names.append("Projection")
        axes.append(next(plane[1:3] for plane in PLANES if plane[3] == projected_along))
        places = (*places, f"the largest value along {projected_along}")
    sizes = _sizes([(r[0].shape[1] * steps[a], r[0].shape[0] * steps[u]) for r, (a, u) in zip(rows, axes, strict=True)])
    column = max(_NARROWEST, max(w for w, _ in sizes))
    limit, note = _scale(np.concatenate([error.reshape(-1) for error in high]))

    top = 104 + _HEAD
    page_w = max(2 * _MARGIN + 3 * column + 2 * _GAP + _BAR, 900)
    page = Page(page_w, top + sum(_HEAD + h + _GAP for _, h in sizes) + _MARGIN - _GAP)
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    page.text(_MARGIN, 64, _caption(captions, truth[0].shape[2]), BODY, page.width - 2 * _MARGIN, color=GREY)
    left = (page.width - _BAR - 3 * column - 2 * _GAP) / 2
    for k, (name, words) in enumerate((("Truth", ""), ("Fit", ""), ("Error", note))):
        x = left + k * (column + _GAP)
        page.text(x, 104, name, BODY, fontweight="bold")
        page.text(x + 62, 105.5, words, SMALL, column - 62, color=GREY)
    y, shown = float(top), None
    for row, name, where, (across, upward), size in zip(rows, names, places, axes, sizes, strict=True):
        page.text(left, y + 4, name, SMALL, fontweight="bold")
        beside = text_width(name, SMALL, "bold") + 12
        page.text(left + beside, y + 4, where, SMALL, 3 * column - beside, color=GREY)
        page.text(left + 3 * column + 2 * _GAP, y + 4, f"{across} →, {upward} ↑", SMALL, color=GREY, ha="right")
        for k, plane in enumerate(row):
            if plane is not None:
                x = left + k * (column + _GAP)
                box = page.axes(x + (column - size[0]) / 2, y + _HEAD, *size)
                if k < 2:
                    picture(box, display(plane)[::-1])
                else:
                    shown = picture(box, np.ma.masked_invalid(plane)[::-1], cmap=_colours(), vmin=0, vmax=limit)
        y += _HEAD + size[1] + _GAP
    first = top + _HEAD
    _bar(page, shown, left + 3 * column + 2 * _GAP + 14, first, min(y - _GAP - first, 700.0), limit, high)
    page.save(path)


def _check(truth: Sequence[Plane], fit: Sequence[Plane], projections: Sequence[Plane] | None) -> None:
    shapes = [plane.shape for plane in truth]
    if shapes != [plane.shape for plane in fit] or len(shapes) != 3:
        raise SignalError(f"truth and fit are three planes of equal shapes, got {shapes} and {[p.shape for p in fit]}")
    (ya, xa, _), (zc, xc, _), (zs, ys, _) = shapes
    if (ya, zc, xa) != (ys, zs, xc) or 0 in (ya, xa, zc):
        raise SignalError(f"the planes are [y, x], [z, x] and [z, y] of one volume, got {shapes}")
    if projections is not None and (len(projections) not in (2, 3) or len({p.shape for p in projections}) != 1):
        given = [p.shape for p in projections]
        raise SignalError(f"projections are two or three pictures of one shape (truth, fit, error), got {given}")


def _sizes(extents: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pixels of each row's pictures: one scale for all, as large as the page allows; nothing thinner than 40."""
    widest, tall = max(w for w, _ in extents), sum(h for _, h in extents)
    across = (_WIDEST - 2 * _MARGIN - 2 * _GAP - _BAR) / 3
    down = _TALLEST - 104 - _HEAD - _MARGIN - len(extents) * (_HEAD + _GAP)
    scale = min(across / widest, down / tall)
    sizes = [(max(w * scale, _LEAST), max(h * scale, _LEAST)) for w, h in extents]
    excess = sum(h for _, h in sizes) - down
    if excess > 0:  # what the thin ones were given is taken from the tallest
        k = max(range(len(sizes)), key=lambda i: sizes[i][1])
        sizes[k] = (sizes[k][0], max(sizes[k][1] - excess, _LEAST))
    return sizes


def display(plane: Plane) -> UInt8[np.ndarray, "rows columns 3"]:
    """A plane as pixels, its rows in the plane's order: 0 to 1 become black to white, three channels red, green and blue.

    Of any other number of channels the first is shown. Values that are not finite are cyan.
    """
    shown = plane if plane.shape[2] == 3 else np.repeat(plane[:, :, :1], 3, axis=2)
    pixels = np.rint(np.clip(np.nan_to_num(shown), 0, 1) * 255).astype(np.uint8)
    pixels[~np.isfinite(shown).all(axis=2)] = (0, 255, 255)
    return pixels


def _caption(captions: Mapping[str, Any], channels: int) -> str:
    line = caption_line(captions)
    if channels in (1, 3):
        return line
    return f"{line}{' · ' if line else ''}first of {channels} channels shown, error of all"


def _scale(errors: np.ndarray) -> tuple[float, str]:
    """Upper end of the colours, and the line that states mean and largest error."""
    values = errors[np.isfinite(errors)]
    if not values.size:
        return 1.0, "no finite value"
    high = float(np.percentile(values, 99.5))
    limit = next((s for s in _ERROR_SCALES if s >= high * (1 - 1e-6)), _ERROR_SCALES[-1])
    if values.max() == 0:
        return limit, "none: equal everywhere"
    return limit, f"mean {values.mean():.2g}, largest {values.max():.2g} on the planes"


def _colours() -> Any:
    from matplotlib import colormaps

    return colormaps["inferno"].with_extremes(bad="cyan")


def _bar(page: Page, shown: Any, x: float, y: float, height: float, limit: float, errors: list[np.ndarray]) -> None:
    above = max(float(np.max(e[np.isfinite(e)], initial=0)) for e in errors) > limit
    bar = page.axes(x, y, 16, height)
    page.figure.colorbar(shown, cax=bar, extend="max" if above else "neither", extendfrac=0.03)
    bar.tick_params(colors=GREY, labelsize=SMALL, length=3)
    label = "absolute error, as a share of the value range"
    bar.set_ylabel(label if height > 420 else "absolute error", color=GREY, fontsize=SMALL)
    for spine in bar.spines.values():
        spine.set_visible(False)
