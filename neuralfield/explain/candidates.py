"""Which settings are compared: none, positional, Fourier at several bandwidths, a hash grid, and the user's own."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from neuralfield.checks import integer
from neuralfield.encodings import Encoding, registry
from neuralfield.errors import ConfigError
from neuralfield.explain.words import KNOWN
from neuralfield.field import Field
from neuralfield.fitting import defaults
from neuralfield.fitting.options import FitOptions
from neuralfield.run import build_field
from neuralfield.signals.base import Signal
from neuralfield.signals.holdout import make_split
from neuralfield.signals.image import ImageSignal

if TYPE_CHECKING:
    from neuralfield.signals.volume import VolumeSignal

ORDER = ("none", "positional", "fourier", "hashgrid")
"""From the simplest encoding to the one with the most parameters: of equals the first is recommended."""

_OCTAVES = 6
_FLAT = 1e-6  # range of values below which there is nothing to learn


@dataclass(frozen=True)
class Setting:
    """One field that could be fitted.

    - `name`: as people call it; `overrides`: as fit.py takes it.
    - `encoding`: options with every "auto" replaced, or a module; `network`: options or a module.
    - `own`: the user named it; `in_dim`, `details`: of the signal.
    """

    name: str
    overrides: list[str]
    encoding: Mapping[str, Any] | Encoding
    network: Mapping[str, Any] | nn.Module = field(default_factory=dict)
    own: bool = False
    in_dim: int = 2
    details: int = 0

    @property
    def kind(self) -> str:
        """The encoding's name."""
        if isinstance(self.encoding, Encoding):
            return registry.find(self.encoding) or type(self.encoding).__name__
        return str(self.encoding.get("name", "hashgrid"))

    @property
    def sigma(self) -> float | None:
        """Of Gaussian Fourier features of one bandwidth for all axes; else None."""
        options = self.encoding.config if isinstance(self.encoding, Encoding) else self.encoding
        value = options.get("sigma") if self.kind == "fourier" else None
        return float(value) if isinstance(value, (int, float)) else None

    def build(self, signal: Signal, seed: int, device: torch.device) -> Field:
        """The field at its initial weights."""
        # A module is copied: its own weights are the user's.
        encoding = copy.deepcopy(self.encoding) if isinstance(self.encoding, Encoding) else self.encoding
        network = copy.deepcopy(self.network) if isinstance(self.network, nn.Module) else self.network
        return build_field(signal, encoding, network, seed, device)

    def options(self, options: FitOptions, device: torch.device) -> FitOptions:
        """The fit's options with this encoding's batch size where none is given."""
        if options.batch_size is not None:
            return options
        return replace(options, batch_size=defaults.batch_size(self.kind, device, self.details))


def explainable(signal: Signal) -> Signal:
    """The signal, if it is of a type that an explanation knows."""
    if signal.type not in KNOWN:
        raise ConfigError(
            f"an explanation, and the choice of an encoding, needs one of {', '.join(KNOWN)}; {signal.name} is of type "
            f"{signal.type}"
        )
    return signal


def judged(signal: Signal) -> tuple[Signal, bool]:
    """The signal with a hold-out, and whether it had none: then every other pixel or voxel is held out.

    A shape is judged on fresh points and needs none.

    Raises :class:`~neuralfield.errors.ConfigError` for an image of one colour, and for a volume that is too thin.
    """
    if signal.type == "shape":
        return signal, False
    low, high = signal.min_value, signal.max_value  # type: ignore[attr-defined]
    if high - low < _FLAT * (1 if isinstance(signal, ImageSignal) else max(abs(low), abs(high))):
        raise ConfigError(
            f"{signal.name} has the same value everywhere ({high:g}): every field fits it, and there is "
            f"nothing to explain; give another {signal.type} or crop"
        )
    if signal.split.n_heldout:
        return signal, False
    return spared(signal, "every_other"), True


def spared(signal: Signal, holdout: str) -> Signal:
    """The same image or volume with another hold-out."""
    other = copy.copy(signal)
    if isinstance(signal, ImageSignal):
        other.split = make_split(holdout, signal.height, signal.width, 0)
    else:
        from neuralfield.signals.holdout_volume import make_volume_split

        other.split = make_volume_split(holdout, *cast("VolumeSignal", signal).shape, 0)
    return other


def octaves(signal: Signal) -> list[float]:
    """Bandwidths to try, an octave apart: 1 to 32 cycles per image side (or the cube's) for 256 training samples along it.

    The highest is half of the largest integer power of two that is below the lattice's Nyquist frequency, about.
    """
    top = 2.0 ** round(math.log2(max(signal.lattice / 8, 1.0)))
    return [top / 2**k for k in reversed(range(_OCTAVES))]


