r"""Adam that does not pay for rows of a table that a step did not touch.

A batch of some thousand pixels touches a few percent of a hash grid's rows; dense Adam reads and writes all of them, and
its moments, at every step. Here an element with gradient zero is left alone: neither its moments decay nor does it move on
old momentum. That is what ``torch.optim.SparseAdam`` does with the indices of a sparse gradient, and what tiny-cuda-nn does
with its encodings' parameters:

$$ m \leftarrow \beta_1 m + (1 - \beta_1) g,\quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2,\quad
   p \leftarrow p - \eta\,\frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \varepsilon} \qquad\text{where } g \ne 0, $$

with t the number of all steps (Kingma & Ba 2015, algorithm 1). One pass over the gradient, on all cores, which also clears
it: the engine gets its memory back for the next step and saves itself a fresh, zeroed one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, no_type_check

import numpy as np
import torch
from torch import Tensor

from neuralfield.encodings.hashgrid import cpu

_ELEMENTS_PER_TASK = 1 << 16


class LazyAdam(torch.optim.Optimizer):
    """Adam on CPU float32 parameters, elements with gradient zero left alone.

    **Arguments**

    - `groups`: parameter groups, each with its ``lr``.
    - `betas`, `eps`: Adam's.

    After :meth:`step` a parameter's ``grad`` is None; its memory is all zeros and goes back to the engine.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"betas": betas, "eps": eps})

    @staticmethod
    def takes(parameter: Tensor) -> bool:
        """Whether this optimiser can serve a parameter."""
        return cpu.available() is None and parameter.device.type == "cpu" and parameter.dtype == torch.float32

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        kernel = _kernel()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += 1
                t = state["step"].item()
                # eta / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps), with the constants drawn together
                root = math.sqrt(1 - beta2**t)
                rate, eps = group["lr"] * root / (1 - beta1**t), group["eps"] * root
                gradient = parameter.grad.contiguous()
                tensors = (parameter, gradient, state["exp_avg"], state["exp_avg_sq"])
                arrays = [tensor.detach().view(-1).numpy() for tensor in tensors]
                n = parameter.numel()
                tasks = [
                    functools.partial(kernel, *arrays, rate, beta1, beta2, eps, lo, min(lo + _ELEMENTS_PER_TASK, n))
                    for lo in range(0, n, _ELEMENTS_PER_TASK)
                ]
                cpu.run(tasks, torch.get_num_threads())
                parameter.grad = None
                cpu.give_zeros(arrays[1])


@functools.cache
def _kernel() -> Any:
    from neuralfield.encodings.hashgrid import cpu_kernels

    return cpu_kernels.compiled(_update)


@no_type_check
def _update(parameter, gradient, mean, square, rate, beta1, beta2, eps, lo, hi):
    """Elements `lo` to `hi` of the formula above, all arrays float32; clears the gradient."""
    one, b1, b2 = np.float32(1), np.float32(beta1), np.float32(beta2)
    eta, small = np.float32(rate), np.float32(eps)
    for i in range(lo, hi):
        g = gradient[i]
        if g != 0:
            gradient[i] = 0
            m = b1 * mean[i] + (one - b1) * g
            v = b2 * square[i] + (one - b2) * g * g
            mean[i] = m
            square[i] = v
            parameter[i] -= eta * m / (np.sqrt(v) + small)
