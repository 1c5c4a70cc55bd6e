"""The grid through tiny-cuda-nn's torch binding, where that is installed: its kernels on our parameters, on CUDA.

Parameters lie exactly as it expects them, so nothing is copied but batches whose length is no multiple of 256, which it
needs padded. A float32 instance is used whatever its preferred precision: its half-precision grids also sum in float16. A
half-precision `table_dtype` is served by a float32 copy of the rounded table.

What it cannot do, and :func:`supports` says: the CPU; float64; other than 2 to 4 dimensions; other than 1, 2, 4 or 8
features per level, or more than 128 in all (its transposing kernels have 8 threads for each); sizes beyond its 32-bit
indices; a gradient that is the same in each run (it sums by atomic additions).

Its scales are computed on the GPU with the fast exponential of `--use_fast_math`, whose relative error reaches some 2^-22: on
a level of N vertices per axis a position can be off by N / 4,000,000 of a cell. Features then agree with the other engines
to 1e-5 on coarse levels, but not always on fine ones. Each new kind of grid is compared with the reference on 256 points
first, and refused where it differs by more than that.

Its record of a forward pass, which a backward pass needs, is not kept, as it holds D numbers for each feature and point: the
backward pass does the forward pass again.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings.hashgrid import reference
from neuralfield.encodings.hashgrid.layout import GridLayout, make_layout
from neuralfield.errors import ConfigError, MissingDependency

DEVICE = "cuda"

ROWS = 256
"""Batches are padded to a multiple of this."""

_FEATURES = (1, 2, 4, 8)
_MAX_WIDTH = 128
_INDICES = 2**32


@functools.cache
def available() -> str | None:
    """`None` when the engine can run here, given a CUDA device, else why not and what to do about it.

    This imports `tinycudann`, which nothing else in the package does by itself.
    """
    from neuralfield.interop import tinycudann

    try:
        tinycudann.load()
    except MissingDependency as error:
        return str(error)
    return None


def supports(x: Tensor, params: Tensor, layout: GridLayout, interpolation: str) -> str | None:
    """`None` when the engine takes this input, else why not."""
    for name, tensor in (("coordinates", x), ("parameters", params)):
        if tensor.device.type != DEVICE or tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            return f"tiny-cuda-nn takes float32 on CUDA, and the {name} are {kind} on {tensor.device.type}"
    dim, features, width = layout.in_dim, layout.n_features, layout.out_dim
    if not 2 <= dim <= 4 or features not in _FEATURES:
        return (
            f"tiny-cuda-nn's grids have 2 to 4 dimensions and 1, 2, 4 or 8 features per level, "
            f"and this one has {dim} and {features}"
        )
    if width > _MAX_WIDTH:
        return f"tiny-cuda-nn's grids have at most {_MAX_WIDTH} features in all, and this one has {width}"
    if max(layout.n_parameters, _padded_length(len(x)) * width) >= _INDICES:
        return (
            f"tiny-cuda-nn's indices have 32 bits, too few for {layout.n_parameters:,} parameters "
            f"or for {width} features of {len(x):,} points"
        )
    if torch.are_deterministic_algorithms_enabled():
        return "tiny-cuda-nn adds gradients up in any order, and torch.use_deterministic_algorithms(True) is on"
    return _native(layout, interpolation, x.device)[1]


def forward(
    x: Float[Tensor, "n dim"], params: Float[Tensor, " parameters"], layout: GridLayout, interpolation: str
) -> Float[Tensor, "n out_dim"]:
    """Features of all levels; see :func:`.reference.forward`."""
    if not len(x):
        return x.new_zeros(0, layout.out_dim)
    module, _ = _native(layout, interpolation, x.device)
    _, out = module.fwd(_padded(x), _aligned(params, layout))
    return out[: len(x)]  # type: ignore[no-any-return]


def backward(
    grad: Float[Tensor, "n out_dim"],
    x: Float[Tensor, "n dim"],
    params: Float[Tensor, " parameters"],
    layout: GridLayout,
    interpolation: str,
    needs_x: bool,
    needs_params: bool,
) -> tuple[Float[Tensor, "n dim"] | None, Float[Tensor, " parameters"] | None]:
    """Gradients to x and to the flat parameters, each only where it is needed; see :func:`.reference.backward`."""
    if not len(x) or not (needs_x or needs_params):
        return (x.new_zeros(x.shape) if needs_x else None, params.new_zeros(params.shape) if needs_params else None)
    module, _ = _native(layout, interpolation, x.device)
    # Its flags are how the binding is told which gradients are wanted, in both passes.
    rows = _padded(x).requires_grad_(needs_x)
    table = _aligned(params, layout).requires_grad_(needs_params)
    context, out = module.fwd(rows, table)
    grad_x, grad_params = module.bwd(context, rows, table, out, _padded(grad))
    return grad_x[: len(x)] if needs_x else None, grad_params if needs_params else None


def config(layout: GridLayout, interpolation: str) -> dict[str, Any]:
    """tiny-cuda-nn's configuration of a grid with these levels.

    A layout keeps no growth factor. Where its levels are the coarse ones of a longer pyramid it may not have its table
    size either; then the smallest that hashes none of them serves, because their rows are the same.

    Raises :class:`~neuralfield.errors.ConfigError` for levels that no growth factor gives.
    """
    levels = layout.levels
    log2_table = max(3, (max(level.entries for level in levels) - 1).bit_length())
    base = levels[0].resolution
    ratio = (levels[-1].scale + 1) / base
    about = np.float32(ratio ** (1 / max(len(levels) - 1, 1)))
    # The root is known to some units in the last place; the right one gives all levels to the bit.
    for steps in sorted(range(-32, 33), key=abs):
        growth = max(1.0, float(about + np.float32(steps) * np.spacing(about)))
        made = make_layout(layout.in_dim, len(levels), layout.n_features, log2_table, base, growth)
        if made.levels == levels:
            return {
                "otype": "HashGrid",
                "n_levels": len(levels),
                "n_features_per_level": layout.n_features,
                "log2_hashmap_size": log2_table,
                "base_resolution": base,
                "per_level_scale": growth,
                "interpolation": interpolation.capitalize(),
            }
    raise ConfigError("the resolutions of this grid's levels do not grow by one factor, as tiny-cuda-nn's do")


@functools.lru_cache(maxsize=64)
def _native(layout: GridLayout, interpolation: str, device: torch.device) -> tuple[Any, str | None]:
    """The binding's object for a grid, and why it cannot be used, if so."""
    from neuralfield.interop import tinycudann

    try:
        description = config(layout, interpolation)
    except ConfigError as error:
        return None, str(error)
    # It allocates on the current device.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        # Its Encoding has parameters of its own, which go with it; only what evaluates a grid is kept.
        encoding = tinycudann.load().Encoding(layout.in_dim, description, dtype=torch.float32)
    module = encoding.native_tcnn_module
    return module, _difference(module, layout, interpolation, device)


