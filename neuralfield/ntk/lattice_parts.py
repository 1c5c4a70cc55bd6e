r"""The parts of a stationary kernel on a regular grid: one Toeplitz operator for each tensor of weights and biases.

A sinusoidal encoding has $\gamma\cdot\gamma' = \sum_j a_j^2 \cos 2\pi b_j\cdot(x - x')$. On a grid the phase of an offset is
a sum over axes, so the table of all offsets is a product of matrices, and every part is a function of that number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from neuralfield.ntk.kernel_parts import parts_at_distance
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.toeplitz import ToeplitzOperator

_FIRST = "network.layers.0"


def lattice_parts(
    kernel: MLPKernel,
    shape: Sequence[int],
    steps: Float[Tensor, "axes in_dim"],
    shift: Float[Tensor, " in_dim"] | None = None,
    bands: int = 1,
) -> tuple[dict[str, ToeplitzOperator], dict[str, float]]:
    """The parts of :func:`~neuralfield.ntk.kernel_parts.kernel_parts` between the points of a grid, in float32.

    **Arguments**

    - `kernel`: a stationary one.
    - `shape`: how many points along each of at most three axes; `steps`: what one step along each adds to the coordinates.
    - `shift`: None: between the points x_0 + i_1 steps[0] + ... themselves. Else the rows are as many points, all shifted by
      so much.
    - `bands`: the first layer's weights are split into so many of them, by the magnitude of their features' frequency:
      ``network.layers.0.weight.band0``, ...

    **Returns**

    the operators by part, and what part of its tensor's numbers each one has (1 but for bands).
    """
    frequencies, power = kernel.lines()
    share = power / power.sum()
    groups = frequencies.norm(dim=1).argsort(stable=True).chunk(bands)
    waves = [_waves(frequencies[group], share[group], shape, steps, shift) for group in groups]
    similarity = torch.stack(waves).sum(dim=0)
    u = (1 - similarity).clamp_min(0)
    if shift is None:
        u.view(-1)[u.numel() // 2] = 0.0  # a point and itself, exactly
    parts = parts_at_distance(kernel, frequencies.shape[1], u)
    shares = dict.fromkeys(parts, 1.0)
    weight, bias = f"{_FIRST}.weight", f"{_FIRST}.bias"
    if bands > 1 and bias in parts:
        # The first layer's kernel is that of the features, times what the layers behind it do: the kernel of its biases.
        del parts[weight], shares[weight]
        for band, (wave, group) in enumerate(zip(waves, groups, strict=True)):
            name = f"{weight}.band{band}"
            parts[name], shares[name] = power.sum() * wave * parts[bias], len(group) / len(power)
    columns = None if shift is None else tuple(shape)
    return {name: ToeplitzOperator(part.float(), columns) for name, part in parts.items()}, shares


def _waves(
    frequencies: Float[Tensor, "lines dim"],
    share: Float[Tensor, " lines"],
    shape: Sequence[int],
    steps: Float[Tensor, "axes dim"],
    shift: Float[Tensor, " dim"] | None,
) -> Float[Tensor, "*offsets"]:
    r"""$\sum_j p_j \cos 2\pi b_j\cdot\Delta$ at all offsets of the grid, float64."""
    turns = frequencies @ steps.to(frequencies).T
    start = share.to(torch.complex128)
    if shift is not None:
        start = start * _turned(frequencies @ shift.to(frequencies))
    axes = [
        _turned(turns[:, axis, None] * torch.arange(1 - n, n, dtype=torch.float64, device=turns.device))
        for axis, n in enumerate(shape)
    ]
    table = start[:, None] * axes[0]  # [lines, offsets of the first axes]
    for axis in axes[1:-1]:
        table = (table[:, :, None] * axis[:, None]).flatten(1)
    found = (table.T @ axes[-1]).real if len(axes) > 1 else table.sum(dim=0).real
    return found.reshape([2 * n - 1 for n in shape])


def _turned(turns: Float[Tensor, ...]) -> Complex[Tensor, ...]:
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
