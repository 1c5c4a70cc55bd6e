"""Everything that can be said about one fit, checked once, with the reasons for the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from neuralfield.checks import choice, flag, integer, number
from neuralfield.errors import ConfigError, nearest
from neuralfield.fitting.losses import LOSSES
from neuralfield.fitting.schedule import SCHEDULES

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class FitOptions:
    """How a field is fitted.

    - `steps`: optimiser steps; None: no limit (then `seconds` is needed).
    - `seconds`: training time; evaluation and writing do not count. The schedule follows whichever limit is nearer.
    - `target_psnr`, `target_iou`: stop as soon as an evaluation reaches it, in dB (held-out samples where there are any), or
      near the surface.
    - `batch_size`: samples a step; "full" for all of them; None chooses by encoding and image.
    - `loss`: a name of :data:`~neuralfield.fitting.losses.LOSSES`; None: the signal's own.
    - `eikonal`: weight of the eikonal term, for signed distances (0.1 in Gropp et al. 2020); 0: none.
    - `lr`: Adam's learning rate for the network; None chooses by encoding and activation.
    - `encoding_lr`: for the encoding's own parameters (a grid's table, trainable frequencies); None chooses.
    - `schedule`: constant, cosine, exponential; `final_lr`: the rate at the end, as a fraction of the first.
    - `warmup_steps`: linear warm-up.
    - `beta1`, `beta2`, `eps`: Adam's. `eps` is tiny because a hash table's gradients are: rows that few pixels touch must
      still move by the full learning rate (Müller et al. 2022, section 4).
    - `weight_decay`: L2 on the network's weights, never on a table's (it would decay rows that no pixel touches).
    - `precision`: of the network's matrix products; the encoding stays in float32. "auto" or None: bfloat16 where the
      hardware multiplies it fast and the network bears it (:func:`~neuralfield.fitting.precision.resolve`), else float32.
    - `eval_every`: steps between evaluations; None: at 1, 2, 3, 4, 6, 8, 11, 16, ... (powers of the root of two).
    - `eval_points`: samples in such an evaluation; the final metrics are over all.
    - `checkpoint_seconds`: time between checkpoints; 0: none.
    - `keep`: "last" or "best" evaluated state as the result.
    - `resume`: continue from the folder's checkpoint.
    - `deterministic`: only algorithms that give equal bits on equal machines.
    """

    steps: int | None = 2000
    seconds: float | None = None
    target_psnr: float | None = None
    target_iou: float | None = None
    batch_size: int | float | str | None = None
    loss: str | None = None
    eikonal: float = 0.0
    lr: float | None = None
    encoding_lr: float | None = None
    schedule: str = "cosine"
    final_lr: float = 0.01
    warmup_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-15
    weight_decay: float = 0.0
    precision: str | None = "float32"
    eval_every: int | None = None
    eval_points: int = 32768
    checkpoint_seconds: float = 15.0
    keep: str = "last"
    resume: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.steps is None and self.seconds is None and self.target is None:
            raise ConfigError(
                "nothing would end this fit: give fit.steps, fit.seconds, fit.target_psnr or fit.target_iou"
            )
        self._whole("steps", 1, 10**9)
        if self.seconds is not None:
            number("fit.seconds", self.seconds, 0, above=True)
        if self.target_psnr is not None:
            number("fit.target_psnr", self.target_psnr, 0, 200)
        if self.target_iou is not None:
            number("fit.target_iou", self.target_iou, 0, 1)
        if isinstance(self.batch_size, str):
            if self.batch_size != "full":
                raise ConfigError(f"fit.batch_size must be a number, 'full', or null, got {self.batch_size!r}")
        else:
            self._whole("batch_size", 1)
        if self.loss is not None:
            choice("fit.loss", self.loss, LOSSES)
        number("fit.eikonal", self.eikonal, 0)
        for name in ("lr", "encoding_lr"):
            if getattr(self, name) is not None:
                number(f"fit.{name}", getattr(self, name), 0)
        choice("fit.schedule", self.schedule, SCHEDULES)
        number("fit.final_lr", self.final_lr, 0, 1, above=self.schedule == "exponential")
        self._whole("warmup_steps", 0)
        for name in ("beta1", "beta2"):
            number(f"fit.{name}", getattr(self, name), 0, 1 - 1e-9)
        number("fit.eps", self.eps, 0, above=True)
        number("fit.weight_decay", self.weight_decay, 0)
        # A configuration's "auto" arrives as None, like that of every other option.
        object.__setattr__(
            self, "precision", choice("fit.precision", "auto" if self.precision is None else self.precision, PRECISIONS)
        )
        self._whole("eval_every", 1)
        self._whole("eval_points", 1)
        number("fit.checkpoint_seconds", self.checkpoint_seconds, 0)
        choice("fit.keep", self.keep, ("last", "best"))
        flag("fit.resume", self.resume)
        flag("fit.deterministic", self.deterministic)

    def _whole(self, name: str, low: int, high: int | None = None) -> None:
        """Check an option that is a whole number, and keep it as an int: 1e4 is one too."""
        value = getattr(self, name)
        if value is not None:
            object.__setattr__(self, name, integer(f"fit.{name}", value, low, high))

    def samples_per_step(self, n: int) -> int:
        """Of n training samples those that a step sees; `batch_size` has to be resolved to a number or "full"."""
        return min(n, self.batch_size) if isinstance(self.batch_size, int) else n

    @property
    def target(self) -> float | None:
        """The quality that ends the fit, in whichever measure."""
        return self.target_iou if self.target_psnr is None else self.target_psnr

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitOptions:
        """Options from a dictionary; an unknown key names the nearest known one."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"fit has no option '{key}' (known: {', '.join(known)}){nearest(key, known)}")
        return cls(**values)

    def identity(self) -> dict[str, Any]:
        """The options that decide the numbers of a fit: equal identities may continue one another's checkpoints."""
        return {k: v for k, v in asdict(self).items() if k not in ("resume", "checkpoint_seconds")}
