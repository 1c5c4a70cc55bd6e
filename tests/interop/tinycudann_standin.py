"""A stand-in for `tinycudann` on the CPU: what its documentation and headers say, written without our modules.

`Encoding`, `Network` and `NetworkWithInputEncoding` with one flat float32 Parameter `params`, `n_input_dims`,
`n_output_dims`, `dtype`; two-dimensional inputs only, rows padded to 256; parameters rounded to `dtype`, float16 out;
networks without biases, with matrices padded to 16. `HALF = False` is a build without half precision. The object below an
`Encoding`, `native_tcnn_module`, has `fwd` and `bwd` with the checks of the real one.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HALF = True
ROWS = 256
_PRIMES = (1, 2654435761, 805459861, 3674653429)
_ACTIVATIONS = {
    "none": lambda z: z,
    "relu": lambda z: z * (z > 0),
    "leakyrelu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "tanh": torch.tanh,
    "sine": torch.sin,
    "sigmoid": lambda z: 1 / (1 + torch.exp(-z)),
    "exponential": torch.exp,
}


class _Grid:
    """Level by level, corner by corner; a DenseGrid is one whose tables are not capped."""

    padding = 0.0

    def __init__(self, dim: int, config: dict[str, Any]) -> None:
        dense = config["otype"] == "DenseGrid" or config.get("type") == "Dense"
        self.dim, self.features = dim, config.get("n_features_per_level", 2)
        self.interpolation = config.get("interpolation", "Linear")
        n_levels, base = config.get("n_levels", 16), config.get("base_resolution", 16)
        default = (256 / base) ** (1 / max(n_levels - 1, 1)) if dense else 2.0
        # Rounded once: numpy's own float32 functions are some units off in the last place on processors with AVX-512.
        growth = np.float32(math.log2(np.float32(config.get("per_level_scale", default))))
        self.levels = []  # scale, resolution, rows, first row
        offset = 0
        for level in range(n_levels):
            scale = np.float32(2.0 ** float(np.float32(level) * growth)) * np.float32(base) - np.float32(1)
            resolution = int(np.ceil(scale)) + 1
            rows = (resolution**dim + 7) // 8 * 8
            if not dense:
                rows = min(rows, 2 ** config.get("log2_hashmap_size", 19))
            self.levels.append((float(scale), resolution, rows, offset))
            offset += rows
        self.n_params, self.width = offset * self.features, n_levels * self.features

    def __call__(self, x: Tensor, params: Tensor) -> Tensor:
        table = params.view(-1, self.features)
        out = []
        for scale, resolution, rows, offset in self.levels:
            p = (x.double() * scale + 0.5).float()  # one rounding, as a fused multiply-add has
            cell = p.detach().floor()
            w = p - cell
            if self.interpolation == "Smoothstep":
                w = w * w * (3 - 2 * w)
            elif self.interpolation == "Nearest":
                w = torch.zeros_like(w)
            total = 0
            for corner in itertools.product((0, 1), repeat=self.dim):
                at = cell.long() + torch.tensor(corner)
                weight = torch.where(torch.tensor(corner, dtype=torch.bool), w, 1 - w).prod(dim=1)
                if resolution**self.dim > rows:
                    index = at[:, 0] * 0
                    for d in range(self.dim):
                        index = index ^ ((at[:, d] * _PRIMES[d]) & 0xFFFFFFFF)
                else:
                    index = sum(at[:, d] * resolution**d for d in range(self.dim))
                total = total + weight[:, None] * table[offset + index % rows]
            out.append(total)
        return torch.cat(out, dim=1)

    def initial(self) -> Tensor:
        return (2 * torch.rand(self.n_params) - 1) * 1e-4


class _Frequency:
    padding = 1.0
    n_params = 0

    def __init__(self, dim: int, config: dict[str, Any]) -> None:
        self.n = config.get("n_frequencies", 12)
        self.width = 2 * dim * self.n

    def __call__(self, x: Tensor, params: Tensor) -> Tensor:
        columns = []
        for d in range(x.shape[1]):
            for k in range(self.n):
                phase = math.pi * 2**k * x[:, d].double()
                columns += [phase.sin(), phase.cos()]
        return torch.stack(columns, dim=1).float()

    def initial(self) -> Tensor:
        return torch.zeros(0)


class _Identity(_Frequency):
    def __init__(self, dim: int, config: dict[str, Any]) -> None:
        self.width, self.scale, self.offset = dim, config.get("scale", 1.0), config.get("offset", 0.0)

    def __call__(self, x: Tensor, params: Tensor) -> Tensor:
        return x * self.scale + self.offset


def _encoding(dim: int, config: dict[str, Any]) -> Any:
    kinds = {"Frequency": _Frequency, "Identity": _Identity, "HashGrid": _Grid, "DenseGrid": _Grid, "Grid": _Grid}
    return kinds[config["otype"]](dim, config)


class _Network:
    def __init__(self, n_in: int, n_out: int, config: dict[str, Any]) -> None:
        width, depth = config.get("n_neurons", 128), config.get("n_hidden_layers", 5)
        widths = [math.ceil(n_in / 16) * 16, *[width] * depth, math.ceil(n_out / 16) * 16]
        self.shapes = list(itertools.pairwise(widths))
        self.n_params = sum(n * m for n, m in self.shapes)
        self.hidden = _ACTIVATIONS[config.get("activation", "ReLU").lower()]
        self.output = _ACTIVATIONS[config.get("output_activation", "None").lower()]

    def __call__(self, a: Tensor, params: Tensor) -> Tensor:
        start = 0
        for index, (n, m) in enumerate(self.shapes):
            matrix = params[start : start + m * n].view(m, n)
            start += m * n
            a = (self.output if index == len(self.shapes) - 1 else self.hidden)(a @ matrix.T)
        return a

    def initial(self) -> Tensor:
        # Padding included, as there.
        return torch.cat([(2 * torch.rand(m * n) - 1) * math.sqrt(6 / (m + n)) for n, m in self.shapes])


class _Module(nn.Module):
    def __init__(self, parts: list[Any], n_in: int, n_out: int, seed: int, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.parts, self.n_input_dims, self.n_output_dims = parts, n_in, n_out
        self.dtype = dtype or (torch.float16 if HALF else torch.float32)
        torch.manual_seed(seed)
        self.params = nn.Parameter(torch.cat([part.initial() for part in parts]))

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 2 and x.shape[1] == self.n_input_dims, "tinycudann takes [rows, n_input_dims]"
        rows = math.ceil(x.shape[0] / ROWS) * ROWS
        a = nn.functional.pad(x, (0, 0, 0, rows - x.shape[0])).float()
        # Rounded where it rounds: parameters, and what leaves each part.
        params = self.params.to(self.dtype).float()
        *network, encoding = self.parts  # the network's parameters come first
        a = encoding(a, params[params.numel() - encoding.n_params :]).to(self.dtype).float()
        if network:
            first = network[0].shapes[0][0]
            a = nn.functional.pad(a, (0, first - a.shape[1]), value=encoding.padding)
            a = network[0](a, params)
        return a[: x.shape[0], : self.n_output_dims].to(self.dtype)


class Context:
    """What a forward pass leaves for its backward pass; `valid` only if something asked for a gradient."""

    def __init__(self, valid: bool, slopes: bool, rows: int) -> None:
        self.valid, self.slopes, self.rows = valid, slopes, rows


class Native:
    """The object of the binding that evaluates: checks everything, pads nothing, converts nothing.

    `stretch` moves the positions, as another rounding of the scales would. `calls` lists what was called.
    """

    stretch = 1.0
    calls: list[str] = []  # noqa: RUF012 (of all of them together)

    def __init__(self, part: Any, dim: int, dtype: torch.dtype) -> None:
        self.part, self.dim, self.dtype = part, dim, dtype

    def n_params(self) -> int:
        return int(self.part.n_params)

    def n_input_dims(self) -> int:
        return self.dim

    def n_output_dims(self) -> int:
        return int(self.part.width)

    def _check(self, x: Tensor, params: Tensor, *more: Tensor) -> None:
        def throw(holds: bool, what: str) -> None:
            if not holds:
                raise RuntimeError(f"check failed {what}")

        for tensor in (x, params, *more):
            throw(tensor.is_contiguous(), "is_contiguous()")
        throw(x.dtype == torch.float32, "input.scalar_type()")
        throw(params.dtype == self.dtype, "params.scalar_type()")
        throw(x.shape[1] == self.dim and params.shape == (self.n_params(),), "size")
        throw(len(x) % ROWS == 0 and len(x) > 0, "n % BATCH_SIZE_GRANULARITY == 0")
        for tensor in more:
            throw(tensor.dtype == self.dtype, "output_precision()")
            throw(tensor.shape == (len(x), self.n_output_dims()), "output.size")

    def _features(self, x: Tensor, params: Tensor) -> Tensor:
        return self.part(x * self.stretch, params.float()).to(self.dtype)  # type: ignore[no-any-return]

    def fwd(self, x: Tensor, params: Tensor) -> tuple[Context, Tensor]:
        self._check(x, params)
        self.calls.append("fwd")
        with torch.no_grad():
            out = self._features(x, params)
        return Context(x.requires_grad or params.requires_grad, x.requires_grad, len(x)), out

    def bwd(
        self, context: Context, x: Tensor, params: Tensor, output: Tensor, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        if not context.valid:
            raise RuntimeError("called with invalid context. fwd likely (mistakenly) ran in inference mode.")
        self._check(x, params, output, grad)
        assert context.rows == len(x) and context.slopes >= x.requires_grad, "the real one would read foreign memory"
        self.calls.append("bwd")
        with torch.enable_grad():
            leaves = [t.detach().clone().requires_grad_(t.requires_grad) for t in (x, params)]
            out = self._features(*leaves)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(out, wanted, grad.detach(), materialize_grads=True, allow_unused=True))
        return (
            next(found) if x.requires_grad else None,
            next(found) if params.requires_grad else None,
        )


class Encoding(_Module):
    def __init__(
        self, n_input_dims: int, encoding_config: dict, seed: int = 1337, dtype: torch.dtype | None = None
    ) -> None:
        encoding = _encoding(n_input_dims, encoding_config)
        super().__init__([encoding], n_input_dims, encoding.width, seed, dtype)
        self.native_tcnn_module = Native(encoding, n_input_dims, self.dtype)


class NetworkWithInputEncoding(_Module):
    def __init__(
        self, n_input_dims: int, n_output_dims: int, encoding_config: dict, network_config: dict, seed: int = 1337
    ) -> None:
        encoding = _encoding(n_input_dims, encoding_config)
        network = _Network(encoding.width, n_output_dims, network_config)
        super().__init__([network, encoding], n_input_dims, n_output_dims, seed, None)


class Network(NetworkWithInputEncoding):
    def __init__(self, n_input_dims: int, n_output_dims: int, network_config: dict, seed: int = 1337) -> None:
        super().__init__(n_input_dims, n_output_dims, {"otype": "Identity"}, network_config, seed)
