"""An image as a signal to fit: coordinates in, colours out. :class:`ImageSignal` and :func:`load_image`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from neuralfield import checks
from neuralfield.errors import SignalError
from neuralfield.signals import colour, samples
from neuralfield.signals.base import Signal
from neuralfield.signals.colour import Option
from neuralfield.signals.holdout import make_split
from neuralfield.signals.raw import RawImage, storable
from neuralfield.signals.reading import check_pixels, read_image
from neuralfield.signals.resizing import Rows, averaged, crop_box, resized, target_size
from neuralfield.signals.stored import Decoding, StoredPixels

_ALPHA = ("composite", "fit", "drop")


class ImageSignal(Signal):
    """A function from [0, 1]^2 to colours, known at the centres of ``height`` x ``width`` pixels.

    Pixel (row r, column c) sits at ((c + 0.5) / width, (r + 0.5) / height), axis order x, y; its flat index is
    r * width + c. Pixels stay in the type in which they were stored (a resized image: float32) and become float32
    values on demand, so that a plain 100-megapixel uint8 photograph takes 300 MB.

    Attributes:
        in_dim: 2.
        out_dim: channels of the values; an opacity that is fitted is the last of them.
        height, width: pixels, after cropping and resizing; ``shape`` is both.
        n_pixels, n_values: height * width, and that times ``out_dim``.
        name, source: what to call it, and where it came from (a path, ``sample:name`` or ``array``).
        space: "srgb" or "linear", the space of the values.
        source_dtype: the type of the pixels before any conversion.
        split: which pixels train and which are held out.
    """

    type = "image"
    in_dim = 2

    def __init__(
        self,
        raw: RawImage,
        *,
        name: str,
        source: str,
        crop: Option = None,
        resize: Option = None,
        alpha: str = "composite",
        background: Option = 1.0,
        space: str = "stored",
        holdout: str = "none",
        normalize: bool = False,
        seed: int = 0,
    ) -> None:
        """Prepare the pixels of ``raw``; :func:`load_image` says what the options mean."""
        checks.flag("signal.normalize", normalize)
        checks.choice("signal.alpha", alpha, _ALPHA)
        checks.choice("signal.space", space, ("stored", *colour.SPACES))
        self.name, self.source, self.source_dtype = name, source, str(raw.pixels.dtype)
        stored_space = "linear" if raw.linear else "srgb"
        self.space = stored_space if space == "stored" else space
        self._options = {
            "crop": _plain(crop),
            "resize": _plain(resize),
            "alpha": alpha if raw.has_alpha else "none",
            "holdout": holdout,
        }
        pixels = raw.pixels
        box = crop_box(crop, *pixels.shape[:2])
        if box is not None:
            x, y, w, h = box
            pixels = pixels[y : y + h, x : x + w]
        n_colours = pixels.shape[2] - (1 if raw.has_alpha else 0)
        decoding = Decoding(
            pixels.shape[2],
            raw.has_alpha,
            raw.premultiplied,
            alpha,
            colour.background_of(background, n_colours),
            stored_space,
            self.space,
        )
        self._fits_alpha = raw.has_alpha and alpha == "fit"
        self._stored, self._decode = StoredPixels(pixels), decoding
        self.out_dim = decoding.channels
        self.height, self.width = pixels.shape[:2]
        self._resize(target_size(resize, self.height, self.width))
        self._extremes: tuple[float, float] | None = None
        self._hash: str | None = None
        if normalize:
            self._normalize()
        self.split = make_split(holdout, self.height, self.width, seed)

    @classmethod
    def from_array(
        cls,
        array: np.ndarray | Tensor,
        *,
        name: str = "array",
        linear: bool = False,
        premultiplied: bool = False,
        **options: Any,
    ) -> ImageSignal:
        """A signal from pixels ``[height, width]`` or ``[height, width, channels]``.

        Args:
            array: uint8, uint16, uint32 (divided by the maximum of the type), bool (0 and 1) or floats (taken as they
                are, 1 = white). With 2 and 4 channels the last one is opacity. Copied, unless it is a ``np.memmap``.
            name: what to call it.
            linear: the values are proportional to light; otherwise they are sRGB.
            premultiplied: the colours are multiplied by the opacity.
            **options: those of :func:`load_image` (crop, resize, alpha, background, space, holdout, normalize, seed).

        Raises:
            SignalError: the shape or type is not that of an image, or a value is NaN or infinite.
        """
        if isinstance(array, Tensor):
            array = array.detach().cpu()
            array = (array.float() if array.dtype in (torch.bfloat16, torch.float16) else array).numpy()
        where = f"the array {name!r}" if name != "array" else "the array"
        if not isinstance(array, np.ndarray):
            raise SignalError(f"an image array must be a NumPy array or a torch tensor, got {type(array).__name__}")
        pixels = storable(array, where)
        check_pixels(pixels, where)
        if pixels.base is not None or pixels is array:
            mapped = isinstance(array, np.memmap) and min(pixels.strides) >= 0  # torch knows no negative strides
            pixels = pixels if mapped else pixels.copy()
        raw = RawImage(pixels, pixels.shape[2] in (2, 4), premultiplied, linear)
        return cls(raw, name=name, source="array", **options)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def n_pixels(self) -> int:
        """How many pixels there are, in both sets of the split and outside of them."""
        return self.height * self.width

    @property
    def n_samples(self) -> int:
        """The number of pixels."""
        return self.n_pixels

    @property
    def size(self) -> str:
        """Width x height x channels."""
        return f"{self.width} x {self.height} x {self.out_dim}"

    @property
    def lattice(self) -> float:
        """How many training pixels lie along the longer side, on average."""
        return max(self.shape) / math.sqrt(self.n_pixels / self.split.n_train)

    def warnings(self) -> list[str]:
        """That PSNR and SSIM do not see what is brighter than white."""
        if self.max_value <= 1:
            return []
        return [
            f"values reach {self.max_value:.3g}, and psnr and ssim see only [0, 1]; signal.normalize=true divides by the "
            "maximum"
        ]

    @property
    def min_value(self) -> float:
        """The smallest value; found in one pass over the image when first asked for."""
        return self._range()[0]

    @property
    def max_value(self) -> float:
        """The largest value; above 1 for HDR images that are not normalized."""
        return self._range()[1]

    def coordinates(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n 2"]:
        """Centres of flat pixel indices, float32 in (0, 1), columns x and y, on the device of ``index``."""
        column, row = index % self.width, index // self.width
        return torch.stack([(column.float() + 0.5) / self.width, (row.float() + 0.5) / self.height], dim=-1)

    def values(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n channels"]:
        """Colours of flat pixel indices, float32, on the device of ``index``."""
        return self._decode(self._stored.take(index))

    def rows(self, start: int, stop: int) -> Float[np.ndarray, "rows width channels"]:
        """The truth in the rows ``start <= row < stop``, float32: for going through a large image block by block."""
        return self._decode(self._stored.block(start, stop)).numpy()

    def preview(self, max_side: int = 1024) -> UInt8[np.ndarray, "h w 3"]:
        """An sRGB picture for the screen, its longest side at most ``max_side``; reduced by averaging whole blocks."""
        longest = max(self.shape)
        factor = -(-longest // checks.integer("max_side", max_side, 1))
        if factor == 1:
            return colour.to_display(self.rows(0, self.height), self.space)
        return colour.to_display(averaged(self._light, self.height, factor), "linear")

    def describe(self) -> dict[str, Any]:
        """What this signal is, as plain values for a report or a JSON file."""
        return {
            "type": self.type,
            "name": self.name,
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "channels": self.out_dim,
            "space": self.space,
            "dtype": self.source_dtype,
            **self._options,
            "normalized_by": self._decode.divisor,
            "n_train": self.split.n_train,
            "n_heldout": self.split.n_heldout,
        }

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the pixels, their shape and how they are decoded: equal for equal values to fit.

        The name, the file it came from and the split do not enter.
        """
        if self._hash is None:
            array = self._stored.array
            recipe = sorted(asdict(self._decode).items())
            digest = hashlib.sha256(repr((array.shape, array.dtype.name, recipe)).encode())
            step = self._stored.rows_per_block
            for start in range(0, self.height, step):
                digest.update(np.ascontiguousarray(array[start : start + step]).data)
            self._hash = digest.hexdigest()
        return self._hash

    def __repr__(self) -> str:
        return (
            f"ImageSignal({self.name!r}, {self.width} x {self.height} x {self.out_dim}, {self.space}, "
            f"{self.source_dtype}, holdout={self._options['holdout']})"
        )

    def _light(self, start: int, stop: int) -> Float[np.ndarray, "rows width channels"]:
        """The rows ``start <= row < stop`` in linear light; opacity, where it is fitted, stays as it is."""
        array = self._stored.array
        if array.dtype == np.uint8 and not self._decode.has_alpha:
            # All there can be are 256 levels: looking them up is ten times as fast as the curve.
            levels = self._decode((torch.arange(256) / 255.0)[:, None])
            return colour.convert(levels, self.space, "linear").numpy()[:, 0][array[start:stop]]
        values = self._decode(self._stored.block(start, stop))
        if not self._fits_alpha:
            return colour.convert(values, self.space, "linear").numpy()
        light = colour.convert(values[..., :-1], self.space, "linear")
        return torch.cat([light, values[..., -1:]], dim=-1).numpy()

    def _resize(self, target: tuple[int, int] | None) -> None:
        if target is None or target == self.shape:
            return
        light: Rows = self._light
        pixels = resized(
            light, (*self.shape, self.out_dim), target, self.space, self._fits_alpha, self._stored.rows_per_block
        )
        self._stored, self._decode = StoredPixels(pixels), Decoding(self.out_dim)
        self.height, self.width = target

    def _normalize(self) -> None:
        top = self._range(colours_only=True)[1]
        if not top > 0:
            raise SignalError(
                f"{self.source} cannot be normalized: its largest value is {top:g}; use signal.normalize=false"
            )
        # A resized image has no stored opacity any more as far as decoding goes; its last channel must stay as it is.
        keep_alpha = self._fits_alpha and not self._decode.has_alpha
        self._decode = replace(
            self._decode,
            divisor=top,
            has_alpha=self._decode.has_alpha or keep_alpha,
            alpha="fit" if keep_alpha else self._decode.alpha,
        )
        self._extremes = None

    def _range(self, colours_only: bool = False) -> tuple[float, float]:
        if self._extremes is None or colours_only:
            low, high = float("inf"), float("-inf")
            step = self._stored.rows_per_block
            for start in range(0, self.height, step):
                block = self.rows(start, start + step)
                block = block[..., :-1] if colours_only and self._fits_alpha else block
                low, high = min(low, float(block.min())), max(high, float(block.max()))
            if colours_only:
                return low, high
            self._extremes = low, high
        return self._extremes


