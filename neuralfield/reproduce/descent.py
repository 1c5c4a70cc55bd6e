r"""Gradient descent of very wide networks in the NTK parameterisation, in the memory of the weights alone.

The gradient of an affine layer is $G^\top A$, with one row per training point in both factors
(:mod:`neuralfield.ntk.structure`). Adding the product to the weights at once saves the second 400 MB that each layer of width
10,000 would need, and half the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import DivergedError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import structure
from neuralfield.ntk.conventions import rate


def descend(
    field: Field,
    x: Float[Tensor, "n in_dim"],
    y: Float[Tensor, "n 1"],
    lr: float,
    steps: int,
    w_std: float,
    b_std: float,
    loss: str = "mean",
) -> Iterator[float]:
    """Full-batch gradient descent, one step at a time; yields the loss before each step.

    **Arguments**

    - `field`: of effective weights, as :func:`~neuralfield.reproduce.wide.wide_field` makes it; one output; trained in place.
    - `lr`: on the parameters of the NTK parameterisation with `w_std`, `b_std`.
    - `loss`: one of :data:`~neuralfield.ntk.conventions.LOSSES`.

    Raises :class:`~neuralfield.errors.DivergedError` when the loss leaves the finite numbers.
    """
    for step in range(steps):
        # Not one block around the loop: gradients would be off for the caller between two steps.
        with torch.no_grad():
            tape = structure.forward(field.network, field.encoding(x))  # type: ignore[arg-type]
            residual = tape.output - y
            value = 0.5 * rate(loss, len(y), 1) * residual.square().sum().item()
        if not math.isfinite(value):
            raise DivergedError(f"the loss is {value} at step {step}; take a smaller learning rate")
        yield value
        with torch.no_grad():
            _move(field.network, tape, rate(loss, len(y), 1) * residual, lr * w_std**2, lr * b_std**2)  # type: ignore[arg-type]


def _move(network: MLP, tape: structure.Tape, gradient: Tensor, weight_lr: float, bias_lr: float) -> None:
    """One step, for the loss's gradient with respect to the outputs."""
    signals, _ = structure.backward(network, tape, gradient)
    for layer, a, g in zip(network.linear_layers(), tape.inputs, signals, strict=True):
        layer.weight.addmm_(g.T, a, alpha=-weight_lr / layer.in_features)
        if layer.bias is not None:
            layer.bias.add_(g.sum(dim=0), alpha=-bias_lr)
