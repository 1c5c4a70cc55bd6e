"""`neuralfield fit` and `scripts/fit.py`: one fit, or with -m a sweep, configured by Hydra."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from neuralfield.cli import configuration, sweep
from neuralfield.cli.guard import INTERRUPTED, MEND, debugging, guarded, message_of, say
from neuralfield.errors import ConfigError, NeuralFieldError
from neuralfield.files import explain_os_error


def main(argv: list[str] | None = None) -> int:
    """The whole of `scripts/fit.py`: returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: fit(arguments))


def fit(arguments: list[str]) -> int:
    """Fit as the arguments say; returns the exit code."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # raise instead of printing and exiting: we explain the error
    sweep.reset()
    _failure.clear()
    sys.argv = ["fit.py", *_with_sweep_folder(arguments)]
    try:
        _hydra_main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else MEND
    except KeyboardInterrupt:
        sweep.finish()
        return INTERRUPTED
    except Exception as error:
        if debugging():
            raise
        raise _explained(error) from error
    if _failure:
        raise _failure[0]
    return sweep.exit_code()


# Why the only job of this process failed. Hydra would print a line of its own about an exception that left the job.
_failure: list[BaseException] = []


@hydra.main(version_base="1.3", config_path=str(configuration.config_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> float | None:
    """One job. A sweep goes on after one that failed; Ctrl-C ends it."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    overrides = list(job.overrides.task)
    named = any(override.startswith("hydra.run.dir=") for override in job.overrides.hydra)
    try:
        plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
        plain["encoding"] = configuration.own_options(plain["encoding"], job.runtime.choices["encoding"], overrides)
        if job.mode != RunMode.MULTIRUN:
            return _one(plain, folder if named or not plain["fit"]["resume"] else _to_resume(plain, folder), overrides)
        if "fit.resume=false" not in (override.lower() for override in overrides):
            plain["fit"]["resume"] = True  # complete runs of a repeated sweep are skipped, unfinished ones continue
        print(f"\n[{job.job.num}] {' '.join(overrides)}", flush=True)
        sweep.clear_failure(folder)
        return _one(plain, folder, overrides)
    except (Exception, KeyboardInterrupt) as error:
        if not named:
            _remove_if_empty(folder)
        if job.mode != RunMode.MULTIRUN:
            _failure.append(error if debugging() or isinstance(error, KeyboardInterrupt) else _explained(error))
            return None
        if debugging() or isinstance(error, KeyboardInterrupt):
            raise
        message = message_of(_explained(error))
        say(message)
        sweep.record_failure(folder, message, overrides)
        return None


def _one(config: dict[str, Any], folder: Path, overrides: list[str]) -> float | None:
    from neuralfield.run import run

    metrics = run(config, folder, overrides=overrides)
    if metrics["stopped_by"] == "interrupt":
        raise KeyboardInterrupt
    # What an optimising sweeper of Hydra's maximises.
    return next((metrics[key] for key in ("iou_surface", "psnr_heldout", "psnr") if metrics.get(key) is not None), None)


def _to_resume(config: dict[str, Any], fresh: Path) -> Path:
    """The unfinished run that fit.resume=true means when no folder is named; takes back the `fresh` one that Hydra made."""
    from neuralfield.run import unfinished

    _remove_if_empty(fresh)
    found = unfinished(config, Path("outputs"))
    if found is None:
        raise ConfigError(
            "fit.resume=true: outputs/ holds no unfinished run of these options; name it: hydra.run.dir=FOLDER"
        )
    return found


def _explained(error: Exception) -> Exception:
    """The error in our words, where we have any."""
    if isinstance(error, NeuralFieldError):
        return error
    if (known := configuration.explain(error)) is not None:
        return known
    return explain_os_error(error, Path(error.filename)) if isinstance(error, OSError) and error.filename else error


def _remove_if_empty(folder: Path) -> None:
    """Take back the folder that Hydra made for a job that left nothing in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()  # the day's folder; fails, as it should, when other runs are in it


def _with_sweep_folder(arguments: list[str]) -> list[str]:
    """Give a sweep a folder named after what it sweeps, so that the same command finds it again."""
    multirun = any(a in ("-m", "--multirun") for a in arguments)
    if not multirun or any(a.startswith("hydra.sweep.dir=") for a in arguments):
        return arguments
    overrides = sorted(a for a in arguments if "=" in a and not a.startswith(("hydra", "-")))
    swept = [a.split("=", 1)[0].split(".")[-1] for a in overrides if "," in a.split("=", 1)[1]]
    digest = hashlib.sha256("\n".join(overrides).encode()).hexdigest()[:8]
    return [*arguments, f"hydra.sweep.dir=outputs/sweeps/{'-'.join([*swept, digest])}"]
