from __future__ import annotations

import pytest
import torch

from neuralfield import devices
from neuralfield.errors import ConfigError, DeviceError


def test_cpu_and_auto() -> None:
    assert devices.resolve("cpu") == torch.device("cpu")
    assert devices.resolve("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device=cpu"):
        devices.resolve("cuda")
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        devices.resolve("mps")
    with pytest.raises(DeviceError, match="no number"):
        devices.resolve("cpu:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.resolve("cuda:0") == torch.device("cuda:0")
    with pytest.raises(DeviceError, match="1 GPUs"):
        devices.resolve("cuda:1")


def test_versions_and_words() -> None:
    found = devices.versions()
    assert found["torch"] == torch.__version__ and found["neuralfield"]
    assert "threads" in devices.describe(torch.device("cpu"))
