"""The page of `fourier_3d_table`: one solid as each encoding fits it, the table beside the paper's, and what turning does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neuralfield.reproduce.sheet import EDGE, WIDTH, name_axes
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz.camera import Camera
from neuralfield.viz.shading import render_mesh
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
    count,
    picture,
    plain_axes,
    tick_labels,
)
from neuralfield.viz.viewpoint import best_view

PIXELS, SPACE = 220, 8  # side of a picture, between two
SHOWN = 4  # solids that have a column of their own
EMPTY = 0.01
"""Below this IoU near the surface a fit calls (nearly) everything outside: it has not begun to learn."""


def draw(title: str, numbers: dict[str, Any], surfaces: Sequence[TriangleMesh | None]) -> Page:
    """The page.

    **Arguments**

    - `surfaces`: of the first solid, the truth and then the fit with each encoding; None: nothing is inside.
    """
    top, encodings = 180, list(numbers["mean"]["iou_surface"])
    below = top + PIXELS + 92
    page = Page(WIDTH, below + 380)
    page.text(EDGE, 28, title, TITLE, WIDTH - 2 * EDGE, fontweight="bold")
    for i, note in enumerate(_notes(numbers)):
        page.text(EDGE, 68 + 26 * i, note, BODY, WIDTH - 2 * EDGE, color=GREY)
    truth = surfaces[0]
    assert truth is not None
    camera: Camera = best_view(truth)
    best = max(encodings, key=lambda name: numbers["iou"]["iou_surface"][name][0])
    for c, mesh in enumerate(surfaces):
        x = EDGE + c * (PIXELS + SPACE)
        name = encodings[c - 1] if c else "truth"
        page.text(x + PIXELS / 2, top - 34, name, BODY, ha="center", fontweight="bold")
        picture(page.axes(x, top, PIXELS, PIXELS), render_mesh(mesh, camera, PIXELS, PIXELS))
        if c:
            value = numbers["iou"]["iou_surface"][name][0]
            colour = BEST if name == best else INK
            page.text(
                x + PIXELS / 2, top + PIXELS + 4, f"{value:.3f}", TITLE, ha="center", fontweight="bold", color=colour
            )
        else:
            page.text(x + PIXELS / 2, top + PIXELS + 4, numbers["shapes"][0], BODY, ha="center")
            page.text(x + PIXELS / 2, top + PIXELS + 28, "IoU near the surface:", SMALL, ha="center", color=GREY)
    _table(page, EDGE, below, numbers)
    if numbers["standing"] is not None:
        _turning(page, 1010, below, WIDTH - 1010 - EDGE - 110, numbers)
    return page


def _notes(numbers: dict[str, Any]) -> tuple[str, str]:
    budget = numbers["budget"]
    solids = f"{len(numbers['shapes'])} solids, turned off the axes" if numbers["turned"] else "meshes"
    here = (
        f"Inside or outside at points anywhere ({solids}): {budget['depth']} hidden layers of {budget['width']}, "
        f"{budget['n_features']} frequencies, {count(budget['steps'])} steps of {count(budget['batch_size'])} points"
    )
    paper = (
        "The paper: Dragon, Armadillo and Buddha, 7 hidden layers of 256, 256 frequencies, 10 k steps of 32.8 k points"
    )
    return here, paper


def _table(page: Page, x: float, y: float, numbers: dict[str, Any]) -> None:
    """Every solid near the surface, and the means of both test sets beside the paper's."""
    shapes, known = numbers["shapes"][:SHOWN], numbers["paper"]
    near, uniform = (numbers["mean"][key] for key in ("iou_surface", "iou_uniform"))
    page.text(x, y, "Intersection over union", BODY, fontweight="bold")
    page.text(x + 130, y + 38, "near the surface", BODY, fontweight="bold")
    page.text(x + 665, y + 38, "anywhere in the box", BODY, fontweight="bold")
    means = x + 130 + 90 * len(shapes)
    heads = [(x + 130 + 90 * k, shape) for k, shape in enumerate(shapes)]
    heads += [(means, "mean"), (means + 90, "paper's mean"), (x + 665, "mean"), (x + 755, "paper's")]
    for left, head in heads:
        page.text(left, y + 64, head, SMALL, 84 if head in shapes else None, color=GREY)
    for e, name in enumerate(near):
        line = y + 96 + 38 * e
        page.text(x, line, name, BODY)
        for k in range(len(shapes)):
            value = numbers["iou"]["iou_surface"][name][k]
            page.text(x + 130 + 90 * k, line, f"{value:.3f}", BODY, color=INK if value >= EMPTY else GREY)
        for left, mean, paper in ((means, near, known["iou_surface"]), (x + 665, uniform, known["iou_uniform"])):
            weight = "bold" if mean[name] == max(mean.values()) else "normal"
            page.text(left, line, f"{mean[name]:.3f}", BODY, fontweight=weight)
            page.text(left + 90, line, _with_deviation(*paper[name]) if name in paper else "–", BODY, color=GREY)
    budget = numbers["budget"]
    scales = f"Gaussian: sigma {budget['gaussian_sigma']:g}; positional: {budget['positional_octaves']:g} octaves."
    empty = "  0.000: after these steps the fit still calls everything outside."
    some = any(v < EMPTY for values in numbers["iou"]["iou_surface"].values() for v in values)
    page.text(x, y + 300, scales + empty * some, SMALL, color=GREY)


def _turning(page: Page, x: float, y: float, width: float, numbers: dict[str, Any]) -> None:
    """IoU along the axes and turned: thick, the mean of each encoding; thin, every solid."""
    page.text(x - 50, y, "Along the axes, and turned off them", BODY, fontweight="bold")
    page.text(x - 50, y + 26, "Thin: each solid. Thick: their mean.", SMALL, color=GREY)
    axes = page.axes(x, y + 60, width, 230)
    plain_axes(axes)
    for (name, values), colour in zip(numbers["standing"].items(), (GREY, HELDOUT), strict=True):
        turned = numbers["iou"]["iou_surface"][name]
        for pair in zip(values, turned, strict=True):
            axes.plot([0, 1], pair, color=colour, linewidth=1, alpha=0.45)
        ends = [sum(values) / len(values), numbers["mean"]["iou_surface"][name]]
        axes.plot([0, 1], ends, color=colour, linewidth=2.6, marker="o", markersize=8, clip_on=False)
        axes.annotate(
            name, (1, ends[1]), (12, 0), textcoords="offset points", color=colour, fontsize=SMALL, va="center",
            fontweight="bold", annotation_clip=False,
        )  # fmt: skip
    axes.set_xlim(-0.15, 1.05)
    axes.set_ylim(0, 1)
    tick_labels(axes, "x", (0, 1), ("along axes", "turned"))
    axes.grid(axis="y", color=FAINT)
    name_axes(axes, "", "IoU near the surface")


def _with_deviation(mean: float, deviation: float | None) -> str:
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"
