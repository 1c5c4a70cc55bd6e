"""Voxels as they are stored, in memory or in a mapped file, and float values only where somebody asks for them.

Pages of a mapped file count as resident memory of the process until they are given back, although the kernel could drop
them; a fit that touches random voxels for long would seem to hold the whole file. So they are given back here, after
every quarter of a gigabyte that was touched; they mostly stay in the kernel's own cache, from where they return at once.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Shaped

from neuralfield.errors import SignalError
from neuralfield.signals.raw_volume import Progress

RESIDENT = 1 << 28
"""Bytes of a mapped file that may be resident at a time."""
_WINDOW = 1 << 16  # what one page fault maps at least: Linux takes the neighbours along (fault_around_bytes)
_PORTION = 1 << 8  # voxels gathered between two looks at what was touched: a fault may map up to 2 MiB
_STATM = Path("/proc/self/statm")
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class Scaling:
    r"""Values of stored numbers v: $(\text{slope} \, v + \text{intercept} - \text{low}) / (\text{high} - \text{low})$."""

    slope: float
    intercept: float
    low: float
    high: float

    @classmethod
    def of(cls, slope: float, intercept: float, extremes: tuple[float, float], normalize: bool, where: str) -> Scaling:
        """With ``normalize`` the extremes (of the stored numbers) become 0 and 1; otherwise only NIfTI's scaling acts."""
        low, high = sorted(slope * extreme + intercept for extreme in extremes)
        if not 0 < high - low < math.inf or max(abs(low), abs(high)) > 3e38:
            raise SignalError(
                f"{where}: values from {low:g} to {high:g} do not fit into single precision; scale them first"
            )
        return cls(slope, intercept, low, high) if normalize else cls(slope, intercept, 0.0, 1.0)

    def __call__(self, stored: Shaped[np.ndarray, "*n channels"]) -> Float[np.ndarray, "*n channels"]:
        """Values, float32; in double precision on the way, so that wide integers and large offsets lose nothing."""
        values = stored.astype(np.float64)
        if self.slope != 1.0 or self.intercept != 0.0:
            values *= self.slope
            values += self.intercept
        if self.low != 0.0 or self.high != 1.0:
            values -= self.low
            values /= self.high - self.low
        return values.astype(np.float32)


