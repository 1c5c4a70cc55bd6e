"""The figure of what the budget leaves: the image in three parts, learned, learned in part, and not learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuralfield.errors import ConfigError
from neuralfield.explain.explanation import Candidate, Explanation
from neuralfield.viz.explain_style import MARGIN, best, frame, save, sheet
from neuralfield.viz.style import BEST, BODY, GREY, INK, SMALL, Page, picture

_HEADS = (
    ("the window", "all of it"),
    ("learned", "over 90 % of it"),
    ("learned in part", "10 to 90 % of it"),
    ("not learned", "under 10 % of it"),
)
_SIDE, _PITCH, _LEFT = 168.0, 226.0, 168.0  # pixels: of a picture, from one to the next, left of the first
_MOST_GAIN = 16.0
_NOTHING = 0.0005  # of the energy: less is no picture


def bands_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write one window of the image split by what becomes of it, and what remains of each part when the steps end.

    Of the recommended candidate and another one. Parts are spanned by modes of the field's kernel on the training pixels, see
    :class:`~neuralfield.explain.bands.Bands`. Raises ConfigError where no candidate has such pictures, OutputError when a
    file cannot be written.
    """
    some = split_candidates(explanation)
    if not some:
        raise ConfigError(
            "no candidate is known by the parts of the image that it learns; only images have such pictures"
        )
    left = [float(c.bands.left.sum()) for c in some if c.bands is not None]
    title = f"{some[0].name} leaves {percent(left[0])} of the detail at the training pixels unlearned"
    if len(some) > 1:
        title += f"; {some[1].name} {percent(left[1])}"
    note = (
        f"One window, split into the patterns that a field has learned after {explanation.steps:,} steps, in part, or not. "
        "Grey is nothing: where the lower row is grey, nothing is missing."
    )
    rows, columns = _shape(some[0])
    scale = _SIDE / max(rows, columns)
    height = scale * rows
    block = 34 + 2 * (height + 56) + 18
    page, top = sheet(title, note, 52 + block * len(some))
    for i, (head, what) in enumerate(_HEADS):
        page.text(_LEFT + i * _PITCH, top, head, BODY, _PITCH - 8, fontweight="bold")
        page.text(_LEFT + i * _PITCH, top + 22, what, SMALL, _PITCH - 8, color=GREY)
    for i, candidate in enumerate(some):
        _candidate(page, top + 52 + i * block, candidate, (scale * columns, height), i == 0)
    save(page, *paths)


def split_candidates(explanation: Explanation) -> list[Candidate]:
    """The recommended candidate and the one other that is the user's, else the one that fits its training pixels least."""
    known = [c for c in explanation.candidates if c.bands is not None and c.bands.image is not None]
    chosen = [c for c in known if c is best(explanation)]
    rest = [c for c in known if c not in chosen]
    own = [c for c in rest if c.own]
    least = sorted(rest, key=lambda c: float(c.curve.train_psnr[-1]))
    return [*chosen, *(own if len(own) == 1 else least)][:2]


def percent(share: float) -> str:
    """``0``, ``under 0.1 %``, ``0.4 %``, ``12 %``."""
    if share <= 0:
        return "0 %"
    if share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _candidate(page: Page, y: float, candidate: Candidate, size: tuple[float, float], strong: bool) -> None:
    found = candidate.bands
    assert found is not None and found.image is not None and found.residual is not None
    colour, (width, height) = BEST if strong else INK, size
    page.text(MARGIN, y, candidate.name, BODY, page.width - 2 * MARGIN, fontweight="bold", color=colour)
    rows = (
        ("in the image", found.image, found.energy, "of the detail"),
        ("still missing", found.residual, found.left, "of all detail"),
    )
    whole = found.image.sum(axis=0)
    gains = [min(_gain(whole), 1.5), *(max(1.0, _gain(part)) for part in found.image)]
    for row, (label, parts, shares, what) in enumerate(rows):
        upper = y + 34 + row * (height + 56)
        page.text(MARGIN, upper + height / 2 - 8, label, SMALL, _LEFT - MARGIN - 8)
        columns = [(parts.sum(axis=0), float(shares.sum())), *zip(parts, map(float, shares), strict=True)]
        for i, ((part, share), gain) in enumerate(zip(columns, gains, strict=True)):
            nothing = i > 0 and found.energy[i - 1] <= _NOTHING
            x, factor = _LEFT + i * _PITCH, 1.0 if nothing else gain
            box = page.axes(x, upper, width, height)
            options = {"cmap": "gray", "vmin": 0, "vmax": 1} if part.shape[2] < 3 else {}
            picture(box, _visible(0 * part if nothing else part, factor), **options)
            frame(box, colour if strong else GREY, 2 if strong else 1)
            page.text(x, upper + height + 6, f"{percent(share)} {what}", SMALL, _PITCH - 8)
            if row == 0 and factor > 1.05:
                page.text(x, upper + height + 26, f"shown {factor:.2g} times stronger", SMALL, _PITCH - 8, color=GREY)


def _shape(candidate: Candidate) -> tuple[int, int]:
    assert candidate.bands is not None and candidate.bands.image is not None
    return candidate.bands.image.shape[1], candidate.bands.image.shape[2]


def _gain(part: Float[np.ndarray, "height width channels"]) -> float:
    """What makes nearly all of a part as strong as a picture can show."""
    size = float(np.quantile(np.abs(part), 0.99))
    return min(0.5 / size, _MOST_GAIN) if size > 0 else 1.0


def _visible(part: Float[np.ndarray, "height width channels"], gain: float) -> np.ndarray:
    """Around a middle grey, which is nothing."""
    shown = (0.5 + gain * part).clip(0, 1)
    return shown[..., :3] if shown.shape[2] >= 3 else shown[..., 0]


__all__ = ["bands_figure", "percent", "split_candidates"]
