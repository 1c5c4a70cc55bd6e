"""The contract of every encoding, and the names that other projects know it by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralfield.checks import integer
from neuralfield.errors import ConfigError
from neuralfield.registry import Configurable, Registry

registry: Registry[Encoding] = Registry("encoding")
register = registry.register


class Encoding(Configurable, nn.Module, ABC):
    r"""A map $\gamma: [0, 1]^D \to \mathbb{R}^M$ from coordinates to features.

    A subclass calls ``super().__init__(in_dim)``, states ``out_dim`` and writes :meth:`encode` for a flat batch; any
    leading dimensions, dtypes and autocast are dealt with here. A complete encoding of one's own:

    ```python
    @encodings.register("square")
    class Square(encodings.Encoding):
        def __init__(self, in_dim: int, power: float = 2.0):
            super().__init__(in_dim)
            self.power = power

        @property
        def out_dim(self) -> int:
            return self.in_dim

        def encode(self, x):
            return x**self.power
    ```

    **Arguments**

    - `in_dim`: D, the number of coordinates.
    """

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = integer("in_dim", in_dim, 1, 64)

    @property
    @abstractmethod
    def out_dim(self) -> int:
        """M, the number of features."""

    @abstractmethod
    def encode(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        """Features of a flat batch of coordinates, differentiable twice in ``x`` and in the parameters."""

    def forward(self, x: Shaped[Tensor, "*batch in_dim"]) -> Float[Tensor, "*batch out_dim"]:
        """Features of coordinates with any leading dimensions.

        The result has the dtype of the encoding's parameters and buffers (float32 unless the module was converted), or,
        where there are none, float64 for float64 coordinates and float32 for all others. Autocast is switched off
        inside: a phase of some hundred radians in bfloat16 is noise.
        """
        if x.ndim == 0 or x.shape[-1] != self.in_dim:
            raise ConfigError(
                f"{type(self).__name__} was built for {self.in_dim} coordinates; got a tensor of shape {tuple(x.shape)}, "
                f"whose last dimension should be {self.in_dim}"
            )
        if x.is_complex():
            raise ConfigError(f"coordinates must be real numbers, got {x.dtype}")
        flat = x.reshape(-1, self.in_dim).to(self._dtype(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.encode(flat).reshape(*x.shape[:-1], self.out_dim)

    def _dtype(self, x: Tensor) -> torch.dtype:
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.float64 if x.dtype == torch.float64 else torch.float32

    # The same number under the names of other hosts: nerfstudio calls get_out_dim(), tiny-cuda-nn's users read
    # n_input_dims and n_output_dims, torch-ngp reads output_dim, nerfacc's examples latent_dim.
    def get_out_dim(self) -> int:
        """``out_dim``, as nerfstudio asks for it."""
        return self.out_dim

    @property
    def n_input_dims(self) -> int:
        """``in_dim``, as users of tiny-cuda-nn read it."""
        return self.in_dim

    @property
    def n_output_dims(self) -> int:
        """``out_dim``, as users of tiny-cuda-nn read it."""
        return self.out_dim

    @property
    def output_dim(self) -> int:
        """``out_dim``, as torch-ngp reads it."""
        return self.out_dim

    @property
    def latent_dim(self) -> int:
        """``out_dim``, as nerfacc's examples read it."""
        return self.out_dim

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.config.items()) + f", out_dim={self.out_dim}"


def build(name: str, **options: Any) -> Encoding:
    """The encoding registered as ``name``: ``build("fourier", in_dim=2, sigma=10)``.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name, an unknown option or a bad value.
    """
    return registry.build(name, **options)
