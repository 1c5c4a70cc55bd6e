r"""How lazy a training is: how far weights and kernel have moved, and how far the field is from its linearisation.

In the limit of infinite width, or of a large output scale, all of these tend to zero while the loss does not notice
(Jacot et al. 2018, theorem 2; Chizat et al. 2019, theorem 2.4). Then the predictions of :mod:`.dynamics` hold.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralfield.checks import choice, flag
from neuralfield.errors import ConfigError, nearest
from neuralfield.ntk import structure
from neuralfield.ntk.conventions import finite
from neuralfield.ntk.jacobian import coordinates_of, jvp
from neuralfield.ntk.linearize import Linearized


@dataclass(frozen=True)
class Movement:
    r"""What training has moved since $w_0$, each number relative.

    - `weights`: $\lVert w - w_0 \rVert / \lVert w_0 \rVert$ over all trainable parameters.
    - `groups`: the same for each group alone: a layer's weight and bias, an encoding. Infinite for a group that started
      at zero and has moved. A hash grid starts near zero, so its number is large in any training that does something.
    - `gap`: $\lVert f - f_\text{lin} \rVert / \lVert f - f_0 \rVert$ on the probe, with $f_\text{lin}$ the linearisation
      around $w_0$ at the present w: the part of what the field has learned that its tangent does not explain.
    - `kernel`: $\lVert K - K_0 \rVert_F / \lVert K_0 \rVert_F$ on the probe, or None where kernels were not asked for.
    - `alignment`: $\langle K, K_0 \rangle_F / (\lVert K \rVert_F \lVert K_0 \rVert_F)$, 1 for a kernel that has only grown.
    """

    weights: float
    groups: Mapping[str, float] = field(default_factory=dict)
    gap: float = 0.0
    kernel: float | None = None
    alignment: float | None = None

    def __repr__(self) -> str:
        lines = [f"Movement: weights {_percent(self.weights)}, gap to the linearisation {_percent(self.gap)}"]
        if self.kernel is not None and self.alignment is not None:
            lines[0] += f", kernel {_percent(self.kernel)} (alignment {self.alignment:.4f})"
        width = max((len(name) for name in self.groups), default=0)
        lines += [f"  {name:<{width}}  {_percent(value)}" for name, value in self.groups.items()]
        return "\n".join(lines)


class LazinessProbe:
    r"""Remembers a field's weights, outputs and kernel now, and measures later how far each has moved.

    ```python
    probe = LazinessProbe(field, x[:256])
    for step in range(steps):
        ...
        if step % 100 == 0:
            history.append(probe.measure())
    ```

    **Arguments**

    - `field`: a :class:`~neuralfield.Field` or other module; it is watched, and its present weights are copied as $w_0$.
    - `x`: the probe, n points. The kernels are [n, n], or [n C, n C] with outputs="full": some hundred points will do.
    - `outputs`: which kernel, as in :func:`.empirical.empirical_ntk`: "trace" or "full".
    - `kernel`: measure kernels at all; the rest costs a few passes forward.
    - `groups`: beginnings of parameter names, each a group of :class:`Movement`; None makes one of each module that owns
      parameters.
    """

    def __init__(
        self,
        field: nn.Module,
        x: Float[Tensor, "n dim"],
        outputs: str = "trace",
        kernel: bool = True,
        groups: Sequence[str] | None = None,
    ) -> None:
        self.field, self.x = field, coordinates_of(field, x).detach()
        self.outputs = choice("outputs", outputs, ("trace", "full"))
        self.base = copy.deepcopy(field)
        self.start = {name: p.detach() for name, p in structure.trainable(self.base).items()}
        self.groups = groups_of(self.start, groups)
        with torch.no_grad():
            self.values = self.base(self.x)
        self.kernel = self._kernel(self.base) if flag("kernel", kernel) else None

    def measure(self) -> Movement:
        """How far the field is now from where it was."""
        now = {name: self.field.get_parameter(name).detach() for name in self.start}
        with torch.no_grad():
            learned = finite("the field's values", self.field(self.x)) - self.values
        explained = jvp(self.base, self.x, {name: now[name] - self.start[name] for name in now}) if now else 0 * learned
        kernel = None if self.kernel is None else self._kernel(self.field)
        return Movement(
            weights=weight_movement(now, self.start),
            groups={
                group: weight_movement({n: now[n] for n in names}, {n: self.start[n] for n in names})
                for group, names in self.groups.items()
            },
            gap=_relative(learned - explained, learned),
            kernel=None if kernel is None or self.kernel is None else kernel_movement(kernel, self.kernel),
            alignment=None if kernel is None or self.kernel is None else kernel_alignment(kernel, self.kernel),
        )

    __call__ = measure

    def _kernel(self, field: nn.Module) -> Tensor:
        from neuralfield.ntk.empirical import empirical_ntk

        return empirical_ntk(field, self.x, outputs=self.outputs)


def weight_movement(now: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> float:
    r"""$\lVert w - w_0 \rVert / \lVert w_0 \rVert$ over all parameters of two mappings with the same names.

    Zero where nothing moved, infinite where something moved away from zero.
    """
    if now.keys() != before.keys():
        unlike = ", ".join(sorted(now.keys() ^ before.keys()))
        raise ConfigError(f"both mappings must name the same parameters; only one of them has {unlike}")
    return _ratio(
        math.sqrt(sum(_square(now[name].double() - before[name].double()) for name in now)),
        math.sqrt(sum(_square(value) for value in before.values())),
    )


def kernel_movement(kernel: Tensor, before: Tensor) -> float:
    r"""$\lVert K - K_0 \rVert_F / \lVert K_0 \rVert_F$."""
    _alike(kernel, before)
    return _relative(kernel.double() - before.double(), before)


def kernel_alignment(kernel: Tensor, before: Tensor) -> float:
    r"""$\langle K, K_0 \rangle_F / (\lVert K \rVert_F \lVert K_0 \rVert_F)$ (Cortes et al. 2012, eq. 1, without centring).

    1 when one is a multiple of the other.
    """
    _alike(kernel, before)
    size = math.sqrt(_square(kernel)) * math.sqrt(_square(before))
    if size == 0:
        raise ConfigError("the alignment of a kernel that is zero everywhere is not defined")
    return float((kernel.double() * before.double()).sum()) / size


@torch.no_grad()
def prediction_gap(field: nn.Module, linearized: Linearized, x: Float[Tensor, "n dim"]) -> float:
    r"""$\lVert f - f_\text{lin} \rVert / \lVert f - f_0 \rVert$ at points x, each model at weights of its own.

    For a field and its linearisation that were trained alike, side by side; :class:`LazinessProbe` has both at the field's
    weights. Here $f_0$ is the field at `linearized`'s base.
    """
    values = finite("the field's values", field(coordinates_of(field, x)))
    return _relative(values - linearized(x), values - linearized.origin(x))


def groups_of(parameters: Mapping[str, Tensor], groups: Sequence[str] | None = None) -> dict[str, list[str]]:
    """Names of parameters by group: by the given beginnings, or by the module that owns them."""
    if groups is None:
        found: dict[str, list[str]] = {}
        for name in parameters:
            found.setdefault(name.rpartition(".")[0] or name, []).append(name)
        return found
    by_prefix = {group: [n for n in parameters if f"{n}.".startswith(f"{group}.")] for group in groups}
    for group, names in by_prefix.items():
        if not names:
            raise ConfigError(
                f"no trainable parameter's name begins with '{group}' (there are {', '.join(parameters)})"
                f"{nearest(group, groups_of(parameters))}"
            )
    return by_prefix


def _alike(kernel: Tensor, before: Tensor) -> None:
    if kernel.shape != before.shape:
        raise ConfigError(f"kernels of one shape can be compared; got {tuple(kernel.shape)} and {tuple(before.shape)}")


def _square(values: Tensor) -> float:
    return float(values.detach().double().square().sum())


def _relative(difference: Tensor, reference: Tensor) -> float:
    return _ratio(math.sqrt(_square(difference)), math.sqrt(_square(reference)))


def _ratio(moved: float, size: float) -> float:
    return moved / size if size else (math.inf if moved else 0.0)


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"
