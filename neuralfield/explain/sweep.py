"""A finished sweep against its predictions: one scatter, one curve, a rank correlation."""

from __future__ import annotations

import csv
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuralfield.errors import ConfigError, NeuralFieldError
from neuralfield.explain.candidates import explainable, spared
from neuralfield.explain.explanation import JSON
from neuralfield.explain.patches import Patch, patches
from neuralfield.explain.predictor import predict
from neuralfield.explain.verify import correlation
from neuralfield.files import write_json
from neuralfield.fitting.progress import Silent, reporter
from neuralfield.run import prepare
from neuralfield.run_folder import CONFIG, HISTORY, METRICS, read_json
from neuralfield.summary import overrides_of, run_folders

HELDOUT, TRAIN = "psnr_heldout", "psnr_train"

_SPARE = "random:0.1"  # of the pixels: so little that the training lattice stays what it was
_WINDOWS, _ODD_WINDOWS = {2: 9, 3: 27}, {2: 3, 3: 4}  # by dimension
_FROM = 100  # step from which curves are compared


@dataclass
class SweptRun:
    """One run: what was swept, what it reached and what is predicted, dB.

    - `curve_rms`: between both curves from step 100 on, or None.
    """

    name: str
    swept: dict[str, Any]
    measured: float
    predicted: float
    curve_rms: float | None


@dataclass
class SweepExplanation:
    """Predicted against measured over a sweep.

    - `kind`: "psnr_heldout", or "psnr_train" for a sweep that held nothing out.
    - `runs`: in the sweep's order; `keys`: the options that differ between them.
    - `error`: mean absolute error, dB; `spearman`: None for fewer than three runs.
    - `lost`: by how much the run that is predicted best is below the best, dB.
    - `skipped`: runs that could not be used, and why.
    """

    kind: str
    keys: list[str]
    runs: list[SweptRun]
    error: float
    spearman: float | None
    lost: float
    skipped: dict[str, str]
    seconds: float

    def __str__(self) -> str:
        what = "held-out" if self.kind == HELDOUT else "training"
        ranks = "" if self.spearman is None else f", rank correlation {self.spearman:.2f}"
        return (
            f"{len(self.runs)} runs over {' and '.join(self.keys)}: predicted {what} PSNR is off by {self.error:.2f} dB on "
            f"average{ranks}; taking the run that is predicted best loses {self.lost:.2f} dB"
        )

    def save(self, folder: str | Path) -> None:
        """Write explanation.json, and figures/scatter and figures/curve as PNG and SVG."""
        from neuralfield.viz.explain import sweep_figure
        from neuralfield.viz.predicted_sweep import predicted_sweep_figure

        folder = Path(folder)
        write_json(folder / JSON, asdict(self))
        predicted, measured = [r.predicted for r in self.runs], [r.measured for r in self.runs]
        names = [r.name for r in self.runs]
        for suffix in ("png", "svg"):
            sweep_figure(predicted, measured, names, folder / "figures" / f"scatter.{suffix}")
            predicted_sweep_figure(self, folder / "figures" / f"curve.{suffix}")


