"""`explain(signal)`: which encoding will serve, how far it will get, and why, before training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralfield import devices
from neuralfield.api import as_signal
from neuralfield.checks import flag, integer
from neuralfield.encodings import Encoding
from neuralfield.errors import ConfigError
from neuralfield.explain.auto import resolve
from neuralfield.explain.baselines import baselines
from neuralfield.explain.candidates import Setting, budget, comparison, explainable, judged, merged, setting
from neuralfield.explain.explanation import Candidate, Explanation, SigmaCurve
from neuralfield.explain.patches import Patch, patches
from neuralfield.explain.predictor import predict
from neuralfield.explain.verdict import UNCERTAINTY, verdict
from neuralfield.explain.verify import short_sweeps, train_watched
from neuralfield.explain.views import views
from neuralfield.explain.window_kernels import covered
from neuralfield.explain.words import stands_in, training_db, window_words, words
from neuralfield.field import Field
from neuralfield.fitting import defaults
from neuralfield.fitting.options import FitOptions
from neuralfield.fitting.progress import Silent, reporter
from neuralfield.signals.base import Signal

WINDOWS = {"image": 9, "volume": 27, "shape": 5}
"""By type of signal, windows at most."""


def explain(
    signal: np.ndarray | Tensor | str | Path | Signal,
    fields: Sequence[str | Mapping[str, Any] | Encoding | Field] | None = None,
    *,
    budget: int | None = None,
    network: Mapping[str, Any] | None = None,
    device: str = "auto",
    seed: int = 0,
    holdout: str = "none",
    verify: bool = False,
    side: int | None = None,
    windows: int | None = None,
    progress: bool | Silent = True,
    **options: Any,
) -> Explanation:
    """Predict what fits of several fields to an image, a volume or a shape would reach, from their kernels.

    **Arguments**

    - `signal`: as for :func:`neuralfield.fit`. Where nothing is held out, every other pixel or voxel is, for judging. For
      shapes the prediction is of a stand-in, see :mod:`~neuralfield.explain.predictor`.
    - `fields`: encodings by name, by options (a choice is made where they say "auto" or "predicted" as of
      :func:`neuralfield.fit`) or as modules, or untrained fields; None compares none, positional, Fourier
      at six bandwidths and a hash grid.
    - `budget`: steps; None: those of `options`, by default 2000.
    - `network`: options of the MLP behind encodings.
    - `verify`: train every candidate as well.
    - `side`, `windows`: see :func:`~neuralfield.explain.patches.patches`; None: 24 and 9, of volumes 9 and
      27, of shapes 9 and 5.
    - `options`: those of :class:`~neuralfield.fitting.FitOptions`.

    Raises a :class:`~neuralfield.errors.NeuralFieldError` for an image that cannot be explained (of one colour, not finite,
    too small), and options that the prediction does not know (a loss other than mse, no number of steps).
    """
    ground = explainable(as_signal(signal, holdout, seed))
    if budget is not None:
        options["steps"] = integer("budget", budget, 1)
    fit_options = FitOptions.from_dict(defaults.fit_options(options))
    judge, _ = judged(ground)
    where = devices.resolve(device)
    if fields is None:
        settings = comparison(judge, network, seed)
    else:
        settings = merged([], [_of(judge, field, network, seed, fit_options, where) for field in fields])
    return explain_settings(
        ground, settings, fit_options, device=where, seed=seed, verify=verify, side=side,
        windows=windows, progress=progress,
    )  # fmt: skip


def explain_settings(
    signal: Signal,
    settings: Sequence[Setting],
    options: FitOptions,
    *,
    device: torch.device | None = None,
    seed: int = 0,
    verify: bool = False,
    side: int | None = None,
    windows: int | None = None,
    base: Sequence[str] = (),
    progress: bool | Silent = True,
) -> Explanation:
    """:func:`explain` for settings that are made already.

    **Arguments**

    - `base`: the user's settings of everything but the encoding, as fit.py takes them: they go into the verdict's command.
    """
    if not settings:
        raise ConfigError("there is no field to explain; name one, or give none to compare the standard ones")
    began, tell = time.perf_counter(), reporter(progress)
    device = device or torch.device("cpu")
    judge, assumed = judged(signal)
    steps = budget(options)
    flag("verify", verify)
    if assumed:
        odd = "rows and columns" if judge.in_dim == 2 else "x, y and z"
        tell.note(f"nothing is held out; for judging, odd {odd} are (signal.holdout=every_other)")
    known = words(judge)
    side = integer("side", known.side_points if side is None else side, 4, known.most_side)
    windows = integer("windows", WINDOWS[judge.type] if windows is None else windows, 1)
    places = [_moved(p, device) for p in patches(judge, side, windows)]
    tell.note(
        f"{judge.name}, {judge.size}: {len(settings)} fields, {steps:,} steps, "
        f"{len(places)} window{'s' * (len(places) > 1)} of {window_words(judge, places[0])}"
    )
    if note := stands_in(judge):
        tell.note(note)
    candidates = []
    for index, one in enumerate(settings):
        candidate = _candidate(one, judge, options, places, side, seed, device, tell)
        candidates.append(candidate)
        tell.note(
            f"  [{index + 1}/{len(settings)}] {candidate.name}: {candidate.heldout:.1f} dB held out, "
            f"{training_db(float(candidate.curve.train_psnr[-1]), 1)} dB train ({candidate.seconds:.1f} s)"
        )
    curve = sigma_curve(settings, candidates)
    beside = baselines(judge, places, curve)
    if verify:
        for one, candidate in zip(settings, candidates, strict=True):
            candidate.trained, candidate.after = train_watched(
                one, judge, options, seed, device, places[len(places) // 2]
            )
            tell.note(
                f"  trained {candidate.name}: predicted {candidate.heldout:.1f} dB, reached {candidate.measured:.1f} dB"
            )
        beside |= short_sweeps(settings, candidates, judge, options, seed, device, tell)
    decided = verdict(candidates, judge, steps, base)
    return Explanation(
        judge, steps, candidates, decided, beside, curve, places, time.perf_counter() - began, assumed, seed,
        list(settings), options, device,
    )  # fmt: skip


def sigma_curve(settings: Sequence[Setting], candidates: Sequence[Candidate]) -> SigmaCurve | None:
    """The Fourier candidates that differ in sigma alone, by sigma; None where there are fewer than two."""
    groups: dict[str, dict[float, Candidate]] = {}
    for one, candidate in zip(settings, candidates, strict=True):
        if one.sigma is not None:
            rest = repr(sorted((k, repr(v)) for k, v in candidate.encoding.items() if k != "sigma"))
            groups.setdefault(rest, {}).setdefault(one.sigma, candidate)
    largest = max(groups.values(), key=len, default={})
    if len(largest) < 2:
        return None
    found = sorted(largest.items())
    last = lambda values: np.array([getattr(c.curve, values)[-1] for _, c in found])  # noqa: E731
    f0 = -10 * np.log10(np.maximum(last("f0_mse"), 1e-15))
    return SigmaCurve(np.array([sigma for sigma, _ in found]), last("heldout_psnr"), f0, last("train_psnr"))


def _candidate(
    one: Setting,
    signal: Signal,
    options: FitOptions,
    windows: list[Patch],
    side: int,
    seed: int,
    device: torch.device,
    tell: Silent,
) -> Candidate:
    began = time.perf_counter()
    field = one.build(signal, seed, device)
    options = one.options(options, device)
    if one.kind != "hashgrid" and not covered(field):
        tell.note(
            f"  {one.name}: the theory of infinite width does not cover its network; its own kernel is taken, whose "
            f"predictions are less sure"
        )
    curve = predict(field, signal, options, windows, wide=3 * side // 2 if signal.in_dim == 2 else side + 2)
    seen = views(field, signal, options, windows[len(windows) // 2])
    encoding = one.encoding.config if isinstance(one.encoding, Encoding) else dict(one.encoding)
    return Candidate(
        one.name,
        one.overrides,
        {"name": one.kind, **encoding},
        curve,
        field.n_parameters,
        time.perf_counter() - began,
        seen.kernel,
        seen.eigenvalues,
        seen.energy,
        seen.unlearned,
        bands=seen.bands,
        own=one.own,
    )


def _of(
    signal: Signal,
    given: str | Mapping[str, Any] | Encoding | Field,
    network: Mapping[str, Any] | nn.Module | None,
    seed: int,
    options: FitOptions,
    device: torch.device,
) -> Setting:
    if isinstance(given, Field):
        return setting(signal, given.encoding, given.network, seed, own=True)
    if isinstance(given, Mapping) and defaults.asks_for_a_choice(given):
        given = resolve(given, signal, network, options, seed, device).encoding
    return setting(signal, given, network, seed, own=True)


def _moved(window: Patch, device: torch.device) -> Patch:
    return replace(
        window,
        x=window.x.to(device),
        y=window.y.to(device),
        x_test=window.x_test.to(device),
        y_test=window.y_test.to(device),
        counted=window.counted.to(device),
    )


__all__ = ["UNCERTAINTY", "explain", "explain_settings", "sigma_curve"]
