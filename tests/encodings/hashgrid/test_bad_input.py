"""Points, dtypes and sizes that a grid was not made for, on every engine that runs on a CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import tinycudann_engine
from neuralfield.errors import ConfigError, DeviceError
from tests.encodings.hashgrid.small_grids import ENGINES, gradients, grid, points
from tests.interop import tinycudann_standin


@pytest.fixture(params=[*ENGINES, "tinycudann"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Names of engines; tiny-cuda-nn's stand-in takes tensors on the CPU."""
    cached = tinycudann_engine.available, tinycudann_engine._native
    if request.param == "tinycudann":
        monkeypatch.setitem(sys.modules, "tinycudann", tinycudann_standin)
        monkeypatch.setattr(tinycudann_engine, "DEVICE", "cpu")
    for function in cached:
        function.cache_clear()
    yield str(request.param)
    for function in cached:
        function.cache_clear()


OUTSIDE = torch.tensor([-1e36, -3e9, -1.5, -1e-7, 1 + 1e-6, 2.0, 3e9, 1e36, float("inf"), -float("inf")])


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep", "nearest"])
@pytest.mark.parametrize("outside", ["clamp", "wrap", "zero"])
def test_points_outside_read_inside_the_table(engine: str, outside: str, interpolation: str) -> None:
    """The table lies between two walls of huge numbers, in one storage: a read beyond either end would be seen."""
    module, x = grid(engine, outside=outside, interpolation=interpolation), OUTSIDE[:, None].repeat(1, 2)
    x[::2, 1] = 0.3
    walls = torch.full((3 * module.layout.n_parameters,), 1e30)
    inner = walls[module.layout.n_parameters : -module.layout.n_parameters]
    inner.copy_(module.params.detach())
    largest = float(inner.abs().max())
    module.params = torch.nn.Parameter(inner)
    assert module.params.data_ptr() == inner.data_ptr()
    features = module(x).detach()
    # Infinity has no fraction to wrap, and times zero none at all.
    lost = torch.zeros(len(x), dtype=torch.bool) if outside == "clamp" else x.isinf().any(dim=1)
    assert float(features[~lost].abs().max()) <= 1.0001 * largest
    truth = grid("reference", outside=outside, interpolation=interpolation)
    torch.testing.assert_close(features[~lost], truth(x)[~lost], rtol=1e-5, atol=1e-5 * largest)
    x = x[~lost]
    grad = torch.ones(len(x), module.out_dim)
    for got, expected in zip(gradients(module, x, grad), gradients(truth, x, grad), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)
    assert (walls[: module.layout.n_parameters] == 1e30).all() and (walls[-module.layout.n_parameters :] == 1e30).all()


def test_an_infinite_coordinate_is_an_error_where_that_is_asked_for(engine: str) -> None:
    module = grid(engine, outside="error")
    for value in (float("inf"), -float("inf"), float("nan"), 1.5):
        with pytest.raises(ConfigError, match=r"outside \[0, 1\]"):
            module(torch.tensor([[0.5, value]]))


def test_inputs_of_any_kind(engine: str) -> None:
    """No points, other precisions, integers, and memory in any order."""
    module, x = grid(engine), points()
    features, table = gradients(module, x[:0], torch.zeros(0, module.out_dim))
    assert features.shape == (0, 2) and torch.equal(table, torch.zeros_like(module.params))
    corners = torch.tensor([[0, 1], [1, 1], [1, 0]])
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
        assert torch.equal(module(corners.to(dtype)), module(corners.float()))
    for same in (x.t().contiguous().t(), torch.stack([x, -x], 1)[:, 0], x.flip(0).flip(0)):
        assert torch.equal(module(same), module(x))


def test_not_a_number_touches_nothing_else(engine: str) -> None:
    module, x = grid(engine), points()
    expected = module(x)
    x[7, 1] = float("nan")
    got = module(x)
    assert got[7].isnan().all() and torch.equal(torch.cat([got[:7], got[8:]]), torch.cat([expected[:7], expected[8:]]))


def test_a_table_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = {"log2_hashmap_size": 30, "n_features_per_level": 8, "max_resolution": 2**20}
    message = r"table of [\d,]+ parameters \(329\.0 GiB in float32\) does not fit.*smaller log2_hashmap_size"

    def full(*shape: int) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "empty", full)
        with pytest.raises(DeviceError, match=message):
            HashGrid(3, **huge)
    with torch.device("meta"):
        module = HashGrid(3, **huge)  # takes no memory

    def no_room(self: torch.nn.Module, *given: object, **more: object) -> torch.nn.Module:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 460 GiB.")

    monkeypatch.setattr(torch.nn.Module, "_apply", no_room)
    with pytest.raises(DeviceError, match=message + r".*Tried to allocate 460 GiB"):
        module.to("cuda")
