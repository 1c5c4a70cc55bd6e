"""What a finished fit of a volume leaves in its folder: its quality, its voxels and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield.export import voxels
from neuralfield.field import Field
from neuralfield.files import atomic
from neuralfield.fitting.evaluation import evaluate
from neuralfield.fitting.progress import Notes, Silent
from neuralfield.metrics import psnr_over
from neuralfield.run_folder import COMPARISON, RECONSTRUCTION, TRUTH, VOLUMES
from neuralfield.signals.volume import VolumeSignal
from neuralfield.viz.volume_figure import display, middle_planes, projection, volume_comparison
from neuralfield.volume_export import write_volume
from neuralfield.volume_metrics import volume_quality

LARGEST = 2**27
"""Values of a volume that is reconstructed whole (512 MiB); of larger ones a sample is measured."""
_SAMPLE = 2**21
_PORTION = 2**20


def write(
    signal: VolumeSignal, field: Field, known: Mapping[str, Any], folder: Path, *, tell: Silent, **_: Any
) -> dict[str, Any]:
    """Write the reconstruction and its comparison into `folder`; returns what was measured.

    `known` are the numbers of the fit, for captions.
    """
    if signal.n_values > LARGEST:
        tell.note(
            f"{signal.n_values:.2g} values are too many to reconstruct by the way: PSNR is over {_SAMPLE:,} voxels of each "
            f"set; neuralfield export {folder} writes them all"
        )
        found = {"ssim": None, "ssim_reason": "the volume is too large", **_sampled(signal, field)}
        truth, planes = [signal.slice(axis) for axis in "zyx"], [_plane(signal, field, axis) for axis in "zyx"]
        _draw(signal, truth, planes, None, {**known, **found}, folder)
        return found
    notes = Notes(tell, "evaluating the voxels")
    fit = np.concatenate(list(voxels(field, *signal.shape, signal.box, notes)))
    found = measure(signal, fit)
    restored = (signal.restore(fit[k : k + 1]) for k in range(signal.depth))
    path = folder / _file(signal)
    write_volume(
        path, restored, fit.shape, like=signal.header, spacing=signal.spacing, affine=signal.affine, unit=signal.unit
    )
    truth = [signal.slice(axis) for axis in "zyx"]
    _draw(signal, truth, middle_planes(fit), _projections(signal, fit), {**known, **found}, folder)
    return found


def measure(signal: VolumeSignal, fit: Float[np.ndarray, "z y x channels"]) -> dict[str, Any]:
    """Quality of a reconstruction: over all voxels, and PSNR over the training and the held-out ones alone."""
    found = volume_quality(signal.slab, lambda first, last: fit[first:last], *signal.shape, signal.out_dim)
    found["psnr_train"], found["psnr_heldout"] = found["psnr"], None
    flat = fit.reshape(-1, signal.out_dim)
    if signal.split.n_heldout:
        for name, samples in signal.judged_on().items():
            found[name] = psnr_over(signal.values, lambda index: flat[index.numpy()], samples.portions())
    return found


def _sampled(signal: VolumeSignal, field: Field) -> dict[str, Any]:
    """PSNR over evenly spread voxels of each set."""
    found: dict[str, Any] = {"psnr_heldout": None}
    for name, samples in signal.judged_on().items():
        index = samples.index(torch.linspace(0, samples.n - 1, min(_SAMPLE, samples.n), dtype=torch.float64).long())
        found[name] = psnr_over(signal.values, lambda where: _at(signal, field, where), index.split(_PORTION))
    return {"psnr": found["psnr_train"], **found}


def _at(signal: VolumeSignal, field: Field, index: Int64[Tensor, " n"]) -> Float[np.ndarray, "n channels"]:
    return evaluate(field, signal.coordinates(index)).numpy()


def _plane(signal: VolumeSignal, field: Field, axis: str) -> Float[np.ndarray, "h w channels"]:
    index = signal.slice_indices(axis)
    return _at(signal, field, index.reshape(-1)).reshape(*index.shape, signal.out_dim)


def _projections(signal: VolumeSignal, fit: Float[np.ndarray, "z y x channels"]) -> list[np.ndarray]:
    """The largest values along y of truth, fit and absolute error."""
    step = signal.slices_per_block
    parts = [slice(k, min(k + step, signal.depth)) for k in range(0, signal.depth, step)]
    truths = [projection([signal.slab(part.start, part.stop)]) for part in parts]
    errors = [projection([np.abs(fit[part] - signal.slab(part.start, part.stop))]) for part in parts]
    return [np.concatenate(truths), projection([fit]), np.concatenate(errors)]


def _file(signal: VolumeSignal) -> str:
    """NIfTI and NRRD come back as what they were, everything else as NumPy's format."""
    kind = signal.header.format if signal.header is not None else "npy"
    return {"nifti": VOLUMES[0], "nrrd": VOLUMES[1]}.get(kind, VOLUMES[2])


def _draw(
    signal: VolumeSignal,
    truth: list[np.ndarray],
    fit: list[np.ndarray],
    projections: list[np.ndarray] | None,
    numbers: Mapping[str, Any],
    folder: Path,
) -> None:
    shown = ("encoding", "psnr", "psnr_heldout", "ssim", "steps", "train_seconds", "n_parameters")
    sizes = zip("zyx", signal.shape, strict=True)
    volume_comparison(
        truth,
        fit,
        spacing=signal.spacing,
        title=f"{signal.name}: truth, fit and error",
        captions={key: numbers.get(key) for key in shown},
        path=folder / COMPARISON,
        places=[f"{axis} = {n // 2} of {n}" for axis, n in sizes],
        projections=projections,
    )
    for name, planes in ((RECONSTRUCTION, fit), (TRUTH, truth)):
        with atomic(folder / name) as temporary:
            imageio.imwrite(temporary, display(planes[0])[::-1])
