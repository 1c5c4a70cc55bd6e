"""Fitting from Python, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from neuralfield import devices
from neuralfield.encodings import Encoding, registry
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.fitting import defaults
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.fitting.progress import log_to, reporter
from neuralfield.run import build_field, chosen_encoding
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal, load_image


def fit(
    signal: np.ndarray | Tensor | str | Path | Signal,
    encoding: str | Mapping[str, Any] | Encoding = "hashgrid",
    network: Mapping[str, Any] | nn.Module | None = None,
    *,
    device: str = "auto",
    seed: int = 0,
    holdout: str = "none",
    progress: bool = True,
    folder: str | Path | None = None,
    **options: Any,
) -> Field:
    """Fit a field to an image, a shape or a volume.

    **Arguments**

    - `signal`: an image as an array or tensor [H, W] or [H, W, C], uint8, uint16 or float in [0, 1], or its path; or any
      :class:`~neuralfield.signals.Signal`, as ``nf.signals.load({"type": "shape", "path": "bunny.obj"})`` gives it.
    - `encoding`: a name, ``{"name": "fourier", "sigma": 5}``, or a module of one's own. With ``"sigma": "auto"``, or "auto"
      for the encoding, the one is taken that is predicted to serve this image best at this number of steps
      (:mod:`neuralfield.explain.auto`).
    - `network`: options of the MLP, ``{"width": 256}``, or a module from ``encoding.out_dim`` features to C channels.
    - `device`, `seed`: where, and of everything random.
    - `holdout`: "none", "every_other" or "random:0.25": pixels kept out of training. (Not with a Signal, which has its
      own.)
    - `progress`: show it.
    - `folder`: where checkpoints go; None for none. With ``resume=True`` the fit continues from there.
    - `options`: those of :class:`~neuralfield.fitting.FitOptions`: ``steps=500``, ``seconds=30``, ``lr=1e-3``, ...

    **Returns** the fitted :class:`~neuralfield.Field`, ``field([N, D]) -> [N, C]``. Its ``history`` is a list of
    evaluations (step, seconds, loss, and psnr_train, psnr_heldout, or iou_uniform, iou_surface).

    Raises a :class:`~neuralfield.errors.NeuralFieldError` for unusable input or options.
    """
    signal = as_signal(signal, holdout, seed)
    where = devices.resolve(device)
    given = FitOptions.from_dict(defaults.fit_options(options))
    name, why = _name(encoding), None
    if not isinstance(encoding, Encoding):
        given_options = {} if isinstance(encoding, str) else dict(encoding)
        if name == "fourier":
            given_options.setdefault("seed", seed)
        given_options, why = chosen_encoding({**given_options, "name": name}, signal, network, given, seed, where)
        name = str(given_options["name"])
        encoding = defaults.encoding_options(defaults.automatic(name, given_options), signal)
    if not isinstance(network, nn.Module):
        chosen = dict(network or {})
        sizes = dict.fromkeys(("width", "depth"), defaults.AUTO) if chosen.get("name", "mlp") == "mlp" else {}
        network = defaults.network_options({**sizes, **chosen}, name)
    field = build_field(signal, encoding, network, seed, where)
    if given.batch_size is None:
        given = replace(given, batch_size=defaults.batch_size(name, where, signal.details))
    path = None if folder is None else Path(folder)
    tell = reporter(progress)
    if why is not None:
        tell.note(str(why))
    trainer = Trainer(field, signal, given, seed=seed, folder=path, progress=tell)
    title = f"{signal.title}; {name}, {field.n_parameters:,} parameters"
    with log_to(tell):
        outcome = trainer.run(title)
    field.history = outcome.state.history
    return field


def _name(encoding: str | Mapping[str, Any] | Encoding) -> str:
    if isinstance(encoding, str):
        return encoding
    if isinstance(encoding, Mapping):
        return str(encoding.get("name", "hashgrid"))
    if not isinstance(encoding, Encoding):
        raise ConfigError(
            f"encoding must be a name, a dictionary with one, or a neuralfield.encodings.Encoding; got "
            f"{type(encoding).__name__}. Derive your class from Encoding (its docstring has a complete example)"
        )
    return registry.find(encoding) or type(encoding).__name__


def as_signal(signal: np.ndarray | Tensor | str | Path | Signal, holdout: str, seed: int) -> Signal:
    """The signal that an argument of :func:`fit` stands for."""
    if isinstance(signal, (str, Path)):
        return load_image(signal, holdout=holdout, seed=seed)
    if not isinstance(signal, Signal):
        return ImageSignal.from_array(signal, holdout=holdout, seed=seed)
    if holdout != "none":
        raise ConfigError("a Signal has its own hold-out; give holdout= when building it instead")
    return signal
