"""The compiled CPU engine: equal to the reference everywhere, deterministic, safe among threads and forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from neuralfield.encodings.hashgrid import cpu, reference
from neuralfield.encodings.hashgrid.layout import GridLayout, make_layout

pytest.importorskip("numba")

# (D, F, base, growth, T, L): dense and hashed levels together, tiny tables, levels fewer than threads. Each (D, F) is
# compiled, for seconds: 2 features are those that other tests compile as well, and an odd number waits for one dimension.
GRIDS = {
    "1d": (1, 3, 4, 2.0, 6, 8),
    "2d": (2, 2, 4, 1.6, 8, 8),
    "3d": (3, 2, 4, 1.5, 9, 8),
    "3d, tiny tables": (3, 2, 2, 2.0, 3, 5),
    "3d, one level": (3, 2, 4, 1.0, 9, 1),
    "4d": (4, 1, 2, 1.9, 8, 5),
}


def grid(name: str) -> GridLayout:
    dim, features, base, growth, table, levels = GRIDS[name]
    return make_layout(dim, levels, features, table, base, growth)


def special_points(layout: GridLayout, generator: torch.Generator) -> torch.Tensor:
    """Generic points, x = 0 and 1, points on cell faces and corners of every level, and points outside the cube."""
    dim = layout.in_dim
    rows = [torch.rand(700, dim, generator=generator), torch.zeros(1, dim), torch.ones(1, dim)]
    for level in layout.levels:
        vertices = torch.randint(0, level.resolution + 1, (40, dim), generator=generator)
        corners = (vertices - 0.5) / max(level.scale, 1.0)
        faces = torch.where(
            torch.rand(40, dim, generator=generator) < 0.5, corners, torch.rand(40, dim, generator=generator)
        )
        rows += [corners, faces]
    outside = 20 * torch.randn(100, dim, generator=generator)
    just = torch.tensor([-1.0, -1e-7, 1 + 1e-6, 7e4])[:, None].expand(4, dim)
    return torch.cat([*rows, outside, just])


def problem(name: str, seed: int = 0) -> tuple[GridLayout, torch.Tensor, torch.Tensor, torch.Tensor]:
    layout, generator = grid(name), torch.Generator().manual_seed(seed)
    x = special_points(layout, generator)
    return (
        layout,
        x,
        torch.randn(layout.n_parameters, generator=generator),
        torch.randn(len(x), layout.out_dim, generator=generator),
    )


def assert_close(got: torch.Tensor | None, expected: torch.Tensor | None) -> None:
    """Within 1e-5 of the largest magnitude; NaN where NaN is expected."""
    assert got is not None and expected is not None
    assert got.dtype == torch.float32 and got.shape == expected.shape
    largest = float(expected.nan_to_num().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * largest, equal_nan=True)


def compare(layout: GridLayout, x: torch.Tensor, params: torch.Tensor, grad: torch.Tensor, interpolation: str) -> None:
    assert_close(cpu.forward(x, params, layout, interpolation), reference.forward(x, params, layout, interpolation))
    got = cpu.backward(grad, x, params, layout, interpolation, True, True)
    expected = reference.backward(grad, x, params, layout, interpolation, True, True)
    assert_close(got[0], expected[0])
    assert_close(got[1], expected[1])


@pytest.mark.parametrize("name", GRIDS)
def test_equals_the_reference(name: str) -> None:
    layout, x, params, grad = problem(name)
    for interpolation in ("linear", "smoothstep"):
        compare(layout, x, params, grad, interpolation)


def test_one_vertex_per_axis() -> None:
    """Scale 0: every point is at the same place. Few points, or rounding in the one sum would pass the tolerance."""
    layout = make_layout(3, 1, 2, 5, 1, 1.0)
    compare(layout, torch.rand(20, 3), torch.randn(layout.n_parameters), torch.rand(20, 2), "linear")


def test_nearest_equals_the_reference() -> None:
    compare(*problem("2d"), "nearest")


def test_large_batches_equal_the_reference(torch_threads, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Through transposed features, several chunks, a last chunk of another size, and more than one thread."""
    monkeypatch.setattr(cpu, "_DIRECT", 300)
    monkeypatch.setattr(cpu, "_SCRATCH", 4 * 16 * 401)
    layout, x, params, grad = problem("3d")
    assert layout.out_dim == 16 and len(x) > 3 * 401
    compare(layout, x, params, grad, "linear")


