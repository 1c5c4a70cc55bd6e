"""What "auto" means: sizes and batches chosen from the signal, the encoding and the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from neuralfield.checks import integer, number
from neuralfield.signals.base import Signal

AUTO = "auto"


def encoding_options(options: Mapping[str, Any], signal: Signal) -> dict[str, Any]:
    """The encoding's options with every "auto" replaced, from what the signal says of its training samples.

    - hash grid: `max_resolution` is the lattice's number of samples along the longest side, because finer levels would only
      fit gaps; `log2_hashmap_size` gives the finest level about one row per training sample, within 2^10 and 2^22.
    - fourier: `sigma`, where it is None, is the signal's usual bandwidth.
    - positional: one frequency per octave up to the signal's highest sensible one.
    """
    chosen = dict(options)
    if chosen.get("name") == "hashgrid":
        if chosen.get("max_resolution") == AUTO:
            base = integer("base_resolution", chosen.get("base_resolution", 16), 1)
            given = chosen.get("per_level_scale") is not None
            chosen["max_resolution"] = None if given else max(float(base), float(round(signal.lattice)))
        if chosen.get("log2_hashmap_size") == AUTO:
            chosen["log2_hashmap_size"] = min(max(math.ceil(math.log2(signal.details)), 10), 22)
    if chosen.get("name") == "fourier" and chosen.get("sigma", ...) is None:
        chosen["sigma"] = signal.bandwidth
    if chosen.get("name") == "positional":
        if chosen.get("max_frequency") == AUTO:
            counted = chosen.get("n_frequencies") not in (AUTO, None)
            lowest = number("min_frequency", chosen.get("min_frequency", 1.0), 0, above=True)
            chosen["max_frequency"] = None if counted else max(signal.highest_frequency, lowest)
        if chosen.get("n_frequencies") == AUTO:
            chosen["n_frequencies"] = None
    return chosen


def asks_for_a_choice(options: Mapping[str, Any]) -> bool:
    """Whether the encoding, the sigma of Fourier features, or a hash grid's finest level or number of levels is left to a
    prediction (:mod:`neuralfield.explain.auto`), or is a word that only that can refuse."""
    name = options.get("name")
    if name == "hashgrid":
        finest = options.get("max_resolution")
        return isinstance(options.get("n_levels"), str) or (isinstance(finest, str) and finest != AUTO)
    return name == AUTO or (name == "fourier" and isinstance(options.get("sigma"), str) and options["sigma"] == AUTO)


def automatic(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in which the sizes that were not given are "auto": what a name alone asks for."""
    sizes = {
        "hashgrid": ("log2_hashmap_size",) if "per_level_scale" in options else ("log2_hashmap_size", "max_resolution"),
        "positional": ("n_frequencies", "max_frequency") if "n_frequencies" not in options else (),
    }
    usual = {"sigma": None} if name == "fourier" else {}
    return {**dict.fromkeys(sizes.get(name, ()), AUTO), **usual, **options, "name": name}


def network_options(options: Mapping[str, Any], encoding_name: str) -> dict[str, Any]:
    """The network's options with every "auto" replaced: 2 x 64 behind a grid, whose table does the work, else 3 x 256."""
    width, depth = (64, 2) if encoding_name == "hashgrid" else (256, 3)
    auto = {"width": width, "depth": depth}
    return {k: auto[k] if v == AUTO and k in auto else v for k, v in options.items()}


def fit_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fit's options with every "auto" replaced by None, and `steps` by 2000 where nothing else ends the fit."""
    chosen = {k: None if v == AUTO else v for k, v in options.items()}
    endless = all(chosen.get(limit) is None for limit in ("seconds", "target_psnr", "target_iou"))
    if options.get("steps", AUTO) == AUTO:
        chosen["steps"] = 2000 if endless else None
    return chosen


def batch_size(encoding_name: str, device: torch.device, details: int = 0) -> int:
    """Samples a step: small enough for many steps a second, large enough to keep the device busy.

    Behind a hash grid the batch grows with the square root of the number of samples (`details`, of a signal): the optimiser
    passes over the whole table at each step, whatever the batch. On a CPU from 2^13 (half a megapixel) over 2^14
    (3 megapixels) to at most 2^17.
    """
    if encoding_name != "hashgrid":
        return 2**15 if device.type == "cuda" else 2**12
    growth = max(0, round(math.log2(max(details, 1) / 2**19) / 2))
    return 2 ** (16 + min(growth, 2)) if device.type == "cuda" else 2 ** (13 + min(growth, 4))
