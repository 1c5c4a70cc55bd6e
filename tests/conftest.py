"""What many tests share: small images, a command line in this process, and the gpu mark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.cli import main

# The fits of the tests are tiny: a second thread costs more than it gives, much more on a busy machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def labels_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Labels that tests make go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURALFIELD_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def picture() -> np.ndarray:
    """A smooth colour image with an edge, [24, 32, 3] uint8."""
    y, x = np.mgrid[0:24, 0:32] / 32
    red = 0.5 + 0.4 * np.sin(7 * x) * np.cos(5 * y)
    values = np.stack([red, np.where(x > 0.5, 0.8, 0.2), 1 - y], axis=-1)
    return np.rint(values * 255).astype(np.uint8)


@pytest.fixture
def signal(picture: np.ndarray) -> nf.ImageSignal:
    """That image with odd rows and columns held out."""
    return nf.ImageSignal.from_array(picture, holdout="every_other")


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run `neuralfield ...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEURALFIELD_DEBUG", raising=False)
    monkeypatch.setitem(os.environ, "COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["neuralfield"])

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(list(arguments))
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
