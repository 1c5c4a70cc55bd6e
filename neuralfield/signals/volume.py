"""A volume as a signal to fit: voxel centres in, values out. :class:`VolumeSignal` and :func:`load_volume`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield import checks
from neuralfield.signals.base import Signal
from neuralfield.signals.densities import density
from neuralfield.signals.holdout_volume import make_volume_split
from neuralfield.signals.importance import ImportanceBatches, gradient_weights
from neuralfield.signals.placement import Placement
from neuralfield.signals.raw_volume import Progress, RawVolume, check_room, checked_spacing, raw_of
from neuralfield.signals.sampling import Batches
from neuralfield.signals.stored_volume import RESIDENT, Scaling, StoredVoxels, averaged
from neuralfield.signals.volume_files import read_volume
from neuralfield.signals.volume_window import box_of, moved_affine, size_words, slice_indices

_PORTION = 1 << 20  # voxels converted at a time: bounds what is needed beside the result
Values = TypeVar("Values", Tensor, np.ndarray)


class VolumeSignal(Signal):
    r"""A function from [0, 1]^3 to ``out_dim`` channels, known at the centres of width x height x depth voxels.

    Voxel (k, j, i) of ``[z, y, x, channels]`` has the flat index (k * height + j) * width + i. Its centre is at
    ((i + 1/2) s_x, (j + 1/2) s_y, (k + 1/2) s_z), with s the spacing; ``placement`` takes this into the cube, one scale
    for all axes, so that the longest side of the box spans [0, 1] and the others are centred.

    Values are float32, $(\text{source} - \text{low}) / (\text{high} - \text{low})$ with the extremes over all voxels and
    channels. Voxels stay as they are stored, a large file on disk; at most ``resident`` bytes of it are mapped at a time.

    Attributes:
        depth, height, width: voxels along z, y, x, after cropping and averaging; ``shape`` is all three.
        spacing: x, y, z, in ``unit``; (1, 1, 1) where nobody says.
        affine: from the voxel indices (i, j, k, 1) of this volume (after cropping) to the world of NIfTI, or None.
        header: what a file said, for writing results back, or None.
        low, high: what 0 and 1 stand for in the source's units.
        box: where the volume lies in the cube, lower and upper corner.
    """

    type = "volume"
    in_dim = 3

    def __init__(
        self,
        raw: RawVolume,
        *,
        name: str,
        source: str,
        crop: Any = None,
        downsample: int = 1,
        spacing: Any = None,
        holdout: str = "none",
        sampling: str = "uniform",
        normalize: str = "minmax",
        seed: int = 0,
        on_progress: Progress | None = None,
        resident: int = RESIDENT,
    ) -> None:
        """Prepare the voxels of ``raw``; :func:`load_volume` says what the options mean."""
        self._sampling = checks.choice("signal.sampling", sampling, ("uniform", "gradient"))
        self._normalize = checks.choice("signal.normalize", normalize, ("minmax", "none"))
        factor = checks.integer("signal.downsample", downsample, 1)
        self.name, self.source, self.source_dtype = name, source, raw.array.dtype.name
        self._options = {"crop": _plain(crop), "downsample": factor, "holdout": holdout, "sampling": sampling}
        array = raw.array
        depth, height, width = array.shape[:3]
        x, y, z, w, h, d = box_of(crop, depth, height, width, factor)
        array = array[z : z + d, y : y + h, x : x + w]
        self._voxels = StoredVoxels(array, resident)
        if factor > 1:
            check_room(4 * array.size // factor**3, source)
            self._voxels = StoredVoxels(averaged(self._voxels, factor))
        self.depth, self.height, self.width, self.out_dim = self._voxels.shape
        given = raw.spacing if spacing is None else spacing
        self._has_spacing, self.unit = given is not None, raw.unit
        sx, sy, sz = checked_spacing((1, 1, 1) if given is None else given, source, spacing is not None)
        self.spacing = (sx * factor, sy * factor, sz * factor)
        self.affine = None if raw.affine is None else moved_affine(raw.affine, (x, y, z), factor)
        self.header = raw.header
        sides = tuple(n * s for n, s in zip((self.width, self.height, self.depth), self.spacing, strict=True))
        self.placement = Placement.around((0.0, 0.0, 0.0), sides)
        self.box = [(self.placement.to_cube(np.array(corner)).tolist()) for corner in ((0.0, 0.0, 0.0), sides)]
        extremes = self._voxels.extremes(source, on_progress)
        self._scaling = Scaling.of(raw.slope, raw.intercept, extremes, normalize == "minmax", source)
        self.min_value, self.max_value = sorted(raw.slope * extreme + raw.intercept for extreme in extremes)
        self.low, self.high = self._scaling.low, self._scaling.high
        self.split = make_volume_split(holdout, self.depth, self.height, self.width, seed)
        self._weights: np.ndarray | None = None
        self._hash: str | None = None

    @classmethod
    def from_array(
        cls,
        array: Any,
        spacing: Any = (1, 1, 1),
        *,
        affine: Any = None,
        unit: str = "",
        name: str = "array",
        **options: Any,
    ) -> VolumeSignal:
        """A signal from voxels ``[z, y, x]`` or ``[z, y, x, channels]``.

        Args:
            array: a NumPy array or a tensor of integers or floats; copied, unless it is a ``np.memmap``.
            spacing: x, y, z, or one number for all.
            affine: ``[4, 4]``, from voxel indices (i, j, k, 1) to the world.
            unit: of the spacing, for titles ("mm").
            name: what to call it.
            **options: those of :func:`load_volume` (crop, downsample, holdout, sampling, normalize, seed).

        Raises:
            SignalError: the shape or type is not that of a volume, a value is NaN or infinite, or all are equal.
        """
        return cls(raw_of(array, spacing, affine, unit, name), name=name, source="array", **options)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(depth, height, width), the order of the array."""
        return self.depth, self.height, self.width

    @property
    def n_samples(self) -> int:
        """The number of voxels."""
        return self.depth * self.height * self.width

    @property
    def size(self) -> str:
        """Width x height x depth, channels where there are several, and the spacing where it is known."""
        return size_words(self.shape, self.out_dim, self.spacing if self._has_spacing else None, self.unit)

    @property
    def lattice(self) -> float:
        """Training voxels along the cube's side, on average, where they are closest: along the axis of least spacing."""
        return self.placement.scale / min(self.spacing) * (self.split.n_train / self.n_samples) ** (1 / 3)

    def warnings(self) -> list[str]:
        """That PSNR and SSIM only see [0, 1], where values are fitted as they are and leave it."""
        if self._normalize == "minmax" or (self.min_value >= 0 and self.max_value <= 1):
            return []
        return [
            f"values go from {self.min_value:.4g} to {self.max_value:.4g}, and psnr and ssim see only [0, 1]; "
            "signal.normalize=minmax takes them there"
        ]

    def coordinates(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n 3"]:
        """Centres of flat voxel indices in the cube, float32, columns x, y, z, on the device of ``index``."""
        out = torch.empty(len(index), 3, dtype=torch.float32, device=index.device)
        for start in range(0, len(index), _PORTION):
            part, rest = out[start : start + _PORTION], index[start : start + _PORTION]
            for column, length in enumerate((self.width, self.height, self.depth)):
                step, offset = self.spacing[column] / self.placement.scale, self.placement.offset[column]
                which = rest % length if column < 2 else rest
                torch.mul(which.float() + 0.5, step, out=part[:, column])
                part[:, column] -= offset / self.placement.scale
                rest = rest // length
        return out

    def values(self, index: Int64[Tensor, " n"]) -> Float[Tensor, "n channels"]:
        """Normalised values of flat voxel indices, float32, on the device of ``index``."""
        where = index.cpu().numpy()
        out = np.empty((len(where), self.out_dim), np.float32)
        for start in range(0, len(where), _PORTION):
            out[start : start + _PORTION] = self._scaling(self._voxels.take(where[start : start + _PORTION]))
        return torch.from_numpy(out).to(index.device)

    def slab(self, start: int, stop: int) -> Float[np.ndarray, "k y x channels"]:
        """The truth in the slices ``start <= k < stop``, normalised: for going through a large volume in blocks."""
        return self._scaling(self._voxels.block(start, stop))

    @property
    def slices_per_block(self) -> int:
        """Slices that together hold about four million values: a good thickness for :meth:`slab`."""
        return self._voxels.slices_per_block

    def slice_indices(self, axis: str, position: float = 0.5) -> Int64[Tensor, "h w"]:
        """Flat indices of the slice across ``axis`` ("x", "y", "z") at a fraction ``position`` of its length.

        Rows and columns are y, x across z; z, x across y; z, y across x.
        """
        return slice_indices(self.shape, axis, position)

    def slice(self, axis: str, position: float = 0.5) -> Float[np.ndarray, "h w channels"]:
        """The truth in one slice, normalised; see :meth:`slice_indices`."""
        index = self.slice_indices(axis, position)
        return self.values(index.reshape(-1)).reshape(*index.shape, self.out_dim).numpy()

    def restore(self, values: Values) -> Values:
        """Normalised values, any shape, in the source's own units."""
        return values * (self.high - self.low) + self.low

    def batches(self, batch_size: int, seed: int) -> Batches:
        """Stratified voxels without replacement, or, with ``sampling="gradient"``, more where the values change."""
        if self._sampling == "uniform":
            return super().batches(batch_size, seed)
        if self._weights is None:
            x, y, z = (s / self.placement.scale for s in self.spacing)
            self._weights = gradient_weights(self.slab, self.shape, (z, y, x), self.split, self.slices_per_block)
        return ImportanceBatches(self._weights, batch_size, seed)

    def describe(self) -> dict[str, Any]:
        """What this signal is, as plain values for a report or a JSON file.

        `scale`, `offset`: of the placement; a field's output times
        (`high` - `low`) plus `low` is in the source's units.
        """
        return {
            "type": self.type,
            "name": self.name,
            "source": self.source,
            "width": self.width,
            "height": self.height,
            "depth": self.depth,
            "channels": self.out_dim,
            "spacing": list(self.spacing),
            "unit": self.unit,
            "affine": None if self.affine is None else self.affine.tolist(),
            "box": self.box,
            "scale": self.placement.scale,
            "offset": list(self.placement.offset),
            "normalize": self._normalize,
            "low": self.low,
            "high": self.high,
            "dtype": self.source_dtype,
            **self._options,
            "n_train": self.split.n_train,
            "n_heldout": self.split.n_heldout,
        }

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the stored voxels, how they become values, and the proportions of the box; one pass."""
        if self._hash is None:
            self._hash = self._voxels.digest((asdict(self._scaling), [s / self.placement.scale for s in self.spacing]))
        return self._hash

    def __repr__(self) -> str:
        return f"VolumeSignal({self.name!r}, {self.size}, {self.source_dtype}, holdout={self._options['holdout']})"


def load_volume(
    path: str | Path | None = None,
    name: str = "shepp_logan",
    *,
    resolution: int = 128,
    channels: str = "auto",
    frame: int | None = None,
    key: str | None = None,
    shape: Any = None,
    dtype: str | None = None,
    crop: Any = None,
    downsample: int = 1,
    spacing: Any = None,
    holdout: str = "none",
    sampling: str = "uniform",
    normalize: str = "minmax",
    seed: int = 0,
    on_progress: Progress | None = None,
) -> VolumeSignal:
    """Load a volume from a file, or one of the analytic densities, as a signal.

    Args:
        path: the file; when given, ``name`` is not looked at. Formats:
            :func:`neuralfield.signals.volume_files.read_volume`, also for channels, frame, key, shape and dtype.
        name: a density, see :mod:`neuralfield.signals.densities`; ``resolution``: voxels along each of its sides.
        crop: None, N (centred N^3), [w, h, d] (centred) or [x, y, z, w, h, d], in voxels; comes first.
        downsample: average blocks of so many voxels along each side; the result is float32 in memory.
        spacing: distance of voxels, x, y, z, or one for all; overrides what the file says.
        holdout: which voxels train, see :func:`neuralfield.signals.holdout_volume.make_volume_split`.
        sampling: "uniform", or "gradient": half of the draws in proportion to the gradient's magnitude, see
            :class:`neuralfield.signals.importance.ImportanceBatches`.
        normalize: "minmax" takes values to [0, 1]; "none" fits them as they are.
        seed: of a random holdout.
        on_progress: called with a fraction, 0 to 1, while the voxels are gone through once for their extremes.

    Raises:
        SignalError: the file cannot be used. ConfigError: an option has a wrong value, or a crop leaves the volume.
    """
    if path is None or str(path) == "":
        raw, source, shown = RawVolume(density(name, resolution)), f"density:{name}", name.replace("_", " ")
    else:
        raw = read_volume(path, channels=channels, frame=frame, key=key, shape=shape, dtype=dtype)
        source, shown = str(path), Path(path).name.split(".")[0]
    return VolumeSignal(
        raw,
        name=shown,
        source=source,
        crop=crop,
        downsample=downsample,
        spacing=spacing,
        holdout=holdout,
        sampling=sampling,
        normalize=normalize,
        seed=seed,
        on_progress=on_progress,
    )


def _plain(value: Any) -> Any:
    """``value`` for a JSON file: sequences (also those of OmegaConf) as lists."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
