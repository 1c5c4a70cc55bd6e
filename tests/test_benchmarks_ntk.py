"""`benchmark.py ntk` measures what it says, on small cases."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralfield.benchmarks import neural_tangents_worker, ntk_cases, ntk_memory, ntk_peers, report
from neuralfield.benchmarks.ntk_problems import FiniteWidth, InfiniteWidth, Product, Sizes
from neuralfield.errors import MissingDependency
from neuralfield.ntk.empirical import empirical_ntk

CPU = torch.device("cpu")
TINY = Sizes(
    kernel=20, dimensions=5, width=8, depth=2, features=8, empirical=(6, 9), contraction=9, side=5, grid=(36, 30),
    eigenpairs=4, prediction=12, times=3, large_empirical=40, large_grid=(30, 40),
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Small cases, and no processes for their memory; what would have been measured."""
    asked: list[tuple[str, int]] = []

    def measure(what: str, sizes: Sizes, n: int, *_: Any, check: bool = False) -> dict[str, Any]:
        asked.append((what, n))
        return {"bytes": 2**20, "seconds": 0.5, "deviation": 1e-7 if check else None}

    monkeypatch.setattr(ntk_cases, "SIZES", TINY)
    monkeypatch.setattr(ntk_cases, "measure", measure)
    return asked


@pytest.mark.parametrize("problem", [InfiniteWidth, FiniteWidth, Product])
def test_a_problem_checks_its_own_numbers(problem: type) -> None:
    """Right numbers are found right, and numbers that are one percent off one percent off."""
    made = problem(TINY, 12, torch.float32, CPU)
    result = made.run()
    assert made.check(result) < 1e-5
    assert made.check(1.01 * result) == pytest.approx(0.01, rel=1e-3)