def _difference(module: Any, layout: GridLayout, interpolation: str, device: torch.device) -> str | None:
    """Why its numbers are not ours, if so: another length of tables, or other features."""
    if (module.n_params(), module.n_output_dims()) != (layout.n_parameters, layout.out_dim):
        return (
            f"tiny-cuda-nn makes {module.n_params():,} parameters and {module.n_output_dims()} features of this grid, "
            f"not {layout.n_parameters:,} and {layout.out_dim}"
        )
    generator = torch.Generator(device).manual_seed(0)
    x = torch.rand(ROWS, layout.in_dim, generator=generator, device=device)
    params = torch.rand(layout.n_parameters, generator=generator, device=device)
    with torch.no_grad():
        ours, (_, theirs) = reference.forward(x, params, layout, interpolation), module.fwd(x, params)
    # The median over points: one that a rounded scale moved across a face finds other rows, though nothing is wrong.
    apart = (theirs - ours).abs().view(ROWS, len(layout.levels), -1).amax(2).median(0).values
    for index, (level, found) in enumerate(zip(layout.levels, apart.tolist(), strict=True)):
        if not found <= 1e-5 + 1.5 * layout.in_dim * level.scale * 2**-21:
            return f"tiny-cuda-nn's features of level {index} differ from the reference by {found:.2g} of their range"
    return None


def _padded_length(n: int) -> int:
    return -(-n // ROWS) * ROWS


def _padded(matrix: Tensor) -> Tensor:
    """Contiguous, without a history, with zeros in the added rows: a gradient of zero adds nothing."""
    matrix = matrix.detach()
    missing = _padded_length(len(matrix)) - len(matrix)
    return torch.nn.functional.pad(matrix, (0, 0, 0, missing)) if missing else matrix.contiguous()


def _aligned(params: Tensor, layout: GridLayout) -> Tensor:
    """Contiguous, without a history, at an address from which rows can be loaded whole."""
    params = params.detach().contiguous()
    return params.clone() if params.data_ptr() % (4 * layout.n_features) else params
