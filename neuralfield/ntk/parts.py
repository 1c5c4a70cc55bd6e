r"""The Jacobian of a field, parameter group by parameter group, as factors of its tangent kernel.

A weight matrix, a hash grid's level and trainable frequencies have one thing in common: the derivative of an output to
them is the outer product of what they are multiplied by, u(x), and of the signal $g_c(x)$ that comes back to them. So

$$ K_{c c'}(x, x') = \sum_\text{groups} \big(u(x) \cdot u(x')\big)\,\big(g_c(x) \cdot g_{c'}(x')\big), $$

a sum of elementwise products of Gram matrices. u is a layer's inputs for a weight, 1 for a bias, the interpolation weights
for a level of a table, the coordinates for frequencies. (Novak et al. 2022, "Fast finite width neural tangent kernel",
section 3.3, call this structured derivatives.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import number
from neuralfield.encodings import Bounded, Encoding, Fourier, HashGrid
from neuralfield.errors import ConfigError, nearest
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import generic, structure, tables

OUTPUTS = ("trace", "full", "diagonal")
E = TypeVar("E", bound=Encoding)


@dataclass
class Factor:
    r"""u and g of one group of parameters at n points.

    - `left`: u: numbers per point, the sparse rows of a table's interpolation, or None for 1.
    - `signal`: g, [n, C, numbers], or [n, C] for a last layer, whose signal to output c is number c alone.
    - `weight`: name of the part that u and g make, if it is trained.
    - `bias`: name of the part that 1 and g make, if it is trained.
    """

    left: Tensor | tables.Interpolation | tables.Block | None
    signal: Tensor
    weight: str | None = None
    bias: str | None = None

    def block(self, points: slice) -> Factor:
        """The same of some points."""
        left = self.left
        if isinstance(left, tables.Interpolation):
            left = left.block(points)
        elif isinstance(left, Tensor):
            left = left[points]
        return replace(self, left=left, signal=self.signal[points])

    def add(self, columns: Factor, into: Mapping[str, Tensor], rates: Mapping[str, float], outputs: str) -> None:
        """Add the group's parts of a block of the kernel, times their rates; both factors are blocks.

        **Arguments**

        - `columns`: the factor of the block's columns; self is that of its rows.
        - `into`: for each part a block that it is added to, several parts perhaps to the same: [n, m] for "trace" (the
          sum over outputs), [C, n, m] for "diagonal", [n, C, m, C] for "full".
        """
        together = self.weight is not None and self.bias is not None and into[self.weight] is into[self.bias]
        inner: list[tuple[str, Tensor | float]] = []
        if self.weight is not None:
            product = self._gram(columns, rates[self.weight], rates[str(self.bias)] if together else 0.0)
            if product is not None:
                inner.append((self.weight, product))
        if self.bias is not None and not together:
            inner.append((self.bias, rates[self.bias]))
        if not inner:
            return
        signals = _signal_gram(self.signal, columns.signal, outputs)
        for name, gram in inner:
            block = into[name]
            if outputs == "full" and self.signal.ndim == 2:
                block = block.diagonal(dim1=1, dim2=3)
            if not isinstance(gram, Tensor):
                block.add_(signals, alpha=gram)
            elif outputs == "full":
                block.addcmul_(gram[:, :, None] if block.ndim == 3 else gram[:, None, :, None], signals)
            else:
                block.addcmul_(gram, signals)

    def _gram(self, columns: Factor, rate: float, constant: float) -> Tensor | None:
        """``rate`` u.u' + ``constant``, or None where that is zero everywhere."""
        if isinstance(self.left, tables.Block):
            assert isinstance(columns.left, tables.Block)
            gram = self.left.gram(columns.left)
            return gram if gram is None or rate == 1.0 else gram.mul_(rate)
        assert isinstance(self.left, Tensor) and isinstance(columns.left, Tensor)
        start = self.left.new_full((), constant)
        return torch.addmm(start, self.left, columns.left.T, beta=float(constant != 0), alpha=rate)


def _signal_gram(rows: Tensor, columns: Tensor, outputs: str) -> Tensor:
    """g.g' of a block, laid out as the block of the kernel; [n, m, C] for a last layer's full one."""
    if outputs == "trace":
        return rows.flatten(1) @ columns.flatten(1).T
    if rows.ndim == 2:
        per_output = rows[:, None] * columns[None]
        return per_output if outputs == "full" else per_output.permute(2, 0, 1)
    if outputs == "diagonal":
        return torch.bmm(rows.transpose(0, 1), columns.permute(1, 2, 0))
    product = rows.flatten(0, 1) @ columns.flatten(0, 1).T
    return product.view(*rows.shape[:2], *columns.shape[:2])


def names(field: Field) -> dict[str, str]:
    """The parts of a field's kernel in order, each with the parameter that it belongs to; frozen ones have none."""
    found = _encoding_names(field.encoding, "encoding.")
    for name, parameter in field.network.named_parameters(prefix="network"):
        if parameter.requires_grad:
            found[name] = name
    return found


