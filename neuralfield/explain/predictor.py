"""What a fit will do, from kernels alone: PSNR against steps, on training and held-out pixels, before any step is made.

The field's tangent kernel is split by parameter tensor and Adam is followed in function space
(:mod:`~neuralfield.ntk.adam`) on windows of the image. Behind a Fourier-like encoding the kernel is the infinitely wide
network's, on the exact frequencies: the actual one is that plus noise. Behind a hash grid it is the actual field's. A grid
starts from features of 1e-4, where its network sees next to nothing; so a copy of the field makes a few real steps first, and
the kernel is taken there. Nothing is fitted to measurements.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neuralfield.encodings import Encoding, Fourier, HashGrid, Positional
from neuralfield.errors import ConfigError
from neuralfield.explain.patches import Patch, congruent, image_roughness, patches, roughness
from neuralfield.field import Field
from neuralfield.fitting import schedule
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.optimizer import learning_rates
from neuralfield.fitting.options import FitOptions
from neuralfield.ntk.adam import AdamPrediction, predict_adam
from neuralfield.ntk.empirical import empirical_parts
from neuralfield.ntk.kernel_parts import kernel_parts
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.signals.image import ImageSignal

_WARM = 16  # real steps of a field with a hash grid: the grid then has features that its network sees
_WIDE = 48  # training pixels along a window for kernels that do not fall off with distance
_MOST_SINGLE = 5  # windows whose kernels are all different
_COVERED = 0.5  # of the held-out pixels: windows with more of them speak for the image
_BANDS = 4  # of the first layer's weights by frequency, whose gradients differ as the image's spectrum does


@dataclass(frozen=True)
class Curve:
    """A predicted fit.

    - `steps`: when.
    - `train_mse`, `heldout_mse`: mean squared errors over pixels and channels.
    - `f0_mse`: the part of heldout_mse that the initial function leaves there.
    - `weights`: by part of the network, its kernel's factor at the end, relative to the largest.
    - `energy`: by part, its share of the kernel that trains (of the trace), at the end.
    """

    steps: np.ndarray
    train_mse: np.ndarray
    heldout_mse: np.ndarray
    f0_mse: np.ndarray
    weights: dict[str, float]
    energy: dict[str, float]

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
    signal: ImageSignal,
    options: FitOptions,
    windows: Sequence[Patch],
    at: Sequence[int] = (),
    wide: int = _WIDE,
) -> Curve:
    """The curve of ``options.steps`` steps of Adam from the field's present weights.

    **Arguments**

    - `field`: as built, untrained.
    - `windows`: of :func:`~neuralfield.explain.patches.patches`.
    - `wide`: training pixels along the one window that kernels which do not fall off with distance get.
    - `at`: steps to report; empty means 1, 2, 3, 4, 6, 8, 11, ... (powers of the root of two).

    Raises :class:`~neuralfield.errors.ConfigError` for what the prediction does not know: a loss other than mse, no number
    of steps. A network that the theory of infinite width does not cover is predicted from the kernel of its own weights.
    """
    if options.loss != "mse":
        raise ConfigError(f"predictions know fit.loss=mse; got {options.loss}")
    if options.steps is None:
        raise ConfigError("a prediction needs a number of steps; give fit.steps")
    at = sorted({min(step, options.steps) for step in (at or powers(options.steps))})
    windows = list(windows)
    curve = _on_windows(field, signal, options, windows, at, wide)
    if sum(float(w.counted.sum()) for w in windows) > _COVERED * signal.split.n_heldout:
        return curve
    # The image as a whole may be smoother or rougher than a few windows of it.
    ours, all_of_it = float(np.mean([roughness(w) for w in windows])), image_roughness(signal)
    return _scaled(curve, all_of_it / ours) if all_of_it is not None and ours > 0 else curve


def _on_windows(
    field: Field, signal: ImageSignal, options: FitOptions, windows: list[Patch], at: list[int], wide: int
) -> Curve:
    if _grids(field):
        return _behind_a_grid(field, signal, options, windows, at)
    if not isinstance(field.encoding, Fourier):
        # Axis-aligned or no frequencies: far points are alike too, and a small window would not feel how many there are.
        large = patches(signal, wide, 1)
        curve = _mean_curve([_follow(field, signal, options, large, at)], [large])
        return _scaled(curve, _relative_roughness(windows, large))
    groups = [windows] if _stationary(field) and congruent(signal, windows) else [[window] for window in windows]
    return _mean_curve([_follow(field, signal, options, group, at) for group in groups], groups)


@dataclass(frozen=True)
class Look:
    """One window from within.

    - `field`: as it stands where its kernel is taken; `prediction`: its residuals at the budget.
    - `kernel`: the one that trains there, the sum of the parts with their weights at the end, [n, n].
    """

    field: Field
    prediction: AdamPrediction
    kernel: Tensor


def look(field: Field, signal: ImageSignal, options: FitOptions, window: Patch) -> Look:
    """What :func:`predict` does on one window, with what its curve leaves out."""
    steps, done = options.steps or 1, 0
    if _grids(field):
        field, done = copy.deepcopy(field), min(_WARM, steps - 1)
        trainer = Trainer(field, signal, options, progress=False)
        for step in range(1, done + 1):
            trainer.train_step()
            trainer.state.step = step
    prediction = _follow(field, signal, options, [window], [steps - done], done).curve
    parts = _parts(field, window)[0]
    kernel = torch.stack([prediction.weights[name] * part for name, part in parts.items()]).sum(dim=0)
    return Look(field, prediction, kernel)


def covered(field: Field) -> bool:
    """Whether the field's kernel is that of the infinitely wide network, rather than of its own weights."""
    if _grids(field):
        return False
    try:
        MLPKernel.of(field)
    except ConfigError:
        return False
    return True


