"""What is minimised: functions of prediction and target, mean over points and channels."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

HUBER_DELTA = 0.1


def mse(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Mean of $(f - y)^2$; maximises PSNR."""
    return F.mse_loss(prediction, target)


def l1(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    """Mean of $|f - y|$."""
    return F.l1_loss(prediction, target)


def huber(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    r"""Quadratic below $\delta = 0.1$, linear above: $\tfrac12 r^2$ or $\delta(|r| - \delta/2)$."""
    return F.huber_loss(prediction, target, delta=HUBER_DELTA)


def relative_l2(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    r"""Mean of $(f - y)^2 / (\mathrm{sg}(f)^2 + 0.01)$, for high dynamic range (tiny-cuda-nn's RelativeL2).

    The denominator is held constant (stop-gradient), else the fit would shrink its error by growing.
    """
    return ((prediction - target) ** 2 / (prediction.detach() ** 2 + 0.01)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "huber": huber,
    "relative_l2": relative_l2,
}
