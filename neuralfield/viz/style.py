"""What the figures share: colours, text that cannot break a figure, positions in pixels, writing the file.

Figures are made by the object interface of matplotlib (``Figure`` and ``FigureCanvasAgg``): no pyplot, no display, no
global state. matplotlib is imported inside functions, so that ``import neuralfield`` stays fast.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from neuralfield.files import atomic, write_text

Number: TypeAlias = int | float
Axes: TypeAlias = Any
"""``matplotlib.axes.Axes``, which is not imported for a type alone."""

INK, GREY, FAINT, SLOT = "#1f2430", "#5b6472", "#d5d9e0", "#f2f3f6"
HELDOUT, TRAIN, BEST, FAILED = "#0b6bcb", "#98a2b3", "#d9480f", "#b42318"  # told apart by lightness as well
GROUPS = ("#0b6bcb", "#2b8a3e", "#862e9c", "#a07400", "#0c8599", "#c2255c", "#495057", "#5f6f00")

DPI = 100
TITLE, BODY, SMALL = 18.0, 13.0, 11.5  # points; 100 pixels are 72 points


class Page:
    """A figure measured in pixels from its top left corner."""

    def __init__(self, width: Number, height: Number) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = math.ceil(width), math.ceil(height)
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, x: Number, y: Number, width: Number, height: Number) -> Axes:
        """Axes whose frame fills the box with top left corner ``(x, y)``."""
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(
        self, x: Number, y: Number, text: str, size: Number = BODY, room: Number | None = None, **style: Any
    ) -> None:
        """``text`` with its top at ``y``; shortened with an ellipsis to ``room`` pixels."""
        options: dict[str, Any] = {"color": INK, "va": "top", "parse_math": False} | style
        line = self.shorten(printable(text), size, room, options.get("fontweight", "normal"))
        self.figure.text(x / self.width, 1 - y / self.height, line, fontsize=size, **options)

    def shorten(self, text: str, size: Number, room: Number | None, weight: str = "normal") -> str:
        """``text``, or its beginning and end around an ellipsis, so that it is at most ``room`` pixels wide."""
        if room is None or text_width(text, size, weight) <= room:
            return text
        low, high = 0, len(text)
        while low + 1 < high:
            middle = (low + high) // 2
            fits = text_width(_around_ellipsis(text, middle), size, weight) <= room
            low, high = (middle, high) if fits else (low, middle)
        return _around_ellipsis(text, low)

    def save(self, path: str | Path) -> None:
        """Write a PNG, or an SVG where ``path`` ends in .svg, whole or not at all; the same figure gives the same bytes."""
        if Path(path).suffix.lower() == ".svg":
            write_text(path, self.svg())
            return
        with atomic(path) as temporary:
            self.figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})

    def svg(self) -> str:
        """The figure as an SVG document; its letters are outlines, so that no font is needed to see it."""
        from matplotlib import rc_context

        buffer = io.StringIO()
        with rc_context({"svg.hashsalt": "neuralfield", "svg.fonttype": "path"}):
            self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def text_width(text: str, size: Number, weight: str = "normal") -> float:
    """Width of one line in pixels."""
    font = _font(weight)
    font.set_size(size, DPI)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64  # FreeType counts in 64ths of a pixel


def wrap(text: str, size: Number, room: Number, lines: int, weight: str = "normal") -> list[str]:
    """``text`` broken between words into at most ``lines`` lines of ``room`` pixels; what is too long is cut."""
    result: list[str] = []
    for word in printable(text).split():
        joined = f"{result[-1]} {word}" if result else word
        if result and text_width(joined, size, weight) <= room:
            result[-1] = joined
        else:
            result.append(word)
    if len(result) > lines:
        result = [*result[: lines - 1], result[lines - 1] + " …"]
    for i, line in enumerate(result):
        while text_width(line, size, weight) > room and len(line) > 2:
            line = line.removesuffix("…")[:-1] + "…"
        result[i] = line
    return result


def printable(text: str) -> str:
    """One line in characters that the font has: others (CJK file names) would be warned about and drawn as boxes."""
    known = _font_characters()
    return "".join(c if ord(c) in known else "?" for c in " ".join(str(text).split()))


def decibels(value: Number | None) -> str:
    """``38.2 dB``; ``∞ dB`` for equal images, ``–`` for no value."""
    if value is None or math.isnan(value):
        return "–"
    return "∞ dB" if value == math.inf else f"{value:.1f} dB"


def caption_line(captions: Mapping[str, Any]) -> str:
    """The values on one line, in the order given, such as ``hashgrid · PSNR 38.2 dB · SSIM 0.970 · 2000 steps``.

    Known keys are ``encoding``, ``psnr``, ``psnr_train``, ``psnr_heldout`` (dB), ``ssim``, ``lpips``, ``iou_uniform``,
    ``iou_surface``, ``steps``, ``train_seconds`` (s) and ``n_parameters``; others are printed as they are. ``None`` is left
    out.
    """
    parts = []
    names = {"psnr": "PSNR", "psnr_train": "train PSNR", "psnr_heldout": "held-out PSNR"}
    ious = {"iou_uniform": "IoU", "iou_surface": "IoU near the surface"}
    for key, value in captions.items():
        if value is None:
            continue
        if key in ious:
            parts.append(f"{ious[key]} {float(value):.3f}")
        elif key in names:
            parts.append(f"{names[key]} {decibels(float(value))}")
        elif key in ("ssim", "lpips"):
            parts.append(f"{key.upper()} {value:.3f}")
        elif key == "steps":
            parts.append(f"{value} step{'s' if value != 1 else ''}")
        elif key == "train_seconds":
            parts.append(seconds(float(value)))
        elif key == "n_parameters":
            parts.append(f"{count(int(value))} parameters")
        else:
            parts.append(str(value) if key == "encoding" else f"{key} {value}")
    return " · ".join(parts)


def seconds(value: Number) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 100:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: int) -> str:
    """``940``, ``12.3 k``, ``1.6 M``."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g} {name}"
    return str(value)


