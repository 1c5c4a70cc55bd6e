"""The figure of one fit of a shape: truth, fit and error on the surface from one camera, and cuts through the inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from neuralfield.checks import choice, integer, number
from neuralfield.errors import SignalError
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.signals.quality import intersection_over_union
from neuralfield.viz.camera import UPS, Camera
from neuralfield.viz.shading import render_mesh
from neuralfield.viz.style import (
    BEST,
    BODY,
    FAINT,
    GREY,
    HELDOUT,
    SMALL,
    TITLE,
    Page,
    caption_line,
    count,
    picture,
    text_width,
)
from neuralfield.viz.viewpoint import best_view

BOTH, MISSING, SURPLUS = "#b4bbc7", HELDOUT, BEST
"""Colours of the cuts: inside of truth and fit, of the truth alone, of the fit alone. Outside of both is white."""

_RIGHT = "#e3e6ec"  # no error
_WORST = 10.0  # percent: stray pieces far away do not take the colours from the errors of the surface
_MARGIN, _GAP, _HEAD, _BAR, _PANEL = 36, 18, 34, 96, 532  # pixels
_NAMES = {
    "iou_uniform": "IoU",
    "iou_surface": "IoU near the surface",
    "chamfer": "Chamfer distance",
    "f_score": "F-score",
}
_NAMES |= {"normal_consistency": "normal consistency"}

Inside = Callable[[np.ndarray], np.ndarray]
"""Points [n, 3] in the cube to whether each is inside, bool [n]."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Inside or outside on a plane across the cube.

    - `normal`, `place`: the axis ("x", "y", "z") that the plane is perpendicular to, and where on it, 0 to 1.
    - `across`, `upward`: the axes that run along the columns (to the right) and along the rows (upwards: row 0 is the
      lowest).
    - `truth`, `fit`: at the centres of equal squares that cover the plane.
    """

    normal: str
    place: float
    across: str
    upward: str
    truth: Bool[np.ndarray, "rows columns"]
    fit: Bool[np.ndarray, "rows columns"]

    @property
    def iou(self) -> float:
        """Intersection over union of the two insides; 1 where both are empty."""
        return intersection_over_union(self.fit, self.truth)


def cuts(truth: Inside, fit: Inside, *, resolution: int = 384, place: float = 0.5, up: str = "y") -> list[Cut]:
    """Three cuts through the cube, perpendicular to its axes: the front view first, the view from above last.

    Args:
        truth, fit: see :data:`Inside`; each is asked three times about ``resolution`` squared points, float64.
        resolution: squares per side, 2 to 4096.
        place: where the planes stand, 0 to 1.
        up: the axis drawn upwards, "y" or "z".

    Raises:
        ConfigError: an option that is not as above.
    """
    resolution, place = integer("resolution", resolution, 2, 4096), number("place", place, 0, 1)
    front, side = ("z", "x") if choice("up", up, UPS) == "y" else ("y", "x")
    found = []
    for normal, across, upward in ((front, "x", up), (side, front, up), (up, "x", front)):
        points = np.full((resolution, resolution, 3), place)
        steps = (np.arange(resolution) + 0.5) / resolution
        points[..., "xyz".index(across)], points[..., "xyz".index(upward)] = steps, steps[:, None]
        answers = (np.asarray(ask(points.reshape(-1, 3)), bool).reshape(resolution, resolution) for ask in (truth, fit))
        found.append(Cut(normal, place, across, upward, *answers))
    return found


def shaded(
    mesh: TriangleMesh | None, *, camera: Camera | None = None, width: int = 800, height: int = 800, up: str = "y"
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture of a surface on white, from its best side unless a camera is given; without a mesh it says "no surface"."""
    if camera is None and mesh is not None:
        camera = best_view(mesh, up=up, aspect=width / height)
    return render_mesh(mesh, camera, width, height)