def _behind_a_grid(
    field: Field, signal: ImageSignal, options: FitOptions, windows: list[Patch], at: list[int]
) -> Curve:
    """Some real steps, then the prediction from the field as it stands there."""
    field, warm = copy.deepcopy(field), min(_WARM, options.steps or 1)
    trainer = Trainer(field, signal, options, progress=False)
    done = []
    for step in range(1, warm + 1):
        trainer.train_step()
        trainer.state.step = step
        if step in at:
            done.append((step, *_errors(field, windows)))
    chosen = windows[:: max(1, math.ceil(len(windows) / _MOST_SINGLE))]
    later = [step - warm for step in at if step > warm]
    measured = np.array(done).reshape(-1, 3)
    if not later:
        return Curve(measured[:, 0].astype(int), measured[:, 1], measured[:, 2], 0 * measured[:, 2], {}, {})
    groups = [[window] for window in chosen]
    curve = _mean_curve([_follow(field, signal, options, group, later, warm) for group in groups], groups)
    curve = _scaled(curve, _relative_roughness(windows, chosen))
    return Curve(
        np.concatenate([measured[:, 0].astype(int), curve.steps + warm]),
        np.concatenate([measured[:, 1], curve.train_mse]),
        np.concatenate([measured[:, 2], curve.heldout_mse]),
        np.concatenate([0 * measured[:, 2], curve.f0_mse]),
        curve.weights,
        curve.energy,
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


def _mean_curve(pieces: list[_Piece], groups: list[list[Patch]]) -> Curve:
    """Over groups of windows, which count by the held-out pixels in them."""
    weights = [sum(float(w.counted.sum()) for w in group) for group in groups]
    mean = lambda name: np.average([getattr(p.curve, name) for p in pieces], axis=0, weights=weights)  # noqa: E731
    last = pieces[-1]
    return Curve(last.curve.steps, mean("train_mse"), mean("test_mse"), mean("f0_mse"), last.curve.weights, last.shares)


def powers(steps: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 11, 16, ... up to ``steps``, which is the last."""
    found = {int(2 ** (i / 2)) for i in range(2 * math.ceil(math.log2(max(steps, 2))) + 1)}
    return sorted({step for step in found if step < steps} | {steps})


@dataclass(frozen=True)
class _Piece:
    """A prediction on windows with one kernel, and each part's share of the kernel's trace at its end."""

    curve: AdamPrediction
    shares: dict[str, float]


def _follow(
    field: Field, signal: ImageSignal, options: FitOptions, windows: list[Patch], at: list[int], done: int = 0
) -> _Piece:
    """Adam on windows with one kernel, side by side; ``done`` steps were made before."""
    parts, parts_test, sizes = _parts(field, windows[0])
    network, encoding = learning_rates(field, options)
    side_by_side = lambda tensors: torch.cat(list(tensors), dim=1)  # noqa: E731
    channels = windows[0].y.shape[1]
    with torch.no_grad():
        f0, f0_test = side_by_side(field(w.x) for w in windows), side_by_side(field(w.x_test) for w in windows)

    def factor(step: int) -> float:
        now = schedule.factor(options.schedule, (step + done) / options.steps, options.final_lr)  # type: ignore[operator]
        return now * schedule.warmup(step + done, options.warmup_steps)

    curve = predict_adam(
        parts,
        sizes,
        side_by_side(w.y for w in windows),
        options.steps - done,  # type: ignore[operator]
        learning_rate={name: encoding if name.startswith("encoding") else network for name in parts},
        f0=f0,
        parts_test=parts_test,
        y_test=side_by_side(w.y_test for w in windows),
        f0_test=f0_test,
        schedule=factor,
        beta1=options.beta1,
        beta2=options.beta2,
        eps=options.eps,
        at=at,
        n_total=signal.split.n_train,
        batch=options.batch_size if isinstance(options.batch_size, int) else None,
        patches=len(windows),
        counted=side_by_side(w.counted[:, None].expand(-1, channels) for w in windows),
    )
    return _Piece(curve, _shares(parts, curve))


def _parts(field: Field, window: Patch) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int]]:
    """Kernels of the window by parameter tensor, and how many numbers each tensor holds."""
    sizes = {name: p.numel() for name, p in field.named_parameters()}
    if not covered(field):
        parts = empirical_parts(field, window.x)
        test = empirical_parts(field, window.x_test, window.x)
        return parts, test, sizes | _reached(field, parts)
    kernel = MLPKernel.of(field)
    parts, test = kernel_parts(kernel, window.x), kernel_parts(kernel, window.x_test, window.x)
    return _split_by_frequency(field, window, parts, test, sizes)


def _split_by_frequency(
    field: Field, window: Patch, parts: dict[str, Tensor], test: dict[str, Tensor], sizes: dict[str, int]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int]]:
    """The first layer's weights in bands of frequencies.

    Its kernel is the features' times what the layers behind it do, which is the kernel of its biases.
    """
    weight, bias = "network.layers.0.weight", "network.layers.0.bias"
    frequency = _frequencies(field.encoding)
    if frequency is None or bias not in parts:
        return parts, test, sizes
    with torch.no_grad():
        features, features_test = field.encoding(window.x), field.encoding(window.x_test)
    order = frequency.argsort(stable=True)
    width = sizes[bias]
    parts, test, sizes = dict(parts), dict(test), dict(sizes)
    del parts[weight], test[weight]
    for band, columns in enumerate(order.chunk(_BANDS)):
        name = f"{weight}.band{band}"
        parts[name] = (features[:, columns] @ features[:, columns].T) * parts[bias]
        test[name] = (features_test[:, columns] @ features[:, columns].T) * test[bias]
        sizes[name] = len(columns) * width
    return parts, test, sizes


def _frequencies(encoding: Encoding) -> Tensor | None:
    """The magnitude of each feature's frequency; None where features have none."""
    if isinstance(encoding, Fourier):
        norms = encoding.frequencies.detach().norm(dim=0)
        return torch.cat([norms, norms])
    if isinstance(encoding, Positional) and not encoding.include_input:
        axis = encoding.frequencies.repeat(encoding.in_dim)
        return (
            torch.cat([axis, axis])[encoding.order().to(axis.device)]
            if encoding.convention != "neuralfield"
            else (torch.cat([axis, axis]))
        )
    return None


def _reached(field: Field, parts: dict[str, Tensor]) -> dict[str, int]:
    """Of each level of a table, how many numbers there are; all count as reached once the lattice is finer than the cells."""
    grids = {f"{name}." if name else "": m for name, m in field.encoding.named_modules() if isinstance(m, HashGrid)}
    found = {}
    for prefix, grid in grids.items():
        for index, level in enumerate(grid.layout.levels):
            name = f"encoding.{prefix}level{index:02d}"
            if name in parts:
                found[name] = level.entries * grid.layout.n_features
    return found


def _shares(parts: dict[str, Tensor], last: AdamPrediction) -> dict[str, float]:
    traces = {name: float(parts[name].diagonal().sum()) * last.weights[name] for name in parts}
    total = sum(traces.values())
    return {name: value / total for name, value in traces.items()}


def _grids(field: Field) -> bool:
    return any(isinstance(module, HashGrid) for module in field.encoding.modules())


def _stationary(field: Field) -> bool:
    return covered(field) and MLPKernel.of(field).stationary
