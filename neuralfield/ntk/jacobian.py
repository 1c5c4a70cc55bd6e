r"""Products with the Jacobian of a field to its parameters: $J \dot\theta$ and $J^\top s$, never $J$ itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.errors import ConfigError, nearest
from neuralfield.field import Field
from neuralfield.ntk import generic, structure
from neuralfield.ntk.block_jacobian import block_rows, chunk_rows, jacobian_at
from neuralfield.ntk.conventions import coordinates, finite


def jvp(
    field: nn.Module, x: Float[Tensor, "n dim"], tangents: Mapping[str, Tensor] | Tensor, chunk: int | None = None
) -> Float[Tensor, "*k n channels"]:
    r"""$J(x)\,\dot\theta$: how the values at x change when the trainable parameters move along a tangent.

    **Arguments**

    - `field`: a :class:`~neuralfield.Field`, or any module from [n, D] to [n, C] that treats each point by itself.
    - `x`: n points.
    - `tangents`: by the parameters' names, in the parameters' shapes or [k, *shape] for k tangents at once; a trainable
      parameter that is missing stands still. Or one vector [P] (or [k, P]) of all trainable parameters in their order; see
      :func:`flatten`.
    - `chunk`: points that pass through the network at a time; the default fits the cache.

    **Returns**

    [n, C], or [k, n, C].

    Raises :class:`~neuralfield.errors.ConfigError` for unknown names, wrong shapes and non-finite numbers.
    """
    coordinates_of(field, x)
    parameters = structure.trainable(field)
    moved, single = _tangents(tangents, parameters)
    count = len(next(iter(moved.values()))) if moved else 1
    chunk = chunk_rows(field) if chunk is None else chunk
    if not moved:
        return torch.zeros_like(jacobian_at(field, x, {}, chunk, keep=False).output)
    blocks = x.split(block_rows(field, parameters, count, chunk)) if len(x) else [x]
    found = torch.cat([jacobian_at(field, part, None, chunk, keep=False).jvp(moved) for part in blocks], dim=1)
    return found[0] if single else found


def vjp(
    field: nn.Module, x: Float[Tensor, "n dim"], seed: Float[Tensor, "*k n channels"], chunk: int | None = None
) -> dict[str, Tensor]:
    r"""$J(x)^\top s$: the gradient of $\sum_{ic} s_{ic} f_c(x_i)$ to the trainable parameters.

    **Arguments**

    - `field`, `x`, `chunk`: as for :func:`jvp`.
    - `seed`: s, [n, C], or [k, n, C] for k at once.

    **Returns**

    by the parameters' names, tensors of their shapes, or [k, *shape].
    """
    coordinates_of(field, x)
    parameters = structure.trainable(field)
    seeds = finite("seed", seed if seed.ndim == 3 else seed[None])
    total = {name: p.new_zeros(len(seeds), *p.shape) for name, p in parameters.items()}
    chunk = chunk_rows(field) if chunk is None else chunk
    step = max(block_rows(field, parameters, len(seeds), chunk), 1)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        jacobian_at(field, x[rows], None, chunk, keep=False).vjp(seeds[:, rows], total)
    return total if seed.ndim == 3 else {name: t[0] for name, t in total.items()}


def flatten(values: Mapping[str, Tensor]) -> Float[Tensor, " parameters"]:
    """All numbers in one vector, in the order of the mapping: ``flatten(trainable(field))`` is the field's theta."""
    return torch.cat([value.detach().reshape(-1) for value in values.values()])


def unflatten(vector: Float[Tensor, "*k parameters"], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`flatten`, in the names and shapes of ``like``; leading dimensions are kept."""
    sizes = [value.numel() for value in like.values()]
    if vector.shape[-1] != sum(sizes):
        raise ConfigError(f"a flat vector of these parameters has {sum(sizes)} numbers, got {vector.shape[-1]}")
    parts = vector.split(sizes, dim=-1)
    return {
        name: part.reshape(*vector.shape[:-1], *value.shape)
        for (name, value), part in zip(like.items(), parts, strict=True)
    }


def coordinates_of(module: nn.Module, x: Tensor) -> Tensor:
    """``x`` if a module can be differentiated there: finite, of the right shape, and the module a function of one point."""
    generic.independent(module)
    if isinstance(module, Field):
        return coordinates("x", x, module.in_dim)
    return finite("x", x)


def _tangents(
    tangents: Mapping[str, Tensor] | Tensor, parameters: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], bool]:
    """By name with a leading dimension k, and whether that was added here."""
    if isinstance(tangents, Tensor):
        tangents = unflatten(tangents, parameters)
    found, counts = {}, set()
    for name, tangent in tangents.items():
        if name not in parameters:
            raise ConfigError(
                f"there is no trainable parameter '{name}' (there are {', '.join(parameters)}){nearest(name, parameters)}"
            )
        shape = parameters[name].shape
        if tangent.shape != shape and tangent.shape[1:] != shape:
            raise ConfigError(
                f"the tangent of '{name}' must have shape {tuple(shape)}, or one dimension more in front; got "
                f"{tuple(tangent.shape)}"
            )
        single = tangent.ndim == len(shape)
        found[name] = finite(f"the tangent of '{name}'", tangent[None] if single else tangent).to(parameters[name])
        counts.add((1 if single else len(tangent), single))
    if len(counts) > 1:
        sizes = ", ".join(sorted("one" if single else str(k) for k, single in counts))
        raise ConfigError(f"the tangents of different parameters are of different number: {sizes}")
    return found, all(single for _, single in counts)
