"""The choice among engines, and what is done around all of them alike: active levels and half-precision tables."""

from __future__ import annotations

import copy
import pickle
import sys
import types

import pytest
import torch

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import engines, reference, triton_engine
from neuralfield.errors import ConfigError, MissingDependency
from tests.encodings.hashgrid.small_grids import each_engine, gradients, grid, points

HALVES = (torch.float16, torch.bfloat16)


# The choice


def test_triton_is_chosen_on_cuda_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_engine, "available", lambda: None)
    assert engines.choose("auto", "cuda").name == engines.choose("triton", "cuda:1").name == "triton"
    missing = engines.unavailable("cuda")
    assert missing.pop("cpu") == "it runs on the CPU, and this is cuda"
    assert "tinycudann is not installed" in missing.pop("tinycudann", "tinycudann is not installed") and not missing
    assert engines.choose("reference", "cuda").name == "reference"


def test_without_triton_cuda_takes_the_reference_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_engine.importlib.util, "find_spec", lambda name: None)
    triton_engine.available.cache_clear()
    try:
        chosen = engines.choose("auto", "cuda")
        assert chosen.name == "reference"
        assert "plain torch on cuda, because the triton engine cannot be used: triton is not installed" in chosen.reason
        with pytest.raises(MissingDependency, match=r"engine=triton.*not installed.*pip install triton.*engine=auto"):
            engines.choose("triton", "cuda")
    finally:
        triton_engine.available.cache_clear()