@torch.no_grad()
def factors(field: Field, x: Float[Tensor, "n dim"], outputs: str) -> list[Factor]:
    """All groups of a field that :func:`.structure.unsupported` has nothing against, at n points."""
    network = field.network
    assert isinstance(network, MLP)
    tape = structure.forward(network, field.encoding(x).to(network.linear_layers()[0].weight.dtype))
    trained = names(field)
    signals, to_features = structure.unit_signals(network, tape, any(name.startswith("encoding.") for name in trained))
    if outputs == "trace" and network.depth and tape.output_slope is None:
        # g_c = W_c o phi' for the last hidden layer: its products summed over c are those of |W| o phi', C times smaller.
        signals[-1] = (tape.slopes[-1] * network.linear_layers()[-1].weight.norm(dim=0))[:, None]
    last = torch.ones_like(tape.output) if tape.output_slope is None else tape.output_slope
    found = []
    if to_features is not None:
        found += _encoding_factors(field.encoding, "encoding.", x, tape.features, to_features)
    for index, (inputs, signal) in enumerate(zip(tape.inputs, [*signals, last], strict=True)):
        weight, bias = (f"network.layers.{index}.{kind}" for kind in ("weight", "bias"))
        found.append(Factor(inputs, signal, weight if weight in trained else None, bias if bias in trained else None))
    return found


def numbers_per_point(field: Field) -> int:
    """About how many numbers the factors of one point are."""
    network, encoding = field.network, field.encoding
    assert isinstance(network, MLP)
    count = network.out_dim * (2 * network.width * network.depth + encoding.out_dim)
    count += sum(2 * layer.in_features for layer in network.linear_layers())
    while _is(encoding, Bounded):
        encoding = encoding.encoding
    if _is(encoding, HashGrid):
        return count + 6 * len(encoding.layout.levels) * 2**encoding.in_dim
    own = 0 if _is(encoding, Fourier) else sum(p.numel() for p in structure.trainable(encoding).values())
    return count + 2 * network.out_dim * own


def rates(parts: Mapping[str, str], scales: Mapping[str, float] | None) -> dict[str, float]:
    """The factor of each part: that of the longest key of ``scales`` that it, or its parameter, starts with; else 1.

    Raises :class:`~neuralfield.errors.ConfigError` for a key that is the beginning of no part, and for a negative factor.
    """
    found = dict.fromkeys(parts, 1.0)
    scales = {} if scales is None else scales
    for key in sorted(scales, key=len):
        matched = [
            part
            for part, parameter in parts.items()
            if f"{part}.".startswith(f"{key}.") or f"{parameter}.".startswith(f"{key}.")
        ]
        if not matched:
            raise ConfigError(
                f"scales has '{key}', which no trainable part of the kernel starts with (they are: {', '.join(parts)})"
                f"{nearest(key, parts)}"
            )
        found.update(dict.fromkeys(matched, number(f"scales['{key}']", scales[key], 0)))
    return found


def _is(encoding: Encoding, kind: type[E]) -> TypeGuard[E]:
    """Whether an encoding computes exactly what a class of ours does; a subclass may compute anything."""
    return (
        isinstance(encoding, kind)
        and type(encoding).encode is kind.encode
        and type(encoding).forward is Encoding.forward
    )


def _encoding_names(encoding: Encoding, prefix: str) -> dict[str, str]:
    trained = structure.trainable(encoding)
    if _is(encoding, Bounded):
        return _encoding_names(encoding.encoding, f"{prefix}encoding.")
    if _is(encoding, HashGrid) and list(trained) == ["params"]:
        levels = range(len(encoding.layout.levels))
        return {f"{prefix}level{level:02d}": f"{prefix}params" for level in levels}
    return {prefix + name: prefix + name for name in trained}


def _encoding_factors(
    encoding: Encoding,
    prefix: str,
    x: Float[Tensor, "n dim"],
    features: Float[Tensor, "n features"],
    to_features: Float[Tensor, "n channels features"],
) -> list[Factor]:
    r"""The groups of an encoding's own parameters, from $\partial f_c/\partial\gamma$."""
    trained = structure.trainable(encoding)
    if _is(encoding, Bounded):
        inner, low, high = encoding.encoding, encoding.low, encoding.high
        x = x.to(low.dtype)
        return _encoding_factors(inner, f"{prefix}encoding.", (x - low) / (high - low), features, to_features)
    if _is(encoding, HashGrid) and list(trained) == ["params"]:
        # Coordinates are never in half precision; the grid sees to that itself.
        found = tables.levels(encoding, x.to(torch.promote_types(encoding.params.dtype, torch.float32)))
        signals = to_features.split(encoding.layout.n_features, dim=2)
        rows = [tables.Interpolation(part.index, part.weight.to(signals[0].dtype)) for part in found]
        # Levels that are not active have a name, so that the parts stay the same as training goes on, and no factor.
        return [
            Factor(row, signal, weight=f"{prefix}level{level:02d}")
            for level, (row, signal) in enumerate(zip(rows, signals[: len(rows)], strict=True))
        ]
    if _is(encoding, Fourier) and list(trained) == ["frequencies"]:
        # d f_c / d phase_j = a_j cos(phase_j) df_c/dsin_j - a_j sin(phase_j) df_c/dcos_j, and phase = 2 pi x.b.
        cosines, sines = features[:, None].chunk(2, dim=2)
        to_cosines, to_sines = to_features.chunk(2, dim=2)
        signal = 2 * torch.pi * (cosines * to_sines - sines * to_cosines)
        return [Factor(x.to(signal.dtype), signal, weight=f"{prefix}frequencies")]
    rows_of = generic.jacobian(encoding, x, to_features)
    return [Factor(None, rows, bias=prefix + name) for name, rows in rows_of.items()]