def explain_sweep(folder: str | Path, progress: bool | Silent = True) -> SweepExplanation:
    """Predict every complete run below a sweep's folder from its configuration alone, and compare.

    Where nothing was held out, training PSNR is compared; a tenth of the pixels is then spared for the prediction's windows.

    Raises :class:`~neuralfield.errors.ConfigError` for a folder with fewer than two runs that can be used.
    """
    folder, tell, began = Path(folder), reporter(progress), time.perf_counter()
    if not folder.is_dir():
        raise ConfigError(f"sweep={folder}: there is no such folder; give the one that fit.py -m named at its end")
    found = run_folders(folder)
    overrides = {run: overrides_of(run) for run in found}
    keys = list(dict.fromkeys(k for given in overrides.values() for k in given))
    keys = [k for k in keys if len({str(given.get(k)) for given in overrides.values()}) > 1] or keys[:1]
    runs, skipped, kinds = [], {}, set()
    windows: dict[str, list[Patch]] = {}
    for index, path in enumerate(found):
        swept = {k: overrides[path].get(k) for k in keys}
        name = ", ".join(f"{k.split('.')[-1]}={v}" for k, v in swept.items()) or path.name
        try:
            run, kind = _run(path, name, swept, windows)
        except (NeuralFieldError, OSError, yaml.YAMLError, KeyError, TypeError) as error:
            skipped[path.name] = str(error)
            tell.note(f"  [{index + 1}/{len(found)}] {name}: left out ({error})")
            continue
        runs.append(run)
        kinds.add(kind)
        tell.note(
            f"  [{index + 1}/{len(found)}] {name}: predicted {run.predicted:.1f} dB, measured {run.measured:.1f} dB"
        )
    if len(runs) < 2:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise ConfigError(
            f"{folder} holds {len(runs)} complete run{'s' * (len(runs) != 1)}, and a sweep has two at least; finish it by "
            f"repeating its command{f' ({reasons})' if reasons else ''}"
        )
    if len(kinds) > 1:
        raise ConfigError(f"some runs of {folder} held samples out and others did not: their PSNRs cannot be compared")
    predicted, measured = np.array([r.predicted for r in runs]), np.array([r.measured for r in runs])
    return SweepExplanation(
        kinds.pop(),
        keys,
        runs,
        float(np.abs(predicted - measured).mean()),
        correlation(predicted, measured),
        float(measured.max() - measured[predicted.argmax()]),
        skipped,
        time.perf_counter() - began,
    )


def _run(path: Path, name: str, swept: dict[str, Any], windows: dict[str, list[Patch]]) -> tuple[SweptRun, str]:
    metrics = read_json(path / METRICS)
    if metrics is None or metrics.get("stopped_by") == "interrupt":
        raise ConfigError("not complete")
    config = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
    if metrics.get("auto"):
        config["encoding"] = metrics["auto"]["encoding"]
    prepared = prepare({**config, "device": "cpu"})
    signal, kind, most = explainable(prepared.signal), HELDOUT, _WINDOWS
    if signal.type == "shape":
        raise ConfigError(
            "its result is an intersection over union, and predictions of shapes stand in for their loss; compare them with "
            "explain.verify=true on the shape itself"
        )
    if metrics.get("fingerprint") not in (None, signal.fingerprint()):
        raise ConfigError(f"its {signal.type} has changed since")
    if not signal.split.n_heldout:
        signal, kind, most = spared(signal, _SPARE), TRAIN, _ODD_WINDOWS
    if metrics.get(kind) is None:
        raise ConfigError(f"its {METRICS} has no {kind}")
    places = windows.setdefault(f"{signal.fingerprint()} {signal.describe()}", [])
    if not places:
        places.extend(patches(signal, None, most[signal.in_dim]))
    steps = int(metrics["steps"])  # also where seconds or a target ended it
    history = _history(path / HISTORY, kind)
    curve = predict(
        prepared.field, signal, replace(prepared.options, steps=steps, seconds=None), places, at=[*history, steps]
    )
    values = curve.heldout_psnr if kind == HELDOUT else curve.train_psnr
    errors = [v - history[s] for s, v in zip(curve.steps.tolist(), values, strict=True) if s >= _FROM and s in history]
    rms = float(np.sqrt(np.mean(np.square(errors)))) if errors else None
    return SweptRun(name, swept, float(metrics[kind]), float(values[-1]), rms), kind


def _history(path: Path, kind: str) -> dict[int, float]:
    """Measured PSNR by step, the initial one left out; empty where there is no history."""
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        return {int(row["step"]): float(row[kind]) for row in rows if int(row["step"]) > 0 and row.get(kind)}
    except (OSError, ValueError, KeyError):
        return {}
