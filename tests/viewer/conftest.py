"""Fields with a formula, and folders of runs made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from neuralfield import field as fields
from neuralfield.field import Field


def linear_field(weights: Any, bias: Any, signal: dict[str, Any] | None = None) -> Field:
    """f(x) = W x + b, exactly."""
    matrix = torch.from_numpy(np.array(weights, np.float32))
    field = fields.build(matrix.shape[1], matrix.shape[0], "none", {"depth": 0}, signal)
    with torch.no_grad():
        layer = next(module for module in field.modules() if isinstance(module, torch.nn.Linear))
        layer.weight.copy_(matrix)
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float32))
    return field


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's folder: its field, and what is given of its metrics and configuration."""

    def write(name: str, field: Field | None, metrics: Any = None, config: Any = None) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        if field is not None:
            fields.save(field, folder / "field.safetensors")
        if metrics is not None:
            (folder / "metrics.json").write_text(json.dumps(metrics))
        if config is not None:
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return write


@pytest.fixture
def image_run(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """f(x, y) = (x, y, 1/2), fitted to an 8 x 4 image that is still there."""
    from neuralfield.signals import load

    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "image.npy", pixels)
    options = {"type": "image", "path": str(tmp_path / "image.npy")}
    signal = load(options)
    field = linear_field([[1, 0], [0, 1], [0, 0]], [0, 0, 0.5], signal.describe())
    metrics = {"psnr": 12.345, "steps": 1000, "overrides": ["fit.steps=1000"], "fingerprint": signal.fingerprint()}
    return make_run("image", field, metrics, {"signal": options})


@pytest.fixture
def shape_run(make_run: Callable[..., Path]) -> Path:
    """The half x < 1/2 of the cube, said to be fitted to the sphere."""
    said = {"type": "shape", "kind": "occupancy", "scale": 1.0, "offset": [0.0, 0.0, 0.0]}
    field = linear_field([[-4, 0, 0]], [2], said)
    config = {"signal": {"type": "shape", "path": None, "name": "sphere", "margin": 0.05}}
    return make_run("shape", field, {"iou_uniform": 0.9}, config)


@pytest.fixture
def volume_run(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """f(x, y, z) = x / 2 + y / 4 + z / 8 in a box of 8 x 4 x 2 voxels that is still there."""
    from neuralfield.signals import load

    values = np.random.default_rng(1).random((2, 4, 8)).astype(np.float32)
    np.save(tmp_path / "volume.npy", values)
    options = {"type": "volume", "path": str(tmp_path / "volume.npy")}
    field = linear_field([[0.5, 0.25, 0.125]], [0], load(options).describe())
    return make_run("volume", field, {"psnr": 20.0}, {"signal": options})
