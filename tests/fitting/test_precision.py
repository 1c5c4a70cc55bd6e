"""Which precision "auto" means, and that bfloat16 costs little where it is chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import neuralfield as nf
from neuralfield import field as fields
from neuralfield.errors import FieldFileError
from neuralfield.fitting import features, precision
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from tests.conftest import Ran

WAVES = {"name": "fourier", "n_features": 32, "sigma": 3.0}
RAW = {"name": "positional", "n_frequencies": 4, "include_input": True}
GRID = {"name": "hashgrid", "n_levels": 2, "log2_hashmap_size": 6, "max_resolution": 32}


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that multiplies bfloat16 fast."""
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: True)


@pytest.mark.parametrize(
    ("encoding", "network", "expected"),
    [
        (WAVES, {"width": 128}, "bfloat16"),
        (WAVES, {"width": 256, "activation": "gelu"}, "bfloat16"),
        ({"name": "bounded", "encoding": {**WAVES, "in_dim": 2}}, {"width": 128}, "bfloat16"),
        (WAVES, {"width": 64}, "float32"),
        (WAVES, {"width": 128, "depth": 0}, "float32"),
        (WAVES, {"width": 128, "activation": "sine"}, "float32"),
        (RAW, {"width": 128}, "float32"),
        ({"name": "none"}, {"width": 128}, "float32"),
        (GRID, {"width": 128}, "float32"),
    ],
)
def test_auto_is_bfloat16_behind_fourier_features_in_wide_networks(
    fast: None, encoding: dict, network: dict, expected: str
) -> None:
    field = fields.build(2, 3, encoding, network)
    assert precision.resolve("auto", field) == precision.resolve(None, field) == expected
    assert precision.resolve("float32", field) == "float32"
    assert precision.resolve("bfloat16", field) == "bfloat16"


def test_auto_is_float32_on_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    field = fields.build(2, 3, WAVES, {"width": 128})
    units = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    for name in units:
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert precision.resolve("auto", field) == "float32"
    for name in units:  # one is enough
        monkeypatch.setattr(torch.cpu, name, lambda: True)
        assert precision.resolve("auto", field) == "bfloat16"
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    for name in units:
        monkeypatch.delattr(torch.cpu, name)  # an older torch
    assert precision.resolve("auto", field) == "float32"


def test_a_graphics_card_is_asked_for_its_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert precision.fast_bfloat16(torch.device("cuda")) is expected


def _trainer(signal: nf.ImageSignal, chosen: str, **more: object) -> Trainer:
    torch.manual_seed(0)
    field = fields.build(2, 3, WAVES, {"width": 128, "depth": 2})
    options = FitOptions(steps=60, batch_size="full", lr=1e-2, precision=chosen, checkpoint_seconds=1e-9)
    return Trainer(field, signal, options, **{"progress": False, **more})


def test_bfloat16_costs_little_and_its_features_are_kept_in_it(signal: nf.ImageSignal) -> None:
    jobs = {chosen: _trainer(signal, chosen) for chosen in ("float32", "bfloat16")}
    psnr = {chosen: job.run().state.history[-1]["psnr_train"] for chosen, job in jobs.items()}
    assert psnr["float32"] > 22
    assert psnr["bfloat16"] != psnr["float32"]
    assert abs(psnr["bfloat16"] - psnr["float32"]) < 0.2
    half, single = jobs["bfloat16"], _trainer(signal, "bfloat16")
    kept = half.gradients._features
    assert kept is not None and kept.dtype == torch.bfloat16
    # The first product rounds its input anyway: float32 features give the same bits.
    assert single.data.coordinates is not None
    single.gradients._wanted = False
    single.gradients._features = features.compute(single.field.encoding, single.data.coordinates, torch.float32)
    single.run()
    for one, other in zip(half.field.parameters(), single.field.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_the_other_precision_is_refused(
    signal: nf.ImageSignal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same "auto" on another machine."""
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: False)
    _trainer(signal, "auto", folder=tmp_path)._checkpoint(now=True)
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: True)
    other = _trainer(signal, "auto", folder=tmp_path)
    other.options = replace(other.options, resume=True)
    with pytest.raises(FieldFileError, match=r"fit\.precision is 'float32' there, 'bfloat16' now"):
        other.resume()


def test_metrics_name_the_precision_that_was_used(fast: None, command: Callable[..., Ran], tmp_path: Path) -> None:
    nf.write_image(tmp_path / "image.png", torch.rand(16, 16, 3).numpy())
    cases = (
        ("fourier", ["fit.precision=auto"], "bfloat16"),
        ("none", ["fit.precision=auto"], "float32"),
        ("fourier", [], "float32"),
    )
    for number, (encoding, given, expected) in enumerate(cases):
        ran = command(
            "fit", f"signal.path={tmp_path / 'image.png'}", f"encoding={encoding}", "network.width=128", "network.depth=1",
            "fit.steps=2", "device=cpu", "metrics.lpips=off", f"hydra.run.dir={tmp_path / str(number)}", *given,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert json.loads((tmp_path / str(number) / "metrics.json").read_text())["precision"] == expected
