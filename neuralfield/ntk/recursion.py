r"""The layers of an infinitely wide MLP, one after the other, on a block of pairs of points.

Per pair two numbers are kept: $u = 1 - \cos$ of the angle between the two points' pre-activations (or activations) and
$t = T/(s s')$, the tangent kernel T in units of a scale s of each point. What concerns one point alone is worked out in
float64 before (:func:`trace`), so that a float32 kernel rounds nothing but pairs.

An affine layer of weights' deviation w and biases' deviation b is $S \to w^2 S + b^2$. The norms r turn into
$R = \sqrt{w^2r^2 + b^2}$; with $\varphi = \arctan\frac{b}{wr}$, the angle by which the bias tilts a point,

$$ u \to \frac{w^2 r r'}{R R'}\,u + 2\sin^2\frac{\varphi - \varphi'}{2}, $$

in which nothing cancels. Concatenating the input features again is a tilt of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from neuralfield.ntk.duals import Dual, PiecewiseLinear


@dataclass(frozen=True)
class Affine:
    r"""One affine layer: $T \to g S + h + w^2 T$ and $S \to w^2 S + b^2$.

    - `w`, `b`: standard deviations, 0-d float64.
    - `gain`, `bias_gain`: $\sqrt g$ and $\sqrt h$: w and b in the NTK parameterisation; $\sqrt{\text{fan-in}}$ and 1 (0
      without biases) in the standard one.
    - `share`: of the previous layer among the inputs; below 1 the encoding's features are concatenated.
    """

    w: Tensor
    b: Tensor
    gain: Tensor
    bias_gain: Tensor
    share: float = 1.0


@dataclass(frozen=True)
class Network:
    """The affine layers, what lies between them, and what follows the last.

    - `layers`: depth + 1 of them.
    - `dual`: of the activation.
    - `scale`: c in $\\phi(c z)$.
    - `output`: dual of the output activation, or None.
    """

    layers: Sequence[Affine]
    dual: Dual
    scale: float
    output: Dual | None


@dataclass
class Side:
    """What one affine layer and the activation after it do to each point, [n] (or 0-d where all are equal), float64.

    - `kept`, `fresh`, `blend_sin`, `blend_cos`, `t_kept`, `t_fresh`: the concatenation before the layer, if there is one.
    - `rho`: factor on u; `tilt_sin`, `tilt_cos`: of $\\varphi/2$.
    - `tangent`, `signal`, `constant`: factors of T, S and 1 in the new t.
    - `z`: deviation of what the activation sees; `after`: $\\hat r$; `z64`, `after64`: the same, kept in float64.
    - `zero`, `zero_after`: where these vanish, if anywhere; no angle is defined there, and u = 1 stands for it.
    """

    rho: Tensor
    tilt_sin: Tensor
    tilt_cos: Tensor
    tangent: Tensor
    signal: Tensor
    constant: Tensor
    z: Tensor
    after: Tensor
    z64: Tensor
    after64: Tensor
    zero: Tensor | None = None
    zero_after: Tensor | None = None
    kept: Tensor | None = None
    fresh: Tensor | None = None
    blend_sin: Tensor | None = None
    blend_cos: Tensor | None = None
    t_kept: Tensor | None = None
    t_fresh: Tensor | None = None
    straight: bool = False
    shared: bool = False

    _WIDE = ("tilt_sin", "tilt_cos", "blend_sin", "blend_cos", "z64", "after64")  # not rounded to the block's dtype

    def to(self, dtype: torch.dtype) -> Side:
        """In the dtype of the blocks."""

        def rounded(name: str, v: Tensor) -> Tensor:
            return v.to(dtype) if v.is_floating_point() and name not in self._WIDE else v

        return self._mapped(rounded)

    def take(self, points: slice, axis: int) -> Side:
        """Some points, shaped to broadcast as rows (axis 1) or columns (axis 0) of a block."""
        return self._mapped(lambda _, v: v[points].unsqueeze(axis) if v.ndim else v)

    def _mapped(self, function: Callable[[str, Tensor], Tensor]) -> Side:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {k: function(k, v) if isinstance(v, Tensor) else v for k, v in values.items()}
        return Side(**mapped)


def trace(network: Network, q: Tensor) -> list[Side]:
    """Each point's norms through all layers, from q of the input features."""
    sides = []
    first = r = _root(q)
    s = torch.ones_like(r)
    for index, layer in enumerate(network.layers):
        last = index == len(network.layers) - 1
        dual = network.output if last else network.dual
        w, b = layer.w.to(q.device), layer.b.to(q.device)
        blend = {}
        if layer.share < 1:
            a, c = math.sqrt(layer.share), math.sqrt(1 - layer.share)
            joint = _root(layer.share * r * r + (1 - layer.share) * first * first)
            unit = _safe(joint)
            half = 0.5 * torch.atan2(c * first, a * r)
            blend = {"kept": a * r / unit, "fresh": c * first / unit, "blend_sin": half.sin(), "blend_cos": half.cos()}
            blend |= {"t_kept": a * s / unit, "t_fresh": c / unit}
            r, s = joint, unit
        straight = not b.requires_grad and float(b) == 0
        z = w * r if straight else _root((w * r) ** 2 + b * b)
        out = torch.ones_like(z) if last else _safe(z)
        half = torch.zeros_like(z) if straight else 0.5 * torch.atan2(b.expand_as(r), w * r)
        rho = (z > 0).to(z) if straight else w * r / _safe(z)
        tangent, signal = w * s / out, layer.gain.to(q.device) * r / out
        zero = (z == 0) if bool((z == 0).any()) else None
        c = 1.0 if last else network.scale
        scaled = z * c
        if dual is None:
            after = scaled
        elif dual.homogeneous:
            after = scaled * math.sqrt(_gain(dual))
        else:
            after = _root(dual.second_moment(scaled))
        gone = (after == 0) if bool((after == 0).any()) else None
        sides.append(
            Side(
                rho, half.sin(), half.cos(), tangent, signal, layer.bias_gain.to(q.device) / out,
                scaled, _safe(after), scaled, _safe(after), zero, gone, **blend, straight=straight,
                shared=torch.equal(tangent, signal) and torch.equal(signal, rho),
            )
        )  # fmt: skip
        r = after
        s = out * c * math.sqrt(_gain(network.dual))
    return sides


