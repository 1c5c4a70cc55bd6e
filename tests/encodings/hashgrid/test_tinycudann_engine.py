"""The tinycudann engine: on a stand-in with tiny-cuda-nn's documented behaviour, and on the real one where there is a GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import engines, reference, tinycudann_engine
from neuralfield.encodings.hashgrid.layout import GridLayout, growth_factor, make_layout
from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.interop import tinycudann
from tests.interop import tinycudann_standin as standin

INTERPOLATIONS = ("linear", "smoothstep", "nearest")
SIZES = [(2, 1), (2, 2), (3, 4), (4, 8)]  # D, F


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in is installed, and CPU tensors pass for CUDA's."""
    monkeypatch.setitem(sys.modules, "tinycudann", standin)
    monkeypatch.setattr(tinycudann_engine, "DEVICE", "cpu")
    monkeypatch.setattr(standin.Native, "calls", [])
    forget()
    yield
    forget()


def forget() -> None:
    tinycudann_engine.available.cache_clear()
    tinycudann_engine._native.cache_clear()


def small(dim: int = 2, features: int = 2) -> GridLayout:
    """Dense and hashed levels."""
    return make_layout(dim, 3, features, 6, 3, 1.9)


def batch(layout: GridLayout, n: int = 300) -> tuple[torch.Tensor, ...]:
    """Points with the corners 0 and 1 and faces of cells, a table, a gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, layout.in_dim, generator=generator)
    x[0], x[1] = 0, 1
    x[2] = 0.5 / layout.levels[-1].scale
    return (
        x,
        torch.randn(layout.n_parameters, generator=generator),
        torch.randn(n, layout.out_dim, generator=generator),
    )


def assert_same(got: torch.Tensor | None, expected: torch.Tensor | None, tolerance: float = 1e-5) -> None:
    assert got is not None and expected is not None
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * largest)


def compare(
    layout: GridLayout, x: torch.Tensor, params: torch.Tensor, grad: torch.Tensor, interpolation: str
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    problem = (layout, interpolation)
    assert tinycudann_engine.supports(x, params, *problem) is None
    assert_same(tinycudann_engine.forward(x, params, *problem), reference.forward(x, params, *problem))
    got = tinycudann_engine.backward(grad, x, params, *problem, True, True)
    for ours, truth in zip(got, reference.backward(grad, x, params, *problem, True, True), strict=True):
        assert_same(ours, truth)
    return got


# Equal to the reference


@pytest.mark.parametrize(("dim", "features"), SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_equals_the_reference(there: None, dim: int, features: int, interpolation: str) -> None:
    layout = small(dim, features)
    compare(layout, *batch(layout), interpolation)


@pytest.mark.parametrize("n", [0, 1, 255, 256, 257])
def test_batches_of_any_length(there: None, n: int) -> None:
    layout = small()
    x, params, grad = batch(layout)
    compare(layout, x[:n], params, grad[:n], "linear")


def test_memory_in_any_order(there: None) -> None:
    """The binding throws for what is not contiguous."""
    layout = small()
    x, params, grad = batch(layout, 256)
    x, grad = x.t().contiguous().t(), grad[:, :1].expand_as(grad)
    params = torch.stack([params, -params], dim=1)[:, 0]
    assert not (x.is_contiguous() or params.is_contiguous() or grad.is_contiguous())
    compare(layout, x, params, grad, "linear")


def test_tables_that_begin_between_rows(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are loaded whole: an address that is no multiple of theirs would be an error on a GPU."""
    layout = small(2, 4)
    x, params, grad = batch(layout)
    shifted = torch.cat([params[:1], params])[1:]
    assert shifted.data_ptr() % 16
    seen: list[int] = []
    fwd = standin.Native.fwd
    monkeypatch.setattr(standin.Native, "fwd", lambda *given: seen.append(given[2].data_ptr() % 16) or fwd(*given))
    compare(layout, x, shifted, grad, "linear")
    assert seen and not any(seen)


