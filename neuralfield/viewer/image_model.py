"""What the viewer shows of a field that is an image: any part of it, at any size, beside the truth and the error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8

from neuralfield import export
from neuralfield.field import Field
from neuralfield.fitting.evaluation import evaluate
from neuralfield.signals import colour
from neuralfield.signals.image import ImageSignal

SHOWN = ("fit", "truth", "error")
Region = tuple[float, float, float, float]
"""Left, top, right, bottom in [0, 1]."""

_STRIP = 1 << 16  # points drawn between two looks at whether the picture is still wanted


class ImageModel:
    """Draws parts of an image: the fit, the truth or the error.

    **Arguments**

    - `field`: of two coordinates.
    - `truth`: the image that it was fitted to, or None.
    """

    def __init__(self, field: Field, truth: ImageSignal | None = None) -> None:
        self.field, self.truth = field, truth
        known = truth.describe() if truth is not None else field.signal
        self.space = str(known.get("space") or "srgb")
        width, height = known.get("width"), known.get("height")
        sized = isinstance(width, int) and isinstance(height, int) and min(width, height) > 0
        self.pixels: tuple[int, int] | None = (int(width), int(height)) if sized else None  # type: ignore[arg-type]

    @property
    def aspect(self) -> tuple[int, int]:
        """Width and height to draw it in proportion; a square where the field does not know its image."""
        return self.pixels or (1, 1)

    def draw(
        self,
        shown: str,
        region: Region,
        width: int,
        height: int,
        *,
        limit: float = 0.1,
        smooth: bool = True,
        check: Callable[[], None] | None = None,
    ) -> UInt8[np.ndarray, "height width 3"]:
        """A part of the image for the screen.

        The fit is evaluated at the middle of each pixel of the screen, however small. The truth is known at its own pixels
        alone: beyond them they are seen as squares, and so is the error, the mean over the channels of |fit - truth|, both
        cut to [0, 1].

        **Arguments**

        - `shown`: "fit", "truth" or "error"; the last two need a truth.
        - `region`: the part. `width`, `height`: pixels to draw it with.
        - `limit`: the error that has the brightest colour.
        - `smooth`: average four samples where a pixel of the screen covers more than one of the image.
        - `check`: called between strips; what it raises ends the drawing.
        """
        values = self.values(shown, region, width, height, smooth=smooth, check=check)
        if shown == "error":
            return heat(values[..., 0] / limit)
        return colour.to_display(values, self.space)

    def values(
        self,
        shown: str,
        region: Region,
        width: int,
        height: int,
        *,
        smooth: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Float32[np.ndarray, "height width channels"]:
        """What :meth:`draw` shows, as numbers; the error has one channel."""
        left, top, right, bottom = export.check_region(region)
        factor = 2 if smooth and self._covers(region, width, height) > 1.5 else 1
        rows = max(1, _STRIP // (width * factor**2))
        strips = []
        for start in range(0, height, rows):
            if check is not None:
                check()
            stop = min(start + rows, height)
            low, high = (top + (bottom - top) * edge / height for edge in (start, stop))
            part = (left, low, right, min(high, bottom))
            strip = self._sampled(shown, part, width * factor, (stop - start) * factor)
            strips.append(self._averaged(strip, factor, shown) if factor > 1 else strip)
        return np.concatenate(strips)

    def _covers(self, region: Region, width: int, height: int) -> float:
        """Pixels of the image, along a side, to one of the screen."""
        if self.pixels is None:
            return 0.0
        left, top, right, bottom = region
        return max(self.pixels[0] * (right - left) / width, self.pixels[1] * (bottom - top) / height)

    def _sampled(self, shown: str, region: Region, width: int, height: int) -> Float32[np.ndarray, "height width c"]:
        if shown == "fit":
            return export.render(self.field, width, height, region)
        assert self.truth is not None
        columns = _nearest(region[0], region[2], width, self.truth.width)
        rows = _nearest(region[1], region[3], height, self.truth.height)
        # Zoomed in, many pixels of the screen are one of the image: it is looked at once.
        columns, across = np.unique(columns, return_inverse=True)
        rows, down = np.unique(rows, return_inverse=True)
        index = torch.from_numpy((rows[:, None] * self.truth.width + columns).reshape(-1))
        values = self.truth.values(index).numpy()
        if shown == "error":
            fit = evaluate(self.field, self.truth.coordinates(index)).numpy()
            values = np.abs(np.clip(fit, 0, 1) - np.clip(values, 0, 1)).mean(axis=1, keepdims=True)
        return values.reshape(len(rows), len(columns), -1)[down][:, across]

    def _averaged(self, values: np.ndarray, factor: int, shown: str) -> Float32[np.ndarray, "h w c"]:
        """Means of squares of so many samples, in linear light where they are colours."""
        height, width, channels = values.shape
        colours = channels if shown == "error" or channels not in (2, 4) else channels - 1
        light = values.copy()
        if shown != "error":
            light[..., :colours] = colour.convert(values[..., :colours], self.space, "linear")
        mean = light.reshape(height // factor, factor, width // factor, factor, channels).mean(axis=(1, 3))
        if shown != "error":
            mean[..., :colours] = colour.convert(mean[..., :colours], "linear", self.space)
        return mean.astype(np.float32)


def _nearest(low: float, high: float, count: int, pixels: int) -> Int64[np.ndarray, " count"]:
    """The pixels in which `count` evenly spaced samples of [low, high] lie."""
    middle = low + (np.arange(count) + 0.5) / count * (high - low)
    return np.clip((middle * pixels).astype(np.int64), 0, pixels - 1)


def heat(values: Float[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width 3"]:
    """Colours from black (0) by red to pale yellow (1 and more); what is not finite is cyan, as in the figures."""
    from matplotlib import colormaps

    colours = colormaps["inferno"].with_extremes(bad="cyan")(np.ma.masked_invalid(values), bytes=True)
    return np.ascontiguousarray(colours[..., :3])
