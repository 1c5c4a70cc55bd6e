"""Figures of a kernel's spectrum: how fast its modes are learned, where the target lies in them, how they look."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuralfield.errors import ConfigError
from neuralfield.ntk.spectrum import Spectrum
from neuralfield.viz.style import (
    BEST,
    BODY,
    FAINT,
    GREY,
    GROUPS,
    SMALL,
    TITLE,
    Axes,
    Number,
    Page,
    picture,
    plain_axes,
    power_of_ten,
    printable,
    text_width,
    tick_labels,
)

_WIDTH, _MARGIN = 1600, 36  # pixels
_COLOURS = "RdBu_r"  # told apart by lightness from white, the zero


def spectrum_figure(spectra: Mapping[str, Spectrum], path: str | Path, *, title: str) -> None:
    """Write a PNG of the eigenvalues of several kernels and, where they have a target, of its energy in their modes.

    All axes count modes from the fastest, logarithmically; eigenvalues are shares of the trace, so that kernels of different
    scale compare. The energy per mode is averaged within steps of a tenth of a factor of ten, which leaves the
    first modes as they are; the cumulated energy says at how many modes it reaches 95 %.

    Args:
        spectra: by name, at most eight.
        path: where the PNG goes, 1600 pixels wide; its folder is made if missing.
        title: one line.

    Raises:
        ConfigError: no spectra, or more than eight.
        OutputError: the file cannot be written.
    """
    _refuse_count("spectra", len(spectra))
    targeted = {name: s for name, s in spectra.items() if s.target is not None}
    page = Page(_WIDTH if targeted else 860, 684)
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    _legend(page, 70, list(spectra))
    panels = 3 if targeted else 1
    gap, left, top, height = 104, 96, 176, 430
    width = (page.width - left - _MARGIN - (panels - 1) * gap) / panels
    heads = [
        ("How fast each mode is learned", "eigenvalue, share of the trace"),
        ("Where the target is", "target's energy in the mode"),
        ("How many modes the target needs", "target's energy in the first modes, dot: 95 %"),
    ]
    boxes = [page.axes(left + i * (width + gap), top, width, height) for i in range(panels)]
    for i, (axes, (head, what)) in enumerate(zip(boxes, heads, strict=False)):
        x = left + i * (width + gap) - 60
        page.text(x, top - 62, head, BODY, width + 60, fontweight="bold")
        page.text(x, top - 36, what, SMALL, width + 60, color=GREY)
        plain_axes(axes)
        axes.set_xscale("log")
        axes.set_xlabel("mode, fastest first", fontsize=BODY, color=GREY, labelpad=8)
    colours = dict(zip(spectra, GROUPS, strict=False))
    for name, found in spectra.items():
        values = np.asarray(found.eigenvalues.cpu(), float) / found.trace
        shown = values > 0
        modes = np.arange(1, found.k + 1)
        boxes[0].plot(modes[shown], values[shown], color=colours[name], **_stroke(found.k))
    for name, found in targeted.items():
        energy = np.asarray(found.energy.cpu(), float)
        boxes[1].plot(*_binned(energy), color=colours[name], **_stroke(found.k))
        _cumulated(boxes[2], energy, colours[name], complete=found.complete)
    _log_y(boxes[0], [np.asarray(s.eigenvalues.cpu(), float) / s.trace for s in spectra.values()])
    longest = max(s.k for s in spectra.values())
    for axes in boxes:
        axes.set_xlim(0.9, max(longest, 2) * 1.1)
        places = [10**i for i in range(math.floor(math.log10(max(longest, 2))) + 1)]
        tick_labels(axes, "x", places, [f"{p:,}" for p in places])
    if targeted:
        _log_y(boxes[1], [_binned(np.asarray(s.energy.cpu(), float))[1] for s in targeted.values()])
        boxes[2].set_ylim(0, 1.02)
        tick_labels(boxes[2], "y", [0, 0.25, 0.5, 0.75, 0.95], ["0", "25 %", "50 %", "75 %", "95 %"])
    page.save(path)


def modes_figure(spectrum: Spectrum, shape: tuple[int, int], path: str | Path, *, title: str, count: int = 24) -> None:
    """Write a PNG of the first modes (eigenvectors) of a kernel as images, fastest first.

    Each stands above its number, its eigenvalue relative to the first and, with a target, the part of the target's energy
    in it; the three with the most energy are marked. Red is positive, blue negative, white zero; each image by its
    own largest value.

    Args:
        spectrum: of the kernel of a pixel grid.
        shape: (height, width) of that grid.
        path: where the PNG goes, 1600 pixels wide.
        title: one line.
        count: how many modes, as far as there are.

    Raises:
        ConfigError: the kernel has another number of points than the grid.
        OutputError: the file cannot be written.
    """
    count = min(count, spectrum.k)
    columns = min(8 if shape[1] <= 2 * shape[0] else 6, count)
    gap, top = 22, 136
    cell = min((_WIDTH - 2 * _MARGIN - (columns - 1) * gap) / columns, 300.0)
    scale = min(cell / shape[1], 300 / shape[0])
    size = (max(shape[1] * scale, 4), max(shape[0] * scale, 4))
    targeted = spectrum.target is not None
    pitch = size[1] + (76 if targeted else 56)
    page = Page(_WIDTH, top + math.ceil(count / columns) * pitch + 16)
    page.text(_MARGIN, 26, title, TITLE, page.width - 2 * _MARGIN, fontweight="bold")
    note = "The patterns that this kernel can draw, fastest to learn first. Red: positive, blue: negative, white: zero."
    if targeted:
        note += " The percentage: how much of the target's energy lies in it."
    page.text(_MARGIN, 66, note, BODY, page.width - 2 * _MARGIN, color=GREY)
    energy = np.asarray(spectrum.energy.cpu(), float) if targeted else np.zeros(spectrum.k)
    values = np.asarray(spectrum.eigenvalues.cpu(), float)
    most = set(np.argsort(-energy[:count])[:3].tolist()) if targeted else set()
    for i in range(count):
        x, y = _MARGIN + (i % columns) * (cell + gap), top + (i // columns) * pitch
        image = spectrum.image(i, shape)
        largest = float(np.abs(image).max())
        axes = page.axes(x, y, *size)
        picture(axes, image, cmap=_COLOURS, vmin=-largest, vmax=largest)
        from matplotlib.patches import Rectangle

        edge, line = (BEST, 4) if i in most else (FAINT, 1)
        frame = Rectangle((0, 0), 1, 1, fill=False, ec=edge, lw=line, transform=axes.transAxes, clip_on=False)
        axes.add_patch(frame)
        speed = f"mode {i + 1}, " + ("the fastest" if i == 0 else f"{_times(values[0], values[i])} slower")
        page.text(x, y + size[1] + 8, speed, SMALL, cell)
        if targeted:
            colour = BEST if i in most else GREY
            page.text(x, y + size[1] + 28, f"{_percent(energy[i])} of the target", SMALL, cell, color=colour)
    page.save(path)


def _cumulated(axes: Axes, energy: Float[np.ndarray, " k"], colour: str, *, complete: bool) -> None:
    total = np.cumsum(energy)
    modes = np.arange(1, len(energy) + 1)
    axes.plot(modes, total, color=colour, **_stroke(len(energy)))
    reached = np.flatnonzero(total >= 0.95)
    if len(reached):
        axes.plot([modes[reached[0]]], [0.95], "o", color=colour, markersize=9, zorder=5)
        axes.plot([modes[reached[0]]] * 2, [0, 0.95], color=colour, linewidth=1, linestyle=":")
    elif not complete:
        axes.plot([modes[-1]], [total[-1]], ">", color=colour, markersize=8, clip_on=False)


def _binned(energy: Float[np.ndarray, " k"]) -> tuple[np.ndarray, np.ndarray]:
    """Modes and mean energies within tenths of a decade; single modes stay single, and less than 1e-7 is 1e-7."""
    edges = np.unique(np.round(10 ** np.arange(0, math.log10(len(energy) + 1) + 0.1, 0.1)).astype(int))
    edges = np.append(edges[edges <= len(energy)], len(energy) + 1)
    pairs = list(itertools.pairwise(edges.tolist()))
    middle = np.array([math.sqrt(a * (b - 1)) for a, b in pairs])
    return middle, np.array([max(energy[a - 1 : b - 1].mean(), 1e-7) for a, b in pairs])


def _log_y(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """A logarithmic axis with powers of ten as labels, over at most nine of them: less is nothing to the eye."""
    largest = max(float(v.max()) for v in values)
    smallest = min(float(v[v > largest * 1e-9].min()) for v in values if (v > largest * 1e-9).any())
    axes.set_yscale("log")
    low, high = math.floor(math.log10(smallest)), math.ceil(math.log10(largest * 1.01))
    axes.set_ylim(10.0**low, 10.0**high)
    step = max(1, math.ceil((high - low) / 6))
    places = list(range(high, low - 1, -step))
    tick_labels(axes, "y", [10.0**p for p in places], [power_of_ten(p) for p in places])


def _stroke(points: int) -> dict[str, Number | str]:
    return {"linewidth": 2.4, "marker": "o" if points <= 2 else "", "solid_capstyle": "round"}


def _legend(page: Page, y: Number, names: Sequence[str]) -> None:
    x = float(_MARGIN)
    names = [printable(name) for name in names]
    if sum(text_width(name, BODY) + 56 for name in names) > page.width - 2 * _MARGIN:
        names = [page.shorten(name, BODY, (page.width - 2 * _MARGIN) / len(names) - 60) for name in names]
    for name, colour in zip(names, GROUPS, strict=False):
        page.text(x, y, "■", BODY, color=colour)
        page.text(x + 22, y, name, BODY)
        x += text_width(name, BODY) + 56


def _times(first: float, value: float) -> str:
    if value <= 0:
        return "never"
    ratio = first / value
    return f"{ratio:.1f} x" if ratio < 9.95 else f"{ratio:,.0f} x"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


def _refuse_count(name: str, found: int) -> None:
    if not 1 <= found <= len(GROUPS):
        raise ConfigError(f"{name} must be 1 to {len(GROUPS)}, one colour each; got {found}")
