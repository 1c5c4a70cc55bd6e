"""Figures of where learning happens: the parts of the network that carry the kernel, the parts of the image left over."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from neuralfield.errors import ConfigError
from neuralfield.explain.explanation import Candidate, Explanation
from neuralfield.explain.limits import limit
from neuralfield.explain.views import truth
from neuralfield.explain.words import in_words
from neuralfield.viz.explain_style import MARGIN, WIDTH, best, fitted, frame, mixed, save, sheet, shown
from neuralfield.viz.style import BEST, FAINT, GREY, INK, SMALL, Page, picture, text_width

_MOST = 12  # candidates that are drawn
_COARSE, _FINE = "#9bcaf7", "#07407f"  # what sees the coordinates: coarse to fine
_LAYERS = ("#2b8a3e", "#8fcf9a")  # the layers behind it, first to last
_OUTPUT, _BIASES, _ELSE = "#a07400", "#c4cad3", "#862e9c"

GRID, FIRST, HIDDEN = "its grid", "its first layer, which sees the encoding", "its hidden layers"
OUTPUT, BIASES, ELSE = "its output layer", "its biases", "its encoding"
"""What a newcomer calls the parts."""


def parts_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write which part of each network carries the kernel that trains, as shares of its trace at the budget.

    Raises ConfigError when no candidate knows its parts, OutputError when the file cannot be written.
    """
    some = [c for c in shown(explanation, _MOST) if c.curve.energy]
    if not some:
        raise ConfigError("no candidate's kernel is known by its parts: the budget ends before a prediction begins")
    chosen = best(explanation)
    told = chosen if chosen in some else some[0]
    roles: dict[str, float] = {}
    for part in grouped(told):
        roles[part.role] = roles.get(part.role, 0.0) + part.share
    role, share = max(roles.items(), key=lambda item: item[1])
    title = f"{100 * share:.0f} % of what {told.name} learns with is in {role}"
    note = "Shares of the kernel that trains: what moves the image at a step, not how many parameters there are."
    pitch, left, right = 52, 236, 24
    page, top = sheet(title, in_words(note, explanation.signal), 92 + pitch * len(some) + 20)
    _key(page, top, some)
    room = WIDTH - left - right
    for i, candidate in enumerate(some):
        y = top + 92 + i * pitch
        strong = candidate is chosen
        name = fitted(candidate.name, left - MARGIN - 20, "bold" if strong else "normal")
        weight, colour = ("bold", BEST) if strong else ("normal", INK)
        page.text(left - 14, y + 9, name, SMALL, ha="right", fontweight=weight, color=colour)
        axes = page.axes(left, y, room, 36)
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        at = 0.0
        for part in grouped(candidate):
            axes.barh(0.5, part.share, 1.0, at, color=part.colour, edgecolor="white", linewidth=0.8)
            texts = [f"{part.label} {100 * part.share:.0f} %".strip(), part.label]
            text = next((t for t in texts if t and text_width(t, SMALL - 1) + 8 < part.share * room), "")
            ink = "white" if _dark(part.colour) else INK
            label = axes.text(at + part.share / 2, 0.48, text, ha="center", va="center", color=ink)
            label.set(fontsize=SMALL - 1, parse_math=False)
            at += part.share
    save(page, *paths)


@dataclass(frozen=True)
class Part:
    """A part of a network: its `role` in a newcomer's words, a short `label`, a `colour`, its `share` of the kernel."""

    role: str
    label: str
    colour: str
    share: float


def grouped(candidate: Candidate) -> list[Part]:
    """A candidate's parts from the coordinates to the output; biases are one part, at the end."""
    energy = candidate.curve.energy
    total = sum(energy.values()) or 1.0
    layers = {name: int(m[1]) for name in energy if (m := re.search(r"layers\.(\d+)\.", name))}
    last = max(layers.values(), default=0)
    levels = sorted(name for name in energy if re.search(r"level\d+$", name))
    bands = sorted(name for name in energy if re.search(r"\.band\d+$", name))
    found = []
    for i, name in enumerate(levels):
        label = f"level {i + 1}" if len(levels) <= 6 else f"{i + 1}"
        found.append(Part(GRID, label, _ramp(i, len(levels)), energy[name]))
    for i, name in enumerate(bands):
        label = "low" if i == 0 else "high" if i == len(bands) - 1 else ""
        found.append(Part(FIRST, label, _ramp(i, len(bands)), energy[name]))
    weights = sorted((n, name) for name, n in layers.items() if not name.endswith("bias") and name not in bands)
    for number, name in weights:
        if number == last:
            found.append(Part(OUTPUT, "output", _OUTPUT, energy[name]))
        elif number == 0 and not levels:
            found.append(Part(FIRST, "first layer", _ramp(1, 3), energy[name]))
        else:
            colour = mixed(*_LAYERS, number / max(last - 1, 1))
            found.append(Part(HIDDEN, f"layer {number + 1}", colour, energy[name]))
    biases = {name for name in energy if name.endswith("bias")}
    known = {*levels, *bands, *biases, *layers}
    for role, label, colour, names in (
        (ELSE, "other", _ELSE, energy.keys() - known),
        (BIASES, "biases", _BIASES, biases),
    ):
        if names:
            found.append(Part(role, label, colour, sum(energy[name] for name in names)))
    return [replace(part, share=part.share / total) for part in found]


def _ramp(i: int, count: int) -> str:
    return mixed(_COARSE, _FINE, i / max(count - 1, 1))


