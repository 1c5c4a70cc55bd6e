"""What the viewer says of a run: its numbers and its options, as Markdown in which nothing of the run's own is markup."""

from __future__ import annotations

import math
import re
from typing import Any

from neuralfield.errors import NeuralFieldError
from neuralfield.viewer.runs import Run

_LINES = (
    ("psnr", "PSNR", "{:.2f} dB"),
    ("psnr_train", "PSNR, trained", "{:.2f} dB"),
    ("psnr_heldout", "PSNR, held out", "{:.2f} dB"),
    ("ssim", "SSIM", "{:.4f}"),
    ("lpips", "LPIPS", "{:.4f}"),
    ("iou_uniform", "IoU", "{:.4f}"),
    ("iou_surface", "IoU near the surface", "{:.4f}"),
    ("chamfer_l1", "Chamfer distance", "{:.2e}"),
    ("f_score", "F-score", "{:.4f}"),
    ("normal_consistency", "normal consistency", "{:.4f}"),
    ("encoding", "encoding", "{}"),
    ("n_parameters", "parameters", "{:,}"),
    ("steps", "steps", "{:,}"),
    ("train_seconds", "seconds", "{:.1f}"),
    ("stopped_by", "stopped by", "{}"),
)


def summary(run: Run) -> str:
    """A table of the run's numbers, what was fitted, and what was given on the command line."""
    numbers = dict(run.metrics)
    numbers.setdefault("encoding", run.field.config["encoding"]["name"])
    numbers.setdefault("n_parameters", run.field.n_parameters)
    if numbers.get("mae") == 0.0:  # JSON has no infinity: the PSNR of an exact fit is null there
        numbers |= {"psnr": math.inf}
    if numbers.get("psnr_heldout") is None:
        numbers.pop("psnr_train", None)
    rows = [(title, shown) for key, title, form in _LINES if (shown := _shown(numbers.get(key), form)) is not None]
    text = "| | |\n|---|---|\n" + "\n".join(f"| {title} | {plain(value)} |" for title, value in rows)
    if not run.metrics:
        text += "\n\nThis run has no metrics.json."
    if run.overrides:
        text += "\n\n**given**\n\n" + "\n".join(f"- {plain(one)}" for one in run.overrides)
    return text


def words_of(error: BaseException) -> str:
    """An error as Markdown: its message where it was written for people, else with its type."""
    text = str(error).strip() or "no message"
    return plain(text if isinstance(error, NeuralFieldError) else f"{type(error).__name__}: {text.splitlines()[0]}")


def plain(text: Any) -> str:
    """Text that Markdown (with the HTML that it lets through) shows as it is, on one line."""
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]()#+!|~$<>&-])", lambda found: f"&#{ord(found[1])};", one_line)


def _shown(value: Any, form: str) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        return form.format(value)
    except (TypeError, ValueError):  # a text where a number belongs
        return str(value)
