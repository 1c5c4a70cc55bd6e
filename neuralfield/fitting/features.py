"""Features of all training samples, computed once: for encodings that do not learn, in fits that see each sample often."""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.encodings import Bounded, Encoding, Fourier, Identity, Positional
from neuralfield.field import Field
from neuralfield.fitting.options import FitOptions
from neuralfield.memory import available_bytes

CACHE_BYTES = 2**30
"""The most that features are given; and no more than a quarter of what is free."""

_VISITS = {"cpu": 50, "cuda": 4}
"""Steps have to see each sample so many times on average. On a CPU the first write to fresh memory costs as much as
computing the features some ten times, and reading them back saves a few per cent of a step."""

_SHARE = 0.05
"""Of a fit that is limited in seconds, the most that may go into it."""

_BLOCK = 2048


def learns_nothing(encoding: Encoding) -> bool:
    """Whether features are a function of the coordinates alone for the whole of a fit.

    True for the package's own encodings without parameters. A class derived from one may do anything; a hash grid learns.
    """
    if type(encoding) is Bounded:
        return learns_nothing(encoding.encoding)
    return type(encoding) in (Fourier, Positional, Identity) and not list(encoding.parameters())


def worthwhile(field: Field, n_samples: int, batch_size: int, options: FitOptions) -> bool:
    """Whether a cache is possible for this field, fits into memory, and will be used often enough to pay."""
    if type(field) is not Field or not learns_nothing(field.encoding):
        return False
    if options.steps is not None and options.steps * batch_size < _VISITS.get(field.device.type, 4) * n_samples:
        return False
    return 4 * n_samples * field.encoding.out_dim <= min(CACHE_BYTES, available_bytes(field.device) / 4)


@torch.no_grad()
def compute(
    encoding: Encoding, coordinates: Float[Tensor, "n dim"], dtype: torch.dtype, seconds: float | None = None
) -> Float[Tensor, "n features"] | None:
    """Features of all coordinates, or None where this would take too much of a fit that is limited in `seconds`.

    They equal the features of a batch bit for bit wherever the product of coordinates and frequencies does not round by
    the number of its rows (so far everywhere), else up to that rounding. `dtype`: what the network's first product takes.
    """
    n = len(coordinates)
    out = torch.empty(n, encoding.out_dim, dtype=dtype, device=coordinates.device)
    started = time.perf_counter()
    for done in range(0, n, _BLOCK):
        spent = time.perf_counter() - started
        # Not after the first block alone, which pays for loading code.
        if seconds is not None and done > _BLOCK and spent * n / done > _SHARE * seconds:
            return None
        out[done : done + _BLOCK] = encoding(coordinates[done : done + _BLOCK])
    return out
