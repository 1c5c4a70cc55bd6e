"""Cropping and antialiased scaling of images, and the small picture that stands for a large one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from neuralfield import checks
from neuralfield.errors import ConfigError
from neuralfield.signals import colour
from neuralfield.signals.raw import check_memory

Rows = Callable[[int, int], Float[np.ndarray, "rows width channels"]]


def crop_box(crop: object, height: int, width: int) -> tuple[int, int, int, int] | None:
    """``(x, y, width, height)`` in pixels of a crop: None | N (centred square) | [w, h] (centred) | [x, y, w, h].

    Raises:
        ConfigError: another form, smaller than 2 x 2, or not inside an image of ``width`` x ``height``.
    """
    if crop is None:
        return None
    given = _numbers("signal.crop", crop, "null, N, [width, height] or [x, y, width, height]", (1, 2, 4))
    values = [checks.integer("signal.crop", value, 0) for value in given]
    w, h = (values * 2)[:2] if len(values) == 1 else values[-2:]
    x, y = values[:2] if len(values) == 4 else ((width - w) // 2, (height - h) // 2)
    if w < 2 or h < 2:
        raise ConfigError(f"signal.crop must keep at least 2 x 2 pixels, got {w} x {h}")
    if x < 0 or y < 0 or x + w > width or y + h > height:
        raise ConfigError(
            f"signal.crop={_shown(crop)} reaches outside the image, which is {width} x {height} pixels "
            "(width x height); make it smaller"
        )
    return x, y, w, h


def target_size(resize: object, height: int, width: int) -> tuple[int, int] | None:
    """``(height, width)`` of a resize: None | N (longest side) | [w, h] | a factor between 0 and 1.

    Raises:
        ConfigError: another form, or a result below 2 x 2 pixels.
    """
    if resize is None:
        return None
    forms = "null, N (longest side), [width, height] or a factor between 0 and 1"
    given = _numbers("signal.resize", resize, forms, (1, 2))
    if len(given) == 2:
        w, h = (checks.integer("signal.resize", value, 2) for value in given)
        return h, w
    value = given[0]
    if isinstance(value, float) and 0.0 < value < 1.0:
        factor = value
    elif isinstance(value, bool) or value != value or value < 2 or int(value) != value:
        raise ConfigError(f"signal.resize must be {forms}, got {_shown(resize)}")
    else:
        factor = value / max(height, width)
    h, w = (math.floor(side * factor + 0.5) for side in (height, width))
    if h < 2 or w < 2:
        raise ConfigError(
            f"signal.resize={_shown(resize)} would leave {w} x {h} pixels of {width} x {height}; at "
            "least 2 x 2 are needed"
        )
    return h, w


def resized(
    light: Rows, size: tuple[int, int, int], target: tuple[int, int], space: str, has_alpha: bool, block: int
) -> Float[np.ndarray, "height width channels"]:
    """Scale an image by the antialiased bilinear (triangle) filter, in linear light.

    The filter is separable, so that the width is scaled block by block and only ``height x new width`` is kept.
    Opacity weighs the colours, or transparent pixels would bleed theirs into the edges.

    Args:
        light: gives the rows ``start <= row < stop`` as linear floats, colours not premultiplied.
        size: height, width and channels of the image.
        target: the new height and width.
        space: "srgb" or "linear", of the result.
        has_alpha: the last channel is opacity.
        block: rows to handle at once.
    """
    height, _, channels = size
    new_height, new_width = target
    check_memory(
        4 * channels * new_width * (height + 3 * new_height), f"an image resized to {new_width} x {new_height}"
    )
    narrow = torch.empty(channels, height, new_width)
    for start in range(0, height, block):
        stop = min(start + block, height)
        part = torch.from_numpy(light(start, stop))
        if has_alpha:
            part = torch.cat([part[..., :-1] * part[..., -1:], part[..., -1:]], dim=-1)
        part = part.permute(2, 0, 1)
        narrow[:, start:stop] = _scale(part, (stop - start, new_width))
    scaled = _scale(narrow, (new_height, new_width)).permute(1, 2, 0)
    return np.ascontiguousarray(_from_light(scaled, space, has_alpha).numpy())


def _scale(planes: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(planes.shape[1:]) == size:
        return planes
    return functional.interpolate(planes[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def _from_light(values: Tensor, space: str, has_alpha: bool) -> Tensor:
    if not has_alpha:
        return colour.convert(values, "linear", space)
    light = colour.straight(values, premultiplied=True)
    return torch.cat([colour.convert(light, "linear", space), values[..., -1:]], dim=-1)


def averaged(light: Rows, height: int, factor: int) -> Float[np.ndarray, "h w channels"]:
    """Means over blocks of ``factor`` x ``factor`` pixels (fewer at the right and bottom edge) of linear rows."""
    lines = []
    for start in range(0, height, factor):
        part = torch.from_numpy(light(start, min(start + factor, height))).mean(dim=0).T[None]
        lines.append(functional.avg_pool1d(part, factor, ceil_mode=True, count_include_pad=False)[0].T)
    return torch.stack(lines).numpy()


def _numbers(name: str, value: object, forms: str, lengths: tuple[int, ...]) -> list:
    """A single number or a sequence (also one of OmegaConf) as a list of numbers, of one of ``lengths``."""
    single = isinstance(value, (int, float)) and not isinstance(value, bool)
    given = [value] if single else list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    fits = len(given) in lengths and (single or len(given) > 1)
    if not fits or not all(isinstance(k, (int, float)) and not isinstance(k, bool) for k in given):
        raise ConfigError(f"{name} must be {forms}, got {_shown(value)}")
    return given


def _shown(value: object) -> str:
    sequence = isinstance(value, Sequence) and not isinstance(value, str)
    return str(list(value)) if sequence else repr(value)  # type: ignore[call-overload]
