"""What is minimised: functions of prediction and target, mean over points and channels."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.signals.base import Signal

HUBER_DELTA = 0.1
TRUNCATION = 0.1


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


def bce(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    r"""Cross-entropy of logits f to probabilities y: $-y \log \sigma(f) - (1 - y) \log(1 - \sigma(f))$."""
    return F.binary_cross_entropy_with_logits(prediction, target)


def mape(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    r"""Mean of $|f - y| / (|y| + 0.01)$: near a surface, where distances are small, errors count most.

    The loss of Müller et al. 2022 (section 5.2) for signed distances.
    """
    return ((prediction - target).abs() / (target.abs() + 0.01)).mean()


def truncated_l1(prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
    r"""Mean of $|c(f) - c(y)|$ with $c(v) = \min(\delta, \max(-\delta, v))$, $\delta = 0.1$ (Park et al. 2019, eq. 4).

    Only distances near the surface are learned.
    """
    return F.l1_loss(prediction.clamp(-TRUNCATION, TRUNCATION), target.clamp(-TRUNCATION, TRUNCATION))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "l1": l1,
    "huber": huber,
    "relative_l2": relative_l2,
    "bce": bce,
    "mape": mape,
    "truncated_l1": truncated_l1,
}


def of_signal(name: str | None, signal: Signal) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of that name, or the signal's own, for what a field of that signal gives.

    Where a field gives logits, losses other than bce see the probabilities.

    Raises :class:`~neuralfield.errors.ConfigError` for bce where the field gives no logits.
    """
    name = name or signal.default_loss
    loss = LOSSES[name]
    if name == "bce" and not signal.logits:
        raise ConfigError(
            f"fit.loss=bce is for occupancy (signal=shape), whose field gives logits; for {signal.name} use "
            f"fit.loss={signal.default_loss}"
        )
    if signal.logits and name != "bce":
        return lambda prediction, target: loss(prediction.sigmoid(), target)
    return loss
