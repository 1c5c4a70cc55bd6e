"""Reading the figures back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def amount(image: np.ndarray, colour: str) -> int:
    """How many pixels have exactly this colour, ``#rrggbb``."""
    return int((image == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(axis=2).sum())


def holds(image: np.ndarray, colour: str) -> bool:
    """Whether any pixel has it."""
    return amount(image, colour) > 0
