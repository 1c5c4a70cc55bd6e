"""What `neuralfield doctor` and `metrics.json` say of the hash grid's engines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuralfield import devices
from neuralfield.encodings.hashgrid import cpu, engines, tinycudann_engine, triton_engine
from neuralfield.interop import tinycudann
from tests.conftest import Ran

needs_numba = pytest.mark.skipif(cpu.available() is not None, reason="no numba")
SMALL = ("signal.crop=32", "fit.steps=3", "fit.batch_size=256", "network.width=16", "network.depth=1")


def engine_lines(text: str) -> dict[str, str]:
    """What is said of each engine, in the section on engines."""
    section = text.split("Engines of the hash grid")[1].split("Optional packages")[0]
    entries = re.split(rf"^ +({'|'.join(engines.ENGINES)}) +", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(said.split()) for name, said in zip(entries[::2], entries[1::2], strict=True)}


@needs_numba
def test_doctor_says_of_every_engine_whether_it_can_be_used(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(devices, "resolve", lambda name: torch.device("cpu"))
    ran = command("doctor")
    assert ran.code == 0, ran.err
    assert engine_lines(ran.out) == {
        "reference": "can be used",
        "cpu": "can be used, and is by default",
        "triton": "cannot be used: it runs on CUDA, and this is cpu",
        "tinycudann": "cannot be used: it runs on CUDA, and this is cpu",
    }


def test_doctor_on_a_gpu_says_how_to_install(command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the GPU only the name is asked, so none is needed."""
    monkeypatch.setattr(devices, "resolve", lambda name: torch.device("cuda"))
    monkeypatch.setattr(devices, "describe", lambda device: "a GPU")
    monkeypatch.setattr(triton_engine, "available", lambda: None)
    monkeypatch.setitem(sys.modules, "tinycudann", None)  # an import then fails as without the package
    tinycudann_engine.available.cache_clear()
    try:
        ran = command("doctor")
    finally:
        tinycudann_engine.available.cache_clear()
    assert ran.code == 0, ran.err
    said = engine_lines(ran.out)
    assert said["triton"] == "can be used, and is by default"
    assert said["cpu"] == "cannot be used: it runs on the CPU, and this is cuda"
    assert said["tinycudann"].startswith("cannot be used: tinycudann is not installed")
    assert tinycudann.INSTALL in said["tinycudann"]


@pytest.mark.parametrize(
    ("options", "engine", "reason"),
    [
        (("encoding=hashgrid", "encoding.engine=reference"), "reference", "asked for"),
        (("encoding=hashgrid", "encoding.n_features_per_level=9"), "reference", "has 2 and 9"),
        (("encoding=fourier",), "torch", "operations of torch"),
    ],
    ids=str,
)
def test_metrics_name_the_engine_that_ran(
    command: Callable[..., Ran], tmp_path: Path, options: tuple[str, ...], engine: str, reason: str
) -> None:
    ran = command("fit", *SMALL, "hydra.run.dir=out", *options)
    assert ran.code == 0, ran.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["engine"] == engine and reason in metrics["engine_reason"]
