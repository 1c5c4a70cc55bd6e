"""The images of `fourier_2d_table`: photographs that come with scikit-image, and pages of words drawn at random."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from neuralfield.checks import integer
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.samples import sample

SEARCHED = ("coffee", "camera", "retina", "brick")
"""Photographs on which sigma is searched."""

MEASURED = ("astronaut", "chelsea", "rocket", "immunohistochemistry", "hubble_deep_field", "gravel", "moon")
"""Photographs on which the table is measured; none of the others."""

_SIDE = 512


def photograph(name: str, size: int) -> ImageSignal:
    """A centred square of at most 512 x 512 pixels, reduced to ``size``; every other pixel trains."""
    pixels, title = sample(name)
    side = min(_SIDE, *pixels.shape[:2])
    size = min(integer("size", size, 16), side)
    resize = None if size == side else size
    return ImageSignal.from_array(pixels, name=title, crop=side, resize=resize, holdout="every_other")


def text(index: int, seed: int, size: int) -> ImageSignal:
    """Random words in lines of random size and ink; every other pixel trains.

    The middle of a page of 512 x 512, not the page reduced: letters keep their strokes of several pixels.
    """
    page = _page(np.random.default_rng([integer("seed", seed, 0), index]))
    size = integer("size", size, 16, _SIDE)
    return ImageSignal.from_array(page, name=f"text {index + 1}", crop=size, holdout="every_other")


def _page(generator: np.random.Generator) -> UInt8[np.ndarray, "side side 3"]:
    paper = tuple(int(v) for v in generator.integers(200, 256, 3))
    image = Image.new("RGB", (_SIDE, _SIDE), paper)
    draw = ImageDraw.Draw(image)
    top = float(generator.uniform(0, 20))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))
    while top < _SIDE:
        height = float(generator.uniform(28, 72))
        words = ["".join(generator.choice(letters, int(generator.integers(2, 9)))) for _ in range(12)]
        ink = tuple(int(v) for v in generator.integers(0, 120, 3))
        left = float(generator.uniform(-20, 20))
        draw.text((left, top), " ".join(words), fill=ink, font=ImageFont.load_default(height))
        top += 1.15 * height
    return np.asarray(image).copy()