def test_only_what_is_needed(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is more asked of the binding, which computes what is marked as requiring a gradient."""
    asked: list[tuple[bool, bool]] = []
    bwd = standin.Native.bwd
    monkeypatch.setattr(
        standin.Native,
        "bwd",
        lambda *given: asked.append((given[2].requires_grad, given[3].requires_grad)) or bwd(*given),
    )
    layout = small()
    x, params, grad = batch(layout)
    both = compare(layout, x, params, grad, "linear")
    only_x = tinycudann_engine.backward(grad, x, params, layout, "linear", True, False)
    only_table = tinycudann_engine.backward(grad, x, params, layout, "linear", False, True)
    assert only_x[1] is None and only_table[0] is None
    assert torch.equal(only_x[0], both[0]) and torch.equal(only_table[1], both[1])  # type: ignore[arg-type]
    assert asked == [(True, True), (True, False), (False, True)]
    standin.Native.calls.clear()
    assert tinycudann_engine.backward(grad, x, params, layout, "linear", False, False) == (None, None)
    assert standin.Native.calls == []


@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_not_a_number_stays_one_and_touches_nothing_else(there: None, interpolation: str) -> None:
    layout = small()
    x, params, _ = batch(layout)
    expected = tinycudann_engine.forward(x, params, layout, interpolation)
    x[5, 1] = float("nan")
    got = tinycudann_engine.forward(x, params, layout, interpolation)
    assert torch.equal(torch.cat([got[:5], got[6:]]), torch.cat([expected[:5], expected[6:]]))
    assert got[5].isnan().all() == (interpolation == "linear")


# As a module


def modules(**options: object) -> tuple[HashGrid, HashGrid]:
    sizes = {"n_levels": 4, "log2_hashmap_size": 6, "base_resolution": 4, "per_level_scale": 1.7, **options}
    pair = HashGrid(2, engine="tinycudann", **sizes), HashGrid(2, engine="reference", **sizes)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in pair:
            module.params.normal_(generator=torch.Generator().manual_seed(0))
    return pair


def train(module: HashGrid, x: torch.Tensor, twice: bool = False) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_(True)
    features = module(x)
    loss = features.square().sum()
    if twice:
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        loss = slope.square().sum()
    return features.detach(), *torch.autograd.grad(loss, (x, module.params))


@pytest.mark.parametrize("active", [None, 1, 2])
@pytest.mark.parametrize("table_dtype", [None, torch.float16])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_module(there: None, active: int | None, table_dtype: torch.dtype | None, twice: bool) -> None:
    """Through autograd, with coarse levels alone and a rounded table (in a float32 copy); twice by the reference."""
    ours, truth = modules(interpolation="smoothstep")
    for module in (ours, truth):
        module.active_levels, module.table_dtype = active, table_dtype
    x = torch.rand(40, 2)
    for got, expected in zip(train(ours, x, twice), train(truth, x, twice), strict=True):
        assert expected.any()
        assert_same(got, expected)
    assert "fwd" in standin.Native.calls and ours.engine_choice.name == "tinycudann"
    assert "bwd" in standin.Native.calls


# Its configuration


@pytest.mark.parametrize(
    "layout",
    [
        small(),
        make_layout(3, 16, 2, 19, 16, growth_factor(16, 16, 2048)),
        make_layout(3, 16, 2, 19, 16, growth_factor(16, 16, 1024)),
        make_layout(2, 16, 2, 15, 16, 1.5),
        make_layout(2, 2, 2, 10, 7, 1.0001),
        make_layout(2, 1, 2, 10, 9, 1.0),
        make_layout(2, 12, 2, 14, 5, 3.3),
        make_layout(4, 8, 8, 12, 4, 2.0),
    ],
    ids=lambda layout: f"{layout.in_dim}d to {layout.levels[-1].resolution}",
)
def test_configuration_gives_the_same_levels(layout: GridLayout) -> None:
    """All of them, and any number of coarse ones; read by the stand-in, which computes levels by itself."""
    for count in range(1, len(layout.levels) + 1):
        part = GridLayout(layout.in_dim, layout.n_features, layout.levels[:count])
        made = tinycudann_engine.config(part, "linear")
        theirs = standin._Grid(layout.in_dim, made)
        expected = [(level.resolution, level.entries, level.offset) for level in part.levels]
        assert [level[1:] for level in theirs.levels] == expected
        for (scale, *_), level in zip(theirs.levels, part.levels, strict=True):
            assert scale == pytest.approx(level.scale, rel=3e-7)
        assert theirs.n_params == part.n_parameters


def test_levels_of_no_growth_factor(there: None) -> None:
    layout = small()
    uneven = GridLayout(2, 2, (*layout.levels, layout.levels[-1]))
    with pytest.raises(ConfigError, match="do not grow by one factor"):
        tinycudann_engine.config(uneven, "linear")
    x, params, _ = batch(layout)
    assert "do not grow by one factor" in (tinycudann_engine.supports(x, params, uneven, "linear") or "")
    assert tinycudann_engine.config(layout, "nearest")["interpolation"] == "Nearest"


# What it cannot do


def test_what_it_does_not_take(there: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = small()
    x, params, _ = batch(layout)

    def why(x: torch.Tensor = x, params: torch.Tensor = params, layout: GridLayout = layout) -> str:
        return tinycudann_engine.supports(x, params, layout, "linear") or ""

    assert why() == ""
    assert "coordinates are float64" in why(x=x.double())
    assert "parameters are float16" in why(params=params.half())
    assert "on meta" in why(x=x.to("meta"))
    for dim, features in ((1, 2), (5, 2), (2, 3), (2, 16)):
        assert f"has {dim} and {features}" in why(layout=make_layout(dim, 2, features, 6, 4, 1.5))
    assert "at most 128 features in all, and this one has 136" in why(layout=make_layout(2, 17, 8, 6, 4, 1.1))
    assert "32 bits" in why(layout=make_layout(3, 5, 2, 30, 2000, 1.5))
    assert "32 bits" in why(x=torch.zeros(1, 2).expand(2**30, 2))
    torch.use_deterministic_algorithms(True)
    try:
        assert "in any order" in why()
    finally:
        torch.use_deterministic_algorithms(False)
    assert why() == ""
    forget()
    monkeypatch.setattr(standin.Native, "stretch", 1.02)
    assert "features of level 0 differ from the reference by 0.0" in why()
    forget()
    monkeypatch.setattr(standin.Native, "stretch", 1 + 2**-22)  # what a fast exponential does
    assert why() == ""
    forget()
    monkeypatch.setattr(standin.Native, "n_params", lambda self: 8)
    assert "makes 8 parameters" in why()


def test_forced_where_it_cannot_evaluate(there: None) -> None:
    with pytest.raises(ConfigError, match=r"engine=tinycudann cannot evaluate.*has 2 and 3; use encoding\.engine=auto"):
        HashGrid(2, 2, 3, 6, 4, engine="tinycudann")(torch.rand(3, 2))


def test_forced_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)  # what an import then raises is what it does without
    forget()
    try:
        with pytest.raises(
            MissingDependency, match="engine=tinycudann cannot be used: tinycudann is not inst"
        ) as caught:
            engines.choose("tinycudann", "cuda")
        assert tinycudann.INSTALL in str(caught.value) and "engine=auto" in str(caught.value)
        assert tinycudann.INSTALL in engines.unavailable("cuda")["tinycudann"]
        with pytest.raises(ConfigError, match="engine=tinycudann cannot be used: it runs on CUDA, and this is cpu"):
            HashGrid(2, 2, engine="tinycudann")(torch.rand(3, 2))
    finally:
        forget()


# The real one


@pytest.fixture
def real() -> None:
    try:
        tinycudann.load()
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dim", "features"), SIZES)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_on_a_gpu(real: None, dim: int, features: int, interpolation: str) -> None:
    """Scales that are powers of two are exact even by the fast exponential: the same numbers to 1e-5."""
    layout = make_layout(dim, 4, features, 8, 4, 2.0)
    x, params, grad = (tensor.cuda() for tensor in batch(layout, 1000))
    compare(layout, x[3:], params, grad[3:], interpolation)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_on_a_gpu_at_full_size(real: None) -> None:
    """2^18 points, 16 levels to 2048, T = 19: equal to the error of its scales; the table's gradient is so on the whole."""
    layout = make_layout(3, 16, 2, 19, 16, growth_factor(16, 16, 2048))
    x, params, grad = (tensor.cuda() for tensor in batch(layout, 2**18))
    assert tinycudann_engine.supports(x, params, layout, "linear") is None
    features = tinycudann_engine.forward(x, params, layout, "linear")
    assert_same(features, reference.forward(x, params, layout, "linear"), 2048 * 3 * 2**-21)
    _, ours = tinycudann_engine.backward(grad, x, params, layout, "linear", False, True)
    _, truth = reference.backward(grad, x, params, layout, "linear", False, True)
    assert ours is not None and truth is not None
    assert float((ours - truth).norm() / truth.norm()) < 2e-3
