"""Signals: the ground truth that a field is fitted to. A signal hands out coordinates in [0, 1]^D and values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from neuralfield.checks import choice
from neuralfield.errors import ConfigError, nearest
from neuralfield.signals.base import SampleSet, Signal
from neuralfield.signals.holdout import Split, make_split
from neuralfield.signals.image import ImageSignal, load_image
from neuralfield.signals.reading import RawImage, read_image
from neuralfield.signals.samples import SAMPLES, sample


def _image() -> Callable[..., Signal]:
    return load_image


def _shape() -> Callable[..., Signal]:
    from neuralfield.signals.shape import load_shape

    return load_shape


def _volume() -> Callable[..., Signal]:
    from neuralfield.signals.volume import load_volume

    return load_volume


LOADERS: dict[str, Callable[[], Callable[..., Signal]]] = {"image": _image, "shape": _shape, "volume": _volume}
"""By type, what loads a signal; imported when asked for, because meshes need libraries that images do not."""


def load(options: Mapping[str, Any], on_progress: Callable[[float], None] | None = None) -> Signal:
    """A signal from the options of a configuration: ``{"type": "image", "path": ...}``; the type is "image" unless given.

    `on_progress` is called with a fraction, 0 to 1, while what takes long (labelling points) is done.

    Raises:
        ConfigError: an unknown type or option. SignalError: a file that cannot be used.
    """
    given = dict(options)
    kind = choice("signal.type", given.pop("type", "image"), LOADERS)
    loader = LOADERS[kind]()
    known = list(inspect.signature(loader).parameters)
    for option in given:
        if option not in known:
            raise ConfigError(f"signal={kind} has no option '{option}'{nearest(option, known)}")
    if "on_progress" in known:
        given["on_progress"] = on_progress
    return loader(**given)


__all__ = [
    "LOADERS",
    "SAMPLES",
    "ImageSignal",
    "RawImage",
    "SampleSet",
    "Signal",
    "Split",
    "load",
    "load_image",
    "make_split",
    "read_image",
    "sample",
]