def unlearned_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write one window of the image and what each of up to three candidates is predicted to leave unlearned of it.

    The recommended candidate and two contrasting ones: the one that fits its training pixels least, and the one that errs
    most of the others. Raises ConfigError when no candidate has such a picture, OutputError when the file cannot be written.
    """
    some = contrasting(explanation)
    if not some:
        raise ConfigError("no candidate has a picture of what remains unlearned")
    residuals = [local_rms(c.unlearned) for c in some if c.unlearned is not None]
    image = _window(explanation, residuals[0].shape)
    gap = 20.0
    cell = (WIDTH - 2 * MARGIN - 3 * gap) / 4
    height = cell * residuals[0].shape[0] / residuals[0].shape[1]
    others = ("", " and another", " and two others")[len(some) - 1]
    verb = "leave" if others else "leaves"
    title = f"What {some[0].name}{others} {verb} unlearned after {explanation.steps:,} steps"
    note = "One window of the image, and the predicted error there: black is learned, bright is not."
    say = partial(in_words, signal=explanation.signal)
    if explanation.signal.in_dim == 3:
        note += " A slice across z, through the middle of the window."
    page, top = sheet(title, say(note), height + 146)
    largest = max(float(np.quantile(r, 0.995)) for r in residuals) or 1.0
    left = MARGIN
    if image is not None:
        box = page.axes(left, top, cell, height)
        picture(box, image, **({"cmap": "gray", "vmin": 0, "vmax": 1} if image.ndim == 2 else {}))
        frame(box)
        page.text(left, top + height + 10, say("the image"), SMALL, cell, fontweight="bold")
        page.text(left, top + height + 32, _size(explanation, image), SMALL, cell, color=GREY)
    drawn = None
    for i, (candidate, residual) in enumerate(zip(some, residuals, strict=True)):
        x = left + (i + (image is not None)) * (cell + gap)
        box = page.axes(x, top, cell, height)
        drawn = picture(box, residual, cmap="inferno", vmin=0, vmax=largest)
        frame(box, BEST if i == 0 else FAINT, 4 if i == 0 else 1)
        page.text(x, top + height + 10, candidate.name, SMALL, cell, fontweight="bold", color=BEST if i == 0 else INK)
        page.text(x, top + height + 32, f"held-out {candidate.heldout:.1f} dB", SMALL, cell, color=GREY)
        page.text(x, top + height + 52, say(f"limit: {limit(explanation, candidate)}"), SMALL, cell, color=GREY)
    _scale(page, top + height + 92, drawn, largest)
    save(page, *paths)


def contrasting(explanation: Explanation) -> list[Candidate]:
    """The recommended candidate, the one that fits training pixels least, and of the others the one that errs most."""
    known = [c for c in explanation.candidates if c.unlearned is not None]
    first = next((c for c in known if c.name == explanation.verdict.best), known[0] if known else None)
    if first is None:
        return []
    found, rest = [first], [c for c in known if c is not first]
    for measure in (lambda c: c.curve.train_psnr[-1], lambda c: c.heldout):
        if rest:
            found.append(min(rest, key=measure))
            rest.remove(found[-1])
    return found


def local_rms(residual: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Root mean square over 3 x 3 pixels where some are unknown: a lattice with holes is no picture."""
    known = np.isfinite(residual)
    if known.all():
        return np.asarray(residual, float)
    squares, counts = (np.pad(a, 1) for a in (np.where(known, residual, 0.0) ** 2, known.astype(float)))
    windows = [np.lib.stride_tricks.sliding_window_view(a, (3, 3)).sum((2, 3)) for a in (squares, counts)]
    return np.sqrt(windows[0] / np.maximum(windows[1], 1))


def _window(explanation: Explanation, shape: tuple[int, ...]) -> np.ndarray | None:
    """The middle window, or the first one with that shape, as it looks on a screen."""
    windows = [explanation.windows[len(explanation.windows) // 2], *explanation.windows] if explanation.windows else []
    pictures = (truth(explanation.signal, window) for window in windows)
    return next((image for image in pictures if image.shape[:2] == tuple(shape)), None)


def _size(explanation: Explanation, image: np.ndarray) -> str:
    if explanation.signal.type == "shape":
        side = explanation.windows[len(explanation.windows) // 2].box[3]
        return f"{side:.2g} of the cube's side"
    return in_words(f"{image.shape[1]} x {image.shape[0]} pixels of it", explanation.signal)


def _scale(page: Page, y: float, drawn: Any, largest: float) -> None:
    axes = page.axes(WIDTH - MARGIN - 500, y, 420, 14)
    page.figure.colorbar(drawn, cax=axes, orientation="horizontal", ticks=[0, largest / 2, largest])
    axes.tick_params(colors=GREY, labelsize=SMALL, length=0, pad=6)
    axes.set_xticks([0, largest / 2, largest], ["0", f"{largest / 2:.2g}", f"{largest:.2g} or more"])
    axes.spines[:].set_visible(False)
    page.text(MARGIN, y - 2, "error, root mean square over channels (1: black for white)", SMALL, color=GREY)


def _key(page: Page, y: float, some: list[Candidate]) -> None:
    """What the hues mean, on one line."""
    grid = any(part.role == GRID for c in some for part in grouped(c))
    first = "first layer, low to high frequencies" + (", or grid levels, coarse to fine" if grid else "")
    x = float(MARGIN)
    entries = [
        ((_COARSE, _ramp(1, 3), _FINE), first),
        (_LAYERS, "layers behind it"),
        ((_OUTPUT,), "output layer"),
        ((_BIASES,), "biases"),
    ]
    page.text(x, y, "from the coordinates (left) to the output (right)", SMALL, color=GREY)
    for swatches, text in entries:
        for colour in swatches:
            page.text(x, y + 30, "■", SMALL + 2, color=colour)
            x += 16
        page.text(x + 6, y + 32, text, SMALL)
        x += text_width(text, SMALL) + 34


def _dark(colour: str) -> bool:
    red, green, blue = bytes.fromhex(colour[1:])
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
