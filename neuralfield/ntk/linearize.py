r"""A field's first-order Taylor model around its weights, and Chizat's output scale: the two ways into lazy training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralfield.checks import flag, number
from neuralfield.errors import ConfigError
from neuralfield.ntk import generic, structure
from neuralfield.ntk.block_jacobian import AnyJacobian, FieldJacobian, Jacobian
from neuralfield.ntk.module_jacobian import tangent_by_reverse


class Linearized(nn.Module):
    r"""$f_\text{lin}(x; w) = f(x; w_0) + J(x; w_0)\,(w - w_0)$ (Lee et al. 2019, eq. 5).

    Its parameters start at $w_0$ under the names and in the shapes of the field's, so that optimisers, parameter groups
    and weight decay mean the same. Its tangent kernel never moves: gradient descent on a squared loss follows the closed
    forms of :mod:`.dynamics` to rounding, at any width. A step of training costs about twice the field's own and keeps
    what the field's own would keep. Derivatives to the parameters of any order; to x too, by the slower generic path.

    **Arguments**

    - `field`: a :class:`~neuralfield.Field`, or any module that turns [n, D] into [n, C] point by point. It is copied:
      training either does not move the other. What is frozen in it stays frozen.

    **Attributes**

    - `origin`: the field at $w_0$, with buffers where it has parameters: it follows ``.to()``, is in the state_dict, and no
      optimiser sees it.
    - `reason`: None where products follow the field's layers; else why they take automatic differentiation.

    Raises :class:`~neuralfield.errors.ConfigError` for modules whose output is random or depends on other points, and for
    those that use one parameter in two places.
    """

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        generic.independent(field)
        self.reason = structure.unsupported(field)
        self.origin = frozen(field)
        self._trained = {name: p.requires_grad for name, p in field.named_parameters()}
        moving = copy.deepcopy(field)
        parts: list[tuple[str, Any]] = [*moving.named_children(), *moving.named_parameters(recurse=False)]
        for name, part in parts:
            if hasattr(self, name):
                raise ConfigError(f"{type(field).__name__} has a part '{name}', a name that its linearised model needs")
            setattr(self, name, part)
        self.signal: dict[str, Any] = copy.deepcopy(getattr(field, "signal", {}))
        for name in ("in_dim", "out_dim"):
            if hasattr(field, name):
                setattr(self, name, int(getattr(field, name)))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def base(self) -> nn.Module:
        """The field at $w_0$ again: a new copy, with parameters, of the class that was given."""
        field = copy.deepcopy(self.origin)
        for name, trained in self._trained.items():
            path, _, leaf = name.rpartition(".")
            owner = field.get_submodule(path)
            value = getattr(owner, leaf)
            delattr(owner, leaf)
            owner.register_parameter(leaf, nn.Parameter(value, requires_grad=trained))
        return field

    def displacement(self) -> dict[str, Tensor]:
        """$w - w_0$ of the parameters that the field trains, by name."""
        now, start = dict(self.named_parameters()), self._start()
        return {name: now[name].detach() - start[name] for name in start}

    def forward(self, x: Shaped[Tensor, "*batch dim"]) -> Float[Tensor, "*batch channels"]:
        """Values at coordinates with any leading dimensions."""
        flat = x.reshape(-1, x.shape[-1])
        now, start = dict(self.named_parameters()), self._start()
        moved = {name: now[name] - start[name] for name in start}
        if x.requires_grad and torch.is_grad_enabled():
            values = self._differentiable(flat, start, moved)
        else:
            jacobian = self.jacobian(flat, keep=torch.is_grad_enabled())
            tangent = _Push.apply(jacobian, tuple(moved), *moved.values()) if moved else 0
            values = jacobian.output + tangent
        return values.reshape(*x.shape[:-1], values.shape[-1])

    def jacobian(self, x: Float[Tensor, "n dim"], keep: bool = True) -> Jacobian:
        """$J(x; w_0)$, by its products."""
        if self.reason is None:
            return FieldJacobian(self.origin, x, self._start(), keep=keep)  # type: ignore[arg-type]
        return AnyJacobian(self.origin, x, self._start())

    def _start(self) -> dict[str, Tensor]:
        return {name: _get(self.origin, name) for name, trained in self._trained.items() if trained}

    def _differentiable(self, x: Tensor, start: Mapping[str, Tensor], moved: Mapping[str, Tensor]) -> Tensor:
        leaves = {name: value.detach().requires_grad_() for name, value in start.items()}
        values = torch.func.functional_call(self.origin, leaves, (x,))
        return values + tangent_by_reverse(values, leaves, moved)

    def extra_repr(self) -> str:
        return "trainable parts above, their values at w0 in `origin`"


class _Push(torch.autograd.Function):
    r"""$\dot\theta \mapsto J \dot\theta$. Linear; its backward pass is :class:`_Pull`, whose is this one."""

    @staticmethod
    def forward(ctx: Any, jacobian: Jacobian, names: tuple[str, ...], *tangents: Tensor) -> Tensor:
        ctx.jacobian, ctx.names = jacobian, names
        return jacobian.jvp({name: t[None] for name, t in zip(names, tangents, strict=True)})[0]

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (None, None, *_Pull.apply(ctx.jacobian, ctx.names, seed))


class _Pull(torch.autograd.Function):
    r"""$s \mapsto J^\top s$."""

    @staticmethod
    def forward(ctx: Any, jacobian: Jacobian, names: tuple[str, ...], seed: Tensor) -> tuple[Tensor, ...]:
        ctx.jacobian, ctx.names = jacobian, names
        found = jacobian.vjp(seed[None])
        return tuple(found[name][0] for name in names)

    @staticmethod
    def backward(ctx: Any, *tangents: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, None, _Push.apply(ctx.jacobian, ctx.names, *tangents)


class Scaled(nn.Module):
    r"""$\alpha h$ with $h(x) = f(x; w) - f(x; w_0)$: Chizat et al. 2019, section 1.1, around the field's present weights.

    They train $F_\alpha(w) = \frac{1}{\alpha^2} R(\alpha h(w))$. With $\alpha \to \infty$ the predictions $\alpha h$ move
    as fast as for $\alpha = 1$ while the weights move $1/\alpha$ as far, and training becomes that of the linearised model.
    So divide the loss by $\alpha^2$: ``loss = scaled.loss_factor * criterion(scaled(x), y)``. The kernel of the scaled
    field is $\alpha^2$ times the field's, and the factor takes that back.

    **Arguments**

    - `field`: the field; it is trained in place, and `scaled.field` is it.
    - `alpha`: $\alpha > 0$.
    - `centred`: subtract the values at $w_0$, so that $h(w_0) = 0$, which the limit needs. Without, the function is
      $\alpha f$, and its initial error grows with $\alpha$.
    """

    def __init__(self, field: nn.Module, alpha: float, centred: bool = True) -> None:
        super().__init__()
        self.alpha, self.centred = number("alpha", alpha, 0, above=True), flag("centred", centred)
        generic.independent(field)
        self.field = field
        self.origin = frozen(field) if self.centred else None
        for name in ("in_dim", "out_dim"):
            if hasattr(field, name):
                setattr(self, name, int(getattr(field, name)))

    @property
    def loss_factor(self) -> float:
        r"""$1/\alpha^2$."""
        return self.alpha**-2

    def forward(self, x: Shaped[Tensor, "*batch dim"]) -> Float[Tensor, "*batch channels"]:
        """Values at coordinates with any leading dimensions."""
        values = self.field(x)
        return self.alpha * (values if self.origin is None else values - self.origin(x))

    def extra_repr(self) -> str:
        return f"alpha={self.alpha:g}, centred={self.centred}"


def linearize(field: nn.Module) -> Linearized:
    """The first-order Taylor model of a field around its present weights, itself a trainable field: :class:`Linearized`."""
    if isinstance(field, Linearized):
        raise ConfigError("this field is linear in its parameters already; linearise its .base, or another field")
    return Linearized(field)


def scaled(field: nn.Module, alpha: float, centred: bool = True) -> Scaled:
    r"""$\alpha\,(f(w) - f(w_0))$, to be trained on a loss times ``scaled.loss_factor``: :class:`Scaled`."""
    return Scaled(field, alpha, centred)


def frozen(field: nn.Module) -> nn.Module:
    """A copy of a field whose parameters are buffers, under the same names: nothing that an optimiser could find."""
    found = copy.deepcopy(field)
    seen: dict[int, str] = {}
    for name, parameter in list(found.named_parameters(remove_duplicate=False)):
        if id(parameter) in seen:
            raise ConfigError(
                f"{type(field).__name__} uses one parameter as {seen[id(parameter)]} and as {name}; give each its own"
            )
        seen[id(parameter)] = name
        path, _, leaf = name.rpartition(".")
        owner = found.get_submodule(path)
        delattr(owner, leaf)
        owner.register_buffer(leaf, parameter.detach())
    return found


def _get(module: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)