def diagonal(network: Network, q: Tensor, tangent: Tensor | None) -> tuple[Tensor, Tensor]:
    """T and S of each point with itself, [n]; ``tangent`` is $T_0$."""
    first, start = q, torch.zeros_like(q) if tangent is None else tangent
    t = start
    for index, layer in enumerate(network.layers):
        last = index == len(network.layers) - 1
        w, b, g, h = (v.to(q.device) ** 2 for v in (layer.w, layer.b, layer.gain, layer.bias_gain))
        q, t = layer.share * q + (1 - layer.share) * first, layer.share * t + (1 - layer.share) * start
        q, t = w * q + b, g * q + h + w * t
        dual, scale = (network.output, 1.0) if last else (network.dual, network.scale)
        if dual is not None:
            z = scale * _root(q)
            q, t = dual.second_moment(z), t * scale**2 * dual.slope_moment(z)
    return t, q


def propagate(
    network: Network,
    duals: Sequence[Dual | None],
    rows: Sequence[Side],
    columns: Sequence[Side],
    u: Tensor,
    start: Tensor | None,
    ntk: bool,
    nngp: bool,
) -> tuple[Tensor | None, Tensor | None]:
    r"""The block's T and S, as asked for.

    **Arguments**

    - `duals`: of the activation after each layer, prepared for the norms at hand.
    - `rows`, `columns`: of each layer, shaped to broadcast.
    - `u`: of the input features, in the block's dtype; overwritten where no derivative is recorded.
    - `start`: $T_0$, or None.
    """
    recorded = torch.is_grad_enabled() and (u.requires_grad or any(s.rho.requires_grad for s in (*rows, *columns)))
    first = u.clone() if any(i.kept is not None for i in rows) else u
    t = start.clone() if start is not None and ntk else None
    for index, (i, j) in enumerate(zip(rows, columns, strict=True)):
        last = index == len(rows) - 1
        if i.kept is not None:
            u, t = _concatenate(u, t, first, start if ntk else None, i, j)
        dual = duals[index]
        on = not last or nngp or dual is not None
        u, t = (_affine if recorded else _affine_)(u, t, i, j, ntk, on)
        if dual is not None:
            scale = 1.0 if last else network.scale
            u, t = _activate(u, t, i, j, dual, scale, last, recorded)
    covariance = rows[-1].after * columns[-1].after * (1 - u) if nngp else None
    return t, covariance


