r"""Windows of a shape: small cubes around points near its surface, with the samples in them.

A shape's samples are no lattice. A window is the cube that holds about as many training points as a dense kernel takes, so
that their density, which decides between the bandwidths, is the fit's own; where the cube would be narrower than
:data:`NARROWEST` it is as wide as that and its points are thinned at random, each standing for several. Held-out points are
fresh ones, spread as those near the surface that a fit is judged on, in the inner part of the cube.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.explain.patches import Patch
from neuralfield.signals.shape import ShapeSignal

NARROWEST = 0.1
"""Of the cube's side: of a narrower window nothing is seen but a plane."""

_MARGIN = 0.2  # of a window's side, to each of its faces: held-out points farther inside count
_FEWEST = 64  # held-out points of a window: if there are fewer, the solid is asked about others
_ASKED = 256
_BLOCK = 1 << 22


def shape_patches(signal: ShapeSignal, side: int, most: int) -> list[Patch]:
    """Cubes around points near the surface, evenly spread along it; `box` is their lowest corner and side, in the cube.

    **Arguments**

    - `side`: training points along each side if they lay on a lattice: side^3 in all (time grows as its ninth power).
    - `most`: windows.

    Raises :class:`~neuralfield.errors.ConfigError` where no window holds enough training points.
    """
    wanted = side**3
    near = signal.judged_on()["iou_surface"]
    # The judged points follow Morton's curve: equal strides along it are spread over the surface.
    stride = near.index(torch.linspace(0, near.n - 1, most + 2).long()[1:-1])
    found = []
    for number, centre in enumerate(signal.coordinates(stride)):
        generator = torch.Generator().manual_seed(number)
        width = max(_width(signal, centre, wanted), NARROWEST)
        low = (centre.double() - width / 2).clamp(0, 1 - width)
        train = _within(signal, low, low + width, 0, signal.split.n_train)
        if len(train) < 8:
            continue
        kept = train[torch.randperm(len(train), generator=generator)[:wanted].sort().values]
        x_test, y_test = _heldout(signal, low, width, wanted, generator)
        box = (*(float(c) for c in low), float(width))
        found.append(
            Patch(
                signal.coordinates(kept), signal.values(kept), x_test, y_test, torch.ones(len(x_test)), box,
                len(train) / len(kept),
            )
        )  # fmt: skip
    if not found:
        raise ConfigError(
            f"no window of {signal.name} holds training points; give more of them: signal.points is "
            f"{signal.split.n_train:,}"
        )
    return found


def _width(signal: ShapeSignal, centre: Float[Tensor, " 3"], wanted: int) -> float:
    """The side of the cube around a point that holds `wanted` training points, 1 at most: their largest coordinate
    difference from it, which the wanted-th one has."""
    nearest = torch.empty(0)
    for start in range(0, signal.split.n_train, _BLOCK):
        index = torch.arange(start, min(start + _BLOCK, signal.split.n_train))
        away = (signal.coordinates(signal.split.train(index)) - centre).abs().amax(dim=1)
        both = torch.cat([nearest, away])
        nearest = both.topk(min(wanted, len(both)), largest=False).values
    return min(1.0, 2 * float(nearest.max())) if len(nearest) == wanted else 1.0


def _within(signal: ShapeSignal, low: Tensor, high: Tensor, first: int, count: int) -> Int64[Tensor, " n"]:
    """Samples first to first + count - 1 that lie in a box."""
    found = []
    for start in range(first, first + count, _BLOCK):
        index = torch.arange(start, min(start + _BLOCK, first + count))
        x = signal.coordinates(index)
        found.append(index[((x >= low) & (x <= high)).all(dim=1)])
    return torch.cat(found)


def _heldout(
    signal: ShapeSignal, low: Tensor, width: float, most: int, generator: torch.Generator
) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m 1"]]:
    """Points near the surface in the inner part: of those that fits are judged on, or, of too few, uniform ones, which
    are spread alike in a cube that is not much wider than their noise."""
    inner_low = torch.where(low > 0, low + _MARGIN * width, low)
    inner_high = torch.where(low + width < 1, low + (1 - _MARGIN) * width, low + width)
    near = signal.judged_on()["iou_surface"]
    first = int(near.index(torch.zeros(1, dtype=torch.int64)))
    chosen = _within(signal, inner_low, inner_high, first, near.n)
    if len(chosen) >= _FEWEST:
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[:most]]
        return signal.coordinates(chosen), signal.values(chosen)
    x = (inner_low + (inner_high - inner_low) * torch.rand(_ASKED, 3, dtype=torch.float64, generator=generator)).float()
    return x, labels(signal, x)


def labels(signal: ShapeSignal, x: Float[Tensor, "m 3"]) -> Float[Tensor, "m 1"]:
    """The truth at any points, as the samples' values are."""
    points = x.double().numpy()
    if signal.kind == "occupancy":
        return torch.from_numpy(signal.inside(points)).float()[:, None]
    found = torch.from_numpy(signal.signed_distance(points)).float()[:, None]
    return found if signal.truncation is None else found.clamp(-signal.truncation, signal.truncation)


def overlap(signal: ShapeSignal, predicted: Float[Tensor, "m 1"], truth: Float[Tensor, "m 1"]) -> tuple[int, int]:
    """How many points lie inside both, and inside either, where labels are predicted (inside above a half) or distances."""
    occupied = signal.kind == "occupancy"
    inside, true = (predicted > 0.5, truth > 0.5) if occupied else (predicted < 0, truth < 0)
    return int((inside & true).sum()), int((inside | true).sum())


def across(window: Patch, resolution: int) -> Float[Tensor, "n 3"]:
    """Points of the plane through the window's middle across z, row by row along x."""
    x, y, z, side = (float(v) for v in window.box)
    places = (torch.arange(resolution) + 0.5) / resolution * side
    down, right = torch.meshgrid(places, places, indexing="ij")
    return torch.stack([x + right, y + down, torch.full_like(right, z + side / 2)], dim=-1).reshape(-1, 3)
