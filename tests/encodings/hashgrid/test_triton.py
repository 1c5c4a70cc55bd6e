"""The Triton engine: equal to the reference everywhere, and deterministic where asked.

Each comparison runs twice: in Triton's interpreter on the CPU, and on a GPU where there is one. The interpreter is chosen
when Triton is imported, so its tests run in a process of their own, which `test_in_the_interpreter` starts; by hand:
``TRITON_INTERPRET=1 pytest tests/encodings/hashgrid/test_triton.py``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import reference, triton_engine
from neuralfield.encodings.hashgrid.layout import GridLayout, make_layout

triton = pytest.importorskip("triton", reason="triton is not installed (pip install triton, on Linux)")

INTERPRETED = triton_engine.interpreted()
compiled = pytest.mark.skipif(INTERPRETED, reason="this process has Triton's interpreter")
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(not INTERPRETED, reason="run by test_in_the_interpreter")),
    pytest.param("cuda", marks=[pytest.mark.gpu, compiled]),
]

# (D, F, base, growth, T, L): dense and hashed levels together; features that fill a tile and that do not.
GRIDS = {
    "1d": (1, 1, 4, 2.0, 3, 3),
    "2d": (2, 3, 3, 2.0, 5, 3),
    "2d, wide rows": (2, 8, 4, 1.7, 5, 3),
    "3d": (3, 2, 4, 1.5, 7, 3),
    "3d, tiny tables": (3, 4, 2, 2.0, 3, 2),
    "4d": (4, 1, 2, 1.9, 5, 2),
}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mend what differs from every GPU: it rounds `fma` twice, and before 3.7 its numbers cannot end a loop.

    They are arrays of one axis, which NumPy used to take for numbers and no longer does.
    """
    if not INTERPRETED:
        return
    from triton.runtime import interpreter

    def fma(self: object, x: Any, y: Any, z: Any) -> Any:
        exact = x.data.astype("float64") * y.data + z.data
        return interpreter.TensorHandle(exact.astype(x.data.dtype), z.dtype.scalar)

    def patch_tensor(tensor: Any, *scope: Any) -> None:
        original(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    original = interpreter._patch_lang_tensor
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patch_tensor)
    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_fma", fma)
    monkeypatch.setattr(triton_engine, "_VISITS", 64)


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def special_points(layout: GridLayout, generator: torch.Generator) -> torch.Tensor:
    """Generic points, x = 0 and 1, points on cell corners and faces of every level, and points outside the cube."""
    dim = layout.in_dim
    rows = [torch.rand(24, dim, generator=generator), torch.zeros(1, dim), torch.ones(1, dim)]
    for level in layout.levels:
        corners = (torch.randint(0, level.resolution + 1, (10, dim), generator=generator) - 0.5) / max(level.scale, 1.0)
        some = torch.rand(10, dim, generator=generator)
        rows += [corners, torch.where(torch.rand(10, dim, generator=generator) < 0.5, corners, some)]
    just = torch.tensor([-1.0, -1e-7, 1 + 1e-6, 7e4])[:, None].expand(4, dim)
    return torch.cat([*rows, 20 * torch.randn(8, dim, generator=generator), just])


class Problem:
    """A grid, points, a table and an upstream gradient, and what the reference makes of them on the CPU."""

    def __init__(self, layout: GridLayout, interpolation: str = "linear", x: torch.Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.layout, self.interpolation = layout, interpolation
        self.x = special_points(layout, generator) if x is None else x
        self.params = torch.randn(layout.n_parameters, generator=generator)
        self.grad = torch.randn(len(self.x), layout.out_dim, generator=generator)

    def check(self, device: str, forward: bool = True, to_x: bool = True, to_params: bool = True) -> None:
        """Features and both gradients agree."""
        x, params, grad = (tensor.to(device) for tensor in (self.x, self.params, self.grad))
        table = self.params.float()
        if forward:
            out = triton_engine.forward(x, params, self.layout, self.interpolation)
            assert_close(out, reference.forward(self.x, table, self.layout, self.interpolation))
        got = triton_engine.backward(grad, x, params, self.layout, self.interpolation, to_x, to_params)
        expected = reference.backward(self.grad, self.x, table, self.layout, self.interpolation, to_x, to_params)
        assert [g is None for g in got] == [not to_x, not to_params]
        for ours, truth in zip(got, expected, strict=True):
            if truth is not None:
                assert_close(ours, truth)


def problem(name: str, interpolation: str = "linear") -> Problem:
    dim, features, base, growth, table, levels = GRIDS[name]
    return Problem(make_layout(dim, levels, features, table, base, growth), interpolation)


def assert_close(got: torch.Tensor | None, expected: torch.Tensor | None) -> None:
    """Float32, and within 1e-5 of the largest magnitude; NaN where NaN is expected."""
    assert got is not None and expected is not None
    assert got.dtype == torch.float32 and got.shape == expected.shape
    largest = float(expected.nan_to_num().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=1e-5 * largest, equal_nan=True)


# Equal to the reference


@pytest.mark.parametrize(
    ("name", "interpolation"), [*((name, "linear") for name in GRIDS), ("2d", "smoothstep"), ("3d", "smoothstep")]
)
def test_equals_the_reference(device: str, name: str, interpolation: str) -> None:
    problem(name, interpolation).check(device)


def test_nearest_equals_the_reference(device: str) -> None:
    problem("2d", "nearest").check(device)


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129])
def test_batches_of_any_length(device: str, n: int, request: pytest.FixtureRequest) -> None:
    """Blocks have 128 points."""
    case = Problem(make_layout(2, 1, 2, 5, 7, 1.0), x=torch.rand(n, 2))
    case.check(device)
    request.getfixturevalue("deterministic")
    case.check(device, forward=False, to_x=False)


