r"""Images that are learned by heart: a copy of the field that sees few of the samples in a step.

Where a fit has learned its training pixels, what it shows between them hardly depends on the path there: a copy whose
gradients are of few pixels, and scatter, ends at the same values. It learns features and forgets its initial function as the
fit does, which no kernel that stands still knows. Where the fit has not learned its pixels yet, the scatter slows the copy
down, and kernels tell more. So the copy has a say in the logarithm of the held-out error by how much of its own is between
the pixels rather than on them, $w = (1 - \text{mse}_\text{train} / \text{mse}_\text{held out})^2$, at every step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuralfield.explain.curves import Curve
from neuralfield.explain.first_steps import begin
from neuralfield.explain.small_fit import one_thread
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions
from neuralfield.networks import MLP
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal

_SHARE = 25  # samples of the fit's step for one of the copy's: with what steps cost besides, below a tenth of the fit
_SEEN = 20  # times that the copy sees a sample, at least


def few(signal: Signal, options: FitOptions) -> int:
    """Samples in a step of the copy."""
    return max(options.samples_per_step(signal.split.n_train) // _SHARE, 1)


def learns_by_heart(field: Field, signal: Signal, options: FitOptions) -> bool:
    """Whether the copy would see every pixel of an image often enough for that."""
    if not isinstance(signal, ImageSignal) or not isinstance(field.network, MLP) or options.steps is None:
        return False
    return options.steps * few(signal, options) >= _SEEN * signal.split.n_train


def with_a_copy(field: Field, signal: Signal, options: FitOptions, curve: Curve) -> Curve:
    """A curve from kernels, and what a copy of the field says of it."""
    assert options.steps is not None
    steps = curve.steps.tolist()
    with one_thread():
        copy = begin(field, signal, replace(options, batch_size=few(signal, options)), options.steps, [], steps)
    train, heldout = (np.maximum(values, 1e-15) for values in copy.errors(steps)[1:])
    say = np.maximum(1 - train / heldout, 0.0) ** 2
    log = (1 - say) * np.log(np.maximum(curve.heldout_mse, 1e-15)) + say * np.log(heldout)
    return replace(curve, heldout_mse=np.exp(log))
