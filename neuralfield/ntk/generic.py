r"""The Jacobian of any module, row by row: the path that needs no structure and pays for it.

It holds n C P numbers for n points, C outputs and P parameters, where the structured path holds a few thousand per point.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from neuralfield.errors import ConfigError
from neuralfield.ntk.structure import trainable

_CHUNK_BYTES = 2**26  # of Jacobian rows that are made at once


class GenericPathWarning(UserWarning):
    """A kernel is computed from the explicit Jacobian; the message says of what, why, and how many bytes that takes."""


def jacobian(
    module: nn.Module, x: Shaped[Tensor, "n ..."], seeds: Float[Tensor, "n channels numbers"]
) -> dict[str, Float[Tensor, "n channels parameters"]]:
    r"""$s_c \cdot \partial f(x) / \partial \theta$ for several cotangents s per point, by parameter.

    Vectorised over points by ``torch.func``; point by point and seed by seed where the module does not allow that (an
    autograd function without a vmap rule, a branch on values).

    **Arguments**

    - `module`: a map from [n, ...] to [n, numbers], or to [n], that treats each point by itself.
    - `seeds`: s; unit vectors for the Jacobian of the outputs.
    """
    if len(x) == 0:
        return {name: seeds.new_zeros(*seeds.shape[:2], p.numel()) for name, p in trainable(module).items()}
    try:
        return _vectorised(module, x, seeds)
    except RuntimeError:  # torch.func has no type of its own for what it cannot transform
        return _point_by_point(module, x, seeds)


def independent(module: nn.Module) -> None:
    """Refuse a module whose output at one point depends on the others, or on chance."""
    for name, part in module.named_modules():
        if part.training and isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            raise ConfigError(
                f"{name} is a {type(part).__name__} in training mode: a tangent kernel is that of a fixed function of one "
                f"point; call module.eval() first"
            )


def probe(module: nn.Module, x: Shaped[Tensor, "n ..."]) -> int:
    """C: how many outputs the module gives at one point."""
    with torch.no_grad():
        output = module(x[:1] if len(x) else x.new_zeros(1, *x.shape[1:]))
    if not isinstance(output, Tensor) or output.ndim not in (1, 2) or output.shape[0] != 1:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"{type(module).__name__} must map [n, ...] to [n, C] or [n]; one point of shape {tuple(x.shape[1:])} gave {got}"
        )
    return output.numel()


def _vectorised(module: nn.Module, x: Tensor, seeds: Tensor) -> dict[str, Tensor]:
    parameters = {name: p.detach() for name, p in trainable(module).items()}

    def rows(point: Tensor, seed: Tensor) -> dict[str, Tensor]:
        def output(values: dict[str, Tensor]) -> Tensor:
            return functional_call(module, values, (point[None],)).reshape(-1)

        pull = vjp(output, parameters)[1]
        return vmap(lambda s: pull(s)[0])(seed)

    per_point = seeds.shape[1] * sum(p.numel() * p.element_size() for p in parameters.values())
    chunk = max(1, _CHUNK_BYTES // max(1, per_point))
    found = vmap(rows, chunk_size=chunk)(x, seeds)
    return {name: found[name].flatten(2) for name in parameters}


def _point_by_point(module: nn.Module, x: Tensor, seeds: Tensor) -> dict[str, Tensor]:
    parameters = trainable(module)
    shape = seeds.shape[:2]
    found = {name: seeds.new_zeros(*shape, p.numel()) for name, p in parameters.items()}
    for i in range(shape[0]):
        with torch.enable_grad():
            output = module(x[i : i + 1]).reshape(-1)
        for c in range(shape[1]):
            grads: tuple[Any, ...] = torch.autograd.grad(
                output, list(parameters.values()), seeds[i, c], retain_graph=True, allow_unused=True
            )
            for name, grad in zip(parameters, grads, strict=True):
                if grad is not None:
                    found[name][i, c] = grad.flatten()
    return found


def n_bytes(module: nn.Module, n: int, channels: int) -> float:
    """Of the Jacobian of n points."""
    return float(n * channels * sum(p.numel() * p.element_size() for p in trainable(module).values()))


def describe(module: nn.Module, n: int, channels: int) -> str:
    """What the Jacobian of a module costs, in words."""
    count = sum(p.numel() for p in trainable(module).values())
    size = n_bytes(module, n, channels)
    unit = min(3, int(math.log2(max(size, 1)) // 10))
    amount = f"{size / 2 ** (10 * unit):.3g} {('bytes', 'KiB', 'MiB', 'GiB')[unit]}"
    return f"{n:,} points x {channels} outputs x {count:,} parameters, {amount}"
