"""What a finished fit leaves in its folder, whatever was fitted: the field, its history, its numbers."""

from __future__ import annotations

import copy
import csv
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuralfield import devices, encodings, viz
from neuralfield import field as fields
from neuralfield.encodings.hashgrid import HashGrid, engines
from neuralfield.field import Field
from neuralfield.files import write_text
from neuralfield.fitting.loop import Outcome
from neuralfield.fitting.progress import Silent
from neuralfield.run_folder import BEST, FIELD, HISTORY, TRAINING
from neuralfield.signals.base import Signal


def write(
    signal: Signal,
    field: Field,
    outcome: Outcome,
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    tell: Silent | None = None,
) -> dict[str, Any]:
    """Write the field, its history and its pictures into `folder`; returns the numbers for `metrics.json`.

    What is measured and drawn beyond that is up to the signal's type: ``neuralfield.image_results`` and its like. `config`
    holds their options, by group.
    """
    tell = tell or Silent()
    state = outcome.state
    fields.save(field, folder / FIELD)
    if state.best_step == state.step:
        (folder / BEST).unlink(missing_ok=True)
    else:
        with_best = copy.deepcopy(field)
        with_best.load_state_dict(outcome.best)
        fields.save(with_best, folder / BEST)
    _write_history(folder / HISTORY, state.history)
    known = {
        "steps": state.step,
        "train_seconds": state.seconds,
        "stopped_by": outcome.stopped_by,
        f"best_{signal.quality.key}": state.best_quality,
        "best_step": state.best_step,
        "n_parameters": field.n_parameters,
        "parameters_per_value": field.n_parameters / signal.n_values,
        "batch_size": outcome.batch_size,
        "encoding": encodings.registry.name_of(field.encoding),
        "device": devices.describe(field.device),
        "engine": engine_of(field).name,
        "engine_reason": engine_of(field).reason,
        "signal": signal.describe(),
        "versions": devices.versions(),
    }
    viz.training_curve(state.history, folder / TRAINING, title=f"{signal.name}, {known['encoding']}: training")
    writer = importlib.import_module(f"neuralfield.{signal.type}_results")  # a shape's needs what an image's does not
    groups = {"metrics": {}, "mesh": {}, **(config or {})}
    measured = writer.write(signal, field, known, folder, metrics=groups["metrics"], mesh=groups["mesh"], tell=tell)
    return {**measured, **known}


def engine_of(field: Field) -> engines.EngineChoice:
    """The engine that evaluates the field's encoding, and why: a hash grid's, else "torch"."""
    for module in field.encoding.modules():
        if isinstance(module, HashGrid):
            return module.engine_choice
    return engines.EngineChoice("torch", "this encoding is a few operations of torch")


def _write_history(path: Path, history: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())
