"""What people call the parts of a signal, by its type, and what is known of predictions for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuralfield.signals.base import Signal

if TYPE_CHECKING:
    from neuralfield.explain.patches import Patch


@dataclass(frozen=True)
class Words:
    """Of one type of signal.

    - `signal`: "image"; `sample`, `samples`: "pixel", "pixels"; `side`: of what frequencies are counted per.
    - `side_points`: training samples along a window unless told otherwise; `most_side`: at most.
    - `unit`: in which the kernels' figure counts distances.
    - `tie`: dB of predicted held-out PSNR within which fields count as equals.
    - `uncertainty`: dB between predicted and trained held-out PSNR, mean absolute error over signals and settings.
    """

    signal: str
    sample: str
    samples: str
    side: str
    side_points: int
    most_side: int
    unit: str
    tie: float
    uncertainty: float


_WORDS = {
    "image": Words("image", "pixel", "pixels", "image side", 24, 64, "pixels", 0.5, 0.5),
    "volume": Words("volume", "voxel", "voxels", "cube side", 9, 16, "voxels", 0.5, 1.5),
    "shape": Words("shape", "point", "points", "cube side", 9, 16, "point spacings", 0.5, 3.0),
}

KNOWN = tuple(_WORDS)
"""Types of signals that can be explained."""


def words(signal: Signal) -> Words:
    """The words for a signal."""
    return _WORDS[signal.type]


def in_words(text: str, signal: Signal) -> str:
    """A text about an image's pixels, said of whatever the signal is and is made of."""
    known = words(signal)
    changes = {
        "image side": known.side,
        "images": f"{known.signal}s",
        "image": known.signal,
        "pixels": known.samples,
        "pixel": known.sample,
    }
    if known.signal == "image":
        return text
    text = text.replace("an image", f"a {known.signal}").replace("An image", f"A {known.signal}")
    return re.sub(r"\b(" + "|".join(changes) + r")\b", lambda found: changes[found[0]], text)


def window_words(signal: Signal, window: Patch) -> str:
    """The size of a window: "24 x 24 pixels"."""
    if signal.type == "shape":
        share = "" if window.stands_for < 1.05 else f", one of {window.stands_for:.2g} that are there"
        return f"{window.box[3]:.2g} of the cube's side with {len(window.x):,} points{share}"
    sizes = " x ".join(str(int(v)) for v in window.box[len(window.box) // 2 :])
    return f"{sizes} {words(signal).samples}"


def stands_in(signal: Signal) -> str:
    """What is predicted in place of what a fit minimises, as a sentence, or nothing where both are the same."""
    if signal.type != "shape":
        return ""
    if signal.logits:
        return (
            "The prediction is a stand-in: it is for the same network trained with the squared error on the labels 0 and 1, "
            "because a network that learns logits by cross-entropy leaves its first tangent kernel behind. Trained fields "
            "do better than predicted; what is predicted is their order."
        )
    return (
        "The prediction is a stand-in: it is for the same network trained with the squared error of distances, "
        f"unlike fit.loss={signal.default_loss}, which counts distances near the surface more. What is predicted is the "
        "order of fields."
    )


def training_db(psnr: float, decimals: int = 2) -> str:
    """A predicted training PSNR for people.

    Beyond 60 dB, where rounding to 8 bits (58.9 dB) would be the larger error, no number is promised: windows of an image do
    not know how much of all of it a network can hold.
    """
    return "above 60" if psnr > 60 else f"{psnr:.{decimals}f}"
