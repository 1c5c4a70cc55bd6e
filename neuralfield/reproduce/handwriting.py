"""Small pictures of digits without a download: drawn with the font built into Pillow, or scikit-learn's if it is there."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from neuralfield.checks import choice, integer
from neuralfield.errors import ConfigError, MissingDependency

SIDE = 8
"""Pixels along a drawn digit; 64 in all, as scikit-learn's have, and the most coordinates that an encoding takes."""

_ZOOM = 8  # drawn larger and averaged, for grey edges


def digits(source: str, n: int, seed: int) -> tuple[Float[Tensor, "n pixels"], Int[Tensor, " n"]]:
    """Pictures with values in [0, 1], one per row, and which digit each shows.

    **Arguments**

    - `source`: "drawn" or "digits" (the 8 x 8 digits of ``sklearn.datasets.load_digits``).
    - `n`: how many; drawn at random.

    Raises :class:`~neuralfield.errors.MissingDependency` when scikit-learn is asked for and absent.
    """
    generator = np.random.default_rng([integer("seed", seed, 0), 0x646967])
    if choice("data", source, ("drawn", "digits")) == "drawn":
        labels = generator.integers(0, 10, integer("n", n, 3, 2**14))
        pictures = np.stack([_draw(int(label), generator) for label in labels])
    else:
        pictures, labels = _sklearn_digits()
        if integer("n", n, 3) > len(labels):
            raise ConfigError(f"scikit-learn has {len(labels)} digits; n={n} is more")
        chosen = generator.choice(len(labels), n, replace=False)
        pictures, labels = pictures[chosen], labels[chosen]
    return torch.from_numpy(pictures.astype(np.float32)), torch.from_numpy(labels.astype(np.int64))


def _draw(digit: int, generator: np.random.Generator) -> np.ndarray:
    """One digit, 60 to 90 % of the side high, turned by up to 15 degrees, up to one pixel off the centre."""
    side = SIDE * _ZOOM
    image = Image.new("L", (side, side), 0)
    font = ImageFont.load_default(side * generator.uniform(0.75, 1.1))
    ImageDraw.Draw(image).text((side / 2, side / 2), str(digit), fill=255, font=font, anchor="mm")
    shift = generator.uniform(-1, 1, 2) * _ZOOM
    image = image.rotate(
        generator.uniform(-15, 15), Image.Resampling.BILINEAR, translate=(int(shift[0]), int(shift[1]))
    )
    grey = np.asarray(image, np.float64).reshape(SIDE, _ZOOM, SIDE, _ZOOM).mean(axis=(1, 3))
    return grey.ravel() / 255


def _sklearn_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise MissingDependency(
            "data=digits are scikit-learn's; install it with: pip install scikit-learn, or use data=drawn"
        ) from error
    found = load_digits()
    return found.data / 16.0, found.target
