"""What many tests share: small images, a command line in this process, and the gpu mark."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.cli import main

# Of tests/encodings/hashgrid and tests/interop.
COMPILED = {
    "test_autograd.py", "test_bad_input.py", "test_cpu.py", "test_cpu_double.py", "test_tinycudann.py",
}  # fmt: skip

# The matrices of the tests are tiny: a second thread costs more than it gives, several times more on a busy machine. The
# variable is for numpy's BLAS; processes that are started from here, pytest-xdist's among them, read it before they load it.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files go to processes, in order, where nothing else is asked for.

    A file's expensive fixtures are then made once, not once per process. The files that compile most kernels for the CPU
    are one unit: what one of them has compiled the next ones find on disk, while two at once would both compile it.
    """
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "compiled" if file.rpartition("/")[2] in COMPILED else file

    config.option.loadscopereorder = False  # most tests first would leave the longest files for the end
    return ByFile(config, log)


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
