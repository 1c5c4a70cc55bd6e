"""Numbers and kinds of threads for the tests of the CPU engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from neuralfield.encodings.hashgrid import cpu, cpu_threads


@pytest.fixture
def torch_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets torch's number of threads, until the test ends; two at first, used for any amount of work."""
    before = torch.get_num_threads()
    monkeypatch.setattr(cpu, "_WORK_PER_THREAD", 1)
    torch.set_num_threads(2)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["torch's threads", "pool"])
def either_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tasks on OpenMP's threads, where torch has some, and on those that serve elsewhere."""
    if request.param == "pool":
        monkeypatch.setattr(cpu_threads, "_openmp", lambda: None)
    elif cpu_threads._openmp() is None:
        pytest.skip("torch has no OpenMP of GNU's kind here")
    return str(request.param)
