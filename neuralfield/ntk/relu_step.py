r"""The step of :class:`~neuralfield.ntk.duals.PiecewiseLinear` in one pass over a block, compiled by numba.

torch needs a dozen passes and an atan2; here $\theta = 2\arcsin\sqrt{u/2}$ is a polynomial on each half of its range (the
coefficients of Cephes' asinf, Moshier 1992; relative error 2e-7), without branches, so that it runs on vector registers.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from torch import Tensor

_f32 = np.float32


@functools.cache
def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def step_(u: Tensor, t: Tensor, k: float) -> None:
    r"""$t \leftarrow (1 - k\theta)\,t$ and $u \leftarrow u - k(\sin\theta - \theta\cos\theta)$ in place.

    Contiguous float32 tensors on the CPU, u in [0, 2].
    """
    _compiled()(u.numpy().reshape(-1), t.numpy().reshape(-1), _f32(k))


@functools.cache
def _compiled() -> Callable[..., Any]:
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(_step)
    except RuntimeError:  # numba found no folder to write to
        return numba.njit(**options)(_step)


@no_type_check
def _step(u, t, k):
    half, quarter, one, two = _f32(0.5), _f32(0.25), _f32(1), _f32(2)
    for i in range(u.size):
        v = u[i]
        h = v * half
        far = h > quarter  # beyond 60 degrees: asin x = pi/2 - 2 asin sqrt((1 - x)/2)
        # 1 - sqrt h = (1 - h)/(1 + sqrt h), whose 1 - h = (2 - u)/2 is exact near u = 2
        z = (two - v) * quarter / (one + math.sqrt(h)) if far else h
        x = math.sqrt(z)
        p = _f32(4.2163199048e-2) * z + _f32(2.4181311049e-2)
        p = p * z + _f32(4.5470025998e-2)
        p = p * z + _f32(7.4953002686e-2)
        p = p * z + _f32(1.6666752422e-1)
        p = p * z * x + x
        theta = _f32(math.pi) - _f32(4) * p if far else two * p
        w = v * (two - v)
        sine = math.sqrt(w if w > _f32(0) else _f32(0))
        q = theta * theta
        series = ((_f32(-1 / 45360) * q + _f32(1 / 840)) * q + _f32(-1 / 30)) * q + _f32(1 / 3)
        bend = series * q * theta if theta < _f32(0.3) else sine - theta * (one - v)
        u[i] = v - k * bend
        t[i] *= one - k * theta
