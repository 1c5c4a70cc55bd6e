"""The trained side of the study `prediction`: one real fit by image and setting, kept on disk as soon as it is finished.

A stored fit is found again by everything that decides its numbers, so that an interrupted study continues, and predictions
are made anew without any training.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from neuralfield.encodings import Encoding
from neuralfield.errors import ConfigError
from neuralfield.explain.candidates import Setting, budget
from neuralfield.explain.curves import powers
from neuralfield.files import write_json
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.run_folder import read_json
from neuralfield.signals.base import Signal
from neuralfield.version import __version__


@dataclass(frozen=True)
class Truth:
    """One fit.

    - `steps`: when it was looked at: :func:`~neuralfield.explain.predictor.powers` of the budget.
    - `train`, `heldout`: PSNR there on all training and all held-out pixels, dB.
    - `seconds`, `cpu_seconds`: of its training steps, without the looks: wall time, and time of all this process's threads.
    """

    steps: list[int]
    train: list[float]
    heldout: list[float]
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Truths:
    """Fits that are read where they are stored and made, and stored, where they are not.

    - `folder`: of the stored ones, one JSON file each.
    - `seed`: of weights, frequencies and batches; `device`: trains.
    """

    folder: Path
    seed: int
    device: torch.device

    def of(self, one: Setting, signal: Signal, options: FitOptions) -> Truth:
        """The fit of a setting, from step 0 to the end of the options' steps.

        Raises :class:`~neuralfield.errors.OutputError` where it cannot be stored.
        """
        key = self.key(one, signal, options)
        path = self.path(one, signal, key)
        found = _read(path, key)
        if found is None:
            found = self._train(one, signal, options)
            write_json(path, {"key": key, **asdict(found)})
        return found

    def has(self, one: Setting, signal: Signal, options: FitOptions) -> bool:
        """Whether the fit is stored."""
        key = self.key(one, signal, options)
        return _read(self.path(one, signal, key), key) is not None

    def path(self, one: Setting, signal: Signal, key: dict[str, Any]) -> Path:
        """Where the fit is stored: a name for people, and a digest of its key."""
        words = re.sub(r"[^A-Za-z0-9.=]+", "-", f"{Path(signal.name).stem} {one.name}").strip("-")
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{words[:80]} {digest[:12]}.json"

    def key(self, one: Setting, signal: Signal, options: FitOptions) -> dict[str, Any]:
        """All that decides the numbers, as JSON holds it."""
        if isinstance(one.encoding, Encoding) or isinstance(one.network, torch.nn.Module):
            raise ConfigError("only settings that are given by options can be stored, not modules")
        described = signal.describe()
        return json.loads(  # type: ignore[no-any-return]
            json.dumps(
                {
                    "neuralfield": __version__,
                    "signal": signal.fingerprint(),
                    "split": {k: described.get(k) for k in ("holdout", "n_train", "n_heldout")},
                    "encoding": dict(one.encoding),
                    "network": dict(one.network),
                    "fit": {"precision": options.precision, **_unusual(one.options(options, self.device))},
                    "seed": self.seed,
                    "device": self.device.type,
                }
            )
        )

    def _train(self, one: Setting, signal: Signal, options: FitOptions) -> Truth:
        at, steps = set(powers(budget(options))), budget(options)
        field = one.build(signal, self.seed, self.device)
        trainer = Trainer(field, signal, one.options(options, self.device), seed=self.seed, progress=False)
        rows: list[tuple[int, float, float]] = []
        seconds = cpu_seconds = 0.0
        wall, cpu = time.perf_counter(), time.process_time()
        for step in range(1, steps + 1):
            loss = trainer.train_step()
            trainer.state.step = step
            if step not in at:
                continue
            loss.item()  # a GPU has done its work now
            seconds, cpu_seconds = seconds + time.perf_counter() - wall, cpu_seconds + time.process_time() - cpu
            train, heldout = (trainer.probes[f"psnr_{part}"].quality(field) for part in ("train", "heldout"))
            rows.append((step, train, heldout))
            wall, cpu = time.perf_counter(), time.process_time()
        return Truth([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], seconds, cpu_seconds)


def _read(path: Path, key: dict[str, Any]) -> Truth | None:
    """What is stored, where it is whole and that of the key; else None."""
    content = read_json(path)
    if content is None or content.get("key") != key:
        return None
    lists = [content.get(name) for name in ("steps", "train", "heldout")]
    times = [content.get(name) for name in ("seconds", "cpu_seconds")]
    if not all(isinstance(v, list) and v and all(map(_is_number, v)) for v in lists) or not all(map(_is_number, times)):
        return None
    steps, train, heldout = lists
    if steps != powers(key["fit"].get("steps", FitOptions.steps)) or not len(steps) == len(train) == len(heldout):  # type: ignore[arg-type]
        return None
    return Truth(steps, train, heldout, *times)  # type: ignore[arg-type]


def _unusual(options: FitOptions) -> dict[str, Any]:
    """The options that differ from the defaults, which are those of the package's version: a new one changes no key."""
    usual = FitOptions().identity()
    return {k: v for k, v in options.identity().items() if v != usual.get(k)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
