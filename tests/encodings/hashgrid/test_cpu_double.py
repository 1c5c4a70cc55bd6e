"""The double backward of the compiled CPU engine: equal to the reference's, and to differences of its first backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuralfield.encodings.hashgrid import cpu, reference
from neuralfield.encodings.hashgrid.layout import GridLayout, make_layout
from tests.encodings.hashgrid.test_cpu import assert_close, problem

pytest.importorskip("numba")

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]

ALL = (True, True, True)


def directions(x: Tensor, params: Tensor, seed: int = 7) -> tuple[Tensor, Tensor]:
    """Gradients to the first backward's results."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape, generator=generator), torch.randn(params.shape, generator=generator)


def by_the_reference(
    v: Tensor | None, w: Tensor | None, grad: Tensor, x: Tensor, params: Tensor, layout: GridLayout, interpolation: str
) -> Gradients:
    """Through autograd's record of the reference's backward pass."""
    inputs = [tensor.detach().clone().requires_grad_(True) for tensor in (grad, x, params)]
    slopes = reference.backward(*inputs, layout, interpolation, v is not None, w is not None)  # type: ignore[call-arg, arg-type]
    total = torch.zeros((), requires_grad=True)
    for slope, by in zip(slopes, (v, w), strict=True):
        if slope is not None and by is not None:
            total = total + (slope * by).sum()
    return torch.autograd.grad(total, inputs, materialize_grads=True, allow_unused=True)  # type: ignore[return-value]


def compare(
    v: Tensor | None, w: Tensor | None, grad: Tensor, x: Tensor, params: Tensor, layout: GridLayout, interpolation: str
) -> None:
    got = cpu.double_backward(v, w, grad, x, params, layout, interpolation, *ALL)
    expected = by_the_reference(v, w, grad, x, params, layout, interpolation)
    assert got[0] is not None and expected[0] is not None
    # Level by level: a fine level's derivatives are large, and would hide what a coarse one gets wrong.
    for one, other in zip(got[0].split(layout.n_features, 1), expected[0].split(layout.n_features, 1), strict=True):
        assert_close(one, other)
    assert_close(got[1], expected[1])
    if v is None:
        assert got[2] is None and not expected[2].any()  # type: ignore[union-attr]
        return
    assert got[2] is not None and expected[2] is not None
    for one, other in zip(
        reference.level_tables(got[2], layout), reference.level_tables(expected[2], layout), strict=True
    ):
        assert_close(one, other)


@pytest.mark.parametrize("name", ["1d", "2d", "3d", "3d, tiny tables", "4d"])
def test_equals_the_reference(name: str) -> None:
    """At generic points, faces, corners, x = 0 and 1, and outside the cube."""
    layout, x, params, grad = problem(name)
    v, w = directions(x, params)
    # In four dimensions a kernel takes ten seconds to compile; smoothstep has every term that linear has.
    for interpolation in ("smoothstep",) if name == "4d" else ("linear", "smoothstep"):
        for given in ((v, None), (None, w), (v, w)):
            compare(*given, grad, x, params, layout, interpolation)


def test_many_features() -> None:
    layout = make_layout(1, 3, 8, 5, 4, 2.0)
    x, params, grad = torch.rand(300, 1), torch.randn(layout.n_parameters), torch.randn(300, layout.out_dim)
    compare(*directions(x, params), grad, x, params, layout, "smoothstep")


@pytest.mark.parametrize("interpolation", ["linear", "smoothstep"])
@pytest.mark.parametrize("name", ["1d", "3d"])
def test_equals_differences_of_the_first_backward(name: str, interpolation: str) -> None:
    """In float64, by what the double backward is the gradient of: s = v . grad_x + w . grad_params, point by point."""
    layout, _, params, _ = problem(name)
    generator = torch.Generator().manual_seed(3)
    # Multiples of 2^-12 have positions with few bits, so that float32 places them in their cells as float64 does.
    x = torch.randint(1, 4096, (500, layout.in_dim), generator=generator) / 4096
    for level in layout.levels:  # a difference must not step over a face, where derivatives jump
        fraction = reference.positions(x, level)[1]
        x = x[((fraction > 1e-3) & (fraction < 1 - 1e-3)).all(dim=1)]
    assert len(x) > 300
    grad = torch.randn(len(x), layout.out_dim, generator=generator)
    v, w = directions(x, params)
    got_grad, got_x, got_params = cpu.double_backward(v, w, grad, x, params, layout, interpolation, *ALL)
    wide_grad, wide_x, wide_params, wide_v, wide_w = (tensor.double() for tensor in (grad, x, params, v, w))

    def s(grad: Tensor, x: Tensor, params: Tensor, w: Tensor) -> Tensor:
        grad_x = reference.backward(grad, x, params, layout, interpolation, True, False)[0]
        assert grad_x is not None
        # <w, grad_params> is the sum over the points of grad . f(x; w): the table's gradient is the transpose of f.
        return (wide_v * grad_x).sum(1) + (grad * reference.forward(x, w, layout, interpolation)).sum(1)

    step = 1e-6
    expected = torch.empty_like(wide_x)
    for axis in range(layout.in_dim):
        there, back = wide_x.clone(), wide_x.clone()
        there[:, axis] += step
        back[:, axis] -= step
        rise = s(wide_grad, there, wide_params, wide_w) - s(wide_grad, back, wide_params, wide_w)
        expected[:, axis] = rise / (there - back)[:, axis]
    assert_close(got_x, expected.float())

    columns = []
    for column in range(layout.out_dim):  # s is linear in grad
        unit = torch.zeros_like(wide_grad)
        unit[:, column] = 1
        columns.append(s(unit, wide_x, wide_params, wide_w))
    assert_close(got_grad, torch.stack(columns, dim=1).float())

    assert got_params is not None
    for index in torch.randint(layout.n_parameters, (40,), generator=generator).tolist():  # and in the table
        unit = torch.zeros_like(wide_params)
        unit[index] = 1
        slope = s(wide_grad, wide_x, unit, torch.zeros_like(unit)).sum()
        assert abs(float(slope) - float(got_params[index])) < 1e-5 * float(got_params.abs().max())


