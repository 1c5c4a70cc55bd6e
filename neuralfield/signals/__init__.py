"""Signals: the ground truth that a field is fitted to. An image hands out coordinates in [0, 1]^2 and colours."""

from neuralfield.signals.holdout import Split, make_split
from neuralfield.signals.image import ImageSignal, load_image
from neuralfield.signals.reading import RawImage, read_image
from neuralfield.signals.samples import SAMPLES, sample

__all__ = ["SAMPLES", "ImageSignal", "RawImage", "Split", "load_image", "make_split", "read_image", "sample"]
