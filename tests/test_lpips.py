"""LPIPS equals the reference package for the same trunk weights, and explains itself whenever it has no value."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch

from neuralfield import lpips as module
from neuralfield.errors import ConfigError
from neuralfield.lpips import TRUNK_FILE, LPIPSResult, lpips_distance

# Runs in a process of its own because it declares operators globally: torchvision does not import beside every torch.
NOT_HERE = 77
REFERENCE = """
import sys, traceback, warnings
import numpy as np, torch
warnings.simplefilter("ignore")
try:
    try:
        import torchvision
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import lpips
except Exception:
    traceback.print_exc()
    sys.exit(77)
torch.manual_seed(0)
model = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
state = {}
for name, value in model.net.state_dict().items():  # slice2.3.weight -> features.3.weight
    state["features." + name.split(".", 1)[1]] = value
torch.save(state, sys.argv[1])
pairs = np.load(sys.argv[2])
with torch.no_grad():
    for key in sorted({name[:-2] for name in pairs.files}):
        x, y = (torch.from_numpy(pairs[key + end]).permute(2, 0, 1)[None] for end in ("_x", "_y"))
        print(key, model(x.expand(-1, 3, -1, -1), y.expand(-1, 3, -1, -1), normalize=True).item())
"""


def image(rows: int = 96, columns: int = 120) -> np.ndarray:
    return (skimage.data.astronaut()[:rows, 150 : 150 + columns] / 255).astype(np.float32)


def noisy(x: np.ndarray, sigma: float) -> np.ndarray:
    return (x + sigma * np.random.default_rng(0).normal(size=x.shape)).clip(0, 1).astype(np.float32)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloaded weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def random_trunk(hub: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(1)
    state = {f"features.{k}": v for k, v in module._alexnet().state_dict().items()}
    torch.save(state, hub / TRUNK_FILE)
    trust(hub / TRUNK_FILE, monkeypatch)
    return hub / TRUNK_FILE


def trust(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRUNK_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


def refuse_network(*args: object, **kwargs: object) -> None:
    raise AssertionError("tried to download")


def reason(result: LPIPSResult) -> str:
    assert result.value is None
    assert result.reason is not None
    assert "\n" not in result.reason
    return result.reason


def test_equals_the_reference_package(hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = {"colour": (image(), noisy(image(), 0.1)), "smallest": (image(31, 31), noisy(image(31, 31), 0.3))}
    grey = image().mean(axis=2, keepdims=True)
    pairs["grey"] = (grey, noisy(grey, 0.05))
    np.savez(
        tmp_path / "pairs.npz", **{f"{k}_{end}": v for k, xy in pairs.items() for end, v in zip("xy", xy, strict=True)}
    )
    command = [sys.executable, "-c", REFERENCE, str(hub / TRUNK_FILE), str(tmp_path / "pairs.npz")]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode == NOT_HERE:
        pytest.skip(f"the lpips package cannot be imported here: {run.stderr[-300:]}")
    assert run.returncode == 0, run.stderr
    trust(hub / TRUNK_FILE, monkeypatch)
    expected = dict(line.split() for line in run.stdout.splitlines())
    assert set(expected) == set(pairs)
    for key, (x, y) in pairs.items():
        result = lpips_distance(x, y)
        assert result.reason is None
        assert result.value == pytest.approx(float(expected[key]), abs=1e-5)
        assert result.value > 1e-3


def test_a_distance(random_trunk: Path) -> None:
    x = image()
    assert lpips_distance(x, x).value == 0.0
    distances = [lpips_distance(x, noisy(x, sigma)).value for sigma in (0.02, 0.05, 0.1, 0.2)]
    assert all(d is not None for d in distances)
    assert distances == sorted(set(distances))
    assert lpips_distance(noisy(x, 0.1), x).value == pytest.approx(distances[2])


def test_values_are_clamped(random_trunk: Path) -> None:
    x = image()
    assert lpips_distance(x, (x - 0.5) * 9).value == lpips_distance(x, ((x - 0.5) * 9).clip(0, 1)).value


def test_auto_never_downloads_and_says_what_to_do(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse_network)
    text = reason(lpips_distance(image(), image()))
    assert str(hub / TRUNK_FILE) in text
    assert "metrics.lpips=download" in text
    assert "230 MB" in text


def test_download_announces_itself(
    hub: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fetch(url: str, model_dir: str, **options: object) -> None:
        assert "230 MB" in caplog.text  # said before, not after
        assert options["check_hash"] is options["weights_only"] is True
        torch.save({f"features.{k}": v for k, v in module._alexnet().state_dict().items()}, hub / TRUNK_FILE)
        trust(hub / TRUNK_FILE, monkeypatch)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    with caplog.at_level(logging.WARNING):
        result = lpips_distance(image(), noisy(image(), 0.1), mode="download")
    assert result.value is not None and result.value > 0


@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failed_download_is_a_reason(hub: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    text = reason(lpips_distance(image(), image(), mode="download"))
    assert str(error) in text
    assert str(hub) in text


def test_weights_that_are_not_the_published_ones_are_refused(hub: Path) -> None:
    torch.save({f"features.{k}": v for k, v in module._alexnet().state_dict().items()}, hub / TRUNK_FILE)
    assert "damaged" in reason(lpips_distance(image(), image()))


def test_missing_package(random_trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., object] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "lpips" else find(name, *a))
    assert "pip install lpips" in reason(lpips_distance(image(), image()))


def test_images_it_is_not_made_for(random_trunk: Path) -> None:
    x = image()
    assert "4 channels" in reason(lpips_distance(np.zeros((64, 64, 4)), np.zeros((64, 64, 4))))
    assert "at least 31 pixels" in reason(lpips_distance(x[:30], x[:30]))
    assert "4 megapixels" in reason(lpips_distance(np.zeros((2001, 2000, 1)), np.zeros((2001, 2000, 1))))
    assert "the fit (96, 119, 3)" in reason(lpips_distance(x, x[:, 1:]))
    broken = x.copy()
    broken[3, 4, 1] = np.nan
    assert "not finite" in reason(lpips_distance(x, broken))


def test_options() -> None:
    assert "metrics.lpips=off" in reason(lpips_distance(image(), image(), mode="off"))
    with pytest.raises(ConfigError, match="did you mean 'download'"):
        lpips_distance(image(), image(), mode="downlaod")
    with pytest.raises(ConfigError, match="net must be one of alex"):
        lpips_distance(image(), image(), net="vgg")