def shape_comparison(
    truth: TriangleMesh,
    fit: TriangleMesh | None,
    error: Float[np.ndarray, " v"] | None,
    *,
    title: str,
    captions: Mapping[str, Any],
    path: str | Path,
    cuts: Sequence[Cut] = (),
    error_on: str = "fit",
    camera: Camera | None = None,
    up: str = "y",
) -> None:
    """Write a PNG with truth, fit and error on the surface, above cuts through the inside.

    All three pictures have one camera, from the truth's best side. The colours of the error end at 1, 2 or 5 times a power
    of ten above the 99th percentile of the surface, at most at 10 % (each vertex counts with a third of the area about it,
    for the mean as well); distances that are not finite are cyan.

    Args:
        truth: the shape.
        fit: the surface of the fit; None when there is none, which the figure says.
        error: distance at each vertex of the mesh that ``error_on`` names, as a share of the object's longest side; None
            when it was not measured.
        title: one line, literally; shortened if too long.
        captions: values for the line below the title: ``iou_uniform``, ``iou_surface``, ``chamfer``, ``f_score``,
            ``normal_consistency``, and what :func:`~neuralfield.viz.caption_line` knows.
        path: where the PNG goes, 1800 pixels wide; its folder is made if missing.
        cuts: at most three, see :func:`cuts`.
        camera: of all three; None: see above.
        error_on: "fit" (how far the fit is from the truth) or "truth" (the other way).
        up: the axis drawn upwards, "y" or "z".

    Raises:
        SignalError: the number of distances is not that of the vertices; more than three cuts.
        ConfigError: another option is not as above.
        OutputError: the file cannot be written.
    """
    bearer = fit if choice("error_on", error_on, ("fit", "truth")) == "fit" else truth
    if error is not None and bearer is not None and len(error) != len(bearer.vertices):
        raise SignalError(
            f"{len(error)} distances for the {len(bearer.vertices)} vertices of the {error_on}: need one each"
        )
    if len(cuts) > 3:
        raise SignalError(f"at most three cuts fit into the figure, got {len(cuts)}")
    camera = camera or best_view(truth, fit, up=up)
    top = 104
    low = top + _HEAD + _PANEL + 26
    page = Page(2 * _MARGIN + 3 * _PANEL + 2 * _GAP + _BAR, low + (34 + _HEAD + _PANEL + _MARGIN if cuts else 10))
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    page.text(_MARGIN, 64, _captions(captions), BODY, page.width - 2 * _MARGIN, color=GREY)
    for i, (name, mesh) in enumerate((("Truth", truth), ("Fit", fit))):
        note = "no surface" if mesh is None else f"{count(len(mesh.faces))} triangles"
        _shaded_panel(page, i, top, name, note, render_mesh(mesh, camera, _PANEL, _PANEL))
    _error_panel(page, top, bearer, error, camera, error_on)
    if cuts:
        _legend(page, low)
        for i, cut in enumerate(cuts):
            _cut_panel(page, i, low + 34, cut)
    page.save(path)


def _captions(captions: Mapping[str, Any]) -> str:
    known = {
        _NAMES.get(key, key): f"{value:.3g}" if key == "chamfer" else f"{value:.4f}" if key in _NAMES else value
        for key, value in captions.items()
        if value is not None
    }
    return caption_line(known)


def _left(column: int) -> float:
    return _MARGIN + column * (_PANEL + _GAP)


def _shaded_panel(page: Page, column: int, y: float, name: str, note: str, image: np.ndarray) -> None:
    x = _left(column)
    page.text(x, y, name, BODY, fontweight="bold")
    page.text(x + text_width(name, BODY, "bold") + 14, y + 1.5, note, SMALL, _PANEL - 80, color=GREY)
    picture(page.axes(x, y + _HEAD, _PANEL, _PANEL), image)


def _error_panel(page: Page, y: float, mesh: TriangleMesh | None, error: Any, camera: Camera, error_on: str) -> None:
    if mesh is None or error is None:
        image = render_mesh(None, None, _PANEL, _PANEL) if mesh is None else render_mesh(mesh, camera, _PANEL, _PANEL)
        _shaded_panel(page, 2, y, "Error", "not measured", image)
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    percent = 100 * np.asarray(error, np.float64)
    limit, note = _scale(percent, mesh)
    colours = _error_colours()
    image = render_mesh(mesh, camera, _PANEL, _PANEL, values=percent, colormap=colours, limits=(0, limit))
    _shaded_panel(page, 2, y, "Error", note, image)
    bar = page.axes(_left(2) + _PANEL + 14, y + _HEAD + 20, 16, _PANEL - 40)
    above = np.nanmax(percent, initial=0) > limit
    shown = ScalarMappable(Normalize(0, limit), colours)
    page.figure.colorbar(shown, cax=bar, extend="max" if above else "neither", extendfrac=0.03)
    bar.tick_params(colors=GREY, labelsize=SMALL, length=3)
    other = "truth" if error_on == "fit" else "fit"
    bar.set_ylabel(f"distance to the {other}, % of the longest side", color=GREY, fontsize=SMALL)
    for spine in bar.spines.values():
        spine.set_visible(False)


