"""Sweeps: what a multirun leaves, and its end with a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from neuralfield.files import write_json
from neuralfield.run_folder import FAILED
from neuralfield.summary import summarize

# The folder of the sweep that is running, and how many of its runs failed: Hydra builds the callback by itself and has
# no way to hand these back.
_running: dict[str, Any] = {"folder": None, "failed": 0}


class SummaryCallback(Callback):  # type: ignore[misc]
    """Writes the summary when a multirun ends; registered in `configs/config.yaml`."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Remember the folder, for a summary after Ctrl-C too."""
        _running["folder"] = Path(config.hydra.sweep.dir)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Table, summary.csv and summary.png."""
        finish()


def reset() -> None:
    """No sweep is running."""
    _running.update(folder=None, failed=0)


def finish() -> None:
    """Summarise the sweep that is running, if one is."""
    folder, _running["folder"] = _running["folder"], None
    if folder is not None and folder.is_dir():
        _running["failed"] = summarize(folder)


def exit_code() -> int:
    """0, or 2 when a run of the sweep failed."""
    return 2 if _running["failed"] else 0


def record_failure(folder: Path, message: str, overrides: list[str]) -> None:
    """Leave the reason in the run's folder, for the summary."""
    write_json(folder / FAILED, {"error": message, "overrides": overrides})


def clear_failure(folder: Path) -> None:
    """The run gets another chance."""
    (folder / FAILED).unlink(missing_ok=True)
