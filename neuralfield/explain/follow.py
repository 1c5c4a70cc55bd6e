"""A fit followed on windows, or on all samples at once, by the kernels there; and the mean over several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from neuralfield.explain.curves import Curve
from neuralfield.explain.judge import spread
from neuralfield.explain.patches import Patch
from neuralfield.explain.window_kernels import Kernels, shares, stacked, window_kernels
from neuralfield.field import Field
from neuralfield.fitting import schedule
from neuralfield.fitting.optimizer import learning_rates
from neuralfield.fitting.options import FitOptions
from neuralfield.networks import MLP
from neuralfield.ntk.adam import AdamPrediction, predict_adam
from neuralfield.signals.base import SampleSet, Signal

if TYPE_CHECKING:
    from neuralfield.explain.first_steps import Begun
    from neuralfield.signals.shape import ShapeSignal

_SPREAD = 128  # samples all over the signal
_TOGETHER = 2**21  # numbers of one part's kernels on windows that are followed together


@dataclass(frozen=True)
class Piece:
    """A prediction on windows, and their kernel by parts."""

    curve: AdamPrediction
    parts: dict[str, Any]


def follow(
    field: Field,
    signal: Signal,
    options: FitOptions,
    windows: list[Patch],
    at: list[int],
    kernels: Kernels | None = None,
    begun: Begun | None = None,
) -> Piece:
    """Adam on windows together.

    **Arguments**

    - `at`: steps to report, and `kernels`: those of every window; None: each has its own.
    - `begun`: the fit's first steps, if some were made; `field` is as they left it, and `at` counts from there.
    """
    if kernels is None:
        parts, parts_test, sizes = stacked([window_kernels(field, window) for window in windows])
        join = lambda tensors: torch.stack(list(tensors))  # noqa: E731
    else:
        parts, parts_test, sizes = kernels
        join = lambda tensors: torch.cat(list(tensors), dim=1)  # noqa: E731
    network, encoding = learning_rates(field, options)
    channels, followed = windows[0].y.shape[1], len(windows[0].x) * len(windows)
    n_total = max(round(signal.split.n_train / windows[0].stands_for), followed)
    y, y_test = join(w.y for w in windows), join(w.y_test for w in windows)
    with torch.no_grad():
        f0, f0_test = join(field(w.x) for w in windows), join(field(w.x_test) for w in windows)
    done = 0 if begun is None else begun.steps

    def factor(step: int) -> float:
        step += done
        fraction = step / options.steps  # type: ignore[operator]
        return schedule.factor(options.schedule, fraction, options.final_lr) * schedule.warmup(
            step, options.warmup_steps
        )

    curve = predict_adam(
        parts,
        sizes,
        y,
        options.steps - done,  # type: ignore[operator]
        learning_rate={name: encoding if name.startswith("encoding") else network for name in parts},
        f0=f0,
        parts_test=parts_test,
        y_test=y_test,
        f0_test=f0_test,
        schedule=factor,
        beta1=options.beta1,
        beta2=options.beta2,
        eps=options.eps,
        at=at,
        n_total=n_total,
        batch=options.batch_size if isinstance(options.batch_size, int) else None,
        patches=1 if kernels is None else len(windows),
        # After the first steps behind a hash grid it hardly grows.
        last_layer=_last_layer(field, parts) if begun is None else None,
        # What the layer contributes is a sum over all samples; a window's mean is learned more slowly than theirs.
        last_biases=_last_biases(field) if n_total == followed else None,
        start=None if begun is None else begun.start(parts),
        spread=None if n_total == followed else _spread(field, signal),
        limits=(0.0, 1.0) if signal.type != "shape" else None,
        counted=join(w.counted[:, None].expand(-1, channels) for w in windows),
    )
    return Piece(curve, parts)


def _spread(field: Field, signal: Signal) -> dict[str, Any]:
    """The kernel by parts between points that are spread over all of the signal."""
    few = spread(signal, SampleSet(signal.split.n_train, signal.split.train), _SPREAD)
    x, y = few.x.to(field.device), few.y.to(field.device)
    return window_kernels(field, Patch(x, y, x[:1], y[:1], few.counted[:1], ()))[0]


def _last_biases(field: Field) -> Tensor | None:
    """Of an MLP whose last layer gives the field's values as they are; else None."""
    network = field.network
    if not isinstance(network, MLP) or network.output_activation not in (None, "none", "identity"):
        return None
    layer = network.linear_layers()[-1]
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def _last_layer(field: Field, parts: dict[str, Any]) -> tuple[str, float] | None:
    """The weights of an MLP's last layer by name, and the sum of their squares; None behind other networks."""
    if not isinstance(field.network, MLP):
        return None
    weight = field.network.linear_layers()[-1].weight
    name = next(name for name, parameter in field.named_parameters() if parameter is weight)
    squares = float(weight.detach().square().sum())
    return (name, squares) if name in parts and squares > 0 else None


def alike(windows: list[Patch]) -> list[list[Patch]]:
    """Windows with as many training and held-out samples, together, as far as memory goes."""
    found: dict[tuple[int, int], list[Patch]] = {}
    for window in windows:
        found.setdefault((len(window.x), len(window.x_test)), []).append(window)
    most = {sizes: max(_TOGETHER // (sizes[0] * sum(sizes)), 1) for sizes in found}
    return [group[i : i + most[sizes]] for sizes, group in found.items() for i in range(0, len(group), most[sizes])]


def mean_curve(signal: Signal, pieces: list[Piece], groups: list[list[Patch]]) -> Curve:
    """Over groups of windows, which count by the held-out pixels in them."""
    weights = [sum(float(w.counted.sum()) for w in group) for group in groups]
    mean = lambda name: np.average([getattr(p.curve, name) for p in pieces], axis=0, weights=weights)  # noqa: E731
    last = pieces[-1]
    return Curve(
        last.curve.steps,
        mean("train_mse"),
        mean("test_mse"),
        mean("f0_mse") if last.curve.f0_mse is not None else 0 * last.curve.train_mse,
        last.curve.weights,
        shares(last.parts, last.curve),
        iou(signal, _by_window(pieces), [w for group in groups for w in group]),
    )


def _by_window(pieces: list[Piece]) -> list[Tensor]:
    """Residuals on test points, of windows with kernels of their own."""
    found = [piece.curve.test_residual for piece in pieces]
    return [window for residual in found if residual is not None for window in residual]


def iou(signal: Signal, residuals: list[Tensor], windows: list[Patch]) -> float | None:
    """Of a shape's inside over the held-out points of all windows; None for other signals."""
    if signal.type != "shape":
        return None
    from neuralfield.explain.point_patches import overlap

    pairs = [(r + w.y_test, w.y_test) for r, w in zip(residuals, windows, strict=True)]
    both, either = np.sum([overlap(cast("ShapeSignal", signal), *pair) for pair in pairs], axis=0)
    return float(both / either) if either else 1.0