def test_all_dtypes_and_sizes_speak_of_the_same_numbers() -> None:
    for problem in (InfiniteWidth, FiniteWidth):
        single, double = (problem(TINY, 12, dtype, CPU) for dtype in (torch.float32, torch.float64))
        assert torch.equal(single.x.double(), double.x)
    for one, two in zip(single.field.parameters(), double.field.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(one.double(), two)


def test_the_contraction_and_the_product_by_autograd_are_the_kernel() -> None:
    made = FiniteWidth(TINY, 9, torch.float64, CPU)
    torch.testing.assert_close(ntk_peers.contraction(made.field, made.x), empirical_ntk(made.field, made.x))
    full, v = empirical_ntk(made.field, made.x, outputs="full"), torch.randn(9, 3, dtype=torch.float64)
    found = ntk_peers.product_by_autograd(made.field, made.x, v, made.x[2:5])
    torch.testing.assert_close(found, torch.einsum("icjd,jd->ic", full, v)[2:5])


def test_every_case_has_its_rows(tiny: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    rows = ntk_cases.ntk(1, CPU, large=True)
    cases = {row["case"]: [r["what"] for r in rows if r["case"] == row["case"]] for row in rows}
    assert cases["finite width, n 9"] == ["neuralfield", "torch.func, jacrev + einsum"]
    assert cases["NTK-vector product, n 25"] == ["one pass forward, 4,096 points at a time", "neuralfield"]
    assert cases["top 4 eigenvalues, 36 x 30 pixels"] == ["neuralfield", "scipy's eigsh, float64"]
    assert {f"infinite width, n 20, {d}" for d in ("float32", "float64")} < set(cases)
    assert sum(case.startswith("prediction, n 12 + 12, 3 times") for case in cases) == 4
    assert {"top 4 eigenvalues, 30 x 40 pixels", "finite width, n 40"} < set(cases)
    for row in rows:
        assert row["ms"] > 0 and row["ratio"] > 0
        assert row["deviation"] is None or row["deviation"] < 1e-4
        first = next(r for r in rows if r["case"] == row["case"])
        assert row["ratio"] == 1.0 if row is first else True
    # All but the float64 rows of ours, which others are held to, and the pass forward are checked.
    assert sum(row["deviation"] is None for row in rows) == 4
    sizes = [("kernel", 20), ("kernel", 20), ("empirical", 6), ("empirical", 9), ("product", 25), ("empirical", 40)]
    assert tiny == sizes and sum(row["MiB"] == 1.0 for row in rows) == len(sizes)
    assert "NTK-vector product, n 25 ..." in capsys.readouterr().err


def test_memory_of_a_process_of_its_own() -> None:
    """A kernel of 2,000 points in float64 is 31 MiB; the blocks that it is made of take less than that once more."""
    found = ntk_memory.measure("empirical", TINY, 2000, torch.float64, CPU, check=True)
    assert found["seconds"] > 0 and found["deviation"] < 1e-12
    if Path("/proc/self/clear_refs").exists():
        assert 8 * 2000**2 <= found["bytes"] <= 3 * 8 * 2000**2


def test_the_script_prints_the_table_and_how_to_have_the_peer(
    tiny: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.json"
    assert report.main(["ntk", "--rounds", "1", "-o", str(output), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "deviation" in shown and "pip install jax==0.5.3" in shown
    assert json.loads(output.read_text())["rows"][0]["what"] == "neuralfield"


# neural-tangents in a process of its own.

WORKER = """
import json, sys
import numpy
inputs = numpy.load(sys.argv[1])
print(json.dumps({"neural_tangents": "1", "jax": "2"}), flush=True)
for count, line in enumerate(sys.stdin):
    request = json.loads(line)
    if "save" in request:
        numpy.save(request["save"], inputs["numbers"])
        answer = {}
    elif request["case"] == "bad":
        answer = {"error": "no such luck"}
    elif request["case"] == "end":
        break
    else:
        answer = {"seconds": 0.25 + count}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ntk_peers.NeuralTangents]:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(neural_tangents_worker, "__file__", str(worker))
    with ntk_peers.NeuralTangents(sys.executable, {"numbers": np.arange(6.0).reshape(2, 3)}) as made:
        yield made


def test_a_worker_is_timed_by_its_own_clock(peer: ntk_peers.NeuralTangents) -> None:
    task = ntk_cases.Remote(peer, "kernel", "float32", 0)
    times = ntk_cases._timed("a case", {"ours": lambda: None, "theirs": task}, 2, CPU)
    assert times["theirs"].seconds == (1.25, 2.25)  # the first round does not count
    assert torch.equal(task.result(CPU), torch.arange(6.0, dtype=torch.float64).reshape(2, 3))
    assert peer.name == "neural-tangents 1 (jax 2)"


@pytest.mark.parametrize(("case", "said"), [("bad", "no such luck"), ("end", "its process ended")])
def test_a_worker_that_fails_is_reported(peer: ntk_peers.NeuralTangents, case: str, said: str) -> None:
    with pytest.raises(MissingDependency, match=f"{said}.*a set that works.*jax==0.5.3"):
        peer.run(case)
        peer.run(case)


def test_an_environment_without_it(tiny: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]) -> None:
    """No such interpreter, and one that has neither it nor JAX."""
    for python, said in (("/nowhere/python", "cannot be run"), (sys.executable, "No module named")):
        assert report.main(["ntk", "--neural-tangents", python, "--device", "cpu"]) == 2
        shown = capsys.readouterr().err
        assert said in shown.replace("\n", " ") and "pip install" in shown


@pytest.mark.skipif("NEURAL_TANGENTS_PYTHON" not in os.environ, reason="NEURAL_TANGENTS_PYTHON names no interpreter")
def test_neural_tangents_itself_finds_the_same_numbers(tiny: list[tuple[str, int]]) -> None:
    rows = ntk_cases.ntk(1, CPU, python=os.environ["NEURAL_TANGENTS_PYTHON"])
    theirs = [row for row in rows if row["what"].startswith("neural-tangents")]
    assert len(theirs) == 8
    for row in theirs:
        # Its float32 loses digits on the diagonal, which ours does not.
        assert row["deviation"] < (1e-7 if "float64" in row["case"] else 1e-3)
