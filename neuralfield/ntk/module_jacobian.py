r"""Products with the Jacobian of one module, by automatic differentiation: an encoding's, or that of any other.

The features of a hash grid are linear in its table, $\gamma(x) = W(x)\,T$, with $W$ the interpolation weights of
:mod:`neuralfield.encodings.hashgrid.reference`. So the tangent $W(x)\,\dot T$ is the encoding itself, evaluated with
$\dot T$ in the table's place: the fast engines serve as they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.encodings import Bounded, HashGrid
from neuralfield.errors import ConfigError

_no_forward_mode: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


class ModuleJacobian:
    r"""The Jacobian of any module at a block of points, by automatic differentiation.

    Products from the left are reverse mode. Products from the right are forward mode (``torch.func.jvp``), or, where an
    operation of the module has none, reverse mode twice: $J^\top u$ is linear in u, and its derivative to u in the
    direction $\dot\theta$ is $J \dot\theta$. :func:`no_forward_mode` says whether and why.

    **Arguments**

    - `module`: from [n, in] to [n, out]; each row of the output a function of the same row of the input.
    - `x`: the block, [n, in].
    - `parameters`: by name, the tensors of the module to differentiate to; they may be its buffers.

    **Attributes**

    - `output`: the module's values.
    """

    def __init__(self, module: nn.Module, x: Float[Tensor, "n inputs"], parameters: Mapping[str, Tensor]) -> None:
        self.module, self.x = module, x.detach()
        self.parameters = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        with torch.enable_grad():
            self._graph = self._call(self.parameters)
        if not isinstance(self._graph, Tensor) or self._graph.ndim != 2 or len(self._graph) != len(x):
            got = tuple(self._graph.shape) if isinstance(self._graph, Tensor) else type(self._graph).__name__
            raise ConfigError(
                f"{type(module).__name__} must turn [n, D] into [n, C]; it turned {tuple(x.shape)} into {got}"
            )
        self.output = self._graph.detach()

    def vjp(self, seed: Float[Tensor, "n outputs"]) -> dict[str, Tensor]:
        r"""$J^\top s$, summed over the points, by name."""
        if not self._graph.requires_grad:
            return {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        leaves = list(self.parameters.values())
        gradients = torch.autograd.grad(self._graph, leaves, seed, retain_graph=True, materialize_grads=True)
        return dict(zip(self.parameters, gradients, strict=True))

    def jvp(self, tangents: Mapping[str, Tensor]) -> Float[Tensor, "n outputs"]:
        r"""$J \dot\theta$; a name that is missing has tangent zero."""
        if not tangents:
            return torch.zeros_like(self.output)
        leaves = {name: self.parameters[name] for name in tangents}
        if self.module not in _no_forward_mode:
            values = {name: leaf.detach() for name, leaf in leaves.items()}
            try:
                with warnings.catch_warnings():
                    # torch compiles its own rules for forward mode when it first needs them, by a call that it deprecates.
                    warnings.filterwarnings("ignore", message=r".*torch\.jit", category=DeprecationWarning)
                    return torch.func.jvp(self._call, (values,), (dict(tangents),))[1]
            except (RuntimeError, NotImplementedError) as error:  # torch has no type of its own for this
                _no_forward_mode[self.module] = str(error).strip().splitlines()[0]
        return tangent_by_reverse(self._graph, leaves, tangents).detach()

    def _call(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return torch.func.functional_call(self.module, dict(parameters), (self.x,))


class TableJacobian(ModuleJacobian):
    """The same for a hash grid, also inside :class:`~neuralfield.encodings.Bounded`; see the top of this file."""

    def jvp(self, tangents: Mapping[str, Tensor]) -> Float[Tensor, "n outputs"]:
        if not tangents:
            return torch.zeros_like(self.output)
        grid = innermost(self.module)
        assert isinstance(grid, HashGrid)
        rounding, grid.table_dtype = grid.table_dtype, None  # that of the table's copy is no rounding of a tangent
        try:
            with torch.no_grad():
                return self._call(tangents)
        finally:
            grid.table_dtype = rounding


def innermost(encoding: nn.Module) -> nn.Module:
    """What is inside :class:`~neuralfield.encodings.Bounded`."""
    while type(encoding) is Bounded:
        encoding = encoding.encoding
    return encoding


def encoding_jacobian(
    encoding: nn.Module, x: Float[Tensor, "n inputs"], parameters: Mapping[str, Tensor]
) -> ModuleJacobian:
    """The cheapest of the above that is right for an encoding."""
    kind = TableJacobian if type(innermost(encoding)) is HashGrid else ModuleJacobian
    return kind(encoding, x, parameters)


def no_forward_mode(module: nn.Module) -> str | None:
    """Why products with a module's Jacobian take reverse mode twice, in torch's words; None if they do not, or not yet."""
    return _no_forward_mode.get(module)


def tangent_by_reverse(output: Tensor, leaves: Mapping[str, Tensor], tangents: Mapping[str, Tensor]) -> Tensor:
    r"""$J \dot\theta$ by differentiating $u \mapsto J^\top u$; itself differentiable, in the tangents and in the leaves.

    **Arguments**

    - `output`: with its graph.
    - `leaves`, `tangents`: by name, of equal shapes; the output was computed from the leaves.
    """
    if not output.requires_grad or not leaves:
        return torch.zeros_like(output)
    with torch.enable_grad():
        seed = torch.zeros_like(output, requires_grad=True)
        pulled = torch.autograd.grad(output, list(leaves.values()), seed, create_graph=True, materialize_grads=True)
        # The gradient of a parameter that plays no part does not depend on the seed.
        moving = [(g, tangents[name]) for name, g in zip(leaves, pulled, strict=True) if g.requires_grad]
        if not moving:
            return torch.zeros_like(output)
        gradients, directions = zip(*moving, strict=True)
        (tangent,) = torch.autograd.grad(gradients, seed, directions, create_graph=True, materialize_grads=True)
    return tangent
