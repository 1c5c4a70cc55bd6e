"""What a fit will do, from kernels alone: PSNR against steps, on training and held-out pixels, before any step is made.

The field's tangent kernel is split by parameter tensor and Adam is followed in function space
(:mod:`~neuralfield.ntk.adam`), while the last layer grows. Behind a Fourier-like encoding the kernel is the infinitely wide
network's, on the exact frequencies: the actual one is that plus noise. Where samples lie on a grid it is followed on all of
them at once (:mod:`~neuralfield.explain.grid_kernels`), else on windows. Behind a hash grid it is the actual field's, taken
after the fit's first real steps (:mod:`~neuralfield.explain.first_steps`). A network on plain coordinates learns features all
the way, which no kernel that stands still knows: of an image's, a copy is fitted on some hundred means of pixels instead
(:mod:`~neuralfield.explain.small_fit`). Small images are learned by heart; then a copy that sees a few of their pixels in a
step has a say too (:mod:`~neuralfield.explain.by_heart`). No constant is fitted to measurements.

For shapes the prediction is a stand-in: of the same network trained with the squared error on labels or distances.
Cross-entropy drives logits on and on, and the network's kernel does not stand still.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from neuralfield.encodings import Fourier
from neuralfield.errors import ConfigError
from neuralfield.explain.by_heart import learns_by_heart, with_a_copy
from neuralfield.explain.curves import Curve, powers
from neuralfield.explain.first_steps import begin, behind_a_grid, first_steps
from neuralfield.explain.follow import alike, follow, mean_curve
from neuralfield.explain.grid_kernels import grid_window
from neuralfield.explain.patches import Patch, congruent, patches, roughness, signal_roughness
from neuralfield.explain.small_fit import SmallFit, remember, remembered, small_fit, suits
from neuralfield.explain.window_kernels import has_grid, is_stationary, window_kernels
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions
from neuralfield.ntk.adam import AdamPrediction
from neuralfield.ntk.empirical import empirical_parts
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.quality import PSNR

_WIDE = {2: 48, 3: 11}  # by dimension: training pixels along a window for kernels that do not fall off with distance
_PER_CELL = 3  # training pixels along the side of a cell, where a fit on cells takes the place of such a window
_MOST_WIDE = 8  # of them, in a volume
_COVERED = 0.5  # of the held-out pixels: windows with more of them speak for the image


@dataclass(frozen=True)
class Effort:
    """What a prediction may cost.

    - `most`: samples that are followed at once, at most; of a signal with more, a part is. None: about 100,000.
    - `first`: real steps of a field with a hash grid; None: 64, or a sixteenth of a long fit.
    - `copy`: whether of an image that is learned by heart a copy is fitted too.
    """

    most: int | None = None
    first: int | None = None
    copy: bool = True


THOROUGH = Effort()
QUICK = Effort(2**12, 16, copy=False)
"""Some tenths of a second: enough to tell settings apart."""


def predict(
    field: Field,
    signal: Signal,
    options: FitOptions,
    windows: Sequence[Patch],
    at: Sequence[int] = (),
    wide: int | None = None,
    effort: Effort = THOROUGH,
) -> Curve:
    """The curve of ``options.steps`` steps of Adam from the field's present weights.

    **Arguments**

    - `field`: as built, untrained.
    - `windows`: of :func:`~neuralfield.explain.patches.patches`, for fields that cannot be followed on all samples at once.
    - `wide`: training pixels along the one window that kernels which do not fall off with distance get; None: 48, in three
      dimensions 11. (A shape's windows serve all kernels.) Of an image's plain coordinates three times the cells along
      the side of a square image, at most, on which a copy is fitted; the windows do not enter.
    - `at`: steps to report; empty means 1, 2, 3, 4, 6, 8, 11, ... (powers of the root of two).
    - `effort`: what the prediction may cost.

    Raises :class:`~neuralfield.errors.ConfigError` for what the prediction does not know: a loss other than mse (of shapes,
    for which it is a stand-in, the eikonal term alone), no number of steps. A network that the theory of infinite width does
    not cover is predicted from the kernel of its own weights.
    """
    signal, options = stand_in(signal, options)
    if (options.loss or signal.default_loss) != "mse":
        raise ConfigError(f"predictions know fit.loss=mse; got {options.loss or signal.default_loss}")
    if options.eikonal:
        raise ConfigError(f"predictions know no eikonal term; got fit.eikonal={options.eikonal:g}, and 0 leaves it out")
    if options.steps is None:
        raise ConfigError("a prediction needs a number of steps; give fit.steps")
    at = sorted({min(step, options.steps) for step in (at or powers(options.steps))})
    windows, wide = list(windows), _WIDE[signal.in_dim] if wide is None else wide
    if suits(field, signal):
        pixels = cast(ImageSignal, signal)
        fit = remember(field, pixels, options, small_fit(field, pixels, options, at, max(wide // _PER_CELL, 1)))
        return Curve(fit.steps, fit.train_mse, fit.heldout_mse, 0 * fit.heldout_mse, fit.weights, fit.energy)
    if has_grid(field):
        return behind_a_grid(field, signal, options, windows, at, effort.first)
    if (found := grid_window(field, signal, effort.most)) is not None:
        window, kernels = found
        curve = mean_curve(signal, [follow(field, signal, options, [window], at, kernels=kernels)], [[window]])
        curve = _standing_for(signal, [window], curve)
    else:
        curve = _standing_for(signal, windows, _on_windows(field, signal, options, windows, at, wide))
    if effort.copy and learns_by_heart(field, signal, options):
        return with_a_copy(field, signal, options, curve)
    return curve


def _standing_for(signal: Signal, windows: list[Patch], curve: Curve) -> Curve:
    """A curve on windows for all of the signal, which may be smoother or rougher than they are."""
    if sum(float(w.counted.sum()) for w in windows) > _COVERED * signal.split.n_heldout:
        return curve
    ours, all_of_it = float(np.mean([roughness(w) for w in windows])), signal_roughness(signal)
    return curve.scaled(all_of_it / ours, all_of_it / ours) if all_of_it is not None and ours > 0 else curve


def stand_in(signal: Signal, options: FitOptions) -> tuple[Signal, FitOptions]:
    """What is predicted in place of a shape: its labels or distances as values, learned with the squared error."""
    if signal.type != "shape":
        return signal, options
    other = copy.copy(signal)
    other.logits, other.default_loss, other.quality = False, "mse", PSNR
    return other, replace(options, loss=None)


def _on_windows(
    field: Field, signal: Signal, options: FitOptions, windows: list[Patch], at: list[int], wide: int
) -> Curve:
    if not isinstance(field.encoding, Fourier) and signal.type != "shape":
        # Axis-aligned or no frequencies: far points are alike too, and a small window would not feel how many there are.
        # A volume is as a rule so few voxels wide that its sides count, which one window in its middle would not see.
        large = patches(signal, wide, 1 if signal.in_dim == 2 else _MOST_WIDE)
        if len(large) > 1 and not (is_stationary(field) and congruent(signal, large)):
            large = [large[0], large[-1]]
            curve = mean_curve(
                signal,
                [follow(field, signal, options, [w], at, kernels=window_kernels(field, w)) for w in large],
                [[w] for w in large],
            )
        else:
            kernels = window_kernels(field, large[0])
            curve = mean_curve(signal, [follow(field, signal, options, large, at, kernels=kernels)], [large])
        rougher = _relative_roughness(windows, large)
        return curve.scaled(rougher, rougher)
    if is_stationary(field) and congruent(signal, windows):
        kernels = window_kernels(field, windows[0])
        return mean_curve(signal, [follow(field, signal, options, windows, at, kernels=kernels)], [windows])
    groups = alike(windows)
    return mean_curve(signal, [follow(field, signal, options, group, at) for group in groups], groups)


@dataclass(frozen=True)
class Look:
    """One window from within.

    - `field`: as it stands where its kernel is taken; `prediction`: its residuals at the budget.
    - `kernel`: the one that trains there, the sum of the parts with their weights at the end, [n, n].
    """

    field: Field
    prediction: AdamPrediction
    kernel: Tensor


def look(field: Field, signal: Signal, options: FitOptions, window: Patch) -> Look:
    """What :func:`predict` does on one window, with what its curve leaves out."""
    signal, options = stand_in(signal, options)
    if suits(field, signal):
        return _look_at_a_fit(remembered(field, cast(ImageSignal, signal), options), window)
    steps, begun = options.steps or 1, None
    if has_grid(field) and steps > 1:
        begun = begin(field, signal, options, min(first_steps(options), steps - 1), [window])
        field, steps = begun.field, steps - begun.steps
    piece = follow(field, signal, options, [window], [steps], window_kernels(field, window), begun)
    kernel = torch.stack([piece.curve.weights[name] * part for name, part in piece.parts.items()]).sum(dim=0)
    return Look(field, piece.curve, kernel)


@torch.no_grad()
def _look_at_a_fit(fit: SmallFit, window: Patch) -> Look:
    """One window after a fit on cells: residuals as they are, the kernel of the weights."""
    train, held = fit.field(window.x) - window.y, fit.field(window.x_test) - window.y_test
    left = held.square().mean(dim=1) * window.counted
    prediction = AdamPrediction(
        fit.steps[-1:],
        np.array([float(train.square().mean())]),
        np.array([float(left.sum() / window.counted.sum())]),
        None,
        train,
        held,
        fit.weights,
    )
    parts = empirical_parts(fit.field, window.x)
    kernel = torch.stack([fit.weights[name] * part for name, part in parts.items()]).sum(dim=0)
    return Look(fit.field, prediction, kernel)


def _relative_roughness(windows: list[Patch], chosen: list[Patch]) -> float:
    """How much rougher all windows are than the ones that were taken for them."""
    taken = float(np.mean([roughness(w) for w in chosen]))
    return float(np.mean([roughness(w) for w in windows])) / taken if taken > 0 else 1.0
