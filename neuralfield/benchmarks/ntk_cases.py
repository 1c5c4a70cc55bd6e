"""What `benchmark.py ntk` measures: kernels at infinite and finite width, products, a spectrum, a prediction.

Of each row: `ms`, the median; `ratio`, how many times as long as the first row of its case; `MiB`, memory beyond the
inputs, in a process of its own; `deviation`, the largest difference from another way to the same numbers, as a part of the
largest of them:

- infinite width: from ours in float64; ours in float64 against nothing.
- finite width: from automatic differentiation in float64, at some points; products: from that in float32.
- spectrum: the largest residual $|K q - \\lambda q|$, as a part of the first eigenvalue; SciPy's eigenvalues: from ours.
- prediction: values at test points, from ours in float64.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralfield.benchmarks.ntk_memory import measure
from neuralfield.benchmarks.ntk_peers import NeuralTangents, contraction, layers
from neuralfield.benchmarks.ntk_problems import (
    B_STD,
    W_STD,
    FiniteWidth,
    InfiniteWidth,
    Product,
    Sizes,
    composed_kernel,
    deviation,
)
from neuralfield.benchmarks.timing import Timing, alternate, ratio
from neuralfield.ntk.dynamics import Dynamics, predict
from neuralfield.ntk.spectrum import spectrum
from neuralfield.ntk.toeplitz import ToeplitzOperator

Row = dict[str, Any]
SIZES = Sizes()
OURS = "neuralfield"
_SLOW = 3  # rounds at most of what takes seconds


def ntk(rounds: int, device: torch.device, large: bool = False, python: str | None = None) -> list[Row]:
    """All cases.

    **Arguments**

    - `rounds`: timed rounds; of what takes seconds three at most.
    - `device`: of ours; neural-tangents runs on the CPU.
    - `large`: also the finite-width kernel of 32,768 points, SciPy's eigensolver, and the spectrum of 768 x 512 pixels.
    - `python`: the interpreter of neural-tangents' environment, None to do without.
    """
    problem = PredictionProblem(SIZES, device)
    with ExitStack() as stack:
        peer = stack.enter_context(NeuralTangents(python, inputs(problem))) if python else None
        rows = kernel(rounds, device, peer) + empirical(rounds, device, peer) + prediction(rounds, problem, peer)
    rows += product(rounds, device) + eigenpairs(device, SIZES.grid, large)
    if large:
        rows += eigenpairs(device, SIZES.large_grid, False)
        rows += large_empirical(device)
    return rows


def inputs(problem: PredictionProblem) -> dict[str, np.ndarray]:
    """What neural-tangents works on: the same numbers as ours."""
    found = {"depth": np.array(SIZES.depth), "w_std": np.array(W_STD), "b_std": np.array(B_STD)}
    cpu = torch.device("cpu")
    found["kernel_x"] = InfiniteWidth(SIZES, SIZES.kernel, torch.float32, cpu).x.numpy()
    for n in SIZES.empirical:
        finite = FiniteWidth(SIZES, n, torch.float32, cpu)
        found[f"empirical_x{n}"] = finite.field.encoding(finite.x).numpy()
        found |= layers(finite.field.network)  # type: ignore[arg-type]
    for name in ("k_train", "k_test", "y", "times"):
        found[name] = getattr(problem, name).cpu().numpy()
    return found


def kernel(rounds: int, device: torch.device, peer: NeuralTangents | None) -> list[Row]:
    """The infinite-width tangent kernel of a ReLU network."""
    rows = []
    for dtype in (torch.float32, torch.float64):
        problem = InfiniteWidth(SIZES, SIZES.kernel, dtype, device)
        problem.prepare()
        remote = _remote(peer, "kernel", dtype)
        case = f"infinite width, n {SIZES.kernel:,}, {_name(dtype)}"
        times = _timed(case, {OURS: problem.run, **remote}, rounds, device)
        used = measure("kernel", SIZES, SIZES.kernel, dtype, device)["bytes"]
        rows.append(_row(case, OURS, times, problem.check(problem.run()) if dtype == torch.float32 else None, used))
        rows += [_row(case, name, times, problem.check(task.result(device))) for name, task in remote.items()]
    return rows


def empirical(rounds: int, device: torch.device, peer: NeuralTangents | None) -> list[Row]:
    """The finite-width kernel, mean over outputs, of ours and of the peers."""
    rows = []
    for n in SIZES.empirical:
        problem = FiniteWidth(SIZES, n, torch.float32, device)
        problem.prepare()
        remote = _remote(peer, "empirical", n=n)
        case = f"finite width, n {n:,}"
        times = _timed(case, {OURS: problem.run, **remote}, rounds, device)
        used = measure("empirical", SIZES, n, torch.float32, device)["bytes"]
        rows.append(_row(case, OURS, times, problem.check(problem.run()), used))
        rows += [_row(case, name, times, problem.check(task.result(device))) for name, task in remote.items()]
        if n == SIZES.contraction:
            name = "torch.func, jacrev + einsum"
            times[name], numbers = _once(lambda p=problem: contraction(p.field, p.x), device)  # type: ignore[misc]
            rows.append(_row(case, name, times, problem.check(numbers)))
    return rows


def large_empirical(device: torch.device) -> list[Row]:
    """The finite-width kernel of many points, once, in a process of its own."""
    n = SIZES.large_empirical
    case = f"finite width, n {n:,}"
    _say(case)
    found = measure("empirical", SIZES, n, torch.float32, device, check=True)
    return [_row(case, OURS, {OURS: Timing((found["seconds"],))}, found["deviation"], found["bytes"])]


def product(rounds: int, device: torch.device) -> list[Row]:
    """One product of a field's kernel, [n C] numbers, against one pass forward over the same points."""
    n = SIZES.side**2
    problem = Product(SIZES, n, torch.float32, device)
    problem.prepare()
    case, forward = f"NTK-vector product, n {n:,}", "one pass forward, 4,096 points at a time"
    times = _timed(case, {forward: problem.forward, OURS: problem.run}, min(rounds, _SLOW), device)
    used = measure("product", SIZES, n, torch.float32, device)["bytes"]
    return [_row(case, forward, times), _row(case, OURS, times, problem.check(problem.run()), used)]


