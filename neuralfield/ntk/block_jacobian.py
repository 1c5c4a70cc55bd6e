r"""The Jacobian of a field to its parameters at a block of points, by its products: $J \dot\theta$ and $J^\top s$.

Through the network they follow its layers. With $a_{l-1}$ the inputs of a layer and $\phi'$ the slopes of a pass forward,

$$ \dot z_l = \dot W_l\, a_{l-1} + \dot b_l + W_l\, \dot a_{l-1}, \qquad \dot a_l = \phi'(z_l)\, \dot z_l, $$

from $\dot a_0 = \dot\gamma$, and the other way $J^\top s$ has the parts $\sum_x g_l(x)\, a_{l-1}(x)^\top$ with the signals
$g_l$ of :mod:`.structure`. The encoding's own parameters are :mod:`.module_jacobian`'s. (Pearlmutter 1994, "Fast exact
multiplication by the Hessian", section 3, calls the first the R-forward pass.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk import structure
from neuralfield.ntk.module_jacobian import ModuleJacobian, encoding_jacobian

_CHUNK_BYTES = 2**22  # of one layer's values: in the cache, and large enough for full-speed matrix products
_BLOCK_BYTES = 2**26  # of features of an encoding that learns


class Jacobian(ABC):
    """The Jacobian at a block of n points, for k vectors at once."""

    @property
    @abstractmethod
    def output(self) -> Float[Tensor, "n channels"]:
        """The field's values."""

    @abstractmethod
    def jvp(self, tangents: Mapping[str, Tensor]) -> Float[Tensor, "k n channels"]:
        r"""$J \dot\theta$ for tangents [k, *shape of the parameter]; a name that is missing has tangent zero."""

    @abstractmethod
    def vjp(self, seeds: Float[Tensor, "k n channels"], total: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        r"""$J^\top s$ by name, each [k, *shape]; added to ``total`` where that is given."""


class FieldJacobian(Jacobian):
    """By the layers, for a field that :func:`.structure.unsupported` has nothing against.

    **Arguments**

    - `field`: its values are used as they are when a product is formed.
    - `x`: the block.
    - `parameters`: by name, the tensors to differentiate to; default: the trainable ones.
    - `chunk`: points that pass through the network at a time.
    - `keep`: keep what a pass forward leaves, so that later products need none: some thousand numbers per point.
    """

    def __init__(
        self,
        field: Field,
        x: Float[Tensor, "n dim"],
        parameters: Mapping[str, Tensor] | None = None,
        chunk: int | None = None,
        keep: bool = True,
    ) -> None:
        assert isinstance(field.network, MLP)
        self.field, self.network, self.x, self.keep = field, field.network, x.detach(), keep
        self.parameters = dict(structure.trainable(field) if parameters is None else parameters)
        step = chunk_rows(field) if chunk is None else chunk
        self._chunks = [slice(start, start + step) for start in range(0, len(x), step)] or [slice(0, 0)]
        self._tapes: dict[int, structure.Tape] = {}
        self._output: Tensor | None = None
        own = {n.removeprefix("encoding."): p for n, p in self.parameters.items() if n.startswith("encoding.")}
        self._encoding = encoding_jacobian(field.encoding, self.x, own) if own else None

    @property
    def output(self) -> Float[Tensor, "n channels"]:
        """The field's values; free after a product."""
        if self._output is None:
            for index in range(len(self._chunks)):
                self._tape(index)
        assert self._output is not None
        return self._output

    @torch.no_grad()
    def jvp(self, tangents: Mapping[str, Tensor]) -> Float[Tensor, "k n channels"]:
        r"""$J \dot\theta$; see :class:`Jacobian`."""
        count = len(next(iter(tangents.values())))
        own = {n.removeprefix("encoding."): t for n, t in tangents.items() if n.startswith("encoding.")}
        moved: list[Tensor | None] = [None] * count
        if own and self._encoding is not None:
            moved = [self._encoding.jvp({name: t[j] for name, t in own.items()}) for j in range(count)]
        weights = [f"network.layers.{index}." for index in range(len(self.network.layers))]
        layers = [(tangents.get(f"{name}weight"), tangents.get(f"{name}bias")) for name in weights]
        parts = []
        for index, rows in enumerate(self._chunks):
            tape = self._tape(index)
            parts.append(
                torch.stack(
                    [
                        push(
                            self.network,
                            tape,
                            [(None if w is None else w[j], None if b is None else b[j]) for w, b in layers],
                            None if (features := moved[j]) is None else features[rows],
                        )
                        for j in range(count)
                    ]
                )
            )
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    @torch.no_grad()
    def vjp(self, seeds: Float[Tensor, "k n channels"], total: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        r"""$J^\top s$; see :class:`Jacobian`."""
        count = len(seeds)
        if total is None:
            total = {name: p.new_zeros(count, *p.shape) for name, p in self.parameters.items()}
        own = self._encoding
        to_features = None if own is None else own.output.new_empty(count, *own.output.shape)
        for index, rows in enumerate(self._chunks):
            tape = self._tape(index)
            for j in range(count):
                signals, back = structure.backward(self.network, tape, seeds[j, rows])
                if to_features is not None:
                    to_features[j, rows] = back
                for layer, (inputs, signal) in enumerate(zip(tape.inputs, signals, strict=True)):
                    if (name := f"network.layers.{layer}.weight") in total:
                        total[name][j].addmm_(signal.T, inputs)
                    if (name := f"network.layers.{layer}.bias") in total:
                        total[name][j] += signal.sum(0)
        if own is not None and to_features is not None:
            for j in range(count):
                for name, gradient in own.vjp(to_features[j]).items():
                    total[f"encoding.{name}"][j] += gradient
        return total

    def _tape(self, index: int) -> structure.Tape:
        if index in self._tapes:
            return self._tapes[index]
        rows = self._chunks[index]
        with torch.no_grad():
            features = self.field.encoding(self.x[rows]) if self._encoding is None else self._encoding.output[rows]
            tape = structure.forward(self.network, features)
            if self._output is None:
                self._output = tape.output.new_empty(len(self.x), tape.output.shape[1])
            self._output[rows] = tape.output
        if self.keep:
            self._tapes[index] = tape
        return tape


class AnyJacobian(Jacobian):
    """By automatic differentiation, for any other module; the arguments are :class:`ModuleJacobian`'s."""

    def __init__(self, module: nn.Module, x: Float[Tensor, "n dim"], parameters: Mapping[str, Tensor]) -> None:
        self._one = ModuleJacobian(module, x, parameters)

    @property
    def output(self) -> Float[Tensor, "n channels"]:
        """The module's values."""
        return self._one.output

    def jvp(self, tangents: Mapping[str, Tensor]) -> Float[Tensor, "k n channels"]:
        r"""$J \dot\theta$; see :class:`Jacobian`."""
        count = len(next(iter(tangents.values())))
        return torch.stack([self._one.jvp({name: t[j] for name, t in tangents.items()}) for j in range(count)])

    def vjp(self, seeds: Float[Tensor, "k n channels"], total: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        r"""$J^\top s$; see :class:`Jacobian`."""
        found = [self._one.vjp(seed) for seed in seeds]
        if total is None:
            return {name: torch.stack([part[name] for part in found]) for name in self._one.parameters}
        for j, part in enumerate(found):
            for name, gradient in part.items():
                total[name][j] += gradient
        return total


@torch.no_grad()
def push(
    network: MLP,
    tape: structure.Tape,
    layers: list[tuple[Tensor | None, Tensor | None]],
    features: Float[Tensor, "n features"] | None,
) -> Float[Tensor, "n channels"]:
    r"""The tangent $\dot f$ of the network's output.

    **Arguments**

    - `layers`: $\dot W_l$ and $\dot b_l$ of each layer; None is zero.
    - `features`: $\dot\gamma$, or None for zero.
    """
    moved = features
    for index, (layer, (weight, bias)) in enumerate(zip(network.linear_layers(), layers, strict=True)):
        inputs = tape.inputs[index]
        if index in network.skip and (moved is not None or features is not None):
            hidden = inputs.new_zeros(len(inputs), network.width) if moved is None else moved
            moved = torch.cat([hidden, torch.zeros_like(tape.features) if features is None else features], dim=-1)
        change: Tensor | None = None
        if weight is not None:
            change = F.linear(inputs, weight, bias)
        elif bias is not None:
            change = bias.repeat(len(inputs), 1)
        if moved is not None:
            change = F.linear(moved, layer.weight) if change is None else change.addmm_(moved, layer.weight.T)
        slope = tape.slopes[index] if index < network.depth else tape.output_slope
        moved = change if change is None or slope is None else change.mul_(slope)
    return torch.zeros_like(tape.output) if moved is None else moved


def jacobian_at(
    module: nn.Module,
    x: Float[Tensor, "n dim"],
    parameters: Mapping[str, Tensor] | None = None,
    chunk: int | None = None,
    keep: bool = True,
) -> Jacobian:
    """The cheapest Jacobian that is right for a module; see :class:`FieldJacobian` for the arguments."""
    if structure.unsupported(module) is None:
        return FieldJacobian(module, x, parameters, chunk, keep)  # type: ignore[arg-type]
    return AnyJacobian(module, x, structure.trainable(module) if parameters is None else parameters)


def chunk_rows(module: nn.Module) -> int:
    """Points that pass through a module at a time."""
    if structure.unsupported(module) is not None:
        return 1024
    network = module.network
    widest = max(layer.in_features for layer in network.linear_layers())  # type: ignore[union-attr,operator]
    itemsize = network.layers[0].weight.element_size()  # type: ignore[union-attr,index]
    return min(max(_CHUNK_BYTES // (widest * itemsize), 256), 65536)


def block_rows(module: nn.Module, parameters: Mapping[str, Tensor], vectors: int, chunk: int) -> int:
    """Points of one :func:`jacobian_at`: many for an encoding that learns, so that its table is swept rarely."""
    if structure.unsupported(module) is not None or not any(name.startswith("encoding.") for name in parameters):
        return chunk
    features = module.encoding.out_dim  # type: ignore[union-attr]
    return max(_BLOCK_BYTES // (features * 4 * (vectors + 1)) // chunk, 1) * chunk  # type: ignore[operator]