def test_nearest_has_no_derivatives() -> None:
    layout, x, params, grad = problem("2d")
    v, w = directions(x, params)
    out, grad_x, grad_params = cpu.double_backward(v, w, grad, x, params, layout, "nearest", *ALL)
    assert_close(out, reference.forward(x, w, layout, "nearest"))
    for zero, like in ((grad_x, x), (grad_params, params)):
        assert zero is not None and zero.shape == like.shape and not zero.any()


def test_large_batches_equal_the_reference(torch_threads, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Through transposed features, several chunks, a last chunk of another size, and more than one thread."""
    monkeypatch.setattr(cpu, "_DIRECT", 300)
    monkeypatch.setattr(cpu, "_SCRATCH", 4 * 16 * 401)
    layout, x, params, grad = problem("3d")
    assert len(x) > 3 * 401
    compare(*directions(x, params), grad, x, params, layout, "smoothstep")


def test_only_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result alone, with the same bits, also where gradients are transposed."""
    layout, x, params, grad = problem("3d")
    v, w = directions(x, params)
    for direct in (1 << 20, 1):
        monkeypatch.setattr(cpu, "_DIRECT", direct)
        for given in ((v, w), (v, None), (None, w)):
            together = cpu.double_backward(*given, grad, x, params, layout, "smoothstep", *ALL)
            for wanted in range(3):
                needs = [index == wanted for index in range(3)]
                alone = cpu.double_backward(*given, grad, x, params, layout, "smoothstep", *needs)
                for index, (one, other) in enumerate(zip(alone, together, strict=True)):
                    if index == wanted and other is not None:
                        assert one is not None and torch.equal(one.nan_to_num(), other.nan_to_num())
                    else:
                        assert one is None


def test_same_bits_for_any_number_of_threads(either_threads, torch_threads) -> None:  # type: ignore[no-untyped-def]
    layout, x, params, grad = problem("3d")
    v, w = directions(x, params)
    results = []
    for threads in (1, 2, 3, 8, 2):
        torch_threads(threads)
        outcome = cpu.double_backward(v, w, grad, x, params, layout, "smoothstep", *ALL)
        results.append([tensor.nan_to_num() for tensor in outcome if tensor is not None])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_more_threads_than_levels(torch_threads) -> None:  # type: ignore[no-untyped-def]
    torch_threads(4)
    layout, x, params, grad = problem("3d, one level")
    compare(*directions(x, params), grad, x, params, layout, "linear")


def test_nan_and_infinite_coordinates() -> None:
    """NaN where the reference gives it, and nowhere else."""
    layout, x, params, grad = problem("2d")
    x[3, 0], x[5, 1], x[7, :] = float("nan"), float("nan"), float("inf")
    for interpolation in ("linear", "smoothstep"):
        compare(*directions(x, params), grad, x, params, layout, interpolation)


def test_empty_batch() -> None:
    layout, _, params, _ = problem("2d")
    x, grad = torch.zeros(0, 2), torch.zeros(0, layout.out_dim)
    out, grad_x, grad_params = cpu.double_backward(x, params, grad, x, params, layout, "smoothstep", *ALL)
    assert out is not None and out.shape == grad.shape
    assert grad_x is not None and grad_x.shape == x.shape
    assert grad_params is not None and torch.equal(grad_params, torch.zeros(layout.n_parameters))


def test_inputs_that_are_not_contiguous() -> None:
    layout, x, params, grad = problem("2d")
    v, w = directions(x, params)
    strided = torch.stack([params, -params], dim=1)[:, 0], torch.stack([w, -w], dim=1)[:, 0]
    sideways = x.t().contiguous().t(), v.t().contiguous().t(), grad.flip(0).t().contiguous().t()
    assert not any(tensor.is_contiguous() for tensor in (*strided, *sideways))
    compare(sideways[1], strided[1], sideways[2], sideways[0], strided[0], layout, "smoothstep")
    one = v[:1, :1].expand_as(v)  # the gradient of a sum of slopes
    compare(one, w[:1].expand_as(w), grad[:, :1].expand_as(grad), x, params, layout, "smoothstep")


def test_nothing_is_written_to_the_inputs() -> None:
    layout, x, params, grad = problem("2d")
    given = [*directions(x, params), grad, x, params]
    before = [tensor.clone() for tensor in given]
    cpu.double_backward(*given, layout, "smoothstep", *ALL)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
