r"""The tangent kernel of a field at its present weights, as a dense matrix.

$$ \Theta_{c c'}(x, x') = \sum_p \frac{\partial f_c(x)}{\partial \theta_p} \frac{\partial f_{c'}(x')}{\partial \theta_p} $$

over all trainable parameters (Jacot et al. 2018, section 4), which gradient descent on squared loss follows to first order.
The Jacobian is never formed: see :mod:`.parts`. A block of the kernel at a time is summed over the parameter groups and
written once; points come in tiles whose activations and signals are made, used and dropped. So the memory is that of the
result and some 200 MB, and without a second set of points half of the work is left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from neuralfield.checks import choice, number
from neuralfield.errors import ConfigError, DeviceError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import generic, memory, parts, structure
from neuralfield.ntk.conventions import coordinates, finite

METHODS = ("auto", "structured", "generic")
_INSTEAD = "ntk.NTKOperator(field, x)"
_BLOCK = 256  # rows of the matrices that are multiplied: their products stay in the cache
_TILE_BYTES = 2**26  # of what the points of a tile leave behind


def empirical_ntk(
    field: nn.Module,
    x1: Shaped[Tensor, "n ..."],
    x2: Shaped[Tensor, "m ..."] | None = None,
    outputs: str = "trace",
    *,
    scales: Mapping[str, float] | None = None,
    method: str = "auto",
) -> Tensor:
    r"""The empirical neural tangent kernel of a field.

    **Arguments**

    - `field`: a :class:`~neuralfield.field.Field`, or any module that maps [n, D] to [n, C] point by point. Its network
      as a rule an :class:`~neuralfield.networks.MLP`; its encoding any, with trainable parameters or without. Parameters
      with ``requires_grad=False`` have no part.
    - `x1`, `x2`: coordinates, [n, D] and [m, D]; None means x1, and an exactly symmetric result.
    - `outputs`: "trace": $\frac1C \sum_c \Theta_{cc}$, the mean over outputs, [n, m]; "diagonal": $\Theta_{cc}$, [n, m, C];
      "full": [n, C, m, C].
    - `scales`: learning rates of parameter groups, $K = \sum_g r_g K_g$: r by the beginning of a part's or parameter's
      name ("encoding", "network.layers.0", "network.layers.0.bias"; the longest that fits counts). Parts without one
      have r = 1. :func:`ntk_scales` gives those of the NTK parameterisation.
    - `method`: "structured" (activations and signals of the MLP), "generic" (the explicit Jacobian by ``torch.func``: C
      numbers per point and parameter), or "auto": structured where that can be, else generic with a
      :class:`~neuralfield.ntk.generic.GenericPathWarning`. An encoding that is none of the package's has the Jacobian of
      its own parameters formed, and only of those.

    **Returns**

    the kernel in the dtype and on the device of the parameters, detached. Of no loss convention: gradient flow on
    $\frac12 \sum (f - y)^2$ is $\dot f = -\Theta (f - y)$; see :func:`.conventions.rate` for others.

    Raises :class:`~neuralfield.errors.ConfigError` for coordinates that are not finite or of the wrong shape, an unknown
    option, a key of `scales` that fits no part, nothing to train, and with method="structured" for a module that it does
    not take; :class:`~neuralfield.errors.DeviceError` where tensors lie on different devices or the result has no room.
    """
    return _assemble(field, x1, x2, outputs, scales, method, apart=False)["total"]


def empirical_parts(
    field: nn.Module,
    x1: Shaped[Tensor, "n ..."],
    x2: Shaped[Tensor, "m ..."] | None = None,
    outputs: str = "trace",
    *,
    scales: Mapping[str, float] | None = None,
    method: str = "auto",
) -> dict[str, Tensor]:
    """The kernel of :func:`empirical_ntk` as a sum: which part of the field carries which part of the kernel.

    Arguments and errors are the same.

    **Returns**

    a kernel for each part, in this order: for a hash grid "encoding.level00", "encoding.level01", ...; for other encodings
    their trainable parameters, as "encoding.frequencies"; for the network "network.layers.0.weight",
    "network.layers.0.bias", ... What is inside a :class:`~neuralfield.encodings.Bounded` is "encoding.encoding. ...". With
    the generic path each parameter is one part, a hash grid's table as "encoding.params" too.
    """
    return _assemble(field, x1, x2, outputs, scales, method, apart=True)


def ntk_scales(field: nn.Module, w_std: float = 1.0, b_std: float = 0.0) -> dict[str, float]:
    r"""The `scales` under which a field's kernel is that of the NTK parameterisation.

    There a layer is $z = \frac{\sigma_w}{\sqrt{n}} W a + \sigma_b b$ with n inputs (Jacot et al. 2018, section 2; they have
    $\sigma_w = 1$, $\sigma_b = 0.1$). The field holds the products $\sigma_w W / \sqrt n$ and $\sigma_b b$; a derivative to
    W itself is $\sigma_w / \sqrt n$ times that to the product, hence $r = \sigma_w^2 / n$ for the weights of a layer and
    $\sigma_b^2$ for its biases. The encoding's own parameters keep their rate.

    **Arguments**

    - `field`: a Field whose network is an :class:`~neuralfield.networks.MLP`; draw its weights from $N(0, \sigma_w^2/n)$.
    - `w_std`, `b_std`: $\sigma_w$ and $\sigma_b$.
    """
    if not isinstance(field, Field) or not isinstance(field.network, MLP):
        raise ConfigError(
            f"ntk_scales takes a Field with an MLP, got {type(getattr(field, 'network', field)).__name__}"
        )
    weights, biases = number("w_std", w_std, 0) ** 2, number("b_std", b_std, 0) ** 2
    found = {}
    for index, layer in enumerate(field.network.linear_layers()):
        if layer.weight.requires_grad:
            found[f"network.layers.{index}.weight"] = weights / layer.in_features
        if layer.bias is not None and layer.bias.requires_grad:
            found[f"network.layers.{index}.bias"] = biases
    return found


@dataclass
class _Plan:
    """How the factors of points are made, how many points at a time, and what that takes besides the result."""

    factors: Callable[[Tensor], list[parts.Factor]]
    names: dict[str, str]
    channels: int
    tile: int
    dtype: torch.dtype
    held: float
    what: str


def _assemble(
    field: nn.Module,
    x1: Tensor,
    x2: Tensor | None,
    outputs: str,
    scales: Mapping[str, float] | None,
    method: str,
    apart: bool,
) -> dict[str, Tensor]:
    """The kernel as {"total": K}, or with ``apart`` by part."""
    choice("outputs", outputs, parts.OUTPUTS)
    choice("method", method, METHODS)
    device = _device(field, x1, x2)
    # Inference mode would forbid the derivatives of activations, autocast would round them.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        x1, x2 = _points("x1", field, x1), None if x2 is None or x2 is x1 else _points("x2", field, x2)
        if x2 is not None and x2.shape[1:] != x1.shape[1:]:
            raise ConfigError(f"x2 has points of shape {tuple(x2.shape[1:])}, x1 of {tuple(x1.shape[1:])}")
        plan = _plan(field, x1, x2, outputs, method)
        rates = parts.rates(plan.names, scales)
        n, m, c = len(x1), len(x1 if x2 is None else x2), plan.channels
        shape = {"trace": (n, m), "diagonal": (n, m, c), "full": (n, c, m, c)}[outputs]
        keys = list(rates) if apart else ["total"]
        copies = len(keys) * {"trace": 1, "diagonal": c, "full": c * c}[outputs]
        memory.require_dense(n * copies, m, plan.dtype, _INSTEAD, device)
        memory.require(plan.held, plan.what, _INSTEAD, device)
        results = {key: torch.empty(shape, dtype=plan.dtype, device=device) for key in keys}
        columns_of = x1 if x2 is None else x2
        for i in range(0, n, plan.tile):
            rows = plan.factors(x1[i : i + plan.tile])
            for j in range(i if x2 is None else 0, m, plan.tile):
                mirrored = x2 is None and i == j
                columns = rows if mirrored else plan.factors(columns_of[j : j + plan.tile])
                _tile(results, rows, columns, (i, j), (n, m), plan, rates, outputs, x2 is None)
                del columns
        return results


def _tile(
    results: dict[str, Tensor],
    rows: list[parts.Factor],
    columns: list[parts.Factor],
    start: tuple[int, int],
    size: tuple[int, int],
    plan: _Plan,
    rates: Mapping[str, float],
    outputs: str,
    symmetric: bool,
) -> None:
    """Fill the part of the result that belongs to the points of two tiles, block by block."""
    c = plan.channels
    block = max(8, {"trace": _BLOCK, "diagonal": int(_BLOCK / c**0.5), "full": _BLOCK // c}[outputs])
    stop = [min(begin + plan.tile, end) for begin, end in zip(start, size, strict=True)]
    swap = {"trace": (1, 0), "diagonal": (0, 2, 1), "full": (2, 3, 0, 1)}[outputs]
    of_rows = [slice(i, min(i + block, stop[0])) for i in range(start[0], stop[0], block)]
    of_columns = [slice(j, min(j + block, stop[1])) for j in range(start[1], stop[1], block)]
    left_blocks = [[factor.block(_shifted(here, start[0])) for factor in rows] for here in of_rows]
    for right in of_columns:
        right_factors = [factor.block(_shifted(right, start[1])) for factor in columns]
        for left, left_factors in zip(of_rows, left_blocks, strict=True):
            if symmetric and left.start > right.start:
                break
            a, b = left.stop - left.start, right.stop - right.start
            shape = {"trace": (a, b), "diagonal": (c, a, b), "full": (a, c, b, c)}[outputs]
            sums = {key: torch.zeros(shape, dtype=plan.dtype, device=result.device) for key, result in results.items()}
            into = {name: sums[name] if name in sums else sums["total"] for name in rates}
            for one, two in zip(left_factors, right_factors, strict=True):
                one.add(two, into, rates, outputs)
            for key, value in sums.items():
                if outputs == "trace":
                    value.div_(c)
                if symmetric and left == right:
                    value = (value + value.permute(swap)) / 2  # a product A A^T need not be symmetric to the last bit
                _place(results[key], value, left, right, outputs)
                if symmetric and left != right:
                    _place(results[key], value.permute(swap), right, left, outputs)


def _shifted(block: slice, start: int) -> slice:
    return slice(block.start - start, block.stop - start)


def _place(result: Tensor, value: Tensor, rows: slice, columns: slice, outputs: str) -> None:
    if outputs == "full":
        result[rows, :, columns] = value
    else:
        result[rows, columns] = value.permute(1, 2, 0) if outputs == "diagonal" else value


def _plan(field: nn.Module, x1: Tensor, x2: Tensor | None, outputs: str, method: str) -> _Plan:
    parameters = structure.trainable(field)
    if not parameters:
        raise ConfigError(f"{type(field).__name__} has no trainable parameters: its tangent kernel is zero")
    dtype = next(iter(parameters.values())).dtype
    reason = "method='generic' was asked for" if method == "generic" else structure.unsupported(field)
    if reason is None:
        assert isinstance(field, Field) and isinstance(field.network, MLP)
        dtype = field.network.linear_layers()[0].weight.dtype
        per_point = parts.numbers_per_point(field) * dtype.itemsize
        tile = max(_BLOCK, _TILE_BYTES // per_point // _BLOCK * _BLOCK)
        held = 2.0 * per_point * min(tile, len(x1))
        what = f"the Jacobian of {type(field.encoding).__name__}'s own parameters at {tile} points"
        factors = partial(parts.factors, field, outputs=outputs)
        return _Plan(factors, parts.names(field), field.out_dim, tile, dtype, held, what)
    if method == "structured":
        raise ConfigError(f"method='structured' cannot take this module: {reason}; use method='auto' or 'generic'")
    generic.independent(field)
    channels = generic.probe(field, x1)
    n = len(x1) + (0 if x2 is None else len(x2))
    what = f"the Jacobian of {type(field).__name__} ({generic.describe(field, n, channels)})"
    if method == "auto":
        warnings.warn(
            f"the tangent kernel comes from {what}, because {reason}; {_INSTEAD} never forms it",
            generic.GenericPathWarning,
            stacklevel=4,
        )

    def rows(x: Tensor) -> list[parts.Factor]:
        unit = torch.eye(channels, dtype=dtype, device=x.device).expand(len(x), -1, -1)
        found = generic.jacobian(field, x, unit)
        return [parts.Factor(None, values.to(dtype), bias=name) for name, values in found.items()]

    # One tile: a Jacobian is too dear to be made again for every pair of tiles.
    tile = max(len(x1), 0 if x2 is None else len(x2), 1)
    held = generic.n_bytes(field, n, channels)
    return _Plan(rows, {name: name for name in parameters}, channels, tile, dtype, held, what)


def _device(field: nn.Module, x1: Tensor, x2: Tensor | None) -> torch.device:
    """The one device of everything."""
    tensors = {
        **dict(field.named_parameters()),
        **dict(field.named_buffers()),
        "x1": x1,
        "x2": x1 if x2 is None else x2,
    }
    first, device = next((name, tensor.device) for name, tensor in tensors.items())
    for name, tensor in tensors.items():
        if tensor.device != device:
            raise DeviceError(f"{name} is on {tensor.device}, {first} on {device}; move one of them with .to(...)")
    return device


def _points(name: str, field: nn.Module, x: Tensor) -> Tensor:
    """Checked coordinates in the dtype of the parameters."""
    if isinstance(field, Field):
        coordinates(name, x, field.in_dim)
    elif x.is_complex() or x.ndim < 1:
        raise ConfigError(f"{name} must be real numbers of shape [n, ...]; got {tuple(x.shape)} of {x.dtype}")
    else:
        finite(name, x)
    network = field.network if isinstance(field, Field) else field
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    return x.detach().clone().to(dtype)
