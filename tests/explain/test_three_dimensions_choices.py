"""Choices, commands, sweeps and words for volumes and shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.explain import encoding_for, explain_sweep, sigma_for
from neuralfield.explain.candidates import comparison, judged, octaves, setting
from neuralfield.explain.views import kernel_view
from neuralfield.explain.words import in_words, training_db
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.volume import VolumeSignal
from tests.conftest import Ran
from tests.explain.solids import csg, rings

NETWORK = {"width": 64, "depth": 2}
CPU = torch.device("cpu")


def test_choosing_sigma_and_encoding() -> None:
    network, options = {"width": 16, "depth": 1}, FitOptions(steps=20)
    unjudged = sigma_for(rings(12, "none"), {"n_features": 16}, network, options)
    assert unjudged.flat[0] <= unjudged.at <= unjudged.flat[1] and "stand-in" not in str(unjudged)
    assert unjudged.assumed_holdout and "every other voxel held out" in str(unjudged)
    small = csg(points=120, test_points=100)
    assert "stand-in" in str(sigma_for(small, {"n_features": 16}, network, options))
    chosen, why = encoding_for(rings(8), network, options)
    assert chosen["name"] in why.heldout_psnr and why.heldout_psnr.keys() == {
        "none",
        "positional",
        "fourier",
        "hashgrid",
    }


def test_words() -> None:
    text = "An image: the pixel, all pixels of the image, cycles per image side"
    assert in_words(text, rings(8)) == ("A volume: the voxel, all voxels of the volume, cycles per cube side")
    image = nf.ImageSignal.from_array(np.eye(4, dtype=np.float32))
    assert in_words(text, image) == text


SMALL = ("fit.steps=12", "network.width=16", "network.depth=1", "explain.side=4", "explain.windows=1")


def test_the_command(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("explain", *SMALL, "signal=volume", "signal.resolution=12", "folder=why")
    assert ran.code == 0, ran.err
    assert "held-out voxels" in ran.out and "odd x, y and z are" in ran.out and "pixel" not in ran.out
    assert (tmp_path / "why" / "report.html").is_file()
    ran = command("explain", *SMALL[:-2], "explain.side=20", "signal=volume", "signal.resolution=12")
    assert ran.code == 2 and "side must be between 4 and 16" in ran.err


def test_a_sweep_over_a_volume(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command(
        "fit", "-m", "fit.steps=15", "network.width=16", "network.depth=1", "encoding=fourier", "encoding.sigma=0.2,2",
        "signal=volume", "signal.resolution=12", "signal.holdout=every_other", "hydra.sweep.dir=v",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = explain_sweep(tmp_path / "v", progress=False)
    assert found.kind == "psnr_heldout" and len(found.runs) == 2 and found.error < 5


def test_no_training_psnr_is_promised_beyond_eight_bits() -> None:
    assert training_db(59.994) == "59.99" and training_db(41.26, 1) == "41.3" and training_db(127.0) == "above 60"


def test_a_sweep_over_a_shape_is_refused(tmp_path: Path) -> None:
    signal = {"type": "shape", "name": "sphere", "points": 500, "test_points": 100, "cache": False}
    for number in range(2):
        config = {"signal": signal, "encoding": {"name": "none"}, "network": NETWORK, "fit": {"steps": 5}}
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.json").write_text(json.dumps({"steps": 5, "iou_surface": 0.5, "overrides": []}))
    with pytest.raises(ConfigError, match="intersection over union"):
        explain_sweep(tmp_path, progress=False)


def test_the_comparison_follows_the_lattice() -> None:
    signal, shape = rings(64), csg()
    assert octaves(signal)[-1] == 4  # 32 training voxels a side
    settings = comparison(signal, {}, 0)
    assert [s.kind for s in settings] == ["none", "positional", *["fourier"] * 6, "hashgrid"]
    assert all(s.in_dim == 3 for s in settings)
    assert octaves(shape)[-1] == 2 ** round(np.log2(shape.lattice / 8))


def test_a_stand_in_holdout_for_volumes_and_none_for_shapes() -> None:
    judge, assumed = judged(rings(12, "none"))
    assert assumed and judge.split.n_heldout == judge.split.n_train == 6**3
    shape = csg(points=500, test_points=100)
    assert judged(shape) == (shape, False)


def test_the_kernel_in_space() -> None:
    signal = VolumeSignal.from_array(np.random.default_rng(0).random((30, 40, 64)), (1, 2, 1), holdout="every_other")
    field = setting(signal, {"name": "fourier", "sigma": 2.0}, NETWORK).build(signal, 0, CPU)
    view = kernel_view(field, signal)
    middle = len(view.plane) // 2
    assert view.plane[middle, middle] == pytest.approx(1)
    assert view.plane[middle, middle + 3] == pytest.approx(view.row[12], abs=1e-5)  # 3 voxels along x
    assert view.plane[middle + 2, middle] == pytest.approx(view.row[16], abs=0.05)  # 2 along y are as far as 4 along x
    assert not np.allclose(view.plane[middle + 2, middle], view.row[8], atol=0.02)
