"""What neuralfield is measured against.

The grid in plain torch as it is usually written (all levels at once, every level hashed) is below, so that there is always
something to compare with; nerfstudio's own class and tinycudann take part where they are installed.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor, nn

from neuralfield.encodings.hashgrid.layout import PRIMES
from neuralfield.field import Field


class NaiveGrid(nn.Module):
    """A multiresolution hash grid as research code writes it: [N, L, D] tensors, 2^D gathers, autograd does the rest.

    The same sizes as a :class:`~neuralfield.encodings.HashGrid`, but every level has 2^T rows and is hashed.
    """

    scales: Tensor
    offsets: Tensor
    primes: Tensor

    def __init__(self, in_dim: int, n_levels: int, n_features: int, log2_size: int, base: int, highest: float) -> None:
        super().__init__()
        self.size = 2**log2_size
        growth = math.exp(math.log(highest / base) / (n_levels - 1))
        scales = torch.tensor([math.floor(base * growth**level) for level in range(n_levels)])
        self.register_buffer("scales", scales.float(), persistent=False)
        self.register_buffer("offsets", torch.arange(n_levels) * self.size, persistent=False)
        self.register_buffer("primes", torch.tensor(PRIMES[:in_dim]), persistent=False)
        self.table = nn.Parameter(torch.empty(n_levels * self.size, n_features).uniform_(-1e-4, 1e-4))
        self.in_dim, self.out_dim = in_dim, n_levels * n_features

    def forward(self, x: Tensor) -> Tensor:
        """Features, level-major."""
        scaled = x[:, None, :] * self.scales[:, None]
        low = scaled.floor()
        weight = scaled - low
        low = low.long()
        out = x.new_zeros(*low.shape[:2], self.table.shape[1])
        for corner in itertools.product((0, 1), repeat=self.in_dim):
            bits = torch.tensor(corner, device=x.device)
            keys = (low + bits) * self.primes
            index = keys[..., 0]
            for axis in range(1, self.in_dim):
                index = torch.bitwise_xor(index, keys[..., axis])
            share = torch.where(bits.bool(), weight, 1 - weight).prod(-1, keepdim=True)
            out = out + share * self.table[index % self.size + self.offsets]
        return out.flatten(1)


def fourier_features(x: Tensor, frequencies: Tensor) -> Tensor:
    """Cosines, then sines, as the authors of Fourier features compute them (their notebook: sines first)."""
    projected = (2 * math.pi * x) @ frequencies
    return torch.cat([torch.cos(projected), torch.sin(projected)], dim=-1)


def fourier_network(field: Field) -> nn.Sequential:
    """The layers of a ReLU network with a sigmoid behind it, from linear layers of torch, with the field's weights."""
    layers: list[nn.Module] = []
    for layer in field.network.linear_layers():  # type: ignore[operator]
        layers += [copy.deepcopy(layer), nn.ReLU()]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def nerfstudio_grid(n_levels: int, n_features: int, log2_size: int, base: int, highest: float) -> nn.Module | None:
    """nerfstudio's HashEncoding in its torch implementation (3D only), or None where it is not installed."""
    try:
        from nerfstudio.field_components.encodings import HashEncoding
    except (ImportError, OSError, RuntimeError):
        return None
    module: nn.Module = HashEncoding(
        num_levels=n_levels, min_res=base, max_res=int(highest), log2_hashmap_size=log2_size,
        features_per_level=n_features, implementation="torch",
    )  # fmt: skip
    return module


def tinycudann_grid(in_dim: int, config: dict[str, object], device: torch.device) -> nn.Module | None:
    """tiny-cuda-nn's grid, or None where it is not installed or there is no GPU."""
    if device.type != "cuda":
        return None
    from neuralfield.errors import MissingDependency
    from neuralfield.interop import tinycudann

    try:
        module: nn.Module = tinycudann.load().Encoding(in_dim, config)
    except MissingDependency:
        return None
    return module
