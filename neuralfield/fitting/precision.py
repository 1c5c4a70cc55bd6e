"""Whether the network's products are done in float32 or in bfloat16, which some machines multiply many times as fast."""

from __future__ import annotations

import torch

from neuralfield.encodings import Bounded, Encoding, Fourier
from neuralfield.field import Field
from neuralfield.networks import MLP

_WIDE = 128
"""Neurons from which on products take most of a step; behind a hash grid's 64 they do not, and its last decibels count."""

_SMOOTH = ("relu", "leaky_relu", "gelu", "silu", "elu", "softplus", "tanh")
"""Activations of slope about 1 at most. The others multiply the rounding of their argument: sine by 30."""


def resolve(precision: str | None, field: Field) -> str:
    """What "auto" stands for: bfloat16 where hardware multiplies it fast and rounding does no harm, else float32.

    Harmless behind Fourier features, where the position is spread over many waves, in a wide MLP whose activations are no
    steeper than a ReLU. The 8 bits of bfloat16 do not tell 512 coordinates apart, so raw coordinates are left alone.
    Fits that end at 44 dB lose nothing, fits that end above 60 dB some decibels.
    """
    if precision in ("float32", "bfloat16"):
        return precision
    network = field.network
    suitable = (
        isinstance(network, MLP)
        and network.depth > 0
        and network.width >= _WIDE
        and network.activation in _SMOOTH
        and _fourier(field.encoding)
    )
    return "bfloat16" if suitable and fast_bfloat16(field.device) else "float32"


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: AMX tiles or the dot products of AVX-512 (twice as fast on an
    AMD EPYC of the fourth generation), or tensor cores of compute capability 8 on."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    # Private names, which older versions of torch lack.
    asked = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(bool(supported()) for supported in asked if supported is not None)


def _fourier(encoding: Encoding) -> bool:
    if isinstance(encoding, Bounded):
        return _fourier(encoding.encoding)
    return isinstance(encoding, Fourier)