def eigenpairs(device: torch.device, grid: tuple[int, int], with_scipy: bool) -> list[Row]:
    """The top of a stationary kernel's spectrum on the pixels of an image, from the kernel's construction on; once."""
    k, made = SIZES.eigenpairs, composed_kernel(device, 2 * SIZES.features)
    case = f"top {k} eigenvalues, {grid[0]} x {grid[1]} pixels"
    _say(case)

    def operator(dtype: torch.dtype) -> ToeplitzOperator:
        return ToeplitzOperator.of(made, grid, dtype=dtype, device=device)

    timing, ours = _once(lambda: spectrum(operator(torch.float32), k=k), device)
    times = {OURS: timing}
    rows = [_row(case, OURS, times, float(ours.residuals.max() / ours.eigenvalues[0]))]
    if with_scipy:
        from scipy.sparse.linalg import eigsh

        name = "scipy's eigsh, float64"
        times[name], values = _once(
            lambda: eigsh(operator(torch.float64).to_scipy(), k, tol=1e-8, return_eigenvectors=False), device
        )
        descending = torch.from_numpy(np.sort(values)[::-1].copy())
        rows.append(_row(case, name, times, deviation(descending, ours.eigenvalues.cpu())))
    return rows


class PredictionProblem:
    """Kernels of points of the unit square with each other, targets and times; the values that are right.

    `k_train`, `k_test`, `y`, `times`: in float64; loss "mean", as neural-tangents has it.
    """

    def __init__(self, sizes: Sizes, device: torch.device) -> None:
        n, generator = sizes.prediction, torch.Generator().manual_seed(3)
        x = torch.rand(2 * n, 2, generator=generator, dtype=torch.float64).to(device)
        whole = composed_kernel(device, sizes.features, sizes.depth).ntk(x)
        self.k_train, self.k_test = whole[:n, :n].clone(), whole[n:, :n].clone()
        self.y = torch.randn(n, 3, generator=generator, dtype=torch.float64).to(device)
        self.times = torch.logspace(-1, 5, sizes.times, dtype=torch.float64)
        self.device = device

    def numbers(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """k_train, k_test, y."""
        return self.k_train.to(dtype), self.k_test.to(dtype), self.y.to(dtype)

    def predict(self, k_train: Tensor, k_test: Tensor, y: Tensor) -> Tensor:
        """Values at the test points, from nothing."""
        test = predict(k_train, k_test, y, self.times, loss="mean").test
        assert test is not None
        return test


def prediction(rounds: int, problem: PredictionProblem, peer: NeuralTangents | None) -> list[Row]:
    """Closed-form training on squared loss, with the eigendecomposition and without."""
    rows = []
    exact = problem.predict(*problem.numbers(torch.float64))
    for dtype in (torch.float32, torch.float64):
        k_train, k_test, y = problem.numbers(dtype)
        dynamics = Dynamics(k_train, k_test, loss="mean")
        ours: dict[str, Callable[[], Any]] = {
            "prediction": partial(problem.predict, k_train, k_test, y),
            "evaluation": lambda d=dynamics, y=y: d.predict(y, problem.times).test,  # type: ignore[misc]
        }
        title = f"prediction, n {len(y):,} + {len(k_test):,}, {len(problem.times)} times, {_name(dtype)}"
        for part, more, count in (
            ("prediction", "", min(rounds, _SLOW)),
            ("evaluation", ", decomposed before", rounds),
        ):
            remote = _remote(peer, part, dtype)
            case = title + more
            times = _timed(case, {OURS: ours[part], **remote}, count, problem.device)
            apart = None if dtype == torch.float64 else deviation(ours[part](), exact)
            rows.append(_row(case, OURS, times, apart))
            rows += [
                _row(case, name, times, deviation(task.result(exact.device), exact)) for name, task in remote.items()
            ]
    return rows


class Remote:
    """A case of neural-tangents as a contestant; the times that count are those of its own process."""

    def __init__(self, peer: NeuralTangents, case: str, dtype: str, n: int) -> None:
        self.peer, self.options = peer, (case, dtype, n)
        self.seconds: list[float] = []
        self.request: dict[str, Any] = {}

    def __call__(self) -> None:
        seconds, self.request = self.peer.run(*self.options)
        self.seconds.append(seconds)

    def result(self, device: torch.device) -> Tensor:
        """The numbers of the last round."""
        return torch.from_numpy(self.peer.result(self.request)).to(device)


def _remote(
    peer: NeuralTangents | None, case: str, dtype: torch.dtype = torch.float32, n: int = 0
) -> dict[str, Remote]:
    """neural-tangents as a contestant by name, if it takes part."""
    return {} if peer is None else {peer.name: Remote(peer, case, _name(dtype), n)}


def _timed(
    case: str, tasks: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, Timing]:
    _say(case)
    found = alternate(tasks, rounds, device)
    remote = {name: Timing(tuple(task.seconds[1:])) for name, task in tasks.items() if isinstance(task, Remote)}
    return {**found, **remote}


def _once(task: Callable[[], Any], device: torch.device) -> tuple[Timing, Any]:
    """What takes seconds, and its result; the first use of libraries is too little to matter."""
    started = time.perf_counter()
    result = task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Timing((time.perf_counter() - started,)), result


def _row(case: str, what: str, times: Mapping[str, Timing], apart: float | None = None, used: int | None = None) -> Row:
    first, own = next(iter(times.values())), times[what]
    relative = ratio(own, first) if len(own.seconds) == len(first.seconds) else own.median / first.median
    mebibytes = None if used is None else used / 2**20
    return {"case": case, "what": what, "ms": 1e3 * own.median, "ratio": relative, "MiB": mebibytes, "deviation": apart}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _say(case: str) -> None:
    print(f"{case} ...", file=sys.stderr, flush=True)
