"""`sigma="auto"` and `encoding="auto"`: chosen by prediction, for the signal, the network and the step budget.

A hash grid's finest level is in :mod:`~neuralfield.explain.auto_resolution`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import nn

from neuralfield.errors import ConfigError
from neuralfield.explain.auto_resolution import AutoLevels, AutoResolution, resolution_for, resolve_grid
from neuralfield.explain.candidates import budget, judged, octaves, rank
from neuralfield.explain.chosen import Chosen, flat_range, heldout_at_budget
from neuralfield.explain.patches import patches
from neuralfield.explain.words import stands_in, words
from neuralfield.fitting import defaults
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.base import Signal

_SIDE, _WIDE = {2: 16, 3: 7}, {2: 24, 3: 8}  # by dimension
_WINDOWS = {"image": 9, "volume": 8, "shape": 3}
_TOO_SMALL, _TOO_LARGE = 2.0**-6, 2.0**6  # times the end of the octaves: no search goes further


@dataclass(frozen=True, kw_only=True)
class AutoSigma(Chosen):
    """A bandwidth and what it was chosen by.

    - `sigma`: cycles per side of the image or the cube; `sigmas`: those that were tried, ascending.
    """

    sigma: float
    sigmas: list[float]

    def __str__(self) -> str:
        return self._sentence(f"sigma=auto took {self.sigma:g}", "sigma ", f"{len(self.sigmas)} predictions,")


@dataclass(frozen=True)
class AutoEncoding:
    """An encoding and the predicted held-out PSNR of each that it was chosen from, dB.

    - `sigma`: of the Fourier features among them; `resolution`: of the hash grid, None for the training lattice.
    """

    name: str
    heldout_psnr: dict[str, float]
    sigma: AutoSigma
    seconds: float
    resolution: AutoResolution | None = None

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.1f}" for name, value in self.heldout_psnr.items())
        return f"encoding=auto took {self.name}: predicted held-out PSNR in dB: {values} ({self.seconds:.1f} s)"


def middle_good(sigmas: list[float], psnr: list[float]) -> tuple[float, float, float, tuple[float, float]]:
    """The middle, in octaves, of the range around the maximum in which the curve through predictions is within 0.1 dB of it.

    Where the curve is flat predictions cannot tell, and errors on either side of the range do least harm in its middle.

    **Returns** it (of two digits), the maximum, where that is, and the range.
    """
    if len(sigmas) == 1:
        return sigmas[0], psnr[0], sigmas[0], (sigmas[0], sigmas[0])
    octave = np.log2(sigmas)
    fine = np.unique(np.concatenate([np.linspace(octave[0], octave[-1], 64 * (len(sigmas) - 1) + 1), octave]))
    curve = PchipInterpolator(octave, psnr)(fine)
    top = int(curve.argmax())
    low, high = flat_range(curve)
    two = lambda value: float(f"{2.0**value:.2g}")  # noqa: E731
    return two((fine[low] + fine[high]) / 2), float(curve[top]), two(fine[top]), (two(fine[low]), two(fine[high]))


def search(evaluate: Callable[[float], float], start: list[float]) -> tuple[list[float], list[float]]:
    """Octaves first, further ones where the maximum is at an end, then half octaves around the maximum."""
    found = {sigma: evaluate(sigma) for sigma in start[1::2]}
    low, high = start[0] * _TOO_SMALL, start[-1] * _TOO_LARGE
    while True:
        best = max(found, key=lambda sigma: found[sigma])
        wanted = [s for s in (best / 2, best * 2) if low <= s <= high and s not in found]
        if not wanted:
            break
        found |= {sigma: evaluate(sigma) for sigma in wanted}
    for sigma in (best / math.sqrt(2), best * math.sqrt(2)):
        found[sigma] = evaluate(sigma)
    # The curve may be flat for octaves, and the rule asks where that ends.
    while True:
        _, _, _, (first, last) = middle_good(*_sorted(found))
        least, most = min(found), max(found)
        if first <= 1.01 * least and least / 2 >= low:
            found[least / 2] = evaluate(least / 2)
        elif last >= 0.99 * most and most * 2 <= high:
            found[most * 2] = evaluate(most * 2)
        else:
            return _sorted(found)


def sigma_for(
    signal: Signal,
    encoding: Mapping[str, Any],
    network: Mapping[str, Any] | nn.Module | None,
    options: FitOptions,
    seed: int = 0,
    device: torch.device | None = None,
) -> AutoSigma:
    """The middle of the bandwidths whose predicted held-out PSNR at the budget is within 0.1 dB of the highest.

    **Arguments**

    - `encoding`: options of Fourier features; their `sigma` is what is chosen.

    Raises :class:`~neuralfield.errors.ConfigError` where nothing can be predicted; the message says to give a number.
    """
    began = time.perf_counter()
    device = device or torch.device("cpu")
    try:
        judge, assumed = judged(signal)
        steps = budget(options)
        windows = patches(judge, _SIDE[judge.in_dim], _WINDOWS[judge.type])

        def evaluate(sigma: float) -> float:
            given = {**encoding, "name": "fourier", "sigma": sigma}
            return heldout_at_budget(judge, given, network, options, windows, seed, device)

        sigmas, psnr = search(evaluate, octaves(judge))
    except ConfigError as error:
        raise ConfigError(f"encoding.sigma=auto: {error}; or give sigma a number, such as 10") from error
    sigma, maximum, at, flat = middle_good(sigmas, psnr)
    return AutoSigma(
        sigma=sigma, sigmas=sigmas, heldout_psnr=psnr, maximum=maximum, at=at, flat=flat, steps=steps,
        seconds=time.perf_counter() - began, assumed_holdout=assumed, sample=words(judge).sample, note=stands_in(judge),
    )  # fmt: skip


def encoding_for(
    signal: Signal,
    network: Mapping[str, Any] | None,
    options: FitOptions,
    seed: int = 0,
    device: torch.device | None = None,
) -> tuple[dict[str, Any], AutoEncoding]:
    """None, positional, Fourier features with a chosen sigma, or a hash grid: the simplest of those that are predicted within
    half a dB of the best; and why.

    The grid's finest level is chosen where something is held out; else it is the lattice that trains.
    """
    began = time.perf_counter()
    device = device or torch.device("cpu")
    sigma = sigma_for(signal, {"name": "fourier"}, network, options, seed, device)
    judge, _ = judged(signal)
    windows = patches(judge, _SIDE[judge.in_dim], _WINDOWS[judge.type])
    choices: dict[str, dict[str, Any]] = {
        "none": {"name": "none"},
        "positional": {"name": "positional"},
        "fourier": {"name": "fourier", "sigma": sigma.sigma, "seed": seed},
        "hashgrid": {"name": "hashgrid"},
    }
    finest = None
    if signal.split.n_heldout or signal.type == "shape":
        finest = resolution_for(signal, choices["hashgrid"], network, options, seed, device)
        choices["hashgrid"]["max_resolution"] = finest.resolution
    wide = _WIDE[judge.in_dim]
    found = {
        name: heldout_at_budget(judge, given, network, options, windows, seed, device, wide)
        for name, given in choices.items()
    }
    top = max(found.values())
    best = min((name for name in found if found[name] >= top - words(judge).tie), key=rank)
    return choices[best], AutoEncoding(best, found, sigma, time.perf_counter() - began, finest)


@dataclass(frozen=True)
class Resolved:
    """An encoding's options without "auto" in them, and what to tell the person; `why` is None where nothing was chosen."""

    encoding: dict[str, Any]
    why: AutoSigma | AutoEncoding | AutoResolution | AutoLevels | None


