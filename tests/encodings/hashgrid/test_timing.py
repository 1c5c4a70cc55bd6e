"""Where two engines can serve, the faster one does: measured once, here by a false clock."""

from __future__ import annotations

import time
import types
from collections.abc import Callable

import pytest
import torch

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import engines, reference, timing, tinycudann_engine, triton_engine
from tests.encodings.hashgrid.small_grids import grid, points


class Stopwatch:
    """Says of each engine what it is told to say, in place of :func:`.timing.clock`, and counts."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.asked = seconds, list[str]()

    def __call__(self, task: Callable[[], object], device: torch.device) -> float:
        task()
        name = task.__defaults__[0]  # type: ignore[attr-defined]
        self.asked.append(name)
        return self.seconds[name]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stopwatch]:
    """A CPU with two fast engines: the reference under the names of both."""
    calls: list[str] = []

    def engine(name: str) -> types.ModuleType:
        module = types.ModuleType(name)
        module.available = lambda: None  # type: ignore[attr-defined]
        module.supports = lambda x, *rest: "five dimensions" if x.shape[1] == 5 else None  # type: ignore[attr-defined]
        module.forward = lambda *given: calls.append(name) or reference.forward(*given)  # type: ignore[attr-defined,func-returns-value]
        module.backward = lambda *given: calls.append(f"{name} back") or reference.backward(*given)  # type: ignore[attr-defined,func-returns-value]
        return module

    for name in ("triton", "tinycudann"):
        monkeypatch.setitem(engines.ENGINES, name, engine(name))
    monkeypatch.setitem(engines._FAST, "cpu", engines._FAST["cuda"])
    monkeypatch.setattr(engines, "_missing", lambda name, kind: None)
    monkeypatch.setattr(engines, "_measured", {})

    def started(**seconds: float) -> Stopwatch:
        watch = Stopwatch(**seconds)
        monkeypatch.setattr(timing, "clock", watch)
        watch.calls = calls  # type: ignore[attr-defined]
        return watch

    return started


def test_the_faster_engine_is_measured_once_and_kept(two: Callable[..., Stopwatch]) -> None:
    watch, module = two(triton=2e-3, tinycudann=1e-3), grid("auto")
    assert engines.choose("auto", "cpu").name == "triton"
    assert "or tinycudann, where it is measured to be faster" in engines.choose("auto", "cpu").reason
    module(points(50))
    assert module.engine_choice.name == "tinycudann"
    for word in ("up to 64 points", "forward and backward", "triton 2 ms", "tinycudann 1 ms"):
        assert word in module.engine_choice.reason
    # In turns, backward too, with one round that is not counted.
    rounds = timing._ROUNDS + 1
    assert watch.asked == ["triton", "tinycudann"] * rounds
    assert watch.calls[:4] == ["triton", "triton back", "tinycudann", "tinycudann back"]  # type: ignore[attr-defined]
    module(points(64))
    assert len(watch.asked) == 2 * rounds
    watch.seconds["triton"] = 1e-4
    module(points(65))  # the next class of sizes
    assert len(watch.asked) == 4 * rounds and module.engine_choice.name == "triton"
    with torch.no_grad():
        module(points(64))
    assert len(watch.asked) == 6 * rounds and "points, forward: " in list(engines._measured.values())[-1].reason
    assert "up to 128 points, forward and backward" in module.engine_choice.reason  # the last of training


def test_a_faster_engine_with_other_numbers_is_left_out(
    two: Callable[..., Stopwatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    two(triton=2e-3, tinycudann=1e-3)
    module, x = grid("auto"), points()
    other = engines.ENGINES["tinycudann"]
    monkeypatch.setattr(other, "forward", lambda *given: reference.forward(*given) * 1.0001)
    assert torch.equal(module(x), grid("reference")(x))
    assert module.engine_choice.name == "triton"
    assert "tinycudann is left out, its features differ by 0.0001 of the largest" in module.engine_choice.reason


@pytest.mark.parametrize("n", [0, 50])
def test_nothing_is_measured_while_compiling_or_of_nothing(
    two: Callable[..., Stopwatch], monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    watch, module = two(triton=2e-3, tinycudann=1e-3), grid("auto")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: n > 0)
    module(points(n))
    assert watch.asked == [] and not engines._measured
    assert module.engine_choice.name == "triton" and "nothing else was measured" in module.engine_choice.reason


def test_one_of_two_takes_the_batch(two: Callable[..., Stopwatch], monkeypatch: pytest.MonkeyPatch) -> None:
    watch, module = two(triton=2e-3, tinycudann=1e-3), grid("auto")
    monkeypatch.setattr(engines.ENGINES["tinycudann"], "supports", lambda *given: "a reason")
    module(points())
    assert watch.asked == [] and module.engine_choice.name == "triton"
    assert module.engine_choice.reason.endswith("compiled for this GPU; not tinycudann: a reason")
    none = HashGrid(5, 2, log2_hashmap_size=4)
    none(torch.rand(3, 5))
    assert none.engine_choice.name == "reference" and "the triton engine" in none.engine_choice.reason


def test_the_clock_measures() -> None:
    assert timing.clock(lambda: time.sleep(0.02), torch.device("cpu")) >= 0.02


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_a_race_on_a_gpu() -> None:
    if triton_engine.available() or tinycudann_engine.available():
        pytest.skip("needs triton and tinycudann")
    engines._measured.clear()
    module = HashGrid(3).cuda()
    module(torch.rand(2**16, 3, device="cuda")).sum().backward()
    assert module.engine_choice.name in ("triton", "tinycudann") and " ms" in module.engine_choice.reason
