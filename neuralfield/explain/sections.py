"""The figures of a report in words: what to look at in each, when there is one, and what it shows to those who cannot see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from neuralfield.explain.explanation import Candidate, Explanation
from neuralfield.explain.limits import WORDS, limit
from neuralfield.explain.words import in_words, words
from neuralfield.signals.base import Signal
from neuralfield.viz.explain_after import watched
from neuralfield.viz.explain_bands import percent, split_candidates
from neuralfield.viz.explain_parts import grouped
from neuralfield.viz.explain_style import modes_for


@dataclass(frozen=True)
class Section:
    """One figure: its function's name without ``_figure``, a heading, the sentence above it, and when there is one."""

    name: str
    head: str
    sentence: str
    present: Callable[[Explanation], bool] = lambda explanation: True


SECTIONS = (
    Section(
        "curves",
        "How far each will get",
        "Look at the right edge: the highest thick line is the field that shows what lies between its training pixels best.",
    ),
    Section(
        "sigma",
        "Which bandwidth",
        "Look at the white strip: every sigma in it is within the prediction's error of the best.",
        lambda explanation: explanation.sigma is not None,
    ),
    Section(
        "kernels",
        "Why: how far one pixel reaches",
        "Look at the shapes: a round bump treats all directions alike, a cross prefers rows and columns.",
    ),
    Section(
        "spectra",
        "Why: what is learned first",
        "Look below at who reaches 95 % first while staying high above: an image made of fast modes is learned quickly.",
    ),
    Section(
        "parts",
        "Which part of the network does it",
        "Look at the blue: what of the learning happens where the network sees the encoding, coarse or fine.",
        lambda explanation: any(c.curve.energy for c in explanation.candidates),
    ),
    Section(
        "unlearned",
        "What is left when the steps end",
        "Look where it stays bright: on edges and texture a field is too smooth; everywhere alike it errs between pixels.",
        lambda explanation: any(c.unlearned is not None for c in explanation.candidates),
    ),
    Section(
        "bands",
        "What is learned at the training pixels, and what is not",
        "Look at the columns: what is there of the image when the steps end, there in part, missing. Grey is nothing.",
        lambda explanation: bool(split_candidates(explanation)),
    ),
    Section(
        "after",
        "What training did to the kernel",
        "Look at how far the lines are from the dashed ones: so far the field turned to this image, unpredicted.",
        lambda explanation: bool(watched(explanation)),
    ),
)


def sliced(name: str, signal: Signal) -> str:
    """That a picture of something in space is a slice."""
    if signal.in_dim == 2 or name not in ("kernels", "unlearned"):
        return ""
    what = "the kernel" if name == "kernels" else "the middle window"
    return f" Pictures are slices across z, through the middle of {what}."


def alt(explanation: Explanation, name: str) -> str:
    """What the figure of that name shows, for those who do not see it."""
    some, unit = explanation.candidates, words(explanation.signal).unit
    listed: dict[str, Callable[[Candidate], str]] = {
        "curves": lambda c: f"{c.heldout:.1f} dB",
        "kernels": lambda c: f"{c.kernel.fwhm:.1f} {unit}" if math.isfinite(c.kernel.fwhm) else "does not fall off",
        "spectra": lambda c: f"{modes_for(c.energy) or 'more'} modes",
        "parts": _main_part,
        "unlearned": lambda c: in_words(WORDS[limit(explanation, c)], explanation.signal),
        "bands": _shares,
        "after": lambda c: "" if c.after is None else f"{c.after.target_before:.2f} to {c.after.target_after:.2f}",
    }
    shown = {"bands": [c.name for c in split_candidates(explanation)], "after": list(watched(explanation))}
    some = [c for c in some if name not in shown or c.name in shown[name]]
    heads = {
        "curves": "PSNR against steps, predicted; held-out at the end",
        "sigma": "Held-out PSNR against sigma, predicted",
        "kernels": "Kernels against distance and seen from above; width at half height",
        "spectra": "Eigenvalues and the image's energy over the modes; modes that hold 95 % of the image",
        "parts": "Shares of the network's parts in the kernel; the largest of each",
        "unlearned": "The image and what fields leave unlearned of it; what limits each",
        "bands": "The image's parts that are learned, in part, and not; their shares of its energy",
        "after": "The kernel's alignment with the image against steps; before and after training",
    }
    heads = {key: in_words(text, explanation.signal) for key, text in heads.items()}
    if name == "sigma" and explanation.sigma is not None:
        pairs = zip(explanation.sigma.sigmas, explanation.sigma.heldout_psnr, strict=True)
        return f"{heads[name]}: " + ", ".join(f"{sigma:g} {psnr:.1f} dB" for sigma, psnr in pairs)
    return f"{heads[name]}: " + ", ".join(f"{c.name} {listed[name](c)}" for c in some)


def _main_part(candidate: Candidate) -> str:
    parts = grouped(candidate)
    return max(parts, key=lambda part: part.share).role if parts else "unknown"


def _shares(candidate: Candidate) -> str:
    if candidate.bands is None:
        return "unknown"
    return " and ".join(percent(float(share)) for share in candidate.bands.energy)
