"""Experiments of the papers behind this package, each with the claim that it checks: `python scripts/reproduce.py NAME`.

A reproduction is a module with one function, ``reproduce(options) -> Reproduction``; its options, with their defaults and
what they mean, are in ``configs/reproduce/NAME.yaml``.
"""

from __future__ import annotations

import importlib
from typing import Any

from neuralfield.errors import ConfigError, nearest
from neuralfield.reproduce.report import Claim, Reproduction

__all__ = ["NAMES", "Claim", "Reproduction", "run"]

NAMES = {
    "spectral_bias": "each eigen-component of the error decays at its eigenvalue's rate",
    "ntk_convergence": "the kernel's spread shrinks with width; Jacot et al. 2018, figures 1 and 2",
    "kernel_modes": "convergence along kernel principal components; Jacot et al. 2018, figure 3",
    "lazy_training": "width and output scale make training lazy; Chizat et al. 2019",
    "random_features": "training the last layer alone is kernel regression; Rahimi & Recht 2007",
    "frequency_rates": "time to learn a frequency follows the spectrum; Basri et al. 2019, Rahaman et al. 2019",
    "fourier_1d": "Fourier features tune the kernel's spectrum; Tancik et al. 2020, figures 2 to 4",
    "fourier_2d_table": "image regression with four encodings; Tancik et al. 2020, table 1",
    "fourier_3d_table": "occupancy of shapes with five encodings; Tancik et al. 2020, table 1 and section 6.2",
    "prediction": "how well fits are predicted before training, on any images, against other ways to choose",
}


def run(name: str, options: dict[str, Any]) -> Reproduction:
    """Run one reproduction with all its options given.

    Raises :class:`~neuralfield.errors.ConfigError` for an unknown name, or for options that are not those of its file.
    """
    check_name(name)
    return importlib.import_module(f"neuralfield.reproduce.{name}").reproduce(**options)  # type: ignore[no-any-return]


def check_name(name: str) -> str:
    """``name`` if there is such a reproduction."""
    if name not in NAMES:
        raise ConfigError(f"unknown reproduction '{name}' (known: {', '.join(NAMES)}){nearest(name, NAMES)}")
    return name