def load_image(
    path: str | Path | None = None,
    name: str = "astronaut",
    *,
    frame: int | None = None,
    crop: Option = None,
    resize: Option = None,
    alpha: str = "composite",
    background: Option = 1.0,
    space: str = "stored",
    holdout: str = "none",
    normalize: bool = False,
    seed: int = 0,
) -> ImageSignal:
    """Load an image file, or one of the samples, as a signal.

    Args:
        path: the file; when given, ``name`` is not looked at. Formats: :func:`neuralfield.signals.reading.read_image`.
        name: a sample, see :func:`neuralfield.signals.samples.sample`.
        frame: which picture of an animation or of a multi-page file, from 0.
        crop: None, N (centred N x N), [w, h] (centred) or [x, y, w, h], in pixels; comes first.
        resize: None, N (the longest side), [w, h] or a factor between 0 and 1. Antialiased, in linear light; the result
            is kept in float32 rather than rounded to the stored depth again.
        alpha: what becomes of opacity. "composite": the picture is laid over ``background``. "fit": one more channel,
            beside colours that are not premultiplied. "drop": the colours alone (0 where nothing shows).
        background: one number or one for each colour, in the stored space.
        space: "stored" keeps the values; "linear" and "srgb" convert them where they are not in that space already.
            Files of integers, float TIFF and ``.npy`` are taken as sRGB; EXR and HDR are linear.
        holdout: which pixels train, see :func:`neuralfield.signals.holdout.make_split`.
        normalize: divide the colours by their maximum. Without it values above 1 are kept, see ``max_value``.
        seed: of a random holdout.

    Raises:
        SignalError: the file cannot be used. ConfigError: an option has a wrong value, or a crop leaves the image.
    """
    if path is None or str(path) == "":
        array, shown = samples.sample(name)
        pixels = storable(array, f"the sample {name}")
        raw, source = RawImage(pixels, pixels.shape[2] in (2, 4)), f"sample:{name}"
        if frame is not None and checks.integer("signal.frame", frame, 0):
            raise SignalError(f"the sample {name} has no picture {frame}: only signal.frame=0 exists")
    else:
        raw, source, shown = read_image(path, frame), str(path), Path(path).stem
    return ImageSignal(
        raw,
        name=shown,
        source=source,
        crop=crop,
        resize=resize,
        alpha=alpha,
        background=background,
        space=space,
        holdout=holdout,
        normalize=normalize,
        seed=seed,
    )


def _plain(value: Any) -> Any:
    """``value`` for a JSON file: sequences (also those of OmegaConf) as lists."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
