"""PSNR or IoU: what figures and tables compare runs by."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from neuralfield.summary import summarize
from neuralfield.viz import caption_line, training_curve
from neuralfield.viz.measure import IOU, PSNR, measure_of
from tests.viz.pictures import pixels


def test_numbers_in_words() -> None:
    assert PSNR.words(38.21) == "38.2 dB" and PSNR.words(math.inf) == "∞ dB" and PSNR.words(None) == "–"
    assert IOU.words(0.95) == "IoU 0.950" and IOU.words(math.nan) == "–"
    assert (PSNR.axis, IOU.axis) == ("PSNR (dB)", "IoU")
    assert caption_line({"iou_uniform": 0.9921, "iou_surface": 0.95}) == "IoU 0.992 · IoU near the surface 0.950"


def test_the_measure_follows_what_was_measured() -> None:
    assert measure_of([None, {"psnr": 3.0}]) is PSNR
    assert measure_of([{"psnr": None}, {"iou_uniform": 0.5}]) is IOU
    assert PSNR.of({"psnr": 3.0, "psnr_heldout": math.nan}) == (3.0, None)
    assert PSNR.of({"psnr": 3.0, "psnr_train": -math.inf}) == (None, None)
    assert IOU.of({"iou_uniform": 0.5, "iou_surface": 0.25, "psnr": 9.0}) == (0.5, 0.25)


def test_a_table_of_shapes_has_both_ious_and_marks_the_best_near_the_surface(tmp_path: Path) -> None:
    for name, uniform, surface in (("a", 0.99, 0.90), ("b", 0.98, 0.95)):
        numbers = {"iou_uniform": uniform, "iou_surface": surface, "steps": 9, "train_seconds": 1.0, "n_parameters": 5}
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(json.dumps({**numbers, "overrides": [f"encoding={name}"]}))
    console = Console(record=True, width=120, force_terminal=True)
    summarize(tmp_path, console)
    text = console.export_text(styles=True)
    assert "IoU near surface" in text and "SSIM" not in text and "PSNR" not in text
    best = next(line for line in text.splitlines() if "0.9500" in line)
    assert "\x1b[1;32m" in best  # bold green
    header, *rows = (tmp_path / "summary.csv").read_text().splitlines()
    assert "iou_surface" in header and len(rows) == 2


@pytest.mark.parametrize("key", ["iou", "psnr"])
def test_a_training_curve_of_either(tmp_path: Path, key: str) -> None:
    kinds = ("uniform", "surface") if key == "iou" else ("train", "heldout")
    history = [{"step": i, "loss": 1 / (i + 1), **{f"{key}_{kind}": 0.5 + i / 40 for kind in kinds}} for i in range(9)]
    training_curve(history, tmp_path / "a.png", "t")
    assert pixels(tmp_path / "a.png").std() > 5
