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

    def __init__(self, kernel: Any, made: dict[str, Any]) -> None:
        self.kernel, self.made = kernel, made

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(0 < size < 2**31 for size in grid)
        return functools.partial(self.compile, grid)

    def compile(self, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        self.made[self.kernel.__name__] = self.kernel.warmup(*arguments, grid=grid, **constants).asm


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
    """Every kernel that a forward and backward pass launches becomes machine code."""
    from neuralfield.encodings.hashgrid import triton_kernels, triton_sorted

    driver.set_active(Driver(capability))
    made: dict[str, Any] = {}
    for module, names in (
        (triton_kernels, ("forward", "table_gradient", "input_gradient")),
        (triton_sorted, ("visits", "segment_sum")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, Ahead(getattr(module, name), made))
    if wide:
        monkeypatch.setattr(triton_engine, "_WIDE", -1)
    layout = make_layout(dim, 1, features, 8, 8, 1.0)
    x, params, grad = torch.rand(300, dim), torch.zeros(layout.n_parameters), torch.zeros(300, layout.out_dim)
    triton_engine.forward(x, params.to(dtype), layout, interpolation)
    triton_engine.backward(grad, x, params.to(dtype), layout, interpolation, True, True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    triton_engine.backward(grad, x, params.to(dtype), layout, interpolation, False, True)
    expected = {"forward", "table_gradient", "input_gradient", "visits", "segment_sum"}
    assert set(made) == expected - ({"input_gradient"} if interpolation == "nearest" else set())
    for asm in made.values():
        assert f"sm_{capability}" in asm["ptx"] and len(asm["cubin"]) > 1000
    assert "fma.rn.f32" in made["forward"]["ptx"] and "global.gpu.relaxed.add" in made["table_gradient"]["ptx"]
    if (dim, features) == (3, 2):
        # What the speed rests on: both features in one read, and nothing exchanged between threads.
        assert len(re.findall(r"ld\.global[.a-z0-9]*\.v2\.", made["forward"]["ptx"])) == 2 * 8
        assert not any(re.search(r"bar\.sync|shfl", made[name]["ptx"]) for name in ("forward", "table_gradient"))