def _scale(percent: np.ndarray, mesh: TriangleMesh) -> tuple[float, str]:
    """Upper end of the colours, and the line that states mean and largest error."""
    weight = np.zeros(len(mesh.vertices))
    for corner in range(3):
        weight += np.bincount(mesh.faces[:, corner], mesh.areas / 3, len(weight))
    usable = np.isfinite(percent) & (weight > 0)
    value, weight = percent[usable], weight[usable]
    if not value.size:
        return 1.0, "no finite value"
    if value.max() == 0:
        return 1.0, "none: equal everywhere"
    order = np.argsort(value)
    share = np.cumsum(weight[order]) / weight.sum()
    high = float(value[order][min(int(np.searchsorted(share, 0.99)), len(order) - 1)]) or float(value.max())
    high = min(high, _WORST)
    power = 10.0 ** math.floor(math.log10(high))
    limit = next(step * power for step in (1, 2, 5, 10) if step * power >= high * (1 - 1e-9))
    mean = float((value * weight).sum() / weight.sum())
    return limit, f"mean {mean:.2g} %, largest {value.max():.2g} %"


def _error_colours() -> Any:
    """Light grey where the fit is right, so that the form is seen, then darker and redder with the error."""
    from matplotlib.colors import ListedColormap

    return ListedColormap(error_ramp(np.linspace(0, 1, 256)), name="error").with_extremes(bad="cyan")


def error_ramp(place: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """sRGB colours, 0 to 1, of errors from 0 (light grey, so that the form is seen) by yellow and red to 1 (nearly black)."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    warm = colormaps["inferno_r"](0.04 + 0.84 * place)[:, :3]
    mix = np.clip(place / 0.2, 0, 1)[:, None]
    return (1 - mix) * to_rgb(_RIGHT) + mix * warm


def _legend(page: Page, y: float) -> None:
    from matplotlib.patches import Rectangle

    x = float(_MARGIN)
    for colour, words in ((BOTH, "inside of both"), (MISSING, "missing in the fit"), (SURPLUS, "surplus in the fit")):
        box = (x / page.width, 1 - (y + 17) / page.height)
        page.figure.add_artist(Rectangle(box, 16 / page.width, 16 / page.height, facecolor=colour, edgecolor="none"))
        page.text(x + 24, y, words, BODY)
        x += 24 + text_width(words, BODY) + 34


def _cut_panel(page: Page, column: int, y: float, cut: Cut) -> None:
    x = _left(column)
    name = f"Cut at {cut.normal} = {cut.place:g}"
    page.text(x, y, name, BODY, fontweight="bold")
    note = f"IoU {cut.iou:.4f}" if (cut.truth | cut.fit).any() else "nothing inside"
    page.text(x + text_width(name, BODY, "bold") + 14, y + 1.5, note, SMALL, 200, color=GREY)
    fine = 2 * _PANEL
    truth, fit = (_enlarged(inside, fine) for inside in (cut.truth, cut.fit))
    colours = np.array([[255, 255, 255], *(_bytes(c) for c in (MISSING, SURPLUS, BOTH))], np.float64)
    image = colours[truth + 2 * fit][::-1].reshape(_PANEL, 2, _PANEL, 2, 3).mean(axis=(1, 3))
    axes = page.axes(x, y + _HEAD, _PANEL, _PANEL)
    picture(axes, np.rint(image).astype(np.uint8))
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=FAINT, linewidth=2, transform=axes.transAxes))
    page.text(x + _PANEL - 10, y + _HEAD + _PANEL - 26, f"{cut.across} →", SMALL, color=GREY, ha="right")
    page.text(x + 10, y + _HEAD + 8, f"{cut.upward} ↑", SMALL, color=GREY)


def _enlarged(inside: Bool[np.ndarray, "rows columns"], size: int) -> Int64[np.ndarray, "size size"]:
    """0 and 1 at more places: linear between the centres of the squares, cut at one half, so that outlines are smooth."""
    values = inside.astype(np.float64)
    for n in inside.shape:
        place = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
        low = np.minimum(place.astype(np.int64), max(n - 2, 0))
        part = (place - low)[:, None]
        values = ((1 - part) * values[low] + part * values[np.minimum(low + 1, n - 1)]).T
    return (values > 0.5).astype(np.int64)


def _bytes(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))
