r"""Where a kernel starts: the covariance of an encoding's features, and the kernel of the encoding's own parameters.

For features $\gamma(x) \in \mathbb{R}^M$ the recursion of an MLP starts from the mean over features
$S_0 = \gamma\cdot\gamma'/M$, kept as $q = |\gamma|^2/M$ of each point and $u = 1 - \cos\angle(\gamma, \gamma')$ of each
pair; u comes from differences, or, where it is large enough, from a float64 product. Parameters p of the encoding that are
trained add

$$ T_0 = \frac1M \sum_{i,p} \frac{\partial\gamma_i}{\partial p}\frac{\partial\gamma_i'}{\partial p}. $$

Fourier frequencies: $T_0 = 4\pi^2\,(x\cdot x')\,S_0$. A grid's table: $T_0 = \frac1L\sum_l W_l W_l^\top$, with the
interpolation weights $W_l$ [n, entries] of level l, sparse, so that $T_0$ is local (Audia et al. 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import choice
from neuralfield.encodings import Bounded, Encoding, Fourier, HashGrid, Positional
from neuralfield.errors import ConfigError
from neuralfield.ntk.grid_weights import GridWeights, table_features

FREQUENCIES = ("sampled", "expected")
_FEW = 8  # features up to which every pair's differences are formed
_CLOSE = 1e-5  # u below which 1 - cos has lost eleven digits of sixteen, so that the pair's differences are formed
_EQUAL = 1e-14  # relative spread of q that is rounding
_TABLE_VARIANCE = 1e-8 / 3  # of a uniform variable in [-1e-4, 1e-4], a grid's initial values

Block = Callable[[slice, slice], Tensor]


@dataclass
class Inputs:
    """What the recursion starts from, for points x1 (rows) and x2 (columns).

    - `rows`, `columns`: $q$ of each point, float64 [n] and [m]; the same 0-d tensor twice where all are equal.
    - `distance`: u of a block of pairs, float64.
    - `tangent`: $T_0$ of a block of pairs, float64, or None.
    - `shape`: [n, m].
    - `n_features`: M.
    """

    rows: Tensor
    columns: Tensor
    distance: Block
    tangent: Block | None
    shape: tuple[int, int]
    n_features: int


class Covariance:
    """The covariance of an encoding's features, at the encoding's present values.

    **Arguments**

    - `encoding`: any :class:`~neuralfield.encodings.Encoding`; None means the coordinates themselves.
    - `frequencies`: "sampled" takes the encoding's own frequencies or table; "expected" averages over their distribution:
      Fourier's normal one, $q\\,e^{-2\\pi^2 \\sum_d \\sigma_d^2 (x_d - x_d')^2}$ (Tancik et al. 2020, section 6); a grid's
      initial one, uniform in $\\pm 10^{-4}$.
    - `train_encoding`: whether trainable parameters of the encoding add $T_0$.
    - `differentiate_encoding`: record derivatives with respect to the encoding's parameters too.
    """

    def __init__(
        self,
        encoding: Encoding | None,
        frequencies: str = "sampled",
        train_encoding: bool = True,
        differentiate_encoding: bool = False,
    ) -> None:
        if encoding is not None and not isinstance(encoding, Encoding):
            raise ConfigError(f"encoding must be a neuralfield Encoding or None, got {type(encoding).__name__}")
        self.encoding = encoding
        self.inner, self.scale, self.low = _unwrapped(encoding)
        self.expected = choice("frequencies", frequencies, FREQUENCIES) == "expected"
        self.train_encoding = train_encoding
        self.trained = train_encoding and encoding is not None and any(p.requires_grad for p in encoding.parameters())
        self.differentiate = differentiate_encoding
        if self.expected and not isinstance(self.inner, (Fourier, HashGrid)):
            raise ConfigError(
                f"frequencies='expected' averages over a random encoding (Fourier, HashGrid); got "
                f"{type(self.inner).__name__ if self.inner is not None else 'no encoding'}; use frequencies='sampled'"
            )
        if self.expected and isinstance(self.inner, Fourier) and self.inner.config["decay"]:
            raise ConfigError("amplitudes with decay have no closed expectation; use frequencies='sampled', or decay=0")

    @property
    def stationary(self) -> bool:
        """Whether $S_0$ and $T_0$ depend on the difference of two points alone."""
        return not self.trained and _sinusoidal(self.inner)

    def n_features(self, in_dim: int) -> int:
        """M, for points of ``in_dim`` coordinates."""
        return in_dim if self.encoding is None else self.encoding.out_dim

    def inputs(self, x1: Float[Tensor, "n dim"], x2: Float[Tensor, "m dim"] | None) -> Inputs:
        """Start of the recursion for all pairs; x2 None means x1, and u is exactly 0 for a point and itself."""
        x1 = x1.double()
        x2 = x1 if x2 is None else x2.double()
        y1, y2 = (self._inside(x) for x in (x1, x2))
        same = x2 is x1
        if self.expected and isinstance(self.inner, Fourier):
            inputs = self._expected_fourier(self.inner, y1, y2)
        elif self.expected and isinstance(self.inner, HashGrid):
            weights = GridWeights(self.inner, y1)
            others = weights if same else GridWeights(self.inner, y2)
            inputs = _from_weights(weights, others, self.inner.out_dim)
        else:
            one = self.features(x1)
            inputs = _from_features(one, one if same else self.features(x2), self._power())
        if self.trained:
            inputs.tangent = self._tangent(inputs, x1, x2, y1, y2)
        return inputs

    def features(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n features"]:
        r"""$\gamma(x)$ in float64, with parameters and buffers promoted exactly."""
        if self.encoding is None:
            return x.double()
        if isinstance(self.inner, HashGrid):
            table = self.inner.params if self.differentiate else self.inner.params.detach()
            return table_features(self.inner, self._inside(x.double()), table.double())
        state = {name: t.double() for name, t in self._state().items()}
        return torch.func.functional_call(self.encoding, state, (x.double(),))

    def of_offsets(self, dv: Float[Tensor, "m dim"]) -> tuple[Tensor, Float[Tensor, " m"]]:
        r"""q (0-d) and u of pairs that differ by ``dv``: $u = 2\sum_j a_j^2 \sin^2(\pi b_j\cdot dv) / \sum_j a_j^2$."""
        dv = dv.double()
        if self.expected:
            assert isinstance(self.inner, Fourier)
            return self._level(self.inner), self._gaussian(self.inner, dv * self.scale.to(dv))
        frequencies, power = (t.to(dv.device) for t in self.lines())
        size = max(1, 2**20 // len(power))
        parts = [
            2 * torch.sin(math.pi * (part @ frequencies.T)) ** 2 @ (power / power.sum()) for part in dv.split(size)
        ]
        return power.sum() / self.n_features(dv.shape[1]), torch.cat(parts) if parts else dv.new_zeros(0)

    def lines(self) -> tuple[Float[Tensor, "lines dim"], Float[Tensor, " lines"]]:
        r"""Frequencies $b_j$ (cycles per unit) and $a_j^2$; $\gamma\cdot\gamma' = \sum_j a_j^2\cos 2\pi b_j\cdot(x - x')$."""
        inner = self.inner
        if self.expected or not _sinusoidal(inner):
            raise ConfigError("only sampled Fourier and Positional encodings have lines; see kernel.stationary")
        if isinstance(inner, Fourier):
            frequencies, power = self._tensor(inner, "frequencies").T, self._tensor(inner, "amplitudes") ** 2
        else:
            assert isinstance(inner, Positional)
            axes = torch.eye(inner.in_dim, dtype=torch.float64, device=inner.frequencies.device)
            frequencies = (axes[:, None, :] * inner.frequencies.double()[None, :, None]).flatten(0, 1)
            power = torch.ones(len(frequencies), dtype=torch.float64, device=frequencies.device)
        return frequencies * self.scale.to(frequencies), power

    def _state(self) -> dict[str, Tensor]:
        assert self.encoding is not None
        named = {**dict(self.encoding.named_parameters()), **dict(self.encoding.named_buffers())}
        return named if self.differentiate else {name: t.detach() for name, t in named.items()}

    def _tensor(self, module: Encoding, name: str) -> Tensor:
        tensor = getattr(module, name)
        return (tensor if self.differentiate else tensor.detach()).double()

    def _inside(self, x: Tensor) -> Tensor:
        """Coordinates as the innermost encoding sees them."""
        return x if self.encoding is self.inner else (x - self.low.to(x)) * self.scale.to(x)

    def _power(self) -> Tensor | None:
        """The norm that every point has, where the encoding is sinusoidal."""
        if not _sinusoidal(self.inner):
            return None
        power = self.lines()[1]
        return power.sum()

    def _level(self, inner: Fourier) -> Tensor:
        return self._tensor(inner, "amplitudes").square().sum() / inner.out_dim

    def _gaussian(self, inner: Fourier, dv: Tensor) -> Tensor:
        sigma = torch.tensor(inner.sigma, dtype=torch.float64, device=dv.device)
        return -torch.expm1(-2 * math.pi**2 * (dv * sigma).square().sum(-1))

    def _expected_fourier(self, inner: Fourier, y1: Tensor, y2: Tensor) -> Inputs:
        level = self._level(inner)
        distance = lambda i, j: self._gaussian(inner, y1[i, None] - y2[None, j])  # noqa: E731
        return Inputs(level, level, distance, None, (len(y1), len(y2)), inner.out_dim)

    def _tangent(self, inputs: Inputs, x1: Tensor, x2: Tensor, y1: Tensor, y2: Tensor) -> Block:
        inner = self.inner
        if isinstance(inner, HashGrid):
            weights = GridWeights(inner, y1)
            others = weights if x2 is x1 else GridWeights(inner, y2)
            return lambda i, j: weights.gram(others, i, j) / len(inner.layout.levels)
        if isinstance(inner, Fourier):
            level = inputs.rows
            return lambda i, j: 4 * math.pi**2 * level * (y1[i] @ y2[j].T) * (1 - inputs.distance(i, j))
        one = self._jacobian(x1)
        two = one if x2 is x1 else self._jacobian(x2)
        return lambda i, j: one[i] @ two[j].T / inputs.n_features

    def _jacobian(self, x: Tensor) -> Tensor:
        """Derivatives of all features to all trained parameters, [n, M P], for an encoding that has no closed form here."""
        assert self.encoding is not None
        encoding, state = self.encoding, {name: t.double() for name, t in self._state().items()}
        trained = {name: state[name] for name, p in encoding.named_parameters() if p.requires_grad}

        def features(parameters: dict[str, Tensor], point: Tensor) -> Tensor:
            return torch.func.functional_call(encoding, {**state, **parameters}, (point,))

        parts = torch.func.vmap(torch.func.jacrev(features), in_dims=(None, 0))(trained, x)
        return torch.cat([part.flatten(1) for part in parts.values()], dim=1)


def _sinusoidal(inner: Encoding | None) -> bool:
    return isinstance(inner, Fourier) or (isinstance(inner, Positional) and not inner.include_input)


def _unwrapped(encoding: Encoding | None) -> tuple[Encoding | None, Tensor, Tensor]:
    """The encoding inside Bounded ones, and the map $(x - \\text{low})\\,\\text{scale}$ that they make together."""
    scale, low = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    while isinstance(encoding, Bounded):
        low = low + encoding.low.double() / scale
        scale = scale / (encoding.high.double() - encoding.low.double())
        encoding = encoding.encoding
    return encoding, scale, low


def _unit(features: Tensor, norms: Tensor) -> Tensor:
    return features / torch.where(norms > 0, norms, torch.ones_like(norms))[:, None]


def _norms(features: Tensor) -> Tensor:
    """Lengths, with derivative 0 at the zero vector."""
    square = features.square().sum(1)
    safe = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    return torch.where(square > 0, safe, torch.zeros_like(safe))


def _from_features(f1: Tensor, f2: Tensor, power: Tensor | None) -> Inputs:
    """From feature vectors; ``power`` is their squared norm where it is known to be the same for all."""
    same, count = f1 is f2, f1.shape[1]
    if power is not None:
        n1, n2 = power.sqrt().expand(len(f1)), power.sqrt().expand(len(f2))
        rows = columns = power / count
    else:
        n1 = _norms(f1)
        n2 = n1 if same else _norms(f2)
        rows, columns = _equal(n1.square() / count, n2.square() / count)
    e1 = _unit(f1, n1)
    e2 = e1 if same else _unit(f2, n2)
    zero1, zero2 = n1 == 0, n2 == 0
    some_zero = bool(zero1.any()) or bool(zero2.any())

    def distance(i: slice, j: slice) -> Tensor:
        a, b = e1[i], e2[j]
        if count <= _FEW:
            u = sum((0.5 * (a[:, k, None] - b[None, :, k]).square() for k in range(count)), a.new_zeros(()))
        else:
            u = torch.addmm(a.new_ones(()), a, b.T, alpha=-1)
            if u.numel() and float(u.detach().amin()) < _CLOSE:
                close = (u < _CLOSE).nonzero(as_tuple=True)
                for p, q in zip(*(index.split(1 + 2**22 // count) for index in close), strict=True):
                    u = u.index_put((p, q), 0.5 * (a[p] - b[q]).square().sum(1))
        if some_zero:  # the angle of a zero vector with anything is a right one
            u = torch.where(zero1[i, None] | zero2[None, j], torch.ones_like(u), u)
        return u

    return Inputs(rows, columns, distance, None, (len(f1), len(f2)), count)


def _from_weights(one: GridWeights, two: GridWeights, count: int) -> Inputs:
    """From interpolation weights, whose Gram matrix is the expected covariance of the features of random tables."""
    levels = len(one.layout.levels)
    n1, n2 = one.norms(), two.norms()
    rows, columns = _equal(*(_TABLE_VARIANCE / levels * n.square() for n in (n1, n2)))

    def distance(i: slice, j: slice) -> Tensor:
        product = n1[i, None] * n2[None, j]
        zero = product == 0
        gram = one.gram(two, i, j) / torch.where(zero, torch.ones_like(product), product)
        u = 1 - gram
        close = ((u < _CLOSE) & ~zero).nonzero(as_tuple=True)
        for p, q in zip(*(index.split(2**12) for index in close), strict=True):
            u = u.index_put((p, q), 0.5 * one.squared_distances(two, p + (i.start or 0), q + (j.start or 0)))
        return torch.where(zero, torch.ones_like(u), u)

    return Inputs(rows, columns, distance, None, (len(n1), len(n2)), count)


def _equal(q1: Tensor, q2: Tensor) -> tuple[Tensor, Tensor]:
    """One number twice where all are the same up to rounding (and nothing is to be differentiated)."""
    if q1.requires_grad or q2.requires_grad or not len(q1) or not len(q2):
        return q1, q2
    low, high = torch.minimum(q1.min(), q2.min()), torch.maximum(q1.max(), q2.max())
    return (high, high) if bool((high - low <= _EQUAL * high) & (low > 0)) else (q1, q2)
