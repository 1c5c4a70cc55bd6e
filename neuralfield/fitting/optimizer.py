"""Adam with one group for the network and one for the encoding's own parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuralfield.encodings import HashGrid
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions


def learning_rates(field: Field, options: FitOptions) -> tuple[float, float]:
    """Rates of the network and of the encoding, the given ones or these:

    - behind a hash grid 5e-3 for the small network and 1e-2 for the table, whose rows see few gradients;
    - a sine network 5e-4: its phase is 30 times its pre-activation;
    - else 1e-3, and a tenth of that for trainable frequencies.
    """
    grid = any(isinstance(module, HashGrid) for module in field.encoding.modules())
    if grid:
        network, encoding = 5e-3, 1e-2
    elif getattr(field.network, "activation", "") == "sine":
        network, encoding = 5e-4, 5e-5
    else:
        network, encoding = 1e-3, 1e-4
    return (
        network if options.lr is None else options.lr,
        encoding if options.encoding_lr is None else options.encoding_lr,
    )


def build(field: Field, options: FitOptions) -> torch.optim.Adam:
    """Adam over both groups; ``group["base_lr"]`` keeps each group's first rate for the schedule.

    Fused: one pass over parameter, gradient and both moments, which is what a table of millions of rows costs.
    """
    lr, encoding_lr = learning_rates(field, options)
    groups: list[dict[str, Any]] = []
    for module, rate, decay in ((field.network, lr, options.weight_decay), (field.encoding, encoding_lr, 0.0)):
        parameters = [p for p in module.parameters() if p.requires_grad]
        if parameters:
            groups.append({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return torch.optim.Adam(groups, betas=(options.beta1, options.beta2), eps=options.eps, fused=True)


def state_tensors(field: Field, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's moments and step counts under the parameters' names, for a checkpoint."""
    return {
        f"{name}/{key}": value
        for name, parameter in field.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_state_tensors(field: Field, optimizer: torch.optim.Adam, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`state_tensors` gave."""
    for name, parameter in field.named_parameters():
        state = {k.rsplit("/", 1)[1]: v for k, v in tensors.items() if k.rsplit("/", 1)[0] == name}
        if state:
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in state.items()}
