"""An explanation made of formulas, so that figures and reports are tested without a prediction."""

from __future__ import annotations

import numpy as np

from neuralfield.explain.after import After, Moment
from neuralfield.explain.bands import Bands
from neuralfield.explain.curves import Curve, powers
from neuralfield.explain.explanation import Candidate, Explanation, KernelView, SigmaCurve, Verdict
from neuralfield.explain.patches import patches
from neuralfield.signals.image import ImageSignal

STEPS = 1000
SIGMAS = (1.0, 4.0, 16.0)


def curve(train: float, heldout: float, f0: float = 60.0, parts: dict[str, float] | None = None) -> Curve:
    """PSNR rising from 10 dB to the given ends, held-out earlier than training."""
    steps = np.array(powers(STEPS))
    part = np.log(steps) / np.log(STEPS)
    mse = [10 ** (-(10 + (end - 10) * np.minimum(part * speed, 1)) / 10) for end, speed in ((train, 1), (heldout, 1.5))]
    return Curve(steps, mse[0], mse[1], np.full(len(steps), 10 ** (-f0 / 10)), {}, parts or network_parts())


def network_parts() -> dict[str, float]:
    """Shares of a field with Fourier features."""
    bands = {f"network.layers.0.weight.band{i}": 0.1 * (i + 1) for i in range(4)}
    rest = {"network.layers.0.bias": 0.01, "network.layers.1.weight": 0.2, "network.layers.2.weight": 0.1}
    return bands | rest | {"network.layers.3.weight": 0.05, "network.layers.3.bias": 0.01}


def grid_parts() -> dict[str, float]:
    """Shares of a field with a hash grid of eight levels."""
    levels = {f"encoding.level{i:02d}": 0.02 * 2 ** (i / 2) for i in range(8)}
    return levels | {"network.layers.0.weight": 0.05, "network.layers.1.weight": 0.05, "network.layers.1.bias": 0.01}


def view(width: float) -> KernelView:
    """A Gaussian bump of that full width at half maximum over 0.2."""
    pixels, side = np.arange(0, 24.25, 0.25), np.arange(-24.0, 25.0)
    kernel = lambda r: 0.2 + 0.8 * np.exp(-4 * np.log(2) * (r / width) ** 2)  # noqa: E731
    return KernelView(pixels, kernel(pixels), kernel(np.hypot(side[:, None], side[None])), width)


def split(window: tuple[int, int], rest: float) -> Bands:
    """A ramp that is learned, stripes of which half remains, and dots that nothing is learned of."""
    y, x = np.mgrid[0 : window[0], 0 : window[1]].astype(float)
    parts = (0.3 * (x / x.max() - 0.5), 0.1 * (-1.0) ** (x // 2), rest * (-1.0) ** (x // 2 + y // 2))
    image = np.stack([np.repeat(part[..., None], 3, axis=2) for part in parts])
    residual = image * np.array([0.0, 0.5, 1.0])[:, None, None, None]
    energy = np.square(image).sum(axis=(1, 2, 3))
    left = np.square(residual).sum(axis=(1, 2, 3))
    return Bands(np.array([4, 20, 40]), energy / energy.sum(), left / energy.sum(), image, residual)


def watched() -> After:
    """A training whose kernel's alignment rises from 0.1 to 0.6."""
    steps = (0, 10, 100, STEPS)
    history = [Moment(s, 0.1 + 0.5 * i / 3, 0.2 * i, 1 - 0.1 * i, 0.1 * i, 0.05 * i) for i, s in enumerate(steps)]
    return After(0.15, {"encoding": 0.15}, 0.6, 0.7, 0.3, 0.1, 0.6, "image", history)


def candidate(
    name: str,
    encoding: dict[str, object],
    predicted: Curve,
    window: tuple[int, int],
    width: float,
    trained: bool = False,
) -> Candidate:
    rng = np.random.default_rng(len(name))
    energy = 1 / np.arange(1, 65) ** 1.5
    residual = np.full(window, np.nan)
    for offset, mse in ((0, predicted.train_mse[-1]), (1, predicted.heldout_mse[-1])):
        some = residual[offset::2, offset::2]
        some[:] = np.sqrt(mse) * np.abs(rng.normal(size=some.shape))
    rows = [
        {"step": int(s), "psnr_train": float(t) + 0.5, "psnr_heldout": float(h) - 0.25}
        for s, t, h in zip(predicted.steps, predicted.train_psnr, predicted.heldout_psnr, strict=True)
    ]
    overrides = [f"encoding={encoding['name']}", *(f"encoding.{k}={v}" for k, v in encoding.items() if k != "name")]
    return Candidate(
        name, overrides, encoding, predicted, 12_345, 0.5, view(width),
        np.exp(-np.arange(64) / width), energy / energy.sum(), residual, rows if trained else [],
        split(window, 1 / width), after=watched() if trained else None,
    )  # fmt: skip


def explanation(signal: ImageSignal, trained: bool = False, best: str = "fourier sigma=4") -> Explanation:
    """None too smooth, sigma 4 right, sigma 16 aliasing, a hash grid a little behind."""
    windows = patches(signal, 8, 2)
    box = windows[len(windows) // 2].box
    shape = (box[3], box[2])
    ends = {1.0: (30.0, 26.0, 60.0), 4.0: (40.0, 28.0, 45.0), 16.0: (60.0, 19.0, 20.0)}
    some = [candidate("none", {"name": "none"}, curve(20, 19.5), shape, 40.0, trained)]
    for sigma in SIGMAS:
        name = f"fourier sigma={sigma:g}"
        some.append(
            candidate(name, {"name": "fourier", "sigma": sigma}, curve(*ends[sigma]), shape, 24 / sigma, trained)
        )
    some.append(candidate("hashgrid", {"name": "hashgrid"}, curve(70, 27, parts=grid_parts()), shape, 4.0, trained))
    fourier = some[1:4]
    sigma = SigmaCurve(
        np.array(SIGMAS),
        np.array([c.heldout for c in fourier]),
        np.array([ends[s][2] for s in SIGMAS]),
        np.array([float(c.curve.train_psnr[-1]) for c in fourier]),
    )
    text = "Take Fourier features of sigma 4: expected to reach 28.0 dB, give or take 0.5 dB. A hash grid stays below."
    verdict = Verdict(text, "python scripts/fit.py encoding=fourier encoding.sigma=4", best, 1.0, 0.5)
    baselines = {
        "bicubic": 26.5,
        "average_sigma": {"sigma": 10.0, "predicted": 22.0, "lost": 6.0, "source": "photographs"},
        "nyquist_sigma": {"sigma": 99.0, "predicted": None, "lost": None, "source": "scaled"},
    }
    return Explanation(signal, STEPS, some, verdict, baselines, sigma, windows, 12.0)
