"""The page of `lazy_training`: width above, output scale below; the loss left, what moved right."""

from __future__ import annotations

from typing import Any

from neuralfield.reproduce.sheet import end_label, log_axis, name_axes, sheet
from neuralfield.viz.style import BEST, GREY, GROUPS, HELDOUT, INK, SMALL, Axes, Page, spread

FLOOR = 1e-10
SHADES = ("#bcd6f2", "#8fb9e6", "#5d99d8", HELDOUT, "#0a4f96", "#083a70", INK)


def draw(title: str, notes: str, numbers: dict[str, Any]) -> Page:
    """The four panels, from the numbers alone."""
    headings = [
        [
            ("The wider, the faster the loss falls", "one learning rate; by width of the hidden layers"),
            ("The wider, the less the weights move", "relative movement when trained; dashed: the limit's law"),
        ],
        [
            ("A large output scale α does not change the loss", "output α (f - f0), loss / α²; by α"),
            ("The larger α, the less anything moves", "and the nearer the linearised model; dashed: 1/α, 1/√α"),
        ],
    ]
    page, (loss_w, moved_w, loss_a, moved_a) = sheet(title, notes, headings, 330, right=170)
    width, alpha = numbers["width"], numbers["alpha"]
    _losses(loss_w, [(f"{int(w):,}", losses) for w, losses in numbers["loss_by_width"].items()])
    _losses(loss_a, [(f"α {a:g}", losses) for a, losses in zip(alpha["alphas"], alpha["course"], strict=True)])
    series = [
        ("last layer", width["last layer"], GROUPS[2], -0.5),
        ("all weights", width["all weights"], HELDOUT, -1.0),
        ("first layer", width["first layer"], GROUPS[1], -1.5),
        ("kernel", width["kernel"], BEST, None),
    ]
    _moved(moved_w, width["widths"], series)
    name_axes(moved_w, "width", "relative movement")
    series = [
        ("kernel", alpha["kernel"], BEST, -1.0),
        ("all weights", alpha["all weights"], HELDOUT, -1.0),
        ("linearised model", alpha["linearised"], GROUPS[2], -1.0),
        ("... between points", alpha["linearised between"], GROUPS[4], -0.5),
    ]
    _moved(moved_a, alpha["alphas"], series)
    name_axes(moved_a, "output scale α", "relative movement")
    return page


def _losses(axes: Axes, courses: list[tuple[str, list[float]]]) -> None:
    last = max(len(losses) for _, losses in courses)
    shades = SHADES[:: max(1, len(SHADES) // len(courses))]
    for (_, losses), colour in zip(courses, shades, strict=False):
        values = [max(loss, FLOOR) for loss in losses]
        axes.plot(range(1, len(values) + 1), values, color=colour, linewidth=2)
    for axis in ("x", "y"):
        log_axis(axes, axis)
    axes.set(xlim=(1, last), ylim=(FLOOR, 10 * max(losses[0] for _, losses in courses)))
    room = [0.97 - 0.075 * i for i in range(len(courses))]
    for (name, _), colour, y in zip(courses, shades, room, strict=False):
        axes.text(0.02, y - 0.32, name, color=colour, fontsize=SMALL, fontweight="bold", transform=axes.transAxes)
    name_axes(axes, "step", "loss")


def _moved(axes: Axes, x: list[float], series: list[tuple[str, list[float], str, float | None]]) -> None:
    for axis in ("x", "y"):
        log_axis(axes, axis)
    ends = []
    for name, values, colour, exponent in series:
        axes.plot(x, values, "o-", color=colour, linewidth=2, markersize=6)
        if exponent is not None:
            law = [values[-1] * (v / x[-1]) ** exponent for v in x]
            axes.plot(x, law, color=GREY, linewidth=1.3, linestyle="--", zorder=0)
        ends.append((values[-1], name, colour))
    everything = [v for _, values, _, _ in series for v in values]
    axes.set(xlim=(0.8 * x[0], 1.15 * x[-1]), ylim=(0.5 * min(everything), 2 * max(everything)))
    ends.sort()
    low, high = axes.get_ylim()
    places = spread([_part(value, low, high) for value, _, _ in ends], 0.07, 0.02, 0.98)
    for (_, name, colour), place in zip(ends, places, strict=True):
        end_label(axes, 1.15 * x[-1], low * (high / low) ** place, name, colour)


def _part(value: float, low: float, high: float) -> float:
    from math import log

    return log(value / low) / log(high / low)
