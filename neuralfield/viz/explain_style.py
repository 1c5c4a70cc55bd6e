"""What the figures of an explanation share: a colour per candidate, a heading that wraps, names beside lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuralfield.explain.explanation import Candidate, Explanation
from neuralfield.viz.style import (
    BODY,
    FAINT,
    GREY,
    SMALL,
    TITLE,
    Axes,
    Number,
    Page,
    is_number,
    printable,
    spread,
    text_width,
    wrap,
)

WIDTH, MARGIN = 1080, 32  # pixels: a page of text is about as wide, so that nothing is scaled down on it

# One hue per family, from light to dark as the bandwidth grows: a stranger reads eight lines as four things.
_RAMPS = {
    "none": ("#5b6472", "#5b6472"),
    "positional": ("#b45cc9", "#6b1f80"),
    "fourier": ("#64aef2", "#063b78"),
    "hashgrid": ("#57ad66", "#1a5a29"),
}
_OTHER = ("#c08a00", "#7a5800")


def colours(candidates: Sequence[Candidate]) -> dict[str, str]:
    """Name to colour: the hue of the encoding, darker for later candidates of the same encoding (by sigma, if any)."""
    found: dict[str, str] = {}
    for family in dict.fromkeys(_family(c) for c in candidates):
        members = sorted((c for c in candidates if _family(c) == family), key=_sigma)
        ramp = _RAMPS.get(family, _OTHER)
        for i, candidate in enumerate(members):
            found[candidate.name] = mixed(*ramp, i / (len(members) - 1) if len(members) > 1 else 0.5)
    return found


def mixed(first: str, last: str, part: float) -> str:
    """The colour that lies ``part`` of the way from one to the other, in sRGB."""
    a, b = (np.frombuffer(bytes.fromhex(c[1:]), np.uint8).astype(float) for c in (first, last))
    return "#" + bytes(np.rint(a + part * (b - a)).astype(np.uint8)).hex()


def shown(explanation: Explanation, most: int) -> list[Candidate]:
    """At most ``most`` candidates in their order: the recommended one, the best of each encoding, then from both ends."""
    ranked = sorted(explanation.candidates, key=lambda c: (c.name != explanation.verdict.best, -c.heldout))
    first = list({_family(c): c for c in reversed(ranked)}.values())[::-1]
    first.sort(key=ranked.index)
    rest = [c for c in explanation.candidates if c not in first]
    ends = [rest[i // 2] if i % 2 == 0 else rest[-1 - i // 2] for i in range(len(rest))]
    kept = {c.name for c in (first + ends)[:most]}
    return [c for c in explanation.candidates if c.name in kept]


def best(explanation: Explanation) -> Candidate:
    """The recommended candidate."""
    return explanation.candidate(explanation.verdict.best)


def sheet(title: str, note: str, height: Number, width: Number = WIDTH) -> tuple[Page, float]:
    """A page with ``height`` pixels for the drawing beneath its heading, and where they begin."""
    room = width - 2 * MARGIN
    lines, notes = wrap(title, TITLE, room, 3, "bold"), wrap(note, BODY, room, 3)
    top = 24 + 30 * len(lines) + 24 * len(notes) + 14
    page = Page(width, top + height)
    for i, line in enumerate(lines):
        page.text(MARGIN, 24 + 30 * i, line, TITLE, room, fontweight="bold")
    for i, line in enumerate(notes):
        page.text(MARGIN, 24 + 30 * len(lines) + 6 + 24 * i, line, BODY, room, color=GREY)
    return page, top


def save(page: Page, *paths: str | Path) -> None:
    """Write one drawing to every path, as what it ends in: PNG, or SVG for .svg."""
    for path in paths:
        page.save(path)


def fitted(text: str, room: Number, weight: str = "normal") -> str:
    """A small label of at most ``room`` pixels: its beginning, and its end, where the numbers stand."""
    text = printable(text)
    kept, line = len(text), text
    while kept > 4 and text_width(line, SMALL, weight) > room:
        kept -= 1
        line = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return line


def end_labels(axes: Axes, ends: Sequence[tuple[float, str, str, bool]], room: Number) -> None:
    """Names at the right edge at the height (data) of their lines' ends, moved apart, each with a thin line to its own.

    ``ends`` are (height, text, colour, emphasised).
    """
    box, (low, high) = axes.get_window_extent(), axes.get_ylim()
    forward = axes.transData.transform
    places = [(float(forward((1, min(max(y, low), high)))[1]) - box.y0, *rest) for y, *rest in ends]
    places.sort(key=lambda place: place[0])
    apart = spread([p[0] for p in places], min(21.0, box.height / max(len(places), 1)), 6, box.height - 2)
    for (at, text, colour, strong), to in zip(places, apart, strict=True):
        weight = "bold" if strong else "normal"
        text = fitted(text, room - 34, weight)
        axes.annotate(
            text, (1, at / box.height), (1 + 22 / box.width, to / box.height), xycoords="axes fraction",
            textcoords="axes fraction", va="center", color=colour, fontsize=SMALL, fontweight=weight, parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "shrinkA": 2, "shrinkB": 1,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


def column(axes: Axes, head: str, rows: Sequence[tuple[str, str, str, bool]], room: Number) -> None:
    """A list beside a chart whose lines' ends lie on each other: (value, name, colour, emphasised) of each, in this order."""
    box = axes.get_window_extent()
    left, pitch = 1 + 22 / box.width, min(24.0, (box.height - 24) / max(len(rows), 1))
    style = {"transform": axes.transAxes, "fontsize": SMALL, "va": "top", "parse_math": False}
    axes.text(left, 1.0, head, color=GREY, **style)
    for i, (value, name, colour, strong) in enumerate(rows):
        y, weight = 1 - (24 + pitch * i) / box.height, "bold" if strong else "normal"
        text = fitted(name, room - 80, weight)
        axes.text(left + 36 / box.width, y, value, color=colour, ha="right", fontweight=weight, **style)
        axes.text(left + 46 / box.width, y, text, color=colour, fontweight=weight, **style)


def panel_head(page: Page, y: Number, head: str, what: str) -> None:
    """A panel's bold heading and what its axis counts."""
    page.text(MARGIN, y, head, BODY, WIDTH - 2 * MARGIN, fontweight="bold")
    page.text(MARGIN, y + 22, what, SMALL, WIDTH - 2 * MARGIN, color=GREY)


def step_axis(axes: Axes, label: str) -> None:
    """A logarithmic axis across whose ticks are whole numbers with thousands separated."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label, fontsize=BODY, color=GREY, labelpad=8)


def frame(axes: Axes, colour: str = FAINT, line: Number = 1) -> None:
    """A border around a picture."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, ec=colour, lw=line, transform=axes.transAxes, clip_on=False))


def modes_for(energy: Float[np.ndarray, " modes"], part: float = 0.95) -> int | None:
    """How many modes, fastest first, hold that part of the image; None if all of them do not."""
    reached = np.flatnonzero(np.cumsum(energy) >= part)
    return int(reached[0]) + 1 if len(reached) else None


def _family(candidate: Candidate) -> str:
    return str(candidate.encoding.get("name", "hashgrid"))


def _sigma(candidate: Candidate) -> float:
    sigma = candidate.encoding.get("sigma")
    return float(sigma) if is_number(sigma) else 0.0  # type: ignore[arg-type]