def setting(
    signal: Signal,
    encoding: str | Mapping[str, Any] | Encoding,
    network: Mapping[str, Any] | nn.Module | None = None,
    seed: int = 0,
    own: bool = False,
    overrides: Sequence[str] | None = None,
    name: str | None = None,
) -> Setting:
    """A setting with every size that was left open chosen as :func:`neuralfield.fit` does.

    **Arguments**

    - `encoding`: a name, options with a name, or a module.
    - `network`: options of the MLP or a module.
    - `overrides`, `name`: None makes them from the options that were given.
    """
    if isinstance(encoding, Encoding):
        kind = registry.find(encoding) or type(encoding).__name__
        return Setting(
            name or kind, list(overrides or []), encoding, _network(network, kind), own, signal.in_dim, signal.details
        )
    given: dict[str, Any] = {"name": encoding} if isinstance(encoding, str) else dict(encoding)
    kind = str(given.setdefault("name", "hashgrid"))
    resolved = dict(given)
    if kind == "fourier":
        resolved.setdefault("seed", seed)
    resolved = defaults.encoding_options(defaults.automatic(kind, resolved), signal)
    shown = {k: v for k, v in given.items() if k not in ("name", "seed") and v not in (None, defaults.AUTO)}
    if overrides is None:
        overrides = [f"encoding={kind}", *(f"encoding.{k}={_text(v)}" for k, v in shown.items())]
    words = [kind, *(f"{k}={_text(v)}" for k, v in shown.items())]
    return Setting(
        name or " ".join(words), list(overrides), resolved, _network(network, kind), own, signal.in_dim, signal.details
    )


def comparison(signal: Signal, network: Mapping[str, Any] | nn.Module | None = None, seed: int = 0) -> list[Setting]:
    """The settings that every signal is shown against."""
    if isinstance(network, nn.Module):
        raise ConfigError(
            "a network that is a module fits one encoding's features; name the fields to compare: "
            "explain(signal, [field, ...])"
        )
    fourier = [{"name": "fourier", "sigma": sigma} for sigma in octaves(signal)]
    everything: list[str | dict[str, Any]] = ["none", "positional", *fourier, "hashgrid"]
    return [setting(signal, encoding, network, seed) for encoding in everything]


def merged(settings: Sequence[Setting], own: Sequence[Setting]) -> list[Setting]:
    """Both lists, the user's settings last, without those that are in the comparison already."""
    found = list(settings)
    for candidate in own:
        same = [i for i, s in enumerate(found) if _same(s, candidate)]
        if same:
            found[same[0]] = replace(found[same[0]], own=True)
            continue
        taken = {s.name for s in found}
        name = candidate.name if candidate.name not in taken else f"{candidate.name} (yours)"
        found.append(replace(candidate, name=name))
    return found


def budget(options: FitOptions) -> int:
    """The number of steps that a prediction is made for.

    Raises :class:`~neuralfield.errors.ConfigError` where the fit is limited in another way alone.
    """
    if options.steps is None:
        raise ConfigError(
            "a prediction needs a number of steps; give fit.steps=2000 beside, or instead of, other limits"
        )
    return integer("fit.steps", options.steps, 1)


def rank(kind: str) -> int:
    """Where an encoding stands in :data:`ORDER`; one of the user's own stands last."""
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def _network(network: Mapping[str, Any] | nn.Module | None, kind: str) -> Mapping[str, Any] | nn.Module:
    if isinstance(network, nn.Module):
        return network
    chosen = dict(network or {})
    sizes = dict.fromkeys(("width", "depth"), defaults.AUTO) if chosen.get("name", "mlp") == "mlp" else {}
    return defaults.network_options({**sizes, **chosen}, kind)


def _same(a: Setting, b: Setting) -> bool:
    if isinstance(a.encoding, Encoding) or isinstance(b.encoding, Encoding):
        return a.encoding is b.encoding
    if isinstance(a.network, nn.Module) or isinstance(b.network, nn.Module) or a.network != b.network:
        return False
    return a.in_dim == b.in_dim and _complete(a.encoding, a.in_dim) == _complete(b.encoding, b.in_dim)


def _complete(options: Mapping[str, Any], in_dim: int) -> dict[str, Any]:
    """Options with every default, so that what was left out equals what was given as it is by default."""
    rest = {k: v for k, v in options.items() if k not in ("name", "engine")}
    known = registry.options(str(options["name"]))
    if "in_dim" in known:
        rest["in_dim"] = in_dim
    from neuralfield import encodings

    with torch.device("meta"):
        return {"name": options["name"], **encodings.build(str(options["name"]), **rest).config}


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value).replace(" ", "")