def test_offsets_of_64_bits(device: str, monkeypatch: pytest.MonkeyPatch, deterministic: None) -> None:
    monkeypatch.setattr(triton_engine, "_WIDE", -1)
    case = problem("2d")
    case.check(device, forward=False, to_x=False)
    torch.use_deterministic_algorithms(False)
    case.check(device)


@pytest.mark.parametrize(
    ("name", "dtype"), [("3d", torch.float16), ("3d", torch.bfloat16), ("2d, wide rows", torch.float16)], ids=str
)
def test_half_precision_tables(device: str, name: str, dtype: torch.dtype) -> None:
    """Read as they are, summed in float32: as good as a float32 table with the same numbers."""
    case = problem(name)
    case.params = case.params.to(dtype)
    case.check(device)


@pytest.mark.parametrize("grid", [(3, 16, 1024, 19), (2, 16, 16 * 1.5**15, 15)], ids=str)
def test_grids_of_the_specification(device: str, grid: tuple[int, int, float, int]) -> None:
    """From 16 to 1024 level 5 has 65 vertices, not 64; factor 1.5 has levels of 274 to 7007."""
    dim, base, highest, table = grid
    layout = make_layout(dim, 16, 2, table, base, (highest / base) ** (1 / 15))
    case = Problem(layout, x=torch.rand(64, dim, generator=torch.Generator().manual_seed(1)))
    case.check(device, to_params=False)


def test_memory_in_any_order(device: str) -> None:
    """Points by axis, every other parameter, gradients by feature, in reverse, and all the same."""
    case = Problem(problem("2d").layout, x=torch.rand(30, 2))
    case.x = case.x.t().contiguous().t()
    case.params = torch.stack([case.params, -case.params], dim=1)[:, 0]
    for grad in (case.grad.t().contiguous().t(), case.grad.flip(0)[:, ::1], case.grad[:, :1].expand_as(case.grad)):
        case.grad = grad
        case.check(device, forward=grad.is_contiguous())


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of NumPy, in the interpreter
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_nan_and_infinite_coordinates(device: str, interpolation: str) -> None:
    """They read inside the table and stay NaN; other points are not touched."""
    case = problem("2d", interpolation)
    case.x[3, 0], case.x[5, 1], case.x[7, :] = float("nan"), float("nan"), float("inf")
    out = triton_engine.forward(case.x.to(device), case.params.to(device), case.layout, interpolation).cpu()
    lost = out.isnan().any(dim=1)
    assert lost.nonzero().flatten().tolist() == ([] if interpolation == "nearest" else [3, 5, 7])
    expected = reference.forward(case.x, case.params, case.layout, interpolation)
    assert_close(out[~lost], expected[~lost])


def test_only_what_is_needed(device: str) -> None:
    case = problem("1d")
    for to_x in (False, True):
        case.check(device, forward=False, to_x=to_x, to_params=False)
    case.check(device, forward=False, to_x=False)


# The deterministic sum


@pytest.mark.parametrize(
    ("name", "interpolation"), [("2d", "linear"), ("3d", "linear"), ("3d, tiny tables", "linear"), ("1d", "nearest")]
)
def test_sorted_sum(device: str, name: str, interpolation: str, deterministic: None) -> None:
    """Equal to the reference, with one thread per row (many rows) and with several (few rows)."""
    problem(name, interpolation).check(device, forward=False, to_x=False)