def test_only_what_is_needed() -> None:
    layout, x, params, grad = problem("2d")
    both = cpu.backward(grad, x, params, layout, "linear", True, True)
    assert cpu.backward(grad, x, params, layout, "linear", False, False) == (None, None)
    only_x = cpu.backward(grad, x, params, layout, "linear", True, False)
    only_params = cpu.backward(grad, x, params, layout, "linear", False, True)
    assert only_x[1] is None and torch.equal(only_x[0], both[0])  # type: ignore[arg-type]
    assert only_params[0] is None and torch.equal(only_params[1], both[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep", "nearest"])
def test_nan_and_infinite_coordinates(interpolation: str) -> None:
    """They read inside the table, and give NaN exactly where the reference does; other points are not touched."""
    layout, x, params, grad = problem("2d")
    x[3, 0], x[5, 1], x[7, :] = float("nan"), float("nan"), float("inf")
    compare(layout, x, params, grad, interpolation)
    lost = cpu.forward(x, params, layout, interpolation).isnan().any(dim=1)
    assert lost.nonzero().flatten().tolist() == ([] if interpolation == "nearest" else [3, 5, 7])


def test_points_beyond_all_integers_read_inside_the_table() -> None:
    """Where a cell's number fits no int32 (nor, further out, int64) its vertex is arbitrary, but it is one of the table's."""
    layout, _, params, _ = problem("2d")
    x = torch.tensor([-1e36, -1e30, -1e17, -3e9, 3e9, 1e17, 1e30, 1e36])[:, None].expand(8, 2)
    out = cpu.forward(x, params, layout, "linear").view(8, len(layout.levels), 2)
    for index, table in enumerate(reference.level_tables(params, layout)):
        assert (out[:, index, None, :] == table).all(dim=2).any(dim=1).all()


def test_empty_batch() -> None:
    layout = grid("2d")
    params, x, grad = torch.randn(layout.n_parameters), torch.zeros(0, 2), torch.zeros(0, layout.out_dim)
    assert cpu.forward(x, params, layout, "linear").shape == (0, layout.out_dim)
    grad_x, grad_params = cpu.backward(grad, x, params, layout, "linear", True, True)
    assert grad_x is not None and grad_x.shape == (0, 2)
    assert grad_params is not None and torch.equal(grad_params, torch.zeros(layout.n_parameters))


def test_inputs_that_are_not_contiguous() -> None:
    layout, x, params, grad = problem("2d")
    strided_x, strided_grad = x.t().contiguous().t(), grad.expand(2, *grad.shape)[0].flip(0)
    strided_params = torch.stack([params, -params], dim=1)[:, 0]
    assert not strided_x.is_contiguous() and not strided_params.is_contiguous()
    compare(layout, strided_x, strided_params, strided_grad, "linear")
    one = grad[:, :1].expand_as(grad)  # what the gradient of a sum looks like: all strides zero in a row
    compare(layout, x, params, one, "linear")


def test_same_bits_for_any_number_of_threads(either_threads, torch_threads) -> None:  # type: ignore[no-untyped-def]
    layout, x, params, grad = problem("3d")
    results = []
    for threads in (1, 2, 3, 8, 2):
        torch_threads(threads)
        outcome = (
            cpu.forward(x, params, layout, "linear"),
            *cpu.backward(grad, x, params, layout, "linear", True, True),
        )
        results.append([tensor.nan_to_num() for tensor in outcome if tensor is not None])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_more_threads_than_levels(torch_threads) -> None:  # type: ignore[no-untyped-def]
    """One level's gradient is then summed in several tables; added in order, so that the bits are the same each time."""
    torch_threads(4)
    layout, x, params, grad = problem("3d, one level")
    compare(layout, x, params, grad, "linear")
    first, second = (cpu.backward(grad, x, params, layout, "linear", False, True)[1] for _ in range(2))
    assert torch.equal(first, second)  # type: ignore[arg-type]


def test_copies_of_the_gradient() -> None:
    assert [cpu._copies(2, levels) for levels in (1, 2, 3, 16)] == [2, 1, 1, 1]
    assert cpu._copies(64, 16) == 3 and cpu._copies(1, 1) == 1


def test_called_from_many_threads(either_threads, torch_threads) -> None:  # type: ignore[no-untyped-def]
    layout, x, params, grad = problem("3d")
    expected = cpu.backward(grad, x, params, layout, "linear", False, True)[1]
    wrong: list[object] = []

    def work() -> None:
        for _ in range(20):
            got = cpu.backward(grad, x, params, layout, "linear", False, True)[1]
            if not torch.equal(got, expected):  # type: ignore[arg-type]
                wrong.append(got)

    callers = [threading.Thread(target=work) for _ in range(6)]
    for caller in callers:
        caller.start()
    torch_threads(3)  # so that a pool is replaced while others use it
    for caller in callers:
        caller.join(timeout=60)
    assert not wrong and not any(caller.is_alive() for caller in callers)


def test_what_it_does_not_take() -> None:
    layout, x, params, _ = problem("2d")
    assert cpu.supports(x, params, layout, "linear") is None
    assert "float64" in (cpu.supports(x.double(), params, layout, "linear") or "")
    assert "parameters are float16" in (cpu.supports(x, params.half(), layout, "linear") or "")
    assert "meta" in (cpu.supports(x.to("meta"), params, layout, "linear") or "")
    assert cpu.supports(x, params, make_layout(4, 2, 8, 8, 4, 1.5), "linear") is None
    assert "has 5 and 2" in (cpu.supports(x, params, make_layout(5, 2, 2, 8, 4, 1.5), "linear") or "")
    assert "has 2 and 9" in (cpu.supports(x, params, make_layout(2, 2, 9, 8, 4, 1.5), "linear") or "")


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu.available() is None
    monkeypatch.setattr(cpu.importlib.util, "find_spec", lambda name: None)
    assert "pip install numba" in (cpu.available() or "")


SCRIPT = """
import logging, os, sys, threading
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
import torch
from neuralfield.encodings.hashgrid import cpu, cpu_threads, reference
from neuralfield.encodings.hashgrid.layout import make_layout
assert "numba" not in sys.modules
cpu._WORK_PER_THREAD = 1
torch.set_num_threads(2)
layout = make_layout(1, 4, 1, 8, 4, 2.0)
x, params = torch.rand(100, 1), torch.randn(layout.n_parameters)
def check():
    difference = cpu.forward(x, params, layout, "linear") - reference.forward(x, params, layout, "linear")
    return float(difference.abs().max()) < 1e-5
print("equal", check())
if hasattr(os, "fork"):
    child = os.fork()
    if child == 0:
        os._exit(0 if check() and cpu_threads._pool is not None else 1)
    print("child", os.waitpid(child, 0)[1])
"""


def test_cache_on_disk_announcement_and_fork(tmp_path: Path) -> None:
    """The first process says that it compiles and fills the folder; the second finds it there, and writes nothing."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        files = sorted(path.name for path in tmp_path.rglob("*") if path.suffix in (".nbi", ".nbc"))
        outputs.append((done.stdout, files))
    assert outputs[0][0].count("compiling the hash grid") == 1
    assert "compiling" not in outputs[1][0]
    assert any(name.endswith(".nbc") for name in outputs[0][1]) and outputs[0][1] == outputs[1][1]
    for text, _ in outputs:
        assert "equal True" in text
        assert not hasattr(os, "fork") or "child 0" in text


def test_no_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written numba refuses to cache; the kernels are then compiled for this process alone."""
    from neuralfield.encodings.hashgrid import cpu_kernels

    plain = cpu_kernels.numba.njit

    def refuse(*args: object, cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(*args, **options)

    monkeypatch.setattr(cpu_kernels.numba, "njit", refuse)
    kernels = cpu_kernels.make.__wrapped__(1, 1, 2)
    assert kernels.forward.stats.cache_path is None
