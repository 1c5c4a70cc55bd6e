"""The images of the study `prediction`: a person's own or photographs of scikit-image, pages of text, synthetic textures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from neuralfield.checks import integer
from neuralfield.reproduce import table_images
from neuralfield.signals.image import ImageSignal, load_image


def photograph(path: str | Path, size: int) -> ImageSignal:
    """The largest centred square of an image file, reduced to ``size`` pixels a side (never enlarged); every other pixel
    trains."""
    side = min(load_image(path).shape)
    size = min(integer("size", size, 16), side)
    return load_image(path, crop=side, resize=None if size == side else size, holdout="every_other")


def band_noise(size: int, generator: np.random.Generator) -> Float[np.ndarray, "size size 3"]:
    """Colour noise with a flat spectrum from 2 cycles per side to half the training lattice's Nyquist frequency, and nothing
    outside.

    Training pixels lie two apart: their Nyquist frequency is size / 4 cycles per side, so all of it could be interpolated.
    """
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size), indexing="ij"))
    band = (frequency >= 2) & (frequency <= max(size / 8, 3))
    noise = np.fft.rfft2(generator.standard_normal((3, size, size)))
    return _to_unit(np.moveaxis(np.fft.irfft2(noise * band, (size, size)), 0, -1))


def chirp(size: int, generator: np.random.Generator) -> Float[np.ndarray, "size size 3"]:
    r"""A board of eight rows whose fields narrow from left to right: $\operatorname{sgn}(\cos\phi(x)\cos 8\pi y)$.

    The wave along x starts at 1 cycle per side and ends at a fifth of a cycle per pixel, below the training lattice's
    Nyquist frequency of a quarter; its edges are beyond every bandwidth. Two colours drawn at random.
    """
    x = (np.arange(size) + 0.5) / size
    phase = 2 * np.pi * (x + (size / 5 - 1) * x**2 / 2)
    board = (np.cos(phase)[None, :] * np.cos(8 * np.pi * x)[:, None] > 0)[..., None]
    dark, light = generator.uniform(0, 0.3, 3), generator.uniform(0.7, 1, 3)
    return np.where(board, light, dark)


def power_noise(size: int, generator: np.random.Generator) -> Float[np.ndarray, "size size 3"]:
    """Grey noise whose energy falls as 1 / frequency^2, like photographs', without their edges."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size, 1 / size), np.fft.rfftfreq(size, 1 / size), indexing="ij"))
    noise = np.fft.rfft2(generator.standard_normal((size, size))) / np.maximum(frequency, 1)
    noise[0, 0] = 0
    return np.repeat(_to_unit(np.fft.irfft2(noise, (size, size)))[..., None], 3, axis=2)


TEXTURES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "band noise": band_noise,
    "chirp": chirp,
    "power noise": power_noise,
}


def texture(name: str, seed: int, size: int) -> ImageSignal:
    """One of :data:`TEXTURES`, drawn at ``size`` pixels a side with values in [0, 1]; every other pixel trains."""
    generator = np.random.default_rng([integer("seed", seed, 0), list(TEXTURES).index(name)])
    pixels = TEXTURES[name](integer("size", size, 16, 4096), generator).astype(np.float32)
    return ImageSignal.from_array(pixels, name=name, holdout="every_other")


def images(paths: list[str], photographs: int, texts: int, textures: int, size: int, seed: int) -> list[ImageSignal]:
    """The study's images: ``paths``, or where there are none the first ``photographs`` of scikit-image's; then the others.

    Raises :class:`~neuralfield.errors.SignalError` for a file that cannot be read, and
    :class:`~neuralfield.errors.ConfigError` for numbers out of range.
    """
    samples = (*table_images.MEASURED, *table_images.SEARCHED)
    photographs = integer("photographs", photographs, 0, len(samples))
    texts, textures = integer("texts", texts, 0, 1000), integer("textures", textures, 0, len(TEXTURES))
    if paths:
        found = [photograph(path, size) for path in paths]
    else:
        found = [table_images.photograph(name, size) for name in samples[:photographs]]
    found += [table_images.text(index, seed, size) for index in range(texts)]
    return found + [texture(name, seed, size) for name in list(TEXTURES)[:textures]]


def _to_unit(values: np.ndarray) -> np.ndarray:
    """Mean 1/2 and standard deviation 1/6, so that next to nothing is cut off at 0 and 1."""
    return np.clip(0.5 + (values - values.mean()) / (6 * values.std()), 0, 1)
