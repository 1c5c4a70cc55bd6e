"""Every layout of the figures is a valid picture of bounded size, the same bytes each time, without a warning."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage

from neuralfield.errors import OutputError, SignalError
from neuralfield.viz import RunRow, caption_line, comparison, sweep_figure, training_curve
from neuralfield.viz.charts import Point, kind_of_chart
from neuralfield.viz.comparison import _region
from neuralfield.viz.style import BEST, Page, count, printable, seconds, spread, text_width, unique, wrap
from neuralfield.viz.sweep import _pick
from tests.viz.pictures import holds, pixels

pytestmark = pytest.mark.filterwarnings("error")
PHOTO = skimage.data.astronaut()


def compare(truth: np.ndarray, path: Path, title: str = "astronaut") -> np.ndarray:
    fit = (truth * 0.9).astype(np.uint8)
    error = (np.abs(truth.astype(np.float32) - fit).mean(axis=2) / 255).astype(np.float32)
    comparison(truth, fit, error, title, path, captions={"encoding": "hashgrid", "psnr": 38.2, "steps": 2000})
    return pixels(path)


SHAPES = [(300, 450), (450, 300), (256, 256), (2, 2), (1, 1), (16, 16), (20, 400), (400, 20), (3, 90), (90, 3)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_comparison_of_any_shape(height: int, width: int, tmp_path: Path) -> None:
    image = compare(PHOTO[:height, :width], tmp_path / "comparison.png")
    assert min(image.shape[:2]) > 300 and max(image.shape[:2]) <= 1800
    assert holds(image, "#ffd43b") == (max(height, width) > 48)  # the frame of the enlarged region
    assert (image[-20:] == 255).all() and (image[:, -10:] == 255).all()  # nothing runs out of the page


def test_comparison_shows_the_three_images(tmp_path: Path) -> None:
    truth, fit = np.full((8, 8, 3), (10, 200, 30), np.uint8), np.full((8, 8, 3), (10, 30, 200), np.uint8)
    comparison(truth, fit, np.zeros((8, 8), np.float32), "", tmp_path / "c.png", captions={})
    image = pixels(tmp_path / "c.png")
    assert [holds(image, colour) for colour in ("#0ac81e", "#0a1ec8", "#000004")] == [True] * 3


def test_values_that_are_not_finite_are_seen(tmp_path: Path) -> None:
    error = np.zeros((40, 40), np.float32)
    error[3:9, 3:9] = np.nan
    for name, values in (("some", error), ("all", np.full_like(error, np.nan))):
        comparison(PHOTO[:40, :40], PHOTO[:40, :40], values, "t", tmp_path / f"{name}.png", captions={"psnr": None})
        assert holds(pixels(tmp_path / f"{name}.png"), "#00ffff")


def test_the_enlarged_region_has_detail_and_error() -> None:
    truth = np.zeros((120, 180, 3), np.uint8)
    truth[60:80:2, 100:125] = 255
    error = np.zeros((120, 180))
    error[55:85, 95:130] = 10.0
    x, y, w, h = _region(truth, error)
    assert x <= 112 < x + w and y <= 70 < y + h
    assert (w, h) == (30, 20)
    assert _region(truth, np.zeros((120, 180)))[:2] != (0, 0)  # no error: detail alone
    assert _region(np.zeros_like(truth), np.zeros((120, 180)))[:2] == (0, 0)


def test_comparison_refuses_other_sizes(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="same size"):
        comparison(PHOTO[:8, :8], PHOTO[:8, :9], np.zeros((8, 8), np.float32), "t", tmp_path / "c.png", captions={})
    assert list(tmp_path.iterdir()) == []


def test_titles_are_taken_literally(tmp_path: Path) -> None:
    plain = compare(PHOTO[:40, :40], tmp_path / "a.png", "x")
    for title in ("cost $5 \\frac{1}{ and $", "写真.png", "two\nlines", "", "very long " * 40):
        assert compare(PHOTO[:40, :40], tmp_path / "b.png", title).shape == plain.shape


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        training_curve([{"step": 0, "loss": 1.0}], tmp_path / "file" / "t.png", "t")


def rows(swept: list[dict[str, Any]], heldout: bool = True, failed: tuple[int, ...] = ()) -> list[RunRow]:
    result = []
    for i, values in enumerate(swept):
        label = ", ".join(f"{k}={v}" for k, v in values.items()) or f"run {i}"
        metrics = {"psnr": 20.0 + i % 7, "psnr_heldout": 19.0 + i % 7 if heldout else None, "ssim": 0.9}
        thumbnail = (PHOTO[:64:2, :96:2] * (0.3 + 0.7 * (i + 1) / len(swept))).astype(np.uint8)
        if i in failed:
            result.append(RunRow(label, values, None, "training left the finite numbers at step 12", None))
        else:
            result.append(RunRow(label, values, metrics, None, thumbnail))
    return result


ENCODINGS = ["none", "positional", "fourier", "hashgrid"]
LAYOUTS: dict[str, tuple[list[RunRow], list[str]]] = {
    "none": ([], []),
    "one": (rows([{}]), []),
    "categorical": (rows([{"encoding": e} for e in ENCODINGS]), ["encoding"]),
    "one series": (rows([{"encoding": e} for e in ENCODINGS], heldout=False), ["encoding"]),
    "numeric": (rows([{"width": 8 * 2**i} for i in range(5)], failed=(4,)), ["width"]),
    "around zero": (rows([{"w": v} for v in (-1.5, 0.0, 2.0)], heldout=False), ["w"]),
    "numbers and names": (rows([{"w": w, "e": e} for e in ENCODINGS for w in (8, 16, 32)], failed=(3,)), ["w", "e"]),
    "two numbers": (rows([{"a": a, "b": b} for a in (1, 2) for b in (0.1, 1.0, 10.0)]), ["a", "b"]),
    "two names": (rows([{"e": e, "act": a} for e in ENCODINGS for a in ("relu", "$x^")], failed=(2,)), ["e", "act"]),
    "three": (rows([{"e": e, "w": w, "lr": 1e-3} for e in ENCODINGS for w in (8, 16)], failed=(1,)), ["e", "w", "lr"]),
    "lists": (rows([{"size": [8, 8]}, {"size": [16, 16]}, {"size": None}]), ["size"]),
    "all failed": (rows([{"encoding": e} for e in ENCODINGS], failed=(0, 1, 2, 3)), ["encoding"]),
    "thirty": (rows([{"seed": i} for i in range(30)]), ["seed"]),
    "sixty": (rows([{"a": f"name {i}", "b": i, "c": -i} for i in range(60)]), ["a", "b", "c"]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sweep_layouts(layout: str, tmp_path: Path) -> None:
    runs, keys = LAYOUTS[layout]
    sweep_figure(runs, keys, tmp_path / "summary.png", truth=PHOTO[:64:2, :96:2], title=f"Sweep: {layout}")
    image = pixels(tmp_path / "summary.png")
    assert image.shape[1] == 1600
    assert 150 < image.shape[0] < 3200
    assert (image[-10:] == 255).all()
    several = sum(run.metrics is not None for run in runs) > 1
    assert holds(image, BEST) == several  # the best run is marked where there is a choice


def test_sweep_without_pictures_and_with_odd_numbers(tmp_path: Path) -> None:
    values = [math.inf, 20.0, math.nan, -3.0]
    for swept in ("number", "name"):
        runs = [RunRow(f"r{i}", {"k": i if swept == "number" else f"r{i}"}, {"psnr": v}) for i, v in enumerate(values)]
        sweep_figure(runs, ["k"], tmp_path / "s.png", truth=None, title="t")
        assert pixels(tmp_path / "s.png").shape[1] == 1600


def test_figures_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    runs, keys = LAYOUTS["numeric"]
    contents = []
    for name in ("a", "b"):
        sweep_figure(runs, keys, tmp_path / f"{name}s.png", truth=PHOTO[:32, :48], title="t")
        compare(PHOTO[:60, :80], tmp_path / f"{name}c.png")
        training_curve(
            [{"step": i, "loss": 1 / (i + 1), "seconds": i} for i in range(9)], tmp_path / f"{name}t.png", "t"
        )
        contents.append([(tmp_path / f"{name}{kind}.png").read_bytes() for kind in "sct"])
    assert contents[0] == contents[1]


def test_charts_fit_what_was_swept() -> None:
    def kind(layout: str) -> str:
        runs, keys = LAYOUTS[layout]
        return kind_of_chart([Point(r.label, tuple(r.swept[k] for k in keys), 20.0, None) for r in runs], keys)

    expected = {"categorical": "bars", "numeric": "lines", "numbers and names": "lines", "two numbers": "lines"}
    expected |= {"two names": "grouped", "thirty": "lines", "sixty": "rows", "lists": "bars", "one": "bars"}
    assert {layout: kind(layout) for layout in expected} == expected


def test_of_many_runs_best_and_worst_are_kept() -> None:
    values: list[float | None] = [20.0 + math.sin(i) for i in range(97)]
    values[5], values[40], values[41] = 12.0, 33.0, None
    points = [Point(str(i), (i,), v, None) for i, v in enumerate(values)]
    kept = _pick(points, 24)
    assert len(kept) == 24 and kept == sorted(set(kept))
    assert {5, 40} < set(kept)
    assert kept[0] == 0 and kept[-1] == 96
    assert _pick(points[:24], 24) == list(range(24))


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 0, "loss": 1.0}],
        [{"step": 0, "loss": 0.0, "psnr": 20.0}, {"step": 9, "loss": -1.0, "psnr": 21.0}],
        [{"step": 10 * i, "loss": 1 / (i + 1), "psnr_train": 20.0 + i, "psnr_heldout": 19.0 + i, "seconds": i / 7}
         for i in range(100)],
        [{"step": i, "psnr": math.inf if i else 30.0, "loss": math.nan, "psnr_heldout": None} for i in range(3)],
    ],
)  # fmt: skip
def test_training_curves(history: list[dict], tmp_path: Path) -> None:
    training_curve(history, tmp_path / "curve.png", "a run")
    image = pixels(tmp_path / "curve.png")
    assert image.shape[1] == 1280 and 300 < image.shape[0] < 1000


def test_captions() -> None:
    captions = {
        "encoding": "hashgrid",
        "psnr": 38.21,
        "psnr_heldout": None,
        "ssim": 0.97,
        "lpips": 0.0512,
        "steps": 2000,
    }
    captions |= {"train_seconds": 12.3, "n_parameters": 1_600_000, "device": "cpu"}
    expected = "hashgrid · PSNR 38.2 dB · SSIM 0.970 · LPIPS 0.051 · 2000 steps · 12 s · 1.6 M parameters · device cpu"
    assert caption_line(captions) == expected
    assert caption_line({"psnr_train": math.inf, "steps": 1}) == "train PSNR ∞ dB · 1 step"
    assert [seconds(v) for v in (0.04, 9.96, 200, 180, 7500)] == ["0.0 s", "10 s", "3 min 20 s", "3 min", "2 h 5 min"]
    assert [count(v) for v in (12, 1234, 999_999, 2_500_000_000)] == ["12", "1.23 k", "1 M", "2.5 G"]


def test_text_fits() -> None:
    page = Page(400, 100)
    short = page.shorten("a file name that is too long.png", 13, 150)
    assert text_width(short, 13) <= 150 < text_width(short + "mm", 13)
    assert short.startswith("a file") and short.endswith(".png") and "…" in short
    lines = wrap("one two three four five six seven " + "x" * 90, 11, 120, 3)
    assert len(lines) == 3 and all(text_width(line, 11) <= 120 for line in lines)
    assert lines[-1].endswith("…")
    assert printable("a\n b\t写") == "a b ?"


def test_labels_move_apart() -> None:
    assert spread([0.5, 0.5], 0.2, 0.0, 1.0) == pytest.approx([0.5, 0.7])
    assert spread([0.95, 0.99], 0.2, 0.0, 1.0) == pytest.approx([0.8, 1.0])
    assert spread([], 0.2, 0.0, 1.0) == []
    assert unique([16, 8, 16, 8.5]) == [8, 8.5, 16]
    assert unique(["b", "a", "b"]) == ["b", "a"]


def test_matplotlib_is_imported_late_and_pyplot_never(tmp_path: Path) -> None:
    script = (
        "import sys; from neuralfield.viz import training_curve; early = 'matplotlib' in sys.modules; "
        f"training_curve([{{'step': 0, 'loss': 1.0}}], {str(tmp_path / 't.png')!r}, 't'); "
        "print(early, 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
