"""The page of a reproduction: its finding as the title, a line of circumstances, and a grid of panels with headings."""

from __future__ import annotations

from collections.abc import Sequence

from neuralfield.viz.style import BODY, FAINT, GREY, INK, SMALL, TITLE, Axes, Page, plain_axes, wrap

WIDTH, EDGE, LEFT, GAP = 1440, 40, 78, 96  # pixels; LEFT: numbers beside the first panel, GAP: between two
HEAD, FOOT = 58, 66  # above a panel: its heading and one more line; below: ticks and their name


def sheet(
    title: str,
    subtitle: str,
    headings: Sequence[Sequence[tuple[str, str]]],
    height: int = 300,
    shares: Sequence[float] | None = None,
    right: int = 0,
) -> tuple[Page, list[Axes]]:
    """An empty page and the axes of its panels, row by row.

    **Arguments**

    - `title`: what was found, at most two lines; `subtitle`: under which circumstances, at most two.
    - `headings`: for every panel of every row (what it shows, a second, grey line).
    - `height`: of a panel in pixels.
    - `shares`: widths of the panels of a row relative to one another; None: equal.
    - `right`: pixels kept free at the right of every row, for names of lines.
    """
    room = WIDTH - 2 * EDGE
    lines = wrap(title, TITLE, room, 2, "bold")
    notes = wrap(subtitle, BODY, room, 2)
    top = 28 + 34 * len(lines) + 26 * len(notes) + 20
    page = Page(WIDTH, top + len(headings) * (HEAD + height + FOOT))
    for i, line in enumerate(lines):
        page.text(EDGE, 28 + 34 * i, line, TITLE, fontweight="bold")
    for i, line in enumerate(notes):
        page.text(EDGE, 28 + 34 * len(lines) + 6 + 26 * i, line, BODY, color=GREY)
    panels = []
    for r, row in enumerate(headings):
        parts = list(shares) if shares is not None and len(shares) == len(row) else [1.0] * len(row)
        free = room - LEFT - GAP * (len(row) - 1) - right
        x, y = float(EDGE + LEFT), top + r * (HEAD + height + FOOT)
        for (heading, note), part in zip(row, parts, strict=True):
            width = free * part / sum(parts)
            span = width + GAP / 2
            page.text(x - LEFT * 0.6, y, heading, BODY, span, fontweight="bold")
            page.text(x - LEFT * 0.6, y + 24, note, SMALL, span, color=GREY)
            axes = page.axes(x, y + HEAD, width, height)
            plain_axes(axes)
            panels.append(axes)
            x += width + GAP
    return page, panels


def name_axes(axes: Axes, x: str = "", y: str = "") -> None:
    """What is along the axes."""
    axes.set_xlabel(x, fontsize=SMALL, color=GREY, labelpad=4)
    axes.set_ylabel(y, fontsize=SMALL, color=GREY, labelpad=4)


def log_axis(axes: Axes, which: str) -> None:
    """A logarithmic axis ("x" or "y") with ticks at powers of ten and no others."""
    from matplotlib.ticker import LogLocator, NullLocator

    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(10, numticks=8))
    axis.set_minor_locator(NullLocator())


def legend(axes: Axes, place: str = "best", **options: object) -> None:
    """The names of the lines that have one, without a frame."""
    axes.legend(
        loc=place, frameon=True, framealpha=0.85, edgecolor="none", fontsize=SMALL - 0.5, labelcolor=INK, **options
    )


def end_label(axes: Axes, x: float, y: float, text: str, colour: str, **options: object) -> None:
    """The name of a line right of its last point, in its colour."""
    axes.annotate(
        text, (x, y), (6, 0), textcoords="offset points", color=colour, fontsize=SMALL, va="center",
        fontweight="bold", annotation_clip=False, **options,
    )  # fmt: skip


def rule(axes: Axes, y: float) -> None:
    """A thin level line."""
    axes.axhline(y, color=FAINT, linewidth=1.2, zorder=0)