def _affine(u: Tensor, t: Tensor | None, i: Side, j: Side, ntk: bool, on: bool) -> tuple[Tensor, Tensor | None]:
    if ntk:
        new = i.signal * j.signal * (1 - u) + i.constant * j.constant
        t = new if t is None else new + i.tangent * j.tangent * t
    if on:
        u = i.rho * j.rho * u + 2 * _tilt(i.tilt_sin, i.tilt_cos, j.tilt_sin, j.tilt_cos, u).square()
        u = _masked(u, i.zero, j.zero)
    return u, t


def _affine_(u: Tensor, t: Tensor | None, i: Side, j: Side, ntk: bool, on: bool) -> tuple[Tensor, Tensor | None]:
    """The same in place."""
    rho = None
    if ntk and i.shared and j.shared:
        rho = i.rho * j.rho
        t = (1 - u).mul_(rho) if t is None else t.sub_(u).add_(1).mul_(rho)
    elif ntk:
        new = (1 - u).mul_(i.signal * j.signal)
        t = new if t is None else t.mul_(i.tangent * j.tangent).add_(new)
    if t is not None:
        t.addcmul_(i.constant, j.constant)
    if on and not i.straight:
        u.mul_(i.rho * j.rho if rho is None else rho)
        if i.tilt_sin.ndim:
            tilt = _tilt(i.tilt_sin, i.tilt_cos, j.tilt_sin, j.tilt_cos, u)
            u.addcmul_(tilt, tilt, value=2)
    return _masked(u, i.zero, j.zero) if on else u, t


def _tilt(sin1: Tensor, cos1: Tensor, sin2: Tensor, cos2: Tensor, like: Tensor) -> Tensor:
    """The sine of a difference of two points' angles, formed in float64."""
    if not sin1.ndim:
        return (sin1 * cos2 - cos1 * sin2).to(like.dtype)
    return (torch.cat([sin1, -cos1], dim=1) @ torch.cat([cos2, sin2], dim=0)).to(like.dtype)


def _concatenate(
    u: Tensor, t: Tensor | None, first: Tensor, start: Tensor | None, i: Side, j: Side
) -> tuple[Tensor, Tensor | None]:
    assert i.kept is not None and i.fresh is not None and i.blend_sin is not None and i.blend_cos is not None
    assert j.kept is not None and j.fresh is not None and j.blend_sin is not None and j.blend_cos is not None
    assert i.t_kept is not None and i.t_fresh is not None and j.t_kept is not None and j.t_fresh is not None
    tilt = _tilt(i.blend_sin, i.blend_cos, j.blend_sin, j.blend_cos, u)
    u = i.kept * j.kept * u + i.fresh * j.fresh * first + 2 * tilt.square()
    t = None if t is None else i.t_kept * j.t_kept * t
    return u, t if t is None or start is None else t + i.t_fresh * j.t_fresh * start


def _activate(
    u: Tensor, t: Tensor | None, i: Side, j: Side, dual: Dual, scale: float, last: bool, recorded: bool
) -> tuple[Tensor, Tensor | None]:
    if isinstance(dual, PiecewiseLinear):
        if recorded:
            u, slope = dual.step(u)
            t = None if t is None else t * slope
        else:
            dual.step_(u, t)
        if t is not None and last:  # elsewhere the scale s takes it
            t = t * dual.gain
        return _masked(u, i.zero_after, j.zero_after), t
    lost, slope = dual.drop(u, i.z, j.z)
    u = lost / (i.after * j.after)
    if i.z.ndim:
        apart = 1 - dual.parallel(i.z64, j.z64) / (i.after64 * j.after64)
        if not recorded:
            apart = torch.where(i.z64 == j.z64, torch.zeros_like(apart), apart).clamp_(min=0)
        u = u + apart.to(u.dtype)
    return _masked(u, i.zero_after, j.zero_after), None if t is None else t * slope


def _masked(u: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    u = u if rows is None else torch.where(rows, torch.ones_like(u), u)
    return u if columns is None else torch.where(columns, torch.ones_like(u), u)


def _root(square: Tensor) -> Tensor:
    """A square root whose derivative at 0 is 0."""
    positive = square > 0
    return torch.where(
        positive, torch.where(positive, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square)
    )


def _safe(r: Tensor) -> Tensor:
    return torch.where(r > 0, r, torch.ones_like(r))


def _gain(dual: Dual) -> float:
    return dual.gain if isinstance(dual, PiecewiseLinear) else 1.0
