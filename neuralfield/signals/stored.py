"""Pixels kept as they were stored and turned into float32 values only where somebody asks for them.

A 100-megapixel photograph takes 300 MB as uint8 and 1.2 GB as float32; a training step looks at a few thousand pixels.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from neuralfield.signals import colour

# torch gathers few kinds of unsigned integers, so that wider ones travel as signed ones with the same bits.
_SIGNED = {"uint16": np.int16, "uint32": np.int32}


@dataclass(frozen=True)
class Decoding:
    """From unit values of the stored channels to the values of the signal, pixel by pixel.

    In this order: opacity (composite over ``background`` | fit | drop), colour space (``source`` to ``target``),
    division of the colours by ``divisor``. Opacity that is kept is the last channel, beside straight colours.
    """

    stored_channels: int
    has_alpha: bool = False
    premultiplied: bool = False
    alpha: str = "composite"
    background: tuple[float, ...] = ()
    source: str = "srgb"
    target: str = "srgb"
    divisor: float = 1.0

    @property
    def channels(self) -> int:
        """Channels of the decoded values."""
        return self.stored_channels - (1 if self.has_alpha and self.alpha != "fit" else 0)

    def __call__(self, values: Float[Tensor, "*pixels stored"]) -> Float[Tensor, "*pixels channels"]:
        opacity = None
        if self.has_alpha:
            if self.alpha == "composite":
                values = colour.composite(values, self.background, self.premultiplied)
            else:
                opacity = values[..., -1:] if self.alpha == "fit" else None
                values = colour.straight(values, self.premultiplied)
        values = colour.convert(values, self.source, self.target)
        if self.divisor != 1.0:
            values = values / self.divisor
        return values if opacity is None else torch.cat([values, opacity], dim=-1)


@dataclass
class StoredPixels:
    """``[height, width, channels]`` of uint8, uint16, uint32 or float32, in memory or mapped from a file."""

    array: Shaped[np.ndarray, "height width channels"]
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    def take(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n channels"]:
        """Unit values (integers divided by the maximum of the type) of flat pixel indices, on the device of ``index``.

        On CUDA the stored pixels are copied to the device once, if they take at most a quarter of its free memory.
        """
        table = self._table(index.device)
        where = index.to(table.device)
        if table.dim() == 2:
            found = table.index_select(0, where)
        else:  # a cropped view, whose rows do not follow one another
            width = self.array.shape[1]
            found = table[where // width, where % width]
        return self._unit(found).to(index.device)

    def block(self, start: int, stop: int) -> Float[Tensor, "rows width channels"]:
        """Unit values of the rows ``start <= row < stop``, on the CPU; always a copy."""
        rows = np.ascontiguousarray(self.array[start:stop])
        signed = _SIGNED.get(rows.dtype.name)
        # Copied, because a float block would otherwise be a window on the signal itself.
        return self._unit(torch.from_numpy(np.array(rows if signed is None else rows.view(signed))))

    def _table(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            if device.type == "cpu":
                self._tables[device] = self._host_table()
            else:
                host = self._table(torch.device("cpu"))
                fits = device.type == "cuda" and self.array.nbytes <= torch.cuda.mem_get_info(device)[0] // 4
                self._tables[device] = host.contiguous().to(device).flatten(0, -2) if fits else host
        return self._tables[device]

    def _host_table(self) -> Tensor:
        array = self.array
        signed = _SIGNED.get(array.dtype.name)
        if signed is not None:
            array = array.view(signed)
        if array.flags.c_contiguous:
            array = array.reshape(-1, array.shape[2])
        with warnings.catch_warnings():  # a read-only map is fine: the table is only read
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)

    def _unit(self, found: Tensor) -> Tensor:
        # The division is exact to the last bit on the CPU; CUDA multiplies by the reciprocal (1 unit off).
        kind = self.array.dtype.name
        if kind == "uint8":
            return found.to(torch.float32) / 255.0
        if kind == "uint16":
            return (found.to(torch.int32) & 0xFFFF).to(torch.float32) / 65535.0
        if kind == "uint32":
            return ((found.to(torch.int64) & 0xFFFFFFFF).to(torch.float64) / 4294967295.0).to(torch.float32)
        return found

    @property
    def rows_per_block(self) -> int:
        """Rows that together hold about four million values (16 MB of float32)."""
        return max(1, (1 << 22) // math.prod(self.array.shape[1:]))
