r"""Networks and plain full-batch training as the papers on the tangent kernel use them.

The field's networks hold the effective weights ("standard" parameterisation). A network in the NTK parameterisation,
$z = \frac{\sigma_w}{\sqrt n} W a + \sigma_b b$ with $W, b \sim \mathcal N(0, 1)$, trained with step $\eta$ is the same
function at every step as one that holds $\frac{\sigma_w}{\sqrt n} W$ and $\sigma_b b$ and takes steps
$\eta \sigma_w^2 / n$ and $\eta \sigma_b^2$ with them. So one network serves both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.encodings import Encoding, Identity
from neuralfield.errors import DivergedError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk.conventions import rate
from neuralfield.reproduce.progress import track


@torch.no_grad()
def wide_field(
    encoding: Encoding | int,
    out_dim: int,
    width: int,
    depth: int,
    w_std: float = math.sqrt(2),
    b_std: float | None = 0.1,
    activation: str = "relu",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Field:
    """A field whose weights have variance w_std^2 / fan_in and whose biases have variance b_std^2.

    **Arguments**

    - `encoding`: a module, or a number of coordinates that are taken as they are.
    - `width`, `depth`: of the hidden layers.
    - `b_std`: None for no biases.
    - `seed`: of the weights alone.
    """
    encoding = Identity(encoding) if isinstance(encoding, int) else encoding
    network = MLP(encoding.out_dim, out_dim, width, depth, activation, bias=b_std is not None, output_scale=1.0)
    generator = torch.Generator().manual_seed(seed)
    for layer in network.linear_layers():
        layer.weight.normal_(0, w_std / math.sqrt(layer.in_features), generator=generator)
        if layer.bias is not None:
            layer.bias.normal_(0, 1, generator=generator).mul_(b_std or 0.0)
    return Field(encoding, network).to(dtype)


def parameter_groups(
    field: Field, lr: float, parameterization: str, w_std: float, b_std: float | None
) -> list[dict[str, Any]]:
    """Groups for ``torch.optim.SGD`` that move the field as gradient descent in ``parameterization`` does."""
    groups = []
    for layer in field.network.linear_layers():  # type: ignore[operator]
        weight = lr * w_std**2 / layer.in_features if parameterization == "ntk" else lr
        groups.append({"params": [layer.weight], "lr": weight})
        if layer.bias is not None:
            groups.append({"params": [layer.bias], "lr": lr * (b_std or 0.0) ** 2 if parameterization == "ntk" else lr})
    return groups


def train(
    model: nn.Module,
    x: Float[Tensor, "n in_dim"],
    y: Float[Tensor, "n out_dim"],
    optimizer: torch.optim.Optimizer,
    steps: int,
    loss: str = "sum",
    at: Iterable[int] = (),
    observe: Callable[[int], None] | None = None,
    until: float = -1.0,
    what: str | None = None,
) -> list[float]:
    """Full-batch training with a squared loss of :data:`~neuralfield.ntk.conventions.LOSSES`.

    **Arguments**

    - `at`: steps after which ``observe(step)`` is called, 0 for the state before the first.
    - `until`: a loss at which to stop early.
    - `what`: what the steps are called where progress is told; None tells none.

    **Returns**

    the loss before each step, and after the last: steps + 1 numbers, fewer where training stopped early.

    Raises :class:`~neuralfield.errors.DivergedError` when the loss leaves the finite numbers.
    """
    factor, wanted, losses = 0.5 * rate(loss, len(y), y.shape[1]), set(at), []
    for step in range(steps + 1) if what is None else track(range(steps + 1), what):
        if observe is not None and step in wanted:
            observe(step)
        optimizer.zero_grad(set_to_none=True)
        value = factor * (model(x) - y).square().sum()
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise DivergedError(f"the loss is {losses[-1]} at step {step}; take a smaller learning rate")
        if losses[-1] <= until:
            break
        if step < steps:
            value.backward()
            optimizer.step()
    return losses


def circle(n: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "n 2"]:
    """n points (cos, sin) of the unit circle at equal distances, the first at (1, 0)."""
    angle = 2 * math.pi / n * torch.arange(n, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], dim=1).to(dtype)


def log_steps(last: int, count: int = 60) -> list[int]:
    """About ``count`` whole numbers from 0 to ``last``, ascending, spaced evenly on a logarithmic scale beyond the first."""
    spread = (round(last ** (i / max(count - 2, 1))) for i in range(count - 1))
    return sorted({0, *spread, last})


def slope(x: Iterable[float], y: Iterable[float]) -> float:
    """Of the straight line through log y against log x, by least squares: the exponent p of y ~ x^p."""
    u = torch.tensor([math.log(value) for value in x], dtype=torch.float64)
    v = torch.tensor([math.log(value) for value in y], dtype=torch.float64)
    u, v = u - u.mean(), v - v.mean()
    return float((u * v).sum() / (u * u).sum())
