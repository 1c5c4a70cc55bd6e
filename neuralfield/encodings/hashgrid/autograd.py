"""The grid as autograd sees it: one node for the features, one for their gradients, whatever the engine.

Nothing but the inputs is kept between the passes. Letting autograd record each corner of each level would keep some hundred
numbers per point alive.

With g the gradient to the features and S(x, T) = g . f(x; T) summed over the points, the first backward pass gives dS/dx and
dS/dT. Losses on these, such as the eikonal term, are differentiated by :class:`_Slopes`, in one of two ways: by the engine's
own ``double_backward`` (see :func:`.cpu.double_backward` for what it computes), or, where it has none and for derivatives
of still higher order, by recording the reference's operations.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from neuralfield.encodings.hashgrid import reference
from neuralfield.encodings.hashgrid.layout import GridLayout


class Encode(torch.autograd.Function):
    """Features of x, by any engine, differentiable to any order.

    `table`, where it is not None, holds the numbers that stand in for the parameters; their gradient is the parameters'.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        params: Tensor,
        table: Tensor | None,
        layout: GridLayout,
        interpolation: str,
        engine: ModuleType,
    ) -> Tensor:
        ctx.save_for_backward(x, params, table)
        ctx.layout, ctx.interpolation, ctx.engine = layout, interpolation, engine
        return engine.forward(x, params if table is None else table, layout, interpolation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, params, table = ctx.saved_tensors
        needs = tuple(_needed(ctx, index) for index in range(2))
        problem = (ctx.layout, ctx.interpolation)
        if not torch.is_grad_enabled():
            grad_x, grad_params = ctx.engine.backward(grad, x, params if table is None else table, *problem, *needs)
        elif hasattr(ctx.engine, "double_backward"):
            grad_x, grad_params = _Slopes.apply(grad, x, params, table, *problem, ctx.engine, *needs)
        else:
            grad_x, grad_params = reference.backward(grad, x, _stand_in(params, table), *problem, *needs)
        return grad_x, None if grad_params is None else grad_params.to(params.dtype), None, None, None, None


class _Slopes(torch.autograd.Function):
    """The gradients of :class:`Encode` to x and to the parameters, as functions that can be differentiated themselves."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        params: Tensor,
        table: Tensor | None,
        layout: GridLayout,
        interpolation: str,
        engine: ModuleType,
        needs_x: bool,
        needs_params: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(grad, x, params, table)
        ctx.layout, ctx.interpolation, ctx.engine = layout, interpolation, engine
        ctx.set_materialize_grads(False)  # no table of zeros for a gradient that the loss does not look at
        values = params if table is None else table
        found: tuple[Tensor | None, Tensor | None] = engine.backward(
            grad, x, values, layout, interpolation, needs_x, needs_params
        )
        return found

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, w: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if v is None and w is None:
            return (None,) * 9
        grad, x, params, table = ctx.saved_tensors
        needs = [_needed(ctx, index) for index in range(3)]
        if torch.is_grad_enabled():
            found = _recorded(v, w, (grad, x, params), table, ctx.layout, ctx.interpolation, needs)
        else:
            values = params if table is None else table
            found = ctx.engine.double_backward(v, w, grad, x, values, ctx.layout, ctx.interpolation, *needs)
            found = (*found[:2], None if found[2] is None else found[2].to(params.dtype))
        return *found, None, None, None, None, None, None


def _recorded(
    v: Tensor | None,
    w: Tensor | None,
    inputs: tuple[Tensor, Tensor, Tensor],
    table: Tensor | None,
    layout: GridLayout,
    interpolation: str,
    needs: list[bool],
) -> tuple[Tensor | None, ...]:
    """What ``double_backward`` gives, in operations that are recorded and can be differentiated on."""
    # Views, because one input may be a function of another (grad often is, of x): only what is direct counts here.
    grad, x, params = (tensor.view_as(tensor) for tensor in inputs)
    wanted = [tensor for tensor, need in zip((grad, x, params), needs, strict=True) if need]
    slopes = reference.backward(grad, x, _stand_in(params, table), layout, interpolation, v is not None, w is not None)
    pairs = [(slope, by) for slope, by in zip(slopes, (v, w), strict=True) if slope is not None and slope.requires_grad]
    if not pairs or not wanted:
        return None, None, None
    found = iter(
        torch.autograd.grad(
            [slope for slope, _ in pairs], wanted, [by for _, by in pairs], create_graph=True, allow_unused=True
        )
    )
    return tuple(next(found) if need else None for need in needs)


def _stand_in(params: Tensor, table: Tensor | None) -> Tensor:
    """The table's numbers, with the parameters' place in the graph."""
    return params if table is None else params + (table - params).detach()


def _needed(ctx: Any, index: int) -> bool:
    """Whether the pass under way uses the gradient to an input.

    ``needs_input_grad`` says only that the input is part of a graph: asked for the gradient to x alone, a node whose
    parameters are trained would compute that of the table as well, which costs more.
    """
    if not ctx.needs_input_grad[index]:
        return False
    asks = getattr(torch._C, "_will_engine_execute_node", None)
    if asks is None:
        return True
    try:
        return bool(asks(ctx.next_functions[index][0]))
    except RuntimeError:  # torch refuses to answer for a leaf that is asked for by name: then it is needed
        return True
