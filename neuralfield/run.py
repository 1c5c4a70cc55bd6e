"""One run: from a configuration to a folder of results."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from neuralfield import devices, results, signals
from neuralfield import field as fields
from neuralfield.checks import choice, integer
from neuralfield.errors import OutputError
from neuralfield.field import Field
from neuralfield.files import remove_leftovers, write_json, write_text
from neuralfield.fitting import checkpoint, defaults
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.fitting.progress import Notes, Silent, log_to, reporter
from neuralfield.lpips import MODES as LPIPS_MODES
from neuralfield.plugins import import_modules
from neuralfield.run_folder import CONFIG, METRICS, RESULTS, read_json
from neuralfield.signals.base import Signal


@dataclass
class Prepared:
    """All that a fit needs, checked, before anything is written."""

    signal: Signal
    field: Field
    options: FitOptions
    seed: int
    device: torch.device
    name: str
    why: Any = None  # an AutoSigma or AutoEncoding, where the configuration asked for a choice

    def trainer(self, folder: Path | None, progress: bool | Silent) -> Trainer:
        """A trainer at step 0, or where the folder's checkpoint stands if the options say to resume."""
        return Trainer(self.field, self.signal, self.options, seed=self.seed, folder=folder, progress=progress)


def prepare(config: Mapping[str, Any], tell: Silent | None = None) -> Prepared:
    """Load the signal and build the field of a configuration (the groups of `configs/`, as plain dictionaries).

    Raises a :class:`~neuralfield.errors.NeuralFieldError` for whatever is wrong with it; nothing is written.
    """
    import_modules(config.get("imports") or [])
    device = devices.resolve(config.get("device", "auto"))
    seed = integer("seed", config.get("seed", 0), 0)
    choice("metrics.lpips", config.get("metrics", {}).get("lpips", "auto"), LPIPS_MODES)
    options = FitOptions.from_dict(defaults.fit_options(config.get("fit", {})))
    tell = tell or Silent()
    with log_to(tell):
        signal = signals.load(config.get("signal", {}), Notes(tell, "labelling points"))
    encoding, why = chosen_encoding(
        config.get("encoding", {"name": "hashgrid"}), signal, config.get("network", {}), options, seed, device
    )
    encoding = defaults.encoding_options(encoding, signal)
    network = defaults.network_options(config.get("network", {}), encoding.get("name", ""))
    field = build_field(signal, encoding, network, seed, device)
    if options.batch_size is None:
        options = replace(options, batch_size=defaults.batch_size(encoding["name"], device, signal.details))
    return Prepared(signal, field, options, seed, device, encoding["name"], why)


def chosen_encoding(
    encoding: Mapping[str, Any],
    signal: Signal,
    network: Any,
    options: FitOptions,
    seed: int,
    device: torch.device,
) -> tuple[dict[str, Any], Any]:
    """The encoding's options with ``sigma="auto"`` and ``name="auto"`` replaced, and the choice; None if none was asked."""
    if not defaults.asks_for_a_choice(encoding):
        return dict(encoding), None
    from neuralfield.explain import auto  # it builds on this module
    from neuralfield.explain.candidates import explainable

    resolved = auto.resolve(encoding, explainable(signal), network, options, seed, device)
    return resolved.encoding, resolved.why


