"""The sRGB curve, transparency over a background, and pictures for the screen.

References: IEC 61966-2-1:1999 (sRGB); Porter and Duff, "Compositing Digital Images", SIGGRAPH 1984 ("over").
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8

from neuralfield import checks
from neuralfield.errors import ConfigError, SignalError

Array = TypeVar("Array", np.ndarray, torch.Tensor)

# A value as it stands in a configuration file. It is checked here, in words, rather than by its type.
Option = Any

SPACES = ("srgb", "linear")


def srgb_to_linear(values: Array) -> Array:
    """Light from sRGB values: x / 12.92 for x <= 0.04045, else ((x + 0.055) / 1.055)^2.4.

    Args:
        values: floats of any shape, 1 = white. Values above 1 continue the curve; negative ones mirror it
            (f(-x) = -f(x)), so that no colour outside the gamut is lost and the inverse stays exact.

    Returns:
        The same type, shape and float dtype. Differentiable for torch.

    Raises:
        SignalError: the values are integers.
    """
    size = _magnitude(values)
    low = size / 12.92
    high = ((_at_least(size, 0.04045) + 0.055) / 1.055) ** 2.4
    return _join(values, size <= 0.04045, low, high)


def linear_to_srgb(values: Array) -> Array:
    """sRGB values from light: 12.92 x for x <= 0.0031308, else 1.055 x^(1/2.4) - 0.055; see :func:`srgb_to_linear`."""
    size = _magnitude(values)
    low = size * 12.92
    high = 1.055 * _at_least(size, 0.0031308) ** (1 / 2.4) - 0.055
    return _join(values, size <= 0.0031308, low, high)


def convert(values: Array, source: str, target: str) -> Array:
    """``values`` from one of the spaces ``srgb`` and ``linear`` to another; the same object when they are equal."""
    checks.choice("space", source, SPACES)
    checks.choice("space", target, SPACES)
    if source == target:
        return values
    return srgb_to_linear(values) if target == "linear" else linear_to_srgb(values)


def composite(rgba: Array, background: Option, premultiplied: bool) -> Array:
    """Lay a picture with opacity over a background: a c + (1 - a) b, or c + (1 - a) b for premultiplied colours.

    Args:
        rgba: floats ``[..., channels + 1]``, the last channel is the opacity a in [0, 1].
        background: one number, or one for each colour channel, in the space of the colours.
        premultiplied: the colours c are already multiplied by a.

    Returns:
        ``[..., channels]`` floats of the same type.
    """
    _check_float(rgba)
    channels = rgba.shape[-1] - 1
    colours = background_of(background, channels)
    colour, alpha = rgba[..., :-1], rgba[..., -1:]
    if not premultiplied:
        colour = colour * alpha
    if isinstance(rgba, torch.Tensor):
        return colour + (1 - alpha) * torch.tensor(colours, dtype=rgba.dtype, device=rgba.device)
    return colour + (1 - alpha) * np.asarray(colours, dtype=rgba.dtype)


def straight(rgba: Array, premultiplied: bool) -> Array:
    """Colours ``[..., channels]`` freed from opacity: c / a where a > 0, else 0; unchanged if not premultiplied."""
    colour, alpha = rgba[..., :-1], rgba[..., -1:]
    if not premultiplied:
        return colour
    if isinstance(rgba, torch.Tensor):
        return torch.where(alpha > 0, colour / torch.where(alpha > 0, alpha, 1), 0)
    return np.where(alpha > 0, colour / np.where(alpha > 0, alpha, 1), 0).astype(rgba.dtype)


def background_of(background: Option, channels: int) -> tuple[float, ...]:
    """``background`` as one finite number for each of ``channels`` colours."""
    if isinstance(background, (int, float)):
        return (checks.number("signal.background", background),) * channels
    try:
        given = list(background)
    except TypeError:
        raise ConfigError(f"signal.background must be a number or [r, g, b], got {background!r}") from None
    if isinstance(background, str) or len(given) != channels:
        raise ConfigError(f"signal.background must be a number or {channels} of them, got {background!r}")
    return tuple(checks.number("signal.background", value) for value in given)


def to_display(values: np.ndarray | torch.Tensor, space: str) -> UInt8[np.ndarray, "height width 3"]:
    """A picture for the screen from ``[height, width]`` or ``[height, width, channels]`` floats.

    Linear values pass through the sRGB curve; everything is cut to [0, 1], NaN becomes black, and 1 becomes 255. One
    and two channels are shown as grey, four as their first three: the last of an even number is taken as opacity.
    """
    checks.choice("space", space, SPACES)
    if isinstance(values, torch.Tensor):
        values = values.detach().float().cpu().numpy()
    picture = values[:, :, None] if values.ndim == 2 else values
    if picture.ndim != 3 or picture.shape[2] < 1:
        raise SignalError(f"a picture must be [height, width, channels], got the shape {list(values.shape)}")
    _check_float(picture)
    picture = picture[:, :, :3] if picture.shape[2] >= 3 else picture[:, :, :1]
    picture = np.clip(np.nan_to_num(picture.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    picture = convert(picture, space, "srgb")
    levels = np.clip(np.rint(picture * 255.0), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)))


def _check_float(values: np.ndarray | torch.Tensor) -> None:
    is_float = values.is_floating_point() if isinstance(values, torch.Tensor) else values.dtype.kind == "f"
    if not is_float:
        raise SignalError(
            f"colours must be floats with 1 as white, got {values.dtype}; divide by the maximum of the "
            "type first, for example by 255"
        )


def _magnitude(values: Array) -> Array:
    _check_float(values)
    if isinstance(values, torch.Tensor):
        return values.abs()
    return np.atleast_1d(np.abs(values))  # NumPy would turn arrays without dimensions into scalars


def _at_least(values: Array, low: float) -> Array:
    """Keep the power away from 0, where its slope is infinite and would turn gradients of the other branch into NaN."""
    if isinstance(values, torch.Tensor):
        return values.clamp(min=low)
    return np.maximum(values, np.asarray(low, dtype=values.dtype))


def _join(values: Array, is_low: Array, low: Array, high: Array) -> Array:
    if isinstance(values, torch.Tensor):
        return torch.sign(values) * torch.where(is_low, low, high)
    joined = np.sign(values) * np.where(is_low, low, high).reshape(values.shape)
    return np.asarray(joined, dtype=values.dtype)