def resolve(
    encoding: Mapping[str, Any],
    signal: Signal,
    network: Mapping[str, Any] | nn.Module | None,
    options: FitOptions,
    seed: int = 0,
    device: torch.device | None = None,
) -> Resolved:
    """Replace ``sigma="auto"``, ``name="auto"`` and a hash grid's "predicted" by what is predicted to serve best."""
    if encoding.get("name") == defaults.AUTO:
        if isinstance(network, nn.Module):
            raise ConfigError("encoding=auto needs a network it can build; give options instead of a module")
        extra = [key for key in encoding if key != "name"]
        if extra:
            raise ConfigError(f"encoding=auto chooses every option; leave out {', '.join(extra)} or name an encoding")
        chosen, why = encoding_for(signal, network, options, seed, device)
        return Resolved(defaults.automatic(str(chosen["name"]), chosen), why)
    if encoding.get("name") == "hashgrid" and defaults.asks_for_a_choice(encoding):
        return Resolved(*resolve_grid(encoding, signal, network, options, seed, device))
    if defaults.asks_for_a_choice(encoding):
        bandwidth = sigma_for(signal, encoding, network, options, seed, device)
        return Resolved({**encoding, "sigma": bandwidth.sigma}, bandwidth)
    return Resolved(dict(encoding), None)


def _sorted(found: Mapping[float, float]) -> tuple[list[float], list[float]]:
    pairs = sorted(found.items())
    return [sigma for sigma, _ in pairs], [value for _, value in pairs]


__all__ = ["AutoEncoding", "AutoSigma", "Resolved", "encoding_for", "resolve", "search", "sigma_for"]
