"""What a fit will do, from kernels alone: PSNR against steps, on training and held-out pixels, before any step is made.

The field's tangent kernel is split by parameter tensor and Adam is followed in function space
(:mod:`~neuralfield.ntk.adam`), while the last layer grows. Behind a Fourier-like encoding the kernel is the infinitely wide
network's, on the exact frequencies: the actual one is that plus noise. Where samples lie on a grid it is followed on all of
them at once (:mod:`~neuralfield.explain.grid_kernels`), else on windows. Behind a hash grid it is the actual field's. A grid
starts from features of 1e-4, where its network sees next to nothing; so a copy of the field makes a few real steps first, and
the kernel is taken there. A network on plain coordinates learns features all the way, which no kernel that stands still
knows: of an image's, a copy is fitted on some hundred means of pixels instead (:mod:`~neuralfield.explain.small_fit`).
Nothing is fitted to measurements.

For shapes the prediction is a stand-in: of the same network trained with the squared error on labels or distances.
Cross-entropy drives logits on and on, and the network's kernel does not stand still.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from neuralfield.encodings import Fourier
from neuralfield.errors import ConfigError
from neuralfield.explain.grid_kernels import grid_window
from neuralfield.explain.patches import Patch, congruent, patches, roughness, signal_roughness
from neuralfield.explain.small_fit import SmallFit, remember, remembered, small_fit, suits
from neuralfield.explain.window_kernels import Kernels, has_grid, is_stationary, shares, window_kernels
from neuralfield.field import Field
from neuralfield.fitting import schedule
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.optimizer import learning_rates
from neuralfield.fitting.options import FitOptions
from neuralfield.networks import MLP
from neuralfield.ntk.adam import AdamPrediction, predict_adam
from neuralfield.ntk.empirical import empirical_parts
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal
from neuralfield.signals.quality import PSNR

if TYPE_CHECKING:
    from neuralfield.signals.shape import ShapeSignal

_WARM = 16  # real steps of a field with a hash grid: the grid then has features that its network sees
_WIDE = {2: 48, 3: 11}  # by dimension: training pixels along a window for kernels that do not fall off with distance
_PER_CELL = 3  # training pixels along the side of a cell, where a fit on cells takes the place of such a window
_MOST_WIDE = 8  # of them, in a volume
_MOST_SINGLE = 5  # windows whose kernels are all different
_ROOMY = 5  # parameters for each training value
_COVERED = 0.5  # of the held-out pixels: windows with more of them speak for the image


@dataclass(frozen=True)
class Curve:
    """A predicted fit.

    - `steps`: when.
    - `train_mse`, `heldout_mse`: mean squared errors over pixels and channels.
    - `f0_mse`: the part of heldout_mse that the initial function leaves there; 0 where errors were measured on real steps.
    - `weights`: by part of the network, its kernel's factor at the end, relative to the largest.
    - `energy`: by part, its share of the kernel that trains (of the trace), at the end.
    - `iou`: of a shape, the intersection over union of its inside on held-out points, at the end; else None.
    """

    steps: np.ndarray
    train_mse: np.ndarray
    heldout_mse: np.ndarray
    f0_mse: np.ndarray
    weights: dict[str, float]
    energy: dict[str, float]
    iou: float | None = None

    @property
    def train_psnr(self) -> np.ndarray:
        """dB, for values in [0, 1]."""
        return psnr(self.train_mse)

    @property
    def heldout_psnr(self) -> np.ndarray:
        """dB, for values in [0, 1]."""
        return psnr(self.heldout_mse)


def psnr(mse: np.ndarray) -> np.ndarray:
    """-10 log10 of mean squared errors, at most 150 dB, where float32 ends."""
    return -10 * np.log10(np.maximum(mse, 1e-15))


def predict(
    field: Field,
    signal: Signal,
    options: FitOptions,
    windows: Sequence[Patch],
    at: Sequence[int] = (),
    wide: int | None = None,
    most: int | None = None,
) -> Curve:
    """The curve of ``options.steps`` steps of Adam from the field's present weights.

    **Arguments**

    - `field`: as built, untrained.
    - `windows`: of :func:`~neuralfield.explain.patches.patches`, for fields that cannot be followed on all samples at once.
    - `most`: samples that are followed at once, at most; of a signal with more, a part is. None: about 100,000.
    - `wide`: training pixels along the one window that kernels which do not fall off with distance get; None: 48, in three
      dimensions 11. (A shape's windows serve all kernels.) Of an image's plain coordinates three times the cells along
      the side of a square image, at most, on which a copy is fitted; the windows do not enter.
    - `at`: steps to report; empty means 1, 2, 3, 4, 6, 8, 11, ... (powers of the root of two).

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
    if (found := grid_window(field, signal, most)) is not None:
        window, kernels = found
        curve = _mean_curve(signal, [_follow(field, signal, options, [window], at, kernels=kernels)], [[window]])
        return _standing_for(signal, [window], curve)
    return _standing_for(signal, windows, _on_windows(field, signal, options, windows, at, wide))


def _standing_for(signal: Signal, windows: list[Patch], curve: Curve) -> Curve:
    """A curve on windows for all of the signal, which may be smoother or rougher than they are."""
    if sum(float(w.counted.sum()) for w in windows) > _COVERED * signal.split.n_heldout:
        return curve
    ours, all_of_it = float(np.mean([roughness(w) for w in windows])), signal_roughness(signal)
    return _scaled(curve, all_of_it / ours) if all_of_it is not None and ours > 0 else curve


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
    if has_grid(field):
        return _behind_a_grid(field, signal, options, windows, at)
    if not isinstance(field.encoding, Fourier) and signal.type != "shape":
        # Axis-aligned or no frequencies: far points are alike too, and a small window would not feel how many there are.
        # A volume is as a rule so few voxels wide that its sides count, which one window in its middle would not see.
        large = patches(signal, wide, 1 if signal.in_dim == 2 else _MOST_WIDE)
        if len(large) > 1 and not (is_stationary(field) and congruent(signal, large)):
            large = [large[0], large[-1]]
            curve = _mean_curve(
                signal,
                [_follow(field, signal, options, [w], at, kernels=window_kernels(field, w)) for w in large],
                [[w] for w in large],
            )
        else:
            kernels = window_kernels(field, large[0])
            curve = _mean_curve(signal, [_follow(field, signal, options, large, at, kernels=kernels)], [large])
        return _scaled(curve, _relative_roughness(windows, large))
    if is_stationary(field) and congruent(signal, windows):
        kernels = window_kernels(field, windows[0])
        return _mean_curve(signal, [_follow(field, signal, options, windows, at, kernels=kernels)], [windows])
    groups = _alike(windows)
    return _mean_curve(signal, [_follow(field, signal, options, group, at) for group in groups], groups)


def _alike(windows: list[Patch]) -> list[list[Patch]]:
    """Windows with as many training and held-out samples, together."""
    found: dict[tuple[int, int], list[Patch]] = {}
    for window in windows:
        found.setdefault((len(window.x), len(window.x_test)), []).append(window)
    return list(found.values())


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
    steps, done = options.steps or 1, 0
    if suits(field, signal):
        return _look_at_a_fit(remembered(field, cast(ImageSignal, signal), options), window)
    if has_grid(field):
        field, done = copy.deepcopy(field), min(_WARM, steps - 1)
        for _ in _first_steps(field, signal, options, done):
            pass
    piece = _follow(field, signal, options, [window], [steps - done], done, window_kernels(field, window))
    kernel = torch.stack([piece.curve.weights[name] * part for name, part in piece.parts.items()]).sum(dim=0)
    return Look(field, piece.curve, kernel)


@torch.no_grad()
def _look_at_a_fit(fit: SmallFit, window: Patch) -> Look:
    """One window after a fit on cells: residuals as they are, the kernel of the weights."""
    train, held = fit.field(window.x) - window.y, _held_residual(fit.field, window)
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


def _first_steps(field: Field, signal: Signal, options: FitOptions, count: int) -> Iterator[int]:
    """Real steps of the fit that the options ask for, one by one."""
    trainer = Trainer(field, signal, options, progress=False)
    for step in range(1, count + 1):
        trainer.train_step()
        trainer.state.step = step
        yield step


def _behind_a_grid(field: Field, signal: Signal, options: FitOptions, windows: list[Patch], at: list[int]) -> Curve:
    """Some real steps, then the prediction from the field as it stands there."""
    field, warm = copy.deepcopy(field), min(_WARM, options.steps or 1)
    steps = _first_steps(field, signal, options, warm)
    done = [(step, *_errors(field, windows)) for step in steps if step in at]
    chosen = windows[:: max(1, math.ceil(len(windows) / _MOST_SINGLE))]
    if signal.in_dim == 3:  # steps of whole rows would stay at one side
        chosen = [windows[i] for i in np.linspace(0, len(windows) - 1, min(_MOST_SINGLE, len(windows))).astype(int)]
    later = [step - warm for step in at if step > warm]
    measured = np.array(done).reshape(-1, 3)
    if not later:
        iou = _iou(signal, [_held_residual(field, w) for w in windows], windows)
        return Curve(measured[:, 0].astype(int), measured[:, 1], measured[:, 2], 0 * measured[:, 2], {}, {}, iou)
    groups = _alike(chosen)
    curve = _mean_curve(signal, [_follow(field, signal, options, group, later, warm) for group in groups], groups)
    curve = _scaled(curve, _relative_roughness(windows, chosen))
    return Curve(
        np.concatenate([measured[:, 0].astype(int), curve.steps + warm]),
        np.concatenate([measured[:, 1], curve.train_mse]),
        np.concatenate([measured[:, 2], curve.heldout_mse]),
        np.concatenate([0 * measured[:, 2], curve.f0_mse]),
        curve.weights,
        curve.energy,
        curve.iou,
    )


def _scaled(curve: Curve, factor: float) -> Curve:
    return replace(
        curve, train_mse=factor * curve.train_mse, heldout_mse=factor * curve.heldout_mse, f0_mse=factor * curve.f0_mse
    )


@torch.no_grad()
def _errors(field: Field, windows: list[Patch]) -> tuple[float, float]:
    """Mean squared errors on training and counted held-out pixels of the windows."""
    train = [float((field(w.x) - w.y).square().mean()) for w in windows]
    held = [
        float(((field(w.x_test) - w.y_test).square().mean(dim=1) * w.counted).sum() / w.counted.sum()) for w in windows
    ]
    return float(np.mean(train)), float(np.mean(held))


def _relative_roughness(windows: list[Patch], chosen: list[Patch]) -> float:
    """How much rougher all windows are than the ones that were taken for them."""
    taken = float(np.mean([roughness(w) for w in chosen]))
    return float(np.mean([roughness(w) for w in windows])) / taken if taken > 0 else 1.0


@torch.no_grad()
def _held_residual(field: Field, window: Patch) -> Tensor:
    return field(window.x_test) - window.y_test


def _iou(signal: Signal, residuals: list[Tensor | None], windows: list[Patch]) -> float | None:
    """Of a shape's inside over the held-out points of all windows; None for other signals."""
    if signal.type != "shape":
        return None
    from neuralfield.explain.point_patches import overlap

    pairs = [(r + w.y_test, w.y_test) for r, w in zip(residuals, windows, strict=True) if r is not None]
    both, either = np.sum([overlap(cast("ShapeSignal", signal), *pair) for pair in pairs], axis=0)
    return float(both / either) if either else 1.0


def _mean_curve(signal: Signal, pieces: list[_Piece], groups: list[list[Patch]]) -> Curve:
    """Over groups of windows, which count by the held-out pixels in them."""
    weights = [sum(float(w.counted.sum()) for w in group) for group in groups]
    mean = lambda name: np.average([getattr(p.curve, name) for p in pieces], axis=0, weights=weights)  # noqa: E731
    last = pieces[-1]
    return Curve(
        last.curve.steps,
        mean("train_mse"),
        mean("test_mse"),
        mean("f0_mse"),
        last.curve.weights,
        shares(last.parts, last.curve),
        _iou(signal, [r for p in pieces for r in p.curve.test_residual], [w for group in groups for w in group]),
    )


def powers(steps: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 11, 16, ... up to ``steps``, which is the last."""
    found = {int(2 ** (i / 2)) for i in range(2 * math.ceil(math.log2(max(steps, 2))) + 1)}
    return sorted({step for step in found if step < steps} | {steps})


@dataclass(frozen=True)
class _Piece:
    """A prediction on windows with one kernel, and that kernel by parts."""

    curve: AdamPrediction
    parts: dict[str, Any]


def _follow(
    field: Field,
    signal: Signal,
    options: FitOptions,
    windows: list[Patch],
    at: list[int],
    done: int = 0,
    kernels: Kernels | None = None,
) -> _Piece:
    """Adam on windows together; ``done`` steps were made before. ``kernels``: those of every window; None: each has its own."""
    if kernels is None:
        parts, parts_test, sizes = _stacked([window_kernels(field, window) for window in windows])
        join = lambda tensors: torch.stack(list(tensors))  # noqa: E731
    else:
        parts, parts_test, sizes = kernels
        join = lambda tensors: torch.cat(list(tensors), dim=1)  # noqa: E731
    network, encoding = learning_rates(field, options)
    channels, followed = windows[0].y.shape[1], len(windows[0].x) * len(windows)
    n_total = max(round(signal.split.n_train / windows[0].stands_for), followed)
    with torch.no_grad():
        f0, f0_test = join(field(w.x) for w in windows), join(field(w.x_test) for w in windows)

    def factor(step: int) -> float:
        now = schedule.factor(options.schedule, (step + done) / options.steps, options.final_lr)  # type: ignore[operator]
        return now * schedule.warmup(step + done, options.warmup_steps)

    curve = predict_adam(
        parts,
        sizes,
        join(w.y for w in windows),
        options.steps - done,  # type: ignore[operator]
        learning_rate={name: encoding if name.startswith("encoding") else network for name in parts},
        f0=f0,
        parts_test=parts_test,
        y_test=join(w.y_test for w in windows),
        f0_test=f0_test,
        schedule=factor,
        beta1=options.beta1,
        beta2=options.beta2,
        eps=options.eps,
        at=at,
        n_total=n_total,
        batch=options.batch_size if isinstance(options.batch_size, int) else None,
        patches=1 if kernels is None else len(windows),
        last_layer=_last_layer(field, signal, parts),
        # What the layer contributes is a sum over all samples; a window's mean is learned more slowly than theirs.
        last_biases=_last_biases(field) if n_total == followed else None,
        counted=join(w.counted[:, None].expand(-1, channels) for w in windows),
    )
    return _Piece(curve, parts)


def _stacked(kernels: list[Kernels]) -> Kernels:
    """The kernels of several windows, by part [windows, n, n]."""
    parts, test = ({name: torch.stack([k[i][name] for k in kernels]) for name in kernels[0][i]} for i in (0, 1))
    return parts, test, kernels[0][2]


def _last_biases(field: Field) -> Tensor | None:
    """Of an MLP whose last layer gives the field's values as they are; else None."""
    network = field.network
    if not isinstance(network, MLP) or network.output_activation not in (None, "none", "identity"):
        return None
    layer = network.linear_layers()[-1]
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def _last_layer(field: Field, signal: Signal, parts: dict[str, Any]) -> tuple[str, float] | None:
    """The weights of an MLP's last layer by name, and the sum of their squares; None where its growth is not followed.

    That is behind other networks, and where samples have to share parameters: there a network learns more slowly than its
    infinitely wide limit, by about what the growth would give.
    """
    crowded = field.n_parameters < _ROOMY * signal.split.n_train * signal.out_dim
    if crowded or not isinstance(field.network, MLP):
        return None
    weight = field.network.linear_layers()[-1].weight
    name = next(name for name, parameter in field.named_parameters() if parameter is weight)
    squares = float(weight.detach().square().sum())
    return (name, squares) if name in parts and squares > 0 else None
