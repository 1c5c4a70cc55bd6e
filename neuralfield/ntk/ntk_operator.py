"""The tangent kernel of a field as an operator: products for any number of points, without the matrix or the Jacobian."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.checks import choice, integer, number
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.ntk import generic, parts, structure, tables
from neuralfield.ntk.block_jacobian import Jacobian, block_rows, chunk_rows, jacobian_at
from neuralfield.ntk.jacobian import coordinates_of
from neuralfield.ntk.linearize import Linearized
from neuralfield.ntk.operator import KernelOperator

_GRADIENT_BYTES = 2**27  # of J^T v for the vectors that are multiplied at once


class NTKOperator(KernelOperator):
    r"""$K = J\,R\,J^\top$ at the weights that the field has now, with $J = \partial f / \partial\theta$ at n points.

    A product is one vector-Jacobian and one Jacobian-vector product, in chunks over the points: some five passes forward
    for "full", C times that for "trace". The weights are copied: training the field afterwards does not move the kernel.

    **Arguments**

    - `field`: a :class:`~neuralfield.Field`, or any module from [n, D] to [n, C] that treats each point by itself. The
      kernel of a :class:`~neuralfield.ntk.linearize.Linearized` is that of its base.
    - `x`: the n points of the rows.
    - `x2`: the m points of the columns; None takes `x`.
    - `outputs`: "full" is the kernel of all outputs, [n C, m C]: a vector is [m, C] flattened, the channel fastest.
      "trace" is the mean over outputs, [n, m].
    - `scales`: R: a factor on the part of each group of parameters, by the beginning of their names, 1 for the others;
      factors in the ratio of learning rates give the kernel of training by these. "encoding", "network.layers.0",
      "encoding.params", or "encoding.level03" for one level of a hash grid.
    - `chunk`: points that pass through the network at a time; None fits the cache.
    - `keep_bytes`: of what passes forward leave behind, kept for the next products; points beyond are passed anew.

    **Attributes**

    - `reason`: None where products follow the field's layers; else why they take automatic differentiation.

    Raises :class:`~neuralfield.errors.ConfigError` for non-finite points, for modules whose output is random or depends on
    other points (dropout, batch normalisation in training mode), and for scales that match no parameter.
    """

    def __init__(
        self,
        field: nn.Module,
        x: Float[Tensor, "n dim"],
        x2: Float[Tensor, "m dim"] | None = None,
        outputs: str = "full",
        scales: Mapping[str, float] | None = None,
        chunk: int | None = None,
        keep_bytes: float = 2**28,
    ) -> None:
        if isinstance(field, Linearized):
            field = field.base
        self.outputs = choice("outputs", outputs, ("full", "trace"))
        self.x: Tensor = coordinates_of(field, x).detach()
        self.x2: Tensor | None = None if x2 is None else coordinates_of(field, x2).detach()
        self.field = copy.deepcopy(field)
        self.reason = structure.unsupported(self.field)
        self.parameters = structure.trainable(self.field)
        self.rates = self._rates(scales)
        with torch.no_grad():
            probe = self.field(x[:1] if len(x) else x.new_zeros(1, *x.shape[1:]))
        if probe.ndim != 2:
            raise ConfigError(
                f"{type(field).__name__} must turn [n, D] into [n, C]; one point gave {tuple(probe.shape)}"
            )
        self.n_outputs, self.dtype, self.device = probe.shape[1], probe.dtype, probe.device
        per_point = self.n_outputs if outputs == "full" else 1
        self.shape = (len(x) * per_point, len(x if x2 is None else x2) * per_point)
        self.chunk = chunk_rows(self.field) if chunk is None else integer("chunk", chunk, 1)
        self.keep_bytes = number("keep_bytes", keep_bytes, 0)
        self._kept: dict[tuple[bool, int, int], Jacobian] = {}

    @property
    def symmetric(self) -> bool:
        return self.x2 is None

    @torch.no_grad()
    def matmat(self, v: Float[Tensor, "columns k"]) -> Float[Tensor, "rows k"]:
        """$K V$: the passes forward and the sweeps over a hash grid's table serve several vectors at once."""
        each = self.n_outputs if self.outputs == "trace" else 1
        size = sum(p.numel() * p.element_size() for p in self.parameters.values())
        together = max(1, min(int(_GRADIENT_BYTES // max(size * each, 1)), 32 // each))
        products = [self._product(part) for part in v.split(together, dim=1)]
        return torch.cat(products, dim=1) if products else v.new_zeros(self.shape[0], 0)

    @torch.no_grad()
    def diagonal(self) -> Float[Tensor, " n"]:
        r"""$K_{ii} = \sum_g r_g \lVert \partial f(x_i)/\partial\theta_g \rVert^2$, from C signals per point: no products.

        In blocks of a few thousand points; exact, collisions in a hash grid included.
        """
        if self.x2 is not None:
            return super().diagonal()
        found = [self._squared_norms(rows) for rows in self.x.split(self.chunk)]
        norms = torch.cat(found) if found else self.x.new_zeros(0, self.n_outputs, dtype=self.dtype)
        return norms.flatten() if self.outputs == "full" else norms.mean(1)

    def transpose(self) -> NTKOperator:
        """The operator from the rows' points to the columns'; a square one is its own transpose."""
        if self.x2 is None:
            return self
        turned = copy.copy(self)
        turned.x, turned.x2, turned.shape, turned._kept = self.x2, self.x, self.shape[::-1], {}
        return turned

    def _product(self, v: Tensor) -> Tensor:
        k, channels = v.shape[1], self.n_outputs
        columns = self.x if self.x2 is None else self.x2
        if self.outputs == "full":
            seeds = v.T.reshape(k, len(columns), channels)
        else:  # vector j in channel c alone, for every j and c
            seeds = v.T[:, None, :, None] * torch.eye(channels, dtype=v.dtype, device=v.device)[:, None]
            seeds = seeds.flatten(0, 1)
        total = {name: p.new_zeros(len(seeds), *p.shape) for name, p in self.parameters.items()}
        for rows, jacobian in self._blocks(self.x2 is not None, len(seeds)):
            jacobian.vjp(seeds[:, rows], total)
        self._scale(total)
        found = v.new_empty(len(seeds), len(self.x), channels)
        for rows, jacobian in self._blocks(False, len(seeds)):
            found[:, rows] = jacobian.jvp(total) if total else 0
        if self.outputs == "full":
            return found.reshape(k, -1).T
        return found.unflatten(0, (k, channels)).diagonal(dim1=1, dim2=3).mean(2).T

    def _blocks(self, second: bool, vectors: int) -> Iterator[tuple[slice, Jacobian]]:
        """The Jacobian block after block: of the columns' points (`second`) or of the rows'."""
        points = self.x2 if second and self.x2 is not None else self.x
        step = block_rows(self.field, self.parameters, vectors, self.chunk)
        for start in range(0, len(points), step):
            rows = slice(start, min(start + step, len(points)))
            key = (second, rows.start, rows.stop)
            jacobian = self._kept.get(key)
            if jacobian is None:
                keep = self._fits(rows.stop - rows.start)
                jacobian = jacobian_at(self.field, points[rows], self.parameters, self.chunk, keep)
                if keep:
                    self._kept[key] = jacobian
            yield rows, jacobian

    def _fits(self, n: int) -> bool:
        """Whether what the passes of n more points leave can be kept too."""
        if self.reason is not None:
            return False
        used = sum(stop - start for _, start, stop in self._kept)
        return (used + n) * numbers_kept(self.field) * self.dtype.itemsize <= self.keep_bytes

    def _rates(self, scales: Mapping[str, float] | None) -> dict[str, float]:
        """The factor of each part of the kernel; for a field those of :func:`.parts.names`."""
        if self.reason is None:
            assert isinstance(self.field, Field)
            return parts.rates(parts.names(self.field), scales)
        return parts.rates({name: name for name in self.parameters}, scales)

    def _scale(self, gradients: dict[str, Tensor]) -> None:
        r"""$R\,u$, in place."""
        for name, gradient in gradients.items():
            if name in self.rates:
                if self.rates[name] != 1:
                    gradient *= self.rates[name]
                continue
            # A hash grid's table is a part for each level.
            grid = self.field.get_submodule(name.rpartition(".")[0])
            levels = grid.layout.levels  # type: ignore[union-attr]
            sizes = [level.entries * grid.layout.n_features for level in levels]  # type: ignore[union-attr,operator]
            for index, segment in enumerate(gradient.split(sizes, dim=1)):
                rate = self.rates[f"{name.removesuffix('params')}level{index:02d}"]
                if rate != 1:
                    segment *= rate

    def _squared_norms(self, x: Tensor) -> Tensor:
        r"""$\sum_g r_g \lVert \partial f_c(x_i) / \partial\theta_g \rVert^2$, [n, C]."""
        if self.reason is None:
            assert isinstance(self.field, Field)
            return squared_norms(self.field, x, self.rates)
        channels = self.n_outputs
        seeds = torch.eye(channels, dtype=self.dtype, device=self.device).expand(len(x), channels, channels)
        rows = generic.jacobian(self.field, x, seeds)
        return sum((part.square().sum(2) * self.rates[name] for name, part in rows.items()), seeds[:, 0] * 0)

    def __repr__(self) -> str:
        path = "by layers" if self.reason is None else f"by automatic differentiation, since {self.reason}"
        return (
            f"NTKOperator(shape={self.shape}, outputs={self.outputs!r}, n_outputs={self.n_outputs}, "
            f"parameters={sum(p.numel() for p in self.parameters.values())}, dtype={self.dtype}, device={self.device}, "
            f"{path})"
        )


@torch.no_grad()
def squared_norms(field: Field, x: Float[Tensor, "n dim"], rates: Mapping[str, float]) -> Float[Tensor, "n channels"]:
    r"""$\sum_g r_g \lVert u_g(x) \rVert^2\, \lVert g_{g,c}(x) \rVert^2$ over the factors of :mod:`.parts`."""
    total: Tensor | None = None
    for factor in parts.factors(field, x, "diagonal"):
        signal = factor.signal.square()
        signal = signal if signal.ndim == 2 else signal.sum(2)
        total = torch.zeros_like(signal) if total is None else total
        if factor.weight is not None:
            left = factor.left
            assert isinstance(left, (Tensor, tables.Interpolation))
            norm = left.square().sum(1) if isinstance(left, Tensor) else merged(left)
            total += rates[factor.weight] * norm.to(signal.dtype)[:, None] * signal
        if factor.bias is not None:
            total += rates[factor.bias] * signal
    assert total is not None  # a field has at least one layer
    return total


def merged(rows: tables.Interpolation) -> Float[Tensor, " n"]:
    """The sum of squared weights of each point, where corners that share a row of the table are added first."""
    found = []
    for index, weight in zip(rows.index.split(4096), rows.weight.split(4096), strict=True):
        same = (index[:, :, None] == index[:, None, :]).to(weight.dtype)
        found.append(torch.einsum("ni,nij,nj->n", weight, same, weight))
    return torch.cat(found) if found else rows.weight.sum(1)


def numbers_kept(field: nn.Module) -> int:
    """Of one point on a tape: the features, each layer's inputs and slopes."""
    network = field.network
    return int(2 * sum(layer.in_features for layer in network.linear_layers()))  # type: ignore[union-attr,operator]
