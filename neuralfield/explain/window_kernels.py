"""The kernels of a window by parameter tensor: infinitely wide where the theory covers the field, else of its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from neuralfield.encodings import Encoding, Fourier, HashGrid, Positional
from neuralfield.errors import ConfigError
from neuralfield.explain.patches import Patch
from neuralfield.field import Field
from neuralfield.ntk.adam import AdamPrediction
from neuralfield.ntk.empirical import empirical_parts
from neuralfield.ntk.kernel_parts import kernel_parts
from neuralfield.ntk.kernels import MLPKernel

BANDS = 4
"""Of the first layer's weights by frequency, whose gradients differ as the image's spectrum does."""

Kernels = tuple[dict[str, Any], dict[str, Any], dict[str, float]]
"""By part: the kernel between training points, that between test and training points, and how many numbers it has."""


def covered(field: Field) -> bool:
    """Whether the field's kernel is that of the infinitely wide network, rather than of its own weights."""
    if has_grid(field):
        return False
    try:
        MLPKernel.of(field)
    except ConfigError:
        return False
    return True


def window_kernels(field: Field, window: Patch) -> Kernels:
    """Kernels of the window by parameter tensor, and how many numbers each tensor holds."""
    sizes: dict[str, float] = {name: p.numel() for name, p in field.named_parameters()}
    if not covered(field):
        parts = empirical_parts(field, window.x)
        test = empirical_parts(field, window.x_test, window.x)
        return parts, test, sizes | _reached(field, parts)
    kernel = MLPKernel.of(field)
    parts, test = kernel_parts(kernel, window.x), kernel_parts(kernel, window.x_test, window.x)
    return _split_by_frequency(field, window, parts, test, sizes)


def _split_by_frequency(
    field: Field, window: Patch, parts: dict[str, Tensor], test: dict[str, Tensor], sizes: dict[str, float]
) -> Kernels:
    """The first layer's weights in bands of frequencies.

    Its kernel is the features' times what the layers behind it do, which is the kernel of its biases.
    """
    weight, bias = "network.layers.0.weight", "network.layers.0.bias"
    frequency = _frequencies(field.encoding)
    if frequency is None or bias not in parts:
        return parts, test, sizes
    with torch.no_grad():
        features, features_test = field.encoding(window.x), field.encoding(window.x_test)
    order = frequency.argsort(stable=True)
    width = sizes[bias]
    parts, test, sizes = dict(parts), dict(test), dict(sizes)
    del parts[weight], test[weight]
    for band, columns in enumerate(order.chunk(BANDS)):
        name = f"{weight}.band{band}"
        parts[name] = (features[:, columns] @ features[:, columns].T) * parts[bias]
        test[name] = (features_test[:, columns] @ features[:, columns].T) * test[bias]
        sizes[name] = len(columns) * width
    return parts, test, sizes


def _frequencies(encoding: Encoding) -> Tensor | None:
    """The magnitude of each feature's frequency; None where features have none."""
    if isinstance(encoding, Fourier):
        norms = encoding.frequencies.detach().norm(dim=0)
        return torch.cat([norms, norms])
    if isinstance(encoding, Positional) and not encoding.include_input:
        axis = encoding.frequencies.repeat(encoding.in_dim)
        return torch.cat([axis, axis])[encoding.order().to(axis.device)]
    return None


def stacked(kernels: list[Kernels]) -> Kernels:
    """The kernels of several windows with as many points each, by part [windows, n, n]."""
    parts, test, sizes = kernels[0]
    return (
        {name: torch.stack([k[0][name] for k in kernels]) for name in parts},
        {name: torch.stack([k[1][name] for k in kernels]) for name in test},
        sizes,
    )


def by_part(field: Field, parts: Iterable[str], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values that parameters have, one for each of their numbers, by part of the kernel: a table's by level."""
    found = {}
    for prefix, level, rows in _levels(field):
        found[prefix + level] = values[f"{prefix}params"].flatten()[rows]
    return {name: found[name] if name in found else values[name] for name in parts}


def _reached(field: Field, parts: dict[str, Tensor]) -> dict[str, int]:
    """Of each level of a table, how many numbers there are; all count as reached once the lattice is finer than the cells."""
    return {prefix + level: rows.stop - rows.start for prefix, level, rows in _levels(field) if prefix + level in parts}


def _levels(field: Field) -> Iterator[tuple[str, str, slice]]:
    """Of each level of each grid in the encoding: the module's name with a dot, the level's, and where its numbers lie."""
    for name, grid in field.encoding.named_modules(prefix="encoding"):
        if isinstance(grid, HashGrid):
            features = grid.layout.n_features
            for index, level in enumerate(grid.layout.levels):
                rows = slice(level.offset * features, (level.offset + level.entries) * features)
                yield f"{name}.", f"level{index:02d}", rows


def shares(parts: dict[str, Any], last: AdamPrediction) -> dict[str, float]:
    traces = {name: float(_diagonal(parts[name]).sum()) * last.weights[name] for name in parts}
    total = sum(traces.values())
    return {name: value / total for name, value in traces.items()}


def _diagonal(part: Any) -> Tensor:
    return part.diagonal(dim1=-2, dim2=-1) if isinstance(part, Tensor) else part.diagonal()


def has_grid(field: Field) -> bool:
    return any(isinstance(module, HashGrid) for module in field.encoding.modules())


def is_stationary(field: Field) -> bool:
    return covered(field) and MLPKernel.of(field).stationary
