"""A trained field against itself before training: how far from lazy the training was."""

from __future__ import annotations

from neuralfield.errors import ConfigError
from neuralfield.explain.explanation import After
from neuralfield.explain.patches import Patch
from neuralfield.explain.words import words
from neuralfield.field import Field
from neuralfield.ntk.alignment import alignment
from neuralfield.ntk.empirical import empirical_ntk
from neuralfield.ntk.movement import LazinessProbe
from neuralfield.run import build_field
from neuralfield.signals.base import Signal

_POINTS = 256


def after(trained: Field, signal: Signal, window: Patch, seed: int = 0) -> After:
    """Compare on the window's training samples, at most 256 of them.

    **Arguments**

    - `seed`: with which the field was built, so that its initial weights can be drawn again.
    """
    if trained.out_dim != signal.out_dim or trained.in_dim != signal.in_dim:
        raise ConfigError(
            f"the field goes from {trained.in_dim} coordinates to {trained.out_dim} channels, and {signal.name} from "
            f"{signal.in_dim} to {signal.out_dim}; give a field that was fitted to this signal"
        )
    config = trained.config
    field = build_field(signal, config["encoding"], config["network"], seed, trained.device)
    chosen = slice(0, None, -(-len(window.x) // _POINTS))
    x, y = window.x[chosen].to(trained.device), window.y[chosen]
    probe = LazinessProbe(field, x)
    before = alignment(empirical_ntk(field, x), y, centred=True)
    field.load_state_dict(trained.state_dict())
    moved = probe.measure()
    return After(
        weights=moved.weights,
        groups=dict(moved.groups),
        kernel_movement=float(moved.kernel or 0.0),
        kernel_alignment=float(moved.alignment or 0.0),
        gap=moved.gap,
        target_before=before,
        target_after=alignment(empirical_ntk(field, x), y, centred=True),
        what=words(signal).signal,
    )