def test_sorted_sum_has_the_same_bits_each_time(device: str, deterministic: None) -> None:
    case = problem("2d")
    arguments = [t.to(device) for t in (case.grad, case.x, case.params)]
    first, second = (triton_engine.backward(*arguments, case.layout, "linear", False, True)[1] for _ in range(2))
    assert torch.equal(first, second)  # type: ignore[arg-type]


# As a module


def modules(device: str, **options: Any) -> tuple[HashGrid, HashGrid]:
    """The same grid on Triton and, on the CPU, on the reference."""
    sizes = {"n_levels": 3, "log2_hashmap_size": 5, "base_resolution": 3, "per_level_scale": 2.0, "seed": 0, **options}
    ours, truth = HashGrid(2, engine="triton", **sizes), HashGrid(2, engine="reference", **sizes)
    with torch.no_grad():
        for module in (ours, truth):
            module.params.mul_(1e4)
    return ours.to(device), truth


def train(module: HashGrid, x: torch.Tensor, twice: bool = False) -> tuple[torch.Tensor, ...]:
    """Features, and gradients of their squares, or of the squares of that gradient, to points and table."""
    x = x.to(module.params.device).requires_grad_(True)
    features = module(x)
    loss = features.square().sum()
    if twice:
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        loss = slope.square().sum()
    return (features.detach(), *torch.autograd.grad(loss, (x, module.params)))


@pytest.mark.parametrize("twice", [False, True])
def test_module(device: str, twice: bool) -> None:
    """Through autograd, once and twice (an eikonal loss)."""
    ours, truth = modules(device, interpolation="smoothstep")
    x = torch.rand(2, 20, 2)
    for got, expected in zip(train(ours, x, twice), train(truth, x, twice), strict=True):
        assert_close(got, expected)
    assert ours(x.to(device)).view(40, -1).shape == (40, 6)  # leading dimensions can be viewed, though not the features


def test_module_with_active_levels_and_a_rounded_table(device: str) -> None:
    ours, truth = modules(device)
    x = torch.rand(20, 2)
    for module in (ours, truth):
        module.active_levels, module.table_dtype = 2, torch.float16
    results = train(ours, x)
    for got, expected in zip(results, train(truth, x), strict=True):
        assert_close(got, expected)
    assert not results[0][:, 4:].any() and not results[2][ours.layout.levels[2].offset * 2 :].any()


def test_converted_module(device: str) -> None:
    ours, truth = modules(device)
    ours, truth = ours.bfloat16(), truth.bfloat16()
    x = torch.rand(20, 2)
    for got, expected in zip(train(ours, x), train(truth, x), strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got.cpu(), expected, rtol=0.02, atol=1e-2 * float(expected.abs().max()))


@pytest.mark.skipif(INTERPRETED, reason="it starts this process")
def test_in_the_interpreter() -> None:
    """All of the above on the CPU, in a process in which Triton is imported with the interpreter."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", __file__, "-q", "-m", "not gpu", "-p", "no:cacheprovider"]
    root = Path(__file__).parents[3]
    ran = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None and int(passed[1]) >= 30


# On a GPU, at full size


@pytest.mark.gpu
@compiled
def test_full_size() -> None:
    """2^18 points, 16 levels to 2048, T = 19: equal to the reference, by atomic additions and sorted, which repeats."""
    layout = make_layout(3, 16, 2, 19, 16, 128 ** (1 / 15))
    case = Problem(layout, x=torch.rand(2**18, 3, generator=torch.Generator().manual_seed(1)))
    case.check("cuda")
    case.params = case.params.half()
    case.check("cuda")
    arguments = [t.cuda() for t in (case.grad, case.x, case.params)]
    torch.use_deterministic_algorithms(True)
    try:
        case.check("cuda")
        first, second = (triton_engine.backward(*arguments, layout, "linear", True, True) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # type: ignore[arg-type]


@pytest.mark.gpu
@compiled
def test_auto_trains_on_triton() -> None:
    module = HashGrid(2, log2_hashmap_size=12, max_resolution=256).cuda()
    x = torch.rand(4096, 2, device="cuda")
    target = torch.sin(20 * x).repeat(1, 16)
    adam = torch.optim.Adam(module.parameters(), 1e-2, fused=True)
    losses = []
    for _ in range(100):
        adam.zero_grad()
        loss = (module(x) - target).square().mean()
        loss.backward()
        adam.step()
        losses.append(float(loss))
    assert losses[-1] < 0.05 * losses[0]