def test_an_old_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch 2.4 to 2.6 bring one without tuples in kernels."""
    monkeypatch.setattr(triton_engine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "triton", types.SimpleNamespace(__version__="3.2.0+git1"))  # type: ignore[arg-type]
    triton_engine.available.cache_clear()
    try:
        assert "triton 3.2.0+git1 is too old, it takes 3.3" in engines.unavailable("cuda")["triton"]
    finally:
        triton_engine.available.cache_clear()


def test_triton_is_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert engines.unavailable("cpu")["triton"] == "it runs on CUDA, and this is cpu"
    with pytest.raises(ConfigError, match="engine=triton cannot be used: it runs on CUDA, and this is cpu"):
        grid("triton")(points())
    assert "for the CPU and CUDA" in engines.choose("auto", "mps").reason


def test_what_triton_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # then it takes tensors on the CPU
    x, module = points(), grid()
    for dtype in (torch.float32, *HALVES):
        assert triton_engine.supports(x, module.params.to(dtype), module.layout, "linear") is None
    assert "coordinates are float64" in (
        triton_engine.supports(x.double(), module.params, module.layout, "linear") or ""
    )
    assert "parameters are float64" in (
        triton_engine.supports(x, module.params.double(), module.layout, "linear") or ""
    )
    assert "on meta" in (triton_engine.supports(x, module.params.to("meta"), module.layout, "linear") or "")
    wide = grid(n_features_per_level=9)
    assert "has 2 and 9" in (triton_engine.supports(x, wide.params, wide.layout, "linear") or "")
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "on cpu" in (triton_engine.supports(x, module.params, module.layout, "linear") or "")


def test_what_a_compiler_is_needed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CC", "CPATH", "C_INCLUDE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(triton_engine.shutil, "which", lambda name: None)
    assert "apt install gcc" in (triton_engine._no_compiler() or "")
    monkeypatch.setattr(triton_engine.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(triton_engine.sysconfig, "get_path", lambda *names: "/nowhere")
    assert "no Python.h in /nowhere" in (triton_engine._no_compiler() or "")
    monkeypatch.setenv("CPATH", "/somewhere")
    assert triton_engine._no_compiler() is None


# What ran


@each_engine
def test_the_engine_that_ran(engine: str) -> None:
    module = grid(engine)
    assert module.engine_choice == engines.EngineChoice(engine, "asked for")
    module(points())
    assert module.engine_choice == engines.EngineChoice(engine, "asked for")


def test_the_reason_for_the_reference() -> None:
    """In float64 and five dimensions it runs, whatever is chosen for the device."""
    module = grid("auto").double()
    module(points())
    assert module.engine_choice.name == "reference" and "coordinates are float64" in module.engine_choice.reason
    five = HashGrid(5, 2, log2_hashmap_size=4)
    five(torch.rand(3, 5))
    assert five.engine_choice.name == "reference" and "has 5 and 2" in five.engine_choice.reason
    assert "engine" in copy.deepcopy(five).engine_choice.reason and "_ran" not in five.config
    assert five.to("meta").engine_choice.reason.startswith("plain torch on meta")


# Active levels


@each_engine
@pytest.mark.parametrize("active", [1, 3, 4, None])
def test_inactive_levels_give_zeros_and_get_no_gradient(engine: str, active: int | None) -> None:
    module, x = grid(engine), points()
    count = 4 if active is None else active
    full, grad = module(x), torch.randn(50, module.out_dim)
    kept = grad.clone()
    kept[:, 2 * count :] = 0
    expected = gradients(module, x, kept)
    module.active_levels = active
    features = module(x)
    assert features.shape == (50, module.out_dim)
    assert torch.equal(features[:, : 2 * count], full[:, : 2 * count])
    assert not features[:, 2 * count :].any()
    for got, truth in zip(gradients(module, x, grad), expected, strict=True):
        torch.testing.assert_close(got, truth, rtol=1e-5, atol=1e-5)


def test_inactive_levels_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    module, seen = grid(), []
    encode_level = reference.encode_level
    monkeypatch.setattr(
        reference, "encode_level", lambda *given: seen.append(given[2].resolution) or encode_level(*given)
    )
    module.active_levels = 2
    module(points())
    assert seen == [level.resolution for level in module.layout.levels[:2]]


def test_second_backward_with_inactive_levels() -> None:
    module = grid(interpolation="smoothstep", n_levels=3).double()
    module.active_levels = 2
    x = points(3).double().requires_grad_(True)
    assert torch.autograd.gradgradcheck(module, x)


def test_active_levels_survive_copies_and_are_checked() -> None:
    module = grid()
    assert module.active_levels is None
    module.active_levels = 3
    assert copy.deepcopy(module).active_levels == pickle.loads(pickle.dumps(module)).active_levels == 3
    assert "active_levels" not in module.config and list(module.state_dict()) == ["params"]
    for wrong in (0, 5):
        with pytest.raises(ConfigError, match="active_levels"):
            module.active_levels = wrong
    module.active_levels = None
    assert module(points())[:, -1].any()


# Half precision


@each_engine
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_rounded_table_with_float32_parameters(engine: str, dtype: torch.dtype) -> None:
    """Features are those of the rounded table; its gradient arrives at the parameters without rounding."""
    module, rounded = grid(engine), grid("reference")
    with torch.no_grad():
        rounded.params.copy_(rounded.params.to(dtype))
    x, grad = points(), torch.randn(50, module.out_dim)
    module.table_dtype = dtype
    features = module(x)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, rounded(x), rtol=1e-5, atol=1e-5)
    for got, expected in zip(gradients(module, x, grad), gradients(rounded, x, grad), strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(ConfigError, match=r"table_dtype must be one of None, torch\.float32"):
        module.table_dtype = torch.int8


def test_second_backward_of_a_rounded_table() -> None:
    module, rounded = grid(interpolation="smoothstep"), grid(interpolation="smoothstep")
    with torch.no_grad():
        rounded.params.copy_(rounded.params.half())
    module.table_dtype = torch.float16
    results = []
    for each in (module, rounded):
        x = points().requires_grad_(True)
        (slope,) = torch.autograd.grad(each(x).square().sum(), x, create_graph=True)
        results.append(torch.autograd.grad(slope.square().sum(), (x, each.params)))
    for got, expected in zip(*results, strict=True):
        assert got.dtype == torch.float32 and expected.any()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@each_engine
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_converted_grid_keeps_coordinates_and_sums_in_float32(engine: str, dtype: torch.dtype) -> None:
    """Half precision has 2048 numbers between 1/2 and 1 at most: on a fine level points would fall together."""
    module = HashGrid(2, n_levels=2, log2_hashmap_size=8, base_resolution=4096, per_level_scale=1.0).to(dtype)
    module.engine = "auto" if engine == "cpu" else engine
    with torch.no_grad():
        module.params.normal_(generator=torch.Generator().manual_seed(0))
    wide = HashGrid(2, n_levels=2, log2_hashmap_size=8, base_resolution=4096, per_level_scale=1.0, engine="reference")
    with torch.no_grad():
        wide.params.copy_(module.params)
    x, grad = points(), torch.randn(50, 4).to(dtype)
    features = module(x)
    assert features.dtype == dtype
    assert torch.equal(features, wide(x).to(dtype))
    got, expected = gradients(module, x, grad), gradients(wide, x, grad.float())
    assert got[0].dtype == torch.float32 and got[1].dtype == dtype
    torch.testing.assert_close(got[0], expected[0])
    torch.testing.assert_close(got[1], expected[1].to(dtype))
