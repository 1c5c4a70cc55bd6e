"""The Triton engine's kernels, compiled ahead for GPUs that are not there."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralfield.encodings.hashgrid import triton_engine
from neuralfield.encodings.hashgrid.layout import make_layout

pytest.importorskip("triton", reason="triton is not installed (pip install triton, on Linux)")


class Driver:
    """Stands in for a GPU's driver: Triton asks it what to compile for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability  # Triton keeps what it compiled by device

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> object:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)


class Ahead:
    """Stands in for a kernel: does all of a launch but the launch."""

    def __init__(self, kernel: Any, made: dict[str, list[dict[str, Any]]]) -> None:
        self.kernel, self.made = kernel, made

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(0 < size < 2**31 for size in grid)
        return functools.partial(self.compile, grid)

    def compile(self, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        compiled = self.kernel.warmup(*arguments, grid=grid, **constants)
        self.made.setdefault(self.kernel.__name__, []).append(compiled.asm)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Triton's choice of a driver, which is its own again afterwards."""
    from triton.runtime import driver

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # as it is; Triton 3.9 warns where nothing is said
    yield driver
    with contextlib.suppress(RuntimeError):  # without a GPU there is none to go back to
        driver.reset_active()


@pytest.mark.skipif(triton_engine.interpreted(), reason="this process has Triton's interpreter")
@pytest.mark.parametrize(
    ("capability", "dim", "features", "interpolation", "dtype", "wide"),
    [
        (80, 3, 2, "linear", torch.float32, False),
        (90, 3, 2, "linear", torch.float32, False),
        (90, 2, 8, "smoothstep", torch.float16, True),
        (80, 1, 1, "nearest", torch.bfloat16, False),
    ],
)
def test_compiles_ahead(
    monkeypatch: pytest.MonkeyPatch,
    driver: Any,
    capability: int,
    dim: int,
    features: int,
    interpolation: str,
    dtype: torch.dtype,
    wide: bool,
) -> None:
    """Every kernel that a forward and backward pass launches becomes machine code, in which threads work for themselves."""
    from neuralfield.encodings.hashgrid import triton_kernels, triton_sorted

    driver.set_active(Driver(capability))
    made: dict[str, list[dict[str, Any]]] = {}
    for module, names in (
        (triton_kernels, ("forward", "table_gradient", "input_gradient")),
        (triton_sorted, ("visits", "segment_sum")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, Ahead(getattr(module, name), made))
    if wide:
        monkeypatch.setattr(triton_engine, "_WIDE", -1)
    layout = make_layout(dim, 16, features, 8, 8, 1.0)
    x, params = torch.rand(320, dim), torch.zeros(layout.n_parameters)
    triton_engine.forward(x, params.to(dtype), layout, interpolation)
    # Strides of 1 and of multiples of 16 are known to the compiler, which would read the gradient accordingly.
    by_point, by_feature = torch.zeros(320, layout.out_dim), torch.zeros(layout.out_dim, 320).t()
    for grad in (by_point, by_feature):
        triton_engine.backward(grad, x, params.to(dtype), layout, interpolation, True, True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    triton_engine.backward(by_point, x, params.to(dtype), layout, interpolation, False, True)
    expected = {"forward", "table_gradient", "input_gradient", "visits", "segment_sum"}
    assert set(made) == expected - ({"input_gradient"} if interpolation == "nearest" else set())
    for asm in (asm for several in made.values() for asm in several):
        assert f"sm_{capability}" in asm["ptx"] and len(asm["cubin"]) > 1000
    ptx = {name: [asm["ptx"] for asm in several] for name, several in made.items()}
    assert "fma.rn.f32" in ptx["forward"][0]
    # What the speed rests on. Nothing is exchanged between threads, whatever the strides of the gradient, but in the sum
    # of a row that several threads share:
    for name in set(made) - {"segment_sum"}:
        assert not any(re.search(r"\bbar\.|\bbarrier|\bshfl|(ld|st)\.shared", text) for text in ptx[name]), name
    # a row is read at once, in the two branches for dense and hashed levels;
    visits = 2 * (1 if interpolation == "nearest" else 2**dim)
    size = features * dtype.itemsize
    reads = rf"ld\.global[.a-z0-9:_]*\.v{size // 4}\." if size > 4 else rf"ld\.global[.a-z0-9:_]*\.b{8 * size}\b"
    assert len(re.findall(reads, ptx["forward"][0])) == visits
    # and so it is added to, as far as the GPU can.
    at_once = min(features, 4) if capability >= 90 else 1
    adds = r"global\.gpu\.relaxed\.add" + (rf"\.v{at_once}" if at_once > 1 else "") + r"\.f32"
    for text in ptx["table_gradient"]:
        assert len(re.findall(adds, text)) == visits * features // at_once
