"""How good predictions are, in numbers: errors, rank correlations, and what each way of choosing loses in dB.

A *record* is one image as JSON holds it, see :func:`record`. Losses are in held-out PSNR of real fits, against the best real
fit of the same sweep, so that 0 is the best that can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import PchipInterpolator

from neuralfield.explain.baselines import nyquist_sigma
from neuralfield.explain.chosen import flat_range
from neuralfield.explain.verdict import TOLERANCE
from neuralfield.explain.verify import SHORT, correlation
from neuralfield.reproduce.prediction_study import Case, Study

FROM = 100
"""Step from which curves are compared."""

Record = Mapping[str, Any]

STRATEGIES = {
    "auto": "sigma=auto",
    "rule": "predicted sweep",
    **{f"short_{percent}": f"{percent} % short sweep" for percent in SHORT},
    **{f"read_{percent}": f"the full fits at {percent} %" for percent in SHORT},
    "average": "best sigma of the others",
    "nyquist": "fixed share of Nyquist",
    "random": "a sigma at random",
}
"""Ways to choose sigma, in words. "auto" is what encoding.sigma=auto takes; "rule" the same rule on the predictions of the
sweep; "short" are fits with their own schedule, "read" the full fits' curves, whose rate has hardly begun to fall; "average"
is the best on average over the other images; "random" the mean over the sweep."""

ENCODING_STRATEGIES = ("predicted", *(f"short_{percent}" for percent in SHORT), "average", "random")
"""Ways to choose among all settings."""


def record(study: Study, case: Case) -> dict[str, Any]:
    """An image's fits and predictions.

    - `settings`, `kinds`, `sigmas` (None but for Fourier features): of the settings; `steps`: of all curves.
    - `trained`, `predicted`: held-out PSNR, [settings][steps], dB; `trained_train`, `predicted_train`: on training pixels.
    - `short`: by "5" and "10" per cent, held-out PSNR of the short fits; `short_steps`: their lengths.
    - `auto`: `sigma`, `trained` and `cost` (over that of its fit).
    - `bicubic`, dB; `nyquist_sigma`; `cpu`, `seconds`: of `prediction` and `training`, by setting.
    """
    assert case.auto is not None and case.auto_truth is not None
    return {
        "name": case.signal.name,
        "size": list(case.signal.shape),
        "settings": [one.name for one in case.settings],
        "kinds": [one.kind for one in case.settings],
        "sigmas": [one.sigma for one in case.settings],
        "steps": case.truths[0].steps,
        "trained": [truth.heldout for truth in case.truths],
        "trained_train": [truth.train for truth in case.truths],
        "predicted": [p.curve.heldout_psnr.tolist() for p in case.predictions],
        "predicted_train": [p.curve.train_psnr.tolist() for p in case.predictions],
        "short": {str(percent): values for percent, values in case.short.items()},
        "short_steps": {str(percent): study.short_steps(percent) for percent in case.short},
        "auto": {
            "sigma": case.auto.sigma,
            "predicted": case.auto.maximum,
            "predictions": len(case.auto.sigmas),
            "trained": case.auto_truth.heldout[-1],
            "cost": case.auto_cpu_seconds / max(case.auto_truth.cpu_seconds, 1e-9),
            "cpu_seconds": case.auto_cpu_seconds,
        },
        "bicubic": case.bicubic,
        "nyquist_sigma": nyquist_sigma(case.signal),
        "cpu": {
            "prediction": [p.cpu_seconds for p in case.predictions],
            "training": [truth.cpu_seconds for truth in case.truths],
        },
        "seconds": {
            "prediction": [p.seconds for p in case.predictions],
            "training": [truth.seconds for truth in case.truths],
        },
    }


def measures(one: Record, others: Sequence[Record]) -> dict[str, Any]:
    """What is said of one image; values that need other images are None where there are none.

    - `error`, `error_fourier`: mean absolute error of the last held-out PSNR over all settings, over Fourier features, dB.
    - `error_bicubic`: of bicubic interpolation plus every setting's mean distance from it on the other images, dB.
    - `curve`: root mean square between held-out curves from step 100 on, over settings and steps, dB.
    - `spearman`, `spearman_sigma`: rank correlations over all settings and over the sigma sweep.
    - `lost`: by :data:`STRATEGIES`, dB; `lost_encoding`: by :data:`ENCODING_STRATEGIES`, dB.
    - `cost`: processor time of all predictions over that of all fits; `auto_cost`: of choosing sigma over that of one fit.
    """
    trained, predicted = last(one, "trained"), last(one, "predicted")
    error, fourier = np.abs(predicted - trained), swept(one)
    late = np.array(one["steps"]) >= min(FROM, one["steps"][-1])
    curves = np.array(one["predicted"])[:, late] - np.array(one["trained"])[:, late]
    offset = _from_others(one, others, lambda other: last(other, "trained") - other["bicubic"])
    return {
        "error": float(error.mean()),
        "error_fourier": float(error[fourier].mean()),
        "error_bicubic": None if offset is None else float(np.abs(one["bicubic"] + offset - trained).mean()),
        "curve": float(np.sqrt(np.square(curves).mean())),
        "spearman": correlation(predicted, trained),
        "spearman_sigma": correlation(predicted[fourier], trained[fourier]),
        "lost": _lost_sigma(one, others, trained, predicted),
        "lost_encoding": _lost_encoding(one, others, trained, predicted),
        "cost": sum(one["cpu"]["prediction"]) / max(sum(one["cpu"]["training"]), 1e-9),
        "auto_cost": one["auto"]["cost"],
    }


def middle_within(values: Float[np.ndarray, " n"], tolerance: float = TOLERANCE) -> int:
    """Which of a sweep in ascending order is in the middle of those around the maximum within ``tolerance`` of it."""
    return sum(flat_range(values, tolerance)) // 2


def mean(values: Sequence[Any]) -> Any:
    """Entry by entry over dictionaries; of numbers that are not None; None where there is none."""
    if values and isinstance(values[0], Mapping):
        return {key: mean([v[key] for v in values]) for key in values[0]}
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def by_setting(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """By setting, over the images that have it.

    - `error`, `bias`: mean absolute and mean error (predicted - trained) of the last held-out PSNR, dB; `train_bias`: the
      latter on training pixels.
    - `cost`: processor time of its predictions over that of its fits; `images`: how many.
    """
    found: dict[str, list[tuple[float, ...]]] = {}
    for one in records:
        heldout = last(one, "predicted") - last(one, "trained")
        train = last(one, "predicted_train") - last(one, "trained_train")
        times = one["cpu"]["prediction"], one["cpu"]["training"]
        for name, *row in zip(one["settings"], heldout, train, *times, strict=True):
            found.setdefault(name, []).append(tuple(row))
    result = {}
    for name, rows in found.items():
        heldout, train, prediction, training = np.array(rows, dtype=float).T
        result[name] = {
            "error": float(np.abs(heldout).mean()),
            "bias": float(heldout.mean()),
            "train_bias": float(train.mean()),
            "cost": float(prediction.sum() / max(training.sum(), 1e-9)),
            "images": len(rows),
        }
    return result


def last(one: Record, what: str) -> Float[np.ndarray, " settings"]:
    """PSNR of every setting when the steps end."""
    return np.array([curve[-1] for curve in one[what]], dtype=float)


def swept(one: Record) -> Bool[np.ndarray, " settings"]:
    """Which settings are of the sigma sweep."""
    return np.array([sigma is not None for sigma in one["sigmas"]])


def _lost_sigma(
    one: Record, others: Sequence[Record], trained: np.ndarray, predicted: np.ndarray
) -> dict[str, float | None]:
    chosen = swept(one)
    sigmas, truth = [s for s in one["sigmas"] if s is not None], trained[chosen]
    average = _from_others(one, others, lambda other: last(other, "trained"))
    curve = PchipInterpolator(np.log2(sigmas), truth)
    reached: dict[str, float | None] = {
        "auto": one["auto"]["trained"],
        "rule": truth[middle_within(predicted[chosen])],
        **{f"short_{p}": truth[int(np.argmax(np.array(one["short"][str(p)])[chosen]))] for p in SHORT},
        **{f"read_{p}": truth[int(np.argmax(_read_off(one, p)[chosen]))] for p in SHORT},
        "average": None if average is None else truth[int(np.argmax(average[chosen]))],
        # Between the sweep's sigmas, and at its ends beyond them.
        "nyquist": float(curve(np.log2(np.clip(one["nyquist_sigma"], sigmas[0], sigmas[-1])))),
        "random": float(truth.mean()),
    }
    return {name: None if value is None else float(truth.max() - value) for name, value in reached.items()}


def _lost_encoding(
    one: Record, others: Sequence[Record], trained: np.ndarray, predicted: np.ndarray
) -> dict[str, float | None]:
    average = _from_others(one, others, lambda other: last(other, "trained"))
    reached: dict[str, float | None] = {
        "predicted": trained[int(np.argmax(predicted))],
        **{f"short_{p}": trained[int(np.argmax(one["short"][str(p)]))] for p in SHORT},
        "average": None if average is None else trained[int(np.argmax(average))],
        "random": float(trained.mean()),
    }
    return {name: None if value is None else float(trained.max() - value) for name, value in reached.items()}


def _read_off(one: Record, percent: int) -> Float[np.ndarray, " settings"]:
    """Every setting's curve of the full fit at a part of the steps."""
    at, steps = np.log(one["short_steps"][str(percent)]), np.log(one["steps"])
    return np.array([np.interp(at, steps, curve) for curve in one["trained"]])


def _from_others(one: Record, others: Sequence[Record], values: Any) -> Float[np.ndarray, " settings"] | None:
    """The mean over other images of something by setting, for this image's settings; None where one of them is nowhere."""
    found: dict[str, list[float]] = {}
    for other in others:
        for name, value in zip(other["settings"], values(other), strict=True):
            found.setdefault(name, []).append(float(value))
    if any(name not in found for name in one["settings"]):
        return None
    return np.array([np.mean(found[name]) for name in one["settings"]])
