"""Finding and opening runs: names, messages, and that nothing in a folder makes it fail otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuralfield.errors import ConfigError, FieldFileError, NeuralFieldError, SignalError
from neuralfield.viewer.runs import Entry, find_runs, load_truth, open_run, signal_options
from tests.viewer.conftest import linear_field


def test_a_run_a_file_and_a_sweep(make_run: Callable[..., Path], image_run: Path, tmp_path: Path) -> None:
    field = linear_field([[1, 0]], [0])
    for number, (encoding, seed) in enumerate((("fourier", 0), ("hashgrid", 0))):
        make_run(f"sweep/{number}", field, {"overrides": [f"encoding={encoding}", f"fit.seed={seed}"]})
    make_run("sweep/10", None, None).joinpath("failed.json").write_text(
        json.dumps({"error": "out of memory", "overrides": ["encoding=none", "fit.seed=0"]})
    )
    assert [entry.name for entry in find_runs([image_run])] == ["image"]
    assert [entry.name for entry in find_runs([tmp_path / "sweep"])] == [
        "encoding=fourier",
        "encoding=hashgrid",
        "encoding=none",
    ]
    both = find_runs([image_run / "field.safetensors", tmp_path / "sweep"])
    assert [entry.name for entry in both][:2] == ["image", "sweep: encoding=fourier"]
    assert both[1].folder == tmp_path / "sweep" / "0"
    with pytest.raises(FieldFileError, match="failed: out of memory"):
        open_run(both[-1])


def test_names_are_distinct(make_run: Callable[..., Path], tmp_path: Path) -> None:
    field = linear_field([[1, 0]], [0])
    for name in ("one/run", "two/run", "sweep/a", "sweep/b"):
        make_run(name, field, {"overrides": ["fit.steps=1"]})
    names = [
        entry.name for entry in find_runs([tmp_path / "one" / "run", tmp_path / "two" / "run", tmp_path / "sweep"])
    ]
    assert names == ["run", "run (2)", "sweep: a", "sweep: b"]


@pytest.mark.parametrize(
    ("path", "words"), [("nowhere", "does not exist"), ("empty", "holds no runs"), ("outputs", "there are some in")]
)
def test_paths_without_runs(make_run: Callable[..., Path], tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    make_run("outputs/2026-01-01/10-00-00", linear_field([[1, 0]], [0]))
    with pytest.raises(ConfigError, match=words):
        find_runs([tmp_path / path])


def test_opening_says_the_kind(image_run: Path, shape_run: Path, volume_run: Path) -> None:
    for folder, kind in ((image_run, "image"), (shape_run, "shape"), (volume_run, "volume")):
        (entry,) = find_runs([folder])
        assert open_run(entry).kind == kind
    assert open_run(find_runs([image_run])[0]).overrides == ["fit.steps=1000"]


@pytest.mark.parametrize(("inputs", "signal"), [(1, None), (4, None), (2, {"type": "volume"}), (3, {"type": "sound"})])
def test_fields_that_there_is_no_view_of(make_run: Callable[..., Path], inputs: int, signal: dict | None) -> None:
    folder = make_run("odd", linear_field([[1.0] * inputs], [0], signal))
    with pytest.raises(FieldFileError, match="no view"):
        open_run(find_runs([folder])[0])


def test_a_field_without_a_word_about_its_signal_is_known_by_its_coordinates(make_run: Callable[..., Path]) -> None:
    for inputs, kind in ((2, "image"), (3, "volume")):
        run = open_run(find_runs([make_run(kind, linear_field([[1.0] * inputs], [0]))])[0])
        assert run.kind == kind and run.metrics == {} and run.overrides == []


def test_the_truth_is_loaded_while_it_is_what_it_was(image_run: Path, volume_run: Path, tmp_path: Path) -> None:
    run = open_run(find_runs([image_run])[0])
    expected = np.load(tmp_path / "image.npy") / 255
    assert np.allclose(load_truth(run).rows(0, 4), expected, atol=1e-6)
    np.save(tmp_path / "image.npy", np.zeros((4, 8, 3), np.uint8))
    with pytest.raises(SignalError, match="has changed"):
        load_truth(run)
    volume = open_run(find_runs([volume_run])[0])
    assert load_truth(volume).shape == (2, 4, 8)
    np.save(tmp_path / "volume.npy", np.zeros((2, 4, 9), np.float32) + np.arange(9))
    with pytest.raises(SignalError, match="width was 8, is 9"):
        load_truth(volume)


@pytest.mark.parametrize(
    "content",
    [b"", b"signal", b"signal: 3", b"signal: [1, 2]", b"- 1", b"\xff\xfe\x00", b"signal: {path: [", b"{{{{", b"null",
     b"signal: {type: image, path: nowhere.png}", b"signal: {type: nothing}", b"signal: {colour: 3}",
     b"signal: {1: 2, path: null}"],
)  # fmt: skip
def test_any_configuration_is_read_or_refused_in_words(image_run: Path, content: bytes) -> None:
    (image_run / "config.yaml").write_bytes(content)
    run = open_run(find_runs([image_run])[0])
    with pytest.raises(NeuralFieldError):
        load_truth(run)


def test_a_missing_configuration(image_run: Path) -> None:
    (image_run / "config.yaml").unlink()
    with pytest.raises(SignalError, match="not known"):
        signal_options(open_run(find_runs([image_run])[0]))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"overrides": 3}', b'{"overrides": null, "psnr": "high"}'])
def test_any_metrics_are_read(image_run: Path, content: bytes) -> None:
    from neuralfield.viewer.summary import summary

    (image_run / "metrics.json").write_bytes(content)
    assert "parameters" in summary(open_run(find_runs([image_run])[0]))


def test_a_broken_field(image_run: Path) -> None:
    path = image_run / "field.safetensors"
    whole = path.read_bytes()
    for cut in (0, 7, 60, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(FieldFileError):
            open_run(Entry("image", image_run, path))