def power_of_ten(exponent: int) -> str:
    """``0.01``, ``100``, ``10⁻⁶``."""
    if -3 <= exponent <= 3:
        return f"{10.0**exponent:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def plain_axes(axes: Axes, *, grid: bool = True) -> None:
    """Left and bottom spines only, light horizontal grid, readable ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=GREY, labelsize=SMALL, length=0, pad=6)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    if grid:
        axes.grid(axis="y", color=FAINT, linewidth=0.8)


def tick_labels(axes: Axes, which: str, places: Iterable[Number], labels: Iterable[str]) -> None:
    """Ticks with exactly these labels, taken literally (a ``$`` is no formula)."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_minor_locator(_no_ticks())
    axis.set_ticks(list(places), labels=[printable(label) for label in labels])
    for text in axis.get_ticklabels():
        text.set_parse_math(False)


def picture(axes: Axes, image: np.ndarray, **options: Any) -> Any:
    """Show pixels as they are; enlarged ones stay squares, reduced ones are averaged."""
    axes.set_axis_off()
    height, width = image.shape[:2]
    scale = axes.get_window_extent().width / width
    smooth = "nearest" if scale >= 1 else "antialiased"
    return axes.imshow(image, aspect="auto", interpolation=smooth, extent=(0, width, height, 0), **options)


def spread(places: list[float], gap: Number, low: Number, high: Number) -> list[float]:
    """Ascending ``places`` moved as little as needed to be ``gap`` apart, within ``[low, high]`` where they fit."""
    result: list[float] = []
    for place in places:
        result.append(max(place, result[-1] + gap) if result else max(place, low))
    for i in range(len(result) - 1, -1, -1):
        result[i] = min(result[i], high if i == len(result) - 1 else result[i + 1] - gap)
    return result


def unique(values: Iterable[Any]) -> list[Any]:
    """Each value once: numbers ascending, anything else in the order given."""
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return sorted(found) if all(is_number(value) for value in found) else found


def is_number(value: Any) -> bool:
    """A finite number that is no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@lru_cache(maxsize=2)
def _font(weight: str) -> Any:
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    name = "DejaVuSans-Bold.ttf" if weight == "bold" else "DejaVuSans.ttf"
    return FT2Font(str(Path(get_data_path()) / "fonts" / "ttf" / name))


@lru_cache(maxsize=1)
def _font_characters() -> frozenset[int]:
    return frozenset(_font("normal").get_charmap())


def _around_ellipsis(text: str, kept: int) -> str:
    return text[: (kept + 1) // 2].rstrip() + "…" + (text[-(kept // 2) :].lstrip() if kept > 1 else "")


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
