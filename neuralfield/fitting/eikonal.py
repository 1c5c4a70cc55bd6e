"""The eikonal term: what makes a field a distance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.signals.base import Signal

_SHARE = (
    8  # of a batch: as many of its points, and as many anywhere in the cube; second derivatives cost most of a step
)


def gradient(
    field: Callable[[Tensor], Tensor], x: Float[Tensor, "n dim"], create_graph: bool = False
) -> Float[Tensor, "n dim"]:
    r"""$\nabla_x f$ of a field of one channel; with `create_graph` it can be differentiated again."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        (found,) = torch.autograd.grad(field(x).sum(), x, create_graph=create_graph)
    return found


def eikonal(field: Callable[[Tensor], Tensor], x: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    r"""Mean of $(\lVert \nabla_x f \rVert - 1)^2$, zero for a distance (Gropp et al. 2020, eq. 2).

    It trains through the second derivative $\partial^2 f / \partial w \partial x$. With linear interpolation a hash grid's
    gradient jumps at cell faces; ``encoding.interpolation=smoothstep`` makes it continuous.
    """
    # The small number keeps the norm differentiable where the gradient vanishes.
    norm = (gradient(field, x, create_graph=True).square().sum(dim=1) + 1e-12).sqrt()
    return (norm - 1).square().mean()


class EikonalPoints:
    """Where the term is asked for in a step: at some points of the batch, and at as many anywhere in the cube.

    A pure function of (seed, step).
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def at(self, step: int, batch: Float[Tensor, "n dim"]) -> Float[Tensor, "m dim"]:
        """The points of one step."""
        own = batch[:: min(_SHARE, len(batch))]
        anywhere = np.random.default_rng((self.seed, step, 1)).random(tuple(own.shape), np.float32)
        return torch.cat([own, torch.from_numpy(anywhere).to(batch.device)])


def check(weight: float, signal: Signal) -> None:
    """Raise :class:`~neuralfield.errors.ConfigError` where the term has no meaning."""
    if weight and (signal.out_dim != 1 or signal.logits or signal.quality.key != "iou"):
        raise ConfigError(
            f"fit.eikonal={weight:g} asks for a gradient of length 1, which only a signed distance has; use "
            f"signal=shape signal.kind=sdf, or fit.eikonal=0"
        )