class StoredVoxels:
    """``[z, y, x, channels]`` of any real type.

    **Arguments**

    - `array`: in memory, or a (view of a) `np.memmap`.
    - `resident`: bytes of a mapped file that may be resident at a time; smaller files are left alone.
    """

    def __init__(self, array: Shaped[np.ndarray, "z y x channels"], resident: int = RESIDENT) -> None:
        self._map = _large_map(array, resident)
        self.array = np.asarray(array)  # a view: indexing a memmap itself makes one more object each time
        self.resident = resident
        self._touched = 0
        self._before = _mapped_bytes()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """z, y, x, channels."""
        depth, height, width, channels = self.array.shape
        return depth, height, width, channels

    def take(self, index: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n channels"]:
        """Stored numbers of flat indices (k * height + j) * width + i."""
        out = np.empty((len(index), self.shape[3]), self.array.dtype.newbyteorder("="))
        step = _BLOCK_VALUES if self._map is None else min(_PORTION, max(1, self.resident // _WINDOW))
        for start in range(0, len(index), step):
            portion = index[start : start + step]
            out[start : start + step] = self._gather(portion)
        return out

    def block(self, start: int, stop: int) -> Shaped[np.ndarray, "k y x channels"]:
        """Stored numbers of the slices ``start <= k < stop``, in C order and the machine's byte order; always a copy."""
        view = self.array[start:stop]
        out = np.empty(view.shape, self.array.dtype.newbyteorder("="))
        if self._map is None or view.size == 0:
            out[...] = view
            return out
        # In steps along the axis that is slowest in the file, so that the touched pages follow one another.
        axis = int(np.argmax(np.abs(view.strides)))
        stride = abs(view.strides[axis])
        step = max(1, self.resident // max(1, stride))
        for low in range(0, view.shape[axis], step):
            part = (slice(None),) * axis + (slice(low, low + step),)
            out[part] = view[part]
            self._count(min(step, view.shape[axis]) * stride)
        return out

    @property
    def slices_per_block(self) -> int:
        """Slices that together hold about four million numbers."""
        _, height, width, channels = self.shape
        return max(1, _BLOCK_VALUES // (height * width * channels))

    def blocks(self) -> Iterator[tuple[int, Shaped[np.ndarray, "k y x channels"]]]:
        """All slices in order: the number of the first one, and the block."""
        for start in range(0, self.shape[0], self.slices_per_block):
            yield start, self.block(start, min(start + self.slices_per_block, self.shape[0]))

    def extremes(self, where: str, on_progress: Progress | None = None) -> tuple[float, float]:
        """The smallest and the largest stored number, in one pass. SignalError for NaN, infinity, or only one number."""
        low, high, bad, first = float("inf"), float("-inf"), 0, ""
        for start, block in self.blocks():
            if block.dtype.kind == "f":
                wrong = ~np.isfinite(block)
                count = int(np.count_nonzero(wrong))
                if count and not bad:
                    k, j, i, channel = (int(n) for n in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
                    first = f"the first at x={i}, y={j}, z={start + k}, channel {channel}"
                bad += count
                if bad:
                    continue
            low, high = min(low, float(block.min())), max(high, float(block.max()))
            if on_progress is not None:
                on_progress(min(1.0, (start + len(block)) / self.shape[0]))
        if bad:
            words = "value is" if bad == 1 else "values are"
            raise SignalError(
                f"{where}: {bad:,} {words} NaN or infinite, {first}; replace them, for example with np.nan_to_num, or "
                "crop them away with signal.crop"
            )
        if not low < high:
            raise SignalError(f"{where}: every voxel has the value {low:g}, so that there is nothing to fit")
        return low, high

    def digest(self, recipe: Any) -> str:
        """SHA-256 (hex) of the numbers, their type and shape, and of ``recipe``; in one pass."""
        digest = hashlib.sha256(repr((self.shape, self.array.dtype.newbyteorder("=").name, recipe)).encode())
        for _, block in self.blocks():
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()

    def _gather(self, index: Int64[np.ndarray, " n"]) -> Shaped[np.ndarray, "n channels"]:
        _, height, width, channels = self.shape
        if self.array.flags.c_contiguous and self._map is None:
            return self.array.reshape(-1, channels)[index]
        row, i = np.divmod(index, width)
        k, j = np.divmod(row, height)
        found = self.array[k, j, i]
        if self._map is not None:
            strides = self.array.strides
            window = (k * strides[0] + j * strides[1] + i * strides[2]) // _WINDOW
            spread = channels if abs(strides[3]) >= _WINDOW else 1
            self._count((int(np.count_nonzero(np.diff(window))) + 1) * spread * _WINDOW)
        return found

    def _count(self, size: int) -> None:
        """Note that ``size`` bytes of the file were touched; give its pages back once that is enough."""
        self._touched += size
        if self._map is None:
            return
        # Some file systems map far more at a fault than was asked for; where the kernel says how much, it is believed.
        mapped = _mapped_bytes() - self._before
        if max(self._touched, mapped) >= self.resident:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


def _mapped_bytes() -> int:
    """Pages of files in this process's memory, in bytes; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[2]) * mmap.PAGESIZE
    except (OSError, ValueError, IndexError):
        return 0


def averaged(voxels: StoredVoxels, factor: int) -> Float[np.ndarray, "z y x channels"]:
    """Means over blocks of ``factor``^3 voxels, float32; what is left over at the far ends is dropped."""
    depth, height, width, channels = voxels.shape
    d, h, w = depth // factor, height // factor, width // factor
    out = np.empty((d, h, w, channels), np.float32)
    for k in range(d):
        block = voxels.block(k * factor, (k + 1) * factor)[:, : h * factor, : w * factor]
        parts = block.reshape(factor, h, factor, w, factor, channels)
        out[k] = parts.mean(axis=(0, 2, 4), dtype=np.float64)
    return out


def _large_map(array: np.ndarray, resident: int) -> mmap.mmap | None:
    """The map below a view, if it is worth giving back: larger than ``resident``, and without changes of its own."""
    base: Any = array
    mode = getattr(array, "mode", None)
    while isinstance(base, np.ndarray):
        mode = getattr(base, "mode", mode)
        base = base.base
    found = isinstance(base, mmap.mmap) and mode in ("r", "r+", "w+")  # copy-on-write ("c") would lose what was written
    return (
        base if found and hasattr(base, "madvise") and hasattr(mmap, "MADV_DONTNEED") and len(base) > resident else None
    )
