"""What the study `prediction` does with one image: settings, their fits, their predictions, and what sigma=auto takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.explain.api import WINDOWS
from neuralfield.explain.auto import AutoSigma, sigma_for
from neuralfield.explain.baselines import bicubic_psnr
from neuralfield.explain.candidates import Setting, judged, setting
from neuralfield.explain.curves import Curve, powers
from neuralfield.explain.patches import Patch, patches, whole
from neuralfield.explain.predictor import predict
from neuralfield.explain.verify import SHORT
from neuralfield.explain.words import words
from neuralfield.fitting.options import FitOptions
from neuralfield.reproduce.prediction_truth import Truth, Truths
from neuralfield.signals.image import ImageSignal

GRIDS = (16, 32)
"""Finest resolutions of further hash grids; the default one ends at the lattice of the training pixels."""


@dataclass
class Predicted:
    """One prediction at the steps of the fit, and its cost: wall time and time of all this process's threads."""

    curve: Curve
    seconds: float
    cpu_seconds: float


@dataclass
class Case:
    """One image, its settings and what was found of them.

    - `truths`, `predictions`: by setting, in the order of `settings`.
    - `short`: by per cent of the steps, the held-out PSNR that every setting reaches in a fit of so many steps.
    - `auto`, `auto_truth`: what sigma=auto takes, and the fit there; `auto_cpu_seconds`: what the choice takes.
    - `bicubic`: held-out PSNR of bicubic interpolation.
    """

    signal: ImageSignal
    settings: list[Setting]
    bicubic: float
    truths: list[Truth] = field(default_factory=list)
    short: dict[int, list[float]] = field(default_factory=dict)
    predictions: list[Predicted] = field(default_factory=list)
    auto: AutoSigma | None = None
    auto_truth: Truth | None = None
    auto_cpu_seconds: float = 0.0


class Study:
    """What all images share.

    **Arguments**

    - `sigmas`: of Gaussian Fourier features, ascending, at least three.
    - `steps`, `batch_size`: of every fit (None: the encoding's own); `width`, `depth`, `n_features`: of network and encoding.
    - `seed`: of weights, frequencies and batches. `folder`: of the stored fits.
    """

    def __init__(
        self, sigmas: Any, steps: int, batch_size: int | str | None, width: int, depth: int, n_features: int, seed: int,
        device: torch.device, folder: str | Path,
    ) -> None:  # fmt: skip
        if not isinstance(sigmas, (list, tuple)) or len(sigmas) < 3:
            raise ConfigError(f"sigmas must be a list of at least three ascending numbers, got {sigmas!r}")
        self.sigmas = [number("sigmas", sigma, 0, above=True) for sigma in sigmas]
        if self.sigmas != sorted(set(self.sigmas)):
            raise ConfigError(f"sigmas must ascend, got {', '.join(f'{s:g}' for s in self.sigmas)}")
        self.network = {"width": integer("width", width, 1, 65536), "depth": integer("depth", depth, 1, 256)}
        self.n_features, self.seed = integer("n_features", n_features, 1), integer("seed", seed, 0)
        # Float32 is what is predicted, and the same on every machine.
        self.options = FitOptions(steps=integer("steps", steps, 8), batch_size=batch_size, precision="float32")
        self.steps, self.device = integer("steps", steps, 8), device
        self.truths = Truths(Path(folder), self.seed, device)

    def case(self, signal: ImageSignal) -> Case:
        """An image with its settings: none, positional, Fourier at every sigma, a hash grid and ones that end elsewhere.

        Raises :class:`~neuralfield.errors.ConfigError` for an image of one colour.
        """
        judged(signal)  # a flat image has nothing to predict: said before anything is trained
        found = [setting(signal, name, self.network, self.seed) for name in ("none", "positional")]
        found += [self.fourier(signal, sigma) for sigma in self.sigmas]
        grid = setting(signal, "hashgrid", None, self.seed)
        assert not isinstance(grid.encoding, torch.nn.Module)
        found.append(grid)
        ends = [end for end in GRIDS if end != grid.encoding["max_resolution"]]
        found += [
            setting(signal, {"name": "hashgrid", "max_resolution": end}, None, self.seed, name=f"hashgrid to {end}")
            for end in ends
        ]
        return Case(signal, found, bicubic_psnr([whole(signal)]))

    def fourier(self, signal: ImageSignal, sigma: float) -> Setting:
        """Gaussian Fourier features of a bandwidth."""
        given = {"name": "fourier", "sigma": sigma, "n_features": self.n_features}
        return setting(signal, given, self.network, self.seed, name=f"fourier sigma={sigma:g}")

    def jobs(self, case: Case) -> list[tuple[Setting, int]]:
        """Every fit of an image: setting and steps, the long ones first."""
        lengths = [self.steps, *(self.short_steps(percent) for percent in SHORT)]
        return [(one, steps) for steps in lengths for one in case.settings]

    def short_steps(self, percent: int) -> int:
        """Steps of a short sweep's fits, one at least."""
        return max(1, self.steps * percent // 100)

    def fit(self, case: Case, one: Setting, steps: int) -> Truth:
        """A fit, made or read; the rate of a short one falls as that of a long one, from its first step to its last."""
        # Every held-out pixel is looked at: this is the truth.
        every = max(self.options.eval_points, case.signal.n_pixels)
        return self.truths.of(one, case.signal, replace(self.options, steps=steps, eval_points=every))

    def train(self, case: Case) -> None:
        """All fits of an image."""
        case.truths = [self.fit(case, one, self.steps) for one in case.settings]
        for percent in SHORT:
            steps = self.short_steps(percent)
            case.short[percent] = [self.fit(case, one, steps).heldout[-1] for one in case.settings]

    def predict(self, case: Case, one: Setting) -> Predicted:
        """As an explanation predicts, at the steps of the fit."""
        with clock() as taken:
            windows = [_moved(w, self.device) for w in patches(case.signal, None, WINDOWS["image"])]
            wide = 3 * words(case.signal).side_points // 2  # as an explanation does
            untrained = one.build(case.signal, self.seed, self.device)
            options = one.options(self.options, self.device)
            curve = predict(untrained, case.signal, options, windows, powers(self.steps), wide)
        return Predicted(curve, *taken)

    def choose(self, case: Case) -> None:
        """What encoding.sigma=auto takes for this image, and the fit there."""
        with clock() as taken:
            given = {"name": "fourier", "n_features": self.n_features}
            case.auto = sigma_for(case.signal, given, self.network, self.options, self.seed, self.device)
        case.auto_cpu_seconds = taken[1]
        case.auto_truth = self.fit(case, self.fourier(case.signal, case.auto.sigma), self.steps)


@contextmanager
def clock() -> Iterator[list[float]]:
    """Wall time and process time of the block, there when it has ended."""
    taken: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    yield taken
    taken += [time.perf_counter() - wall, time.process_time() - cpu]


def all_jobs(study: Study, cases: Sequence[Case]) -> list[tuple[Case, Setting, int]]:
    """Every fit of the study."""
    return [(case, one, steps) for case in cases for one, steps in study.jobs(case)]


def _moved(window: Patch, device: torch.device) -> Patch:
    tensors = {name: getattr(window, name).to(device) for name in ("x", "y", "x_test", "y_test", "counted")}
    return replace(window, **tensors)