def build_field(signal: Signal, encoding: Any, network: Any, seed: int, device: torch.device) -> Field:
    """A field for a signal, its initial weights drawn from `seed`; torch's generator of the CPU is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Built on the CPU and moved: the same seed gives the same weights on every device.
        return fields.build(signal.in_dim, signal.out_dim, encoding, network, signal.describe()).to(device)


def run(
    config: Mapping[str, Any],
    folder: str | Path,
    progress: bool | Silent = True,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Fit what `config` says and write the results into `folder`; returns the final numbers.

    `overrides` are the settings that were given by hand, "key=value": a summary of several runs compares those.

    The folder gets `config.yaml` at once, `checkpoint/` while it runs, then `field.safetensors`, `reconstruction.png`,
    `comparison.png`, `training.png`, `history.csv`, and last of all `metrics.json`, whose presence says that the run is
    complete. With ``fit.resume`` a complete run is returned as it is and an unfinished one continues.
    """
    folder = Path(folder)
    tell = reporter(progress)
    resuming = bool(config.get("fit", {}).get("resume"))
    finished = completed(folder, config) if resuming else None
    prepared = prepare(config, tell)
    # The image behind a path may have changed since.
    if finished is not None and finished.get("fingerprint") == prepared.signal.fingerprint():
        tell.note(f"{folder}: complete already, {_summary(finished)}")
        return finished
    trainer = prepared.trainer(folder, tell)
    if resuming:
        trainer.resume()  # a checkpoint of another configuration is refused before anything is touched
    for warning in prepared.signal.warnings():
        tell.note(f"note: {warning}")
    if prepared.why is not None:
        tell.note(str(prepared.why))
    _start(folder, config, resuming, tell)
    began = time.perf_counter()
    with log_to(tell):
        outcome = trainer.run(title=_title(prepared))
        metrics = results.write(prepared.signal, prepared.field, outcome, folder, config=config, tell=tell)
    metrics |= {"seed": prepared.seed, "precision": trainer.precision}
    metrics |= {"overrides": list(overrides), "fingerprint": prepared.signal.fingerprint()}
    if prepared.why is not None:
        metrics["auto"] = {"encoding": prepared.field.config["encoding"], **asdict(prepared.why)}
    metrics["total_seconds"] = time.perf_counter() - began
    write_json(folder / METRICS, metrics)
    if outcome.stopped_by != "interrupt":
        checkpoint.remove(folder)
    tell.note(f"{_summary(metrics)}\nresults in {folder}")
    return metrics


def completed(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The final numbers of a folder whose run of the same configuration is complete, else None."""
    metrics = read_json(folder / METRICS)
    if metrics is None or metrics.get("stopped_by") == "interrupt":
        return None
    return metrics if _identity(_read_config(folder)) == _identity(_plain(config)) else None


def unfinished(config: Mapping[str, Any], root: Path) -> Path | None:
    """The folder below `root` of the latest unfinished run of the same configuration."""
    candidates = sorted(root.glob(f"**/{checkpoint.FOLDER}"), key=lambda p: p.stat().st_mtime, reverse=True)
    for folder in (path.parent for path in candidates):
        if checkpoint.exists(folder) and _identity(_read_config(folder)) == _identity(_plain(config)):
            return folder
    return None


def _read_config(folder: Path) -> Any:
    try:
        return yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None


def _identity(config: Any) -> Any:
    """A configuration without the options that do not change its results."""
    if not isinstance(config, dict):
        return config
    fit = {k: v for k, v in config.get("fit", {}).items() if k not in ("resume", "checkpoint_seconds")}
    return {**config, "fit": fit}


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False))  # type: ignore[no-any-return]


def _title(prepared: Prepared) -> str:
    signal, field = prepared.signal, prepared.field
    return (
        f"{signal.title}; {prepared.name}, {field.n_parameters:,} parameters; "
        f"{devices.describe(prepared.device)}, {results.engine_of(field).name} engine"
    )


def _start(folder: Path, config: Mapping[str, Any], resuming: bool, tell: Silent) -> None:
    """Make the folder ready: the configuration in, results of an earlier run out."""
    if not resuming and checkpoint.exists(folder):
        tell.note(f"{folder} holds an unfinished run; starting over (fit.resume=true would have continued it)")
        checkpoint.remove(folder)
    write_text(folder / CONFIG, yaml.safe_dump(_plain(config), sort_keys=False))
    remove_leftovers(folder)
    try:
        for name in (METRICS, *RESULTS) if not resuming else (METRICS,):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot replace {folder / METRICS}: {error.strerror}; choose another hydra.run.dir"
        ) from error


def _summary(metrics: Mapping[str, Any]) -> str:
    """The final numbers in one line."""
    shown = (
        ("psnr", "PSNR {:.2f} dB"), ("psnr_heldout", "held out {:.2f} dB"), ("ssim", "SSIM {:.4f}"),
        ("iou_uniform", "IoU {:.4f}"), ("iou_surface", "near the surface {:.4f}"),
    )  # fmt: skip
    parts = [words.format(metrics[key]) for key, words in shown if metrics.get(key) is not None]
    if "psnr" in metrics and metrics["psnr"] is None:
        parts.insert(0, "PSNR not a number")
    parts += [
        f"{metrics['steps']:,} steps in {metrics['train_seconds']:.1f} s",
        f"{metrics['n_parameters']:,} parameters ({metrics['parameters_per_value']:.2f} per value)",
    ]
    return ", ".join(parts)
