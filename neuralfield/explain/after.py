"""A field against itself before training: how far from lazy the training was, and how its kernel turned to the signal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuralfield.checks import integer
from neuralfield.errors import ConfigError
from neuralfield.explain.patches import Patch
from neuralfield.explain.words import words
from neuralfield.field import Field
from neuralfield.ntk.alignment import alignment
from neuralfield.ntk.empirical import empirical_ntk
from neuralfield.ntk.movement import LazinessProbe
from neuralfield.run import build_field
from neuralfield.signals.base import Signal

_POINTS = 256


@dataclass(frozen=True)
class Moment:
    r"""Where a field stands after `step` steps, against its beginning.

    - `target`: centred alignment of its kernel with the signal; 0 where that is constant on the window.
    - `kernel_movement`: $\lVert K - K_0 \rVert_F / \lVert K_0 \rVert_F$; `kernel_alignment`: the cosine between both.
    - `gap`: the part of what was learned that the tangent at the initial weights does not explain; `weights`: how far they
      moved relative to their initial size.
    """

    step: int
    target: float
    kernel_movement: float
    kernel_alignment: float
    gap: float
    weights: float


@dataclass
class After:
    r"""A trained field against itself before training, on one window's training pixels.

    - `weights`, `groups`: how far weights moved relative to their initial size, over all and by module.
    - `kernel_movement`: $\lVert K - K_0 \rVert_F / \lVert K_0 \rVert_F$; `kernel_alignment`: the cosine between both.
    - `gap`: the part of what was learned that the tangent at the initial weights does not explain; 0: lazy.
    - `target_before`, `target_after`: centred alignment of the kernel with the image; a field that learned features has
      raised it. `what`: "image", "volume" or "shape".
    - `history`: from the initial weights, step 0, to the last, where fields at several steps are known; else empty.
    """

    weights: float
    groups: dict[str, float]
    kernel_movement: float
    kernel_alignment: float
    gap: float
    target_before: float
    target_after: float
    what: str = "image"
    history: list[Moment] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"weights moved by {self.weights:.1%}, the kernel by {self.kernel_movement:.1%} (cosine "
            f"{self.kernel_alignment:.3f}); its alignment with the {self.what} went from {self.target_before:.3f} to "
            f"{self.target_after:.3f}; {self.gap:.1%} of what was learned is not the initial tangent's"
        )

    def plot(self, path: str | Path) -> None:
        """Write the alignment and the movement against steps.

        Raises :class:`~neuralfield.errors.ConfigError` without a history.
        """
        from neuralfield.viz.explain_after import alignment_figure

        alignment_figure({"the field": self}, "the field", path)


class Watch:
    """Compares a field, as it changes, with what it was when this was made.

    **Arguments**

    - `field`: at its initial weights.
    - `window`: at most 256 of its training samples are what kernels are compared on.
    """

    def __init__(self, field: Field, signal: Signal, window: Patch) -> None:
        chosen = slice(0, None, -(-len(window.x) // _POINTS))
        self.x, self.y = window.x[chosen].to(field.device), window.y[chosen]
        self.field, self.what = field, words(signal).signal
        self.probe = LazinessProbe(field, self.x)
        self.groups: dict[str, float] = {}
        self.history = [Moment(0, self._aligned(), 0.0, 1.0, 0.0, 0.0)]

    def see(self, step: int) -> None:
        """Measure the field as it is now, after so many steps."""
        moved = self.probe.measure()
        kernel = float(moved.kernel or 0.0), float(moved.alignment or 0.0)
        self.groups = dict(moved.groups)
        self.history.append(Moment(step, self._aligned(), *kernel, moved.gap, moved.weights))

    def after(self) -> After:
        """What was seen until now."""
        first, last = self.history[0], self.history[-1]
        return After(
            last.weights,
            self.groups,
            last.kernel_movement,
            last.kernel_alignment,
            last.gap,
            first.target,
            last.target,
            self.what,
            list(self.history),
        )

    def _aligned(self) -> float:
        if not bool((self.y != self.y[0]).any()):
            return 0.0
        return alignment(empirical_ntk(self.field, self.x), self.y, centred=True)


def after(trained: Field | Mapping[int, Field], signal: Signal, window: Patch, seed: int = 0) -> After:
    """Compare on the window's training samples, at most 256 of them.

    **Arguments**

    - `trained`: a field, or one field at several steps of its training, by the number of steps made.
    - `seed`: with which the field was built, so that its initial weights can be drawn again.

    Raises :class:`~neuralfield.errors.ConfigError` for fields that do not belong to the signal or to each other.
    """
    fields = {integer("a step", step, 1): one for step, one in trained.items()} if isinstance(trained, Mapping) else {}
    several = sorted(fields.items()) if isinstance(trained, Mapping) else [(1, trained)]
    if not several:
        raise ConfigError(
            "there is no field to compare; give one, or several by their steps: {100: field, 1000: later}"
        )
    last = several[-1][1]
    for _, one in several:
        if one.out_dim != signal.out_dim or one.in_dim != signal.in_dim:
            raise ConfigError(
                f"the field goes from {one.in_dim} coordinates to {one.out_dim} channels, and {signal.name} from "
                f"{signal.in_dim} to {signal.out_dim}; give a field that was fitted to this signal"
            )
        if {k: one.config[k] for k in ("encoding", "network")} != {k: last.config[k] for k in ("encoding", "network")}:
            raise ConfigError(
                "the fields have different encodings or networks; give one field at several steps of its training"
            )
    field = build_field(signal, last.config["encoding"], last.config["network"], seed, last.device)
    watch = Watch(field, signal, window)
    for step, one in several:
        field.load_state_dict(one.state_dict())
        watch.see(step)
    found = watch.after()
    if not isinstance(trained, Mapping):
        found.history.clear()  # how many steps a field has made is not known
    return found


def moments(steps: int) -> list[int]:
    """Steps at which a training is looked at: 1, 3, 10, 32, ... (powers of the root of ten), and the last."""
    found, place = set(), 1.0
    while place < steps:
        found.add(round(place))
        place *= 10**0.5
    return sorted(found | {steps})
