"""Derivatives of every order through autograd: the engine's own double backward, and what is recorded beyond it."""

from __future__ import annotations

import types

import pytest
import torch
from torch import Tensor

from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import autograd, cpu, reference
from neuralfield.encodings.hashgrid.layout import make_layout

LAYOUT = make_layout(2, 2, 2, 3, 2, 1.7)  # 8 rows, dense, and 8, hashed
no_numba = pytest.mark.skipif(cpu.available() is not None, reason="no numba")


class Engine(types.ModuleType):
    """The reference in any precision, with a double backward of its own; it notes what it was asked for."""

    def __init__(self, double: bool = True) -> None:
        super().__init__("engine")
        self.asked: list[tuple[bool, ...]] = []
        if double:
            self.double_backward = self._double_backward

    forward = staticmethod(reference.forward)

    def backward(self, *given: object) -> tuple[Tensor | None, Tensor | None]:
        self.asked.append(given[-2:])  # type: ignore[arg-type]
        return reference.backward(*given)  # type: ignore[arg-type]

    def _double_backward(self, v, w, grad, x, params, layout, interpolation, *needs):  # type: ignore[no-untyped-def]
        assert not torch.is_grad_enabled()
        self.asked.append(needs)
        with torch.enable_grad():
            inputs = [tensor.detach().requires_grad_(True) for tensor in (grad, x, params)]
            slopes = reference.backward(*inputs, layout, interpolation, v is not None, w is not None)  # type: ignore[call-arg, arg-type]
            total = sum((a * b).sum() for a, b in zip(slopes, (v, w), strict=True) if a is not None)
            found = torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)  # type: ignore[arg-type]
        return tuple(gradient if need else None for gradient, need in zip(found, needs, strict=True))


def inputs(n: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    return x.requires_grad_(True), torch.randn(
        LAYOUT.n_parameters, generator=generator, dtype=torch.float64, requires_grad=True
    )


def slopes(x: Tensor, params: Tensor, engine: Engine, interpolation: str) -> tuple[Tensor, Tensor]:
    """Both gradients of a sum that is not linear in the features, so that grad depends on x and the table as well."""
    features = autograd.Encode.apply(x, params, None, LAYOUT, interpolation, engine)
    return torch.autograd.grad(features.sin().sum(), (x, params), create_graph=True)  # type: ignore[return-value]


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("double", [True, False], ids=["own double backward", "recorded"])
def test_second_and_third_derivatives_equal_differences(double: bool, interpolation: str) -> None:
    """In float64: gradcheck differentiates the slopes, gradgradcheck what came of that."""
    engine = Engine(double)
    x, params = inputs()
    torch.autograd.gradcheck(lambda x, params: slopes(x, params, engine, interpolation), (x, params), fast_mode=True)
    torch.autograd.gradgradcheck(
        lambda x, params: slopes(x, params, engine, interpolation), (x, params), fast_mode=True
    )
    assert any(len(asked) == 3 for asked in engine.asked) == double


def test_fourth_derivatives_equal_differences() -> None:
    engine = Engine()
    x, params = inputs()

    def curvature(x: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(slopes(x, params, engine, "smoothstep")[0].square().sum(), x, create_graph=True)
        return found

    assert torch.autograd.gradgradcheck(curvature, x, fast_mode=True)


def test_only_what_is_asked_for_is_computed() -> None:
    """A pass that wants the gradient to x alone does not compute the table's, and the other way round."""
    x, params = inputs()
    engine = Engine()
    for placed in (x, x.clamp(0.0, 1.0)):
        value = autograd.Encode.apply(placed, params, None, LAYOUT, "smoothstep", engine).square().sum()
        engine.asked.clear()
        torch.autograd.grad(value, x, retain_graph=True)
        torch.autograd.grad(value, params, retain_graph=True)
        torch.autograd.grad(value, (x, params), retain_graph=True)
        value.backward(inputs=[params], retain_graph=True)
        value.backward(retain_graph=True)
        assert engine.asked == [(True, False), (False, True), (True, True), (False, True), (True, True)]
        engine.asked.clear()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        torch.autograd.grad(slope.square().sum(), params)
        assert engine.asked[0] == (True, False)
        assert engine.asked[1] == (True, False, True)  # grad depends on the table, so it is asked for


def test_constants_get_no_gradient() -> None:
    x, params = inputs()
    engine = Engine()
    autograd.Encode.apply(x.detach(), params, None, LAYOUT, "linear", engine).sum().backward()
    assert engine.asked == [(False, True)] and x.grad is None


def test_a_torch_that_does_not_say_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C, "_will_engine_execute_node")
    x, params = inputs()
    engine = Engine()
    value = autograd.Encode.apply(x, params, None, LAYOUT, "smoothstep", engine).square().sum()
    torch.autograd.grad(value, x)
    assert engine.asked == [(True, True)]


def eikonal(module: HashGrid, x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(module(x).sin().sum(), x, create_graph=True)
    return ((slope.square().sum(dim=1) + 1e-12).sqrt() - 1).square().sum()


def grid(engine: str, **options: object) -> HashGrid:
    module = HashGrid(
        2, n_levels=4, log2_hashmap_size=6, base_resolution=4, per_level_scale=1.7, engine=engine, **options
    )  # type: ignore[arg-type]
    with torch.no_grad():
        module.params.normal_(generator=torch.Generator().manual_seed(0))
    return module


@no_numba
@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("setting", [{}, {"active_levels": 3}, {"table_dtype": torch.float16}], ids=str)
def test_compiled_eikonal_term_equals_the_reference(setting: dict[str, object], interpolation: str) -> None:
    results = []
    for engine in ("cpu", "reference"):
        module = grid(engine, interpolation=interpolation)
        for name, value in setting.items():
            setattr(module, name, value)
        x = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        found = torch.autograd.grad(eikonal(module, x), (x, module.params), create_graph=True)
        # And once more, which is recorded: a third derivative.
        third = torch.autograd.grad(found[0].square().sum(), (x, module.params))
        results.append([tensor.detach() for tensor in (*found, *third)])
    for got, expected in zip(*results, strict=True):
        assert got.dtype == torch.float32 and expected.any()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@no_numba
def test_compiled_double_backward_leaves_the_reference_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("slow")

    monkeypatch.setattr(reference, "backward", refuse)
    module, x = grid("cpu", interpolation="smoothstep"), torch.rand(20, 2, requires_grad=True)
    eikonal(module, x).backward()
    assert module.params.grad is not None and module.params.grad.any()
    assert x.grad is not None and x.grad.any()


@no_numba
def test_a_rounded_table_of_half_parameters() -> None:
    """The gradient comes in the parameters' precision, whatever that of the table."""
    module = grid("auto", interpolation="smoothstep").half()
    module.table_dtype = torch.float32
    x = torch.rand(20, 2, requires_grad=True)
    eikonal(module, x).backward()
    wide = grid("reference", interpolation="smoothstep")
    with torch.no_grad():
        wide.params.copy_(module.params)
    x_again = x.detach().clone().requires_grad_(True)
    eikonal(wide, x_again).backward()
    assert module.params.grad is not None and module.params.grad.dtype == torch.float16
    got, expected = module.params.grad.float(), wide.params.grad
    assert expected is not None
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-2 * float(expected.abs().max()))
