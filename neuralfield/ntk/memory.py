"""Memory that a dense kernel would take, and what to call instead when there is not enough."""

from __future__ import annotations

import torch

from neuralfield.errors import DeviceError
from neuralfield.memory import available_bytes

__all__ = ["available_bytes", "require", "require_dense"]

_MARGIN = 0.9  # of what is free: the rest of the process needs some too


def require(n_bytes: float, what: str, instead: str, device: torch.device | str = "cpu") -> None:
    """Refuse what does not fit.

    **Arguments**

    - `n_bytes`: of everything that the dense path holds at once.
    - `what`: what would take them: "the 262144 x 262144 kernel in float32".
    - `instead`: the call that does without: "ntk.NTKOperator(field, x)".

    Raises :class:`~neuralfield.errors.DeviceError` with both, and what is free.
    """
    free = available_bytes(device)
    if n_bytes > _MARGIN * free:
        raise DeviceError(
            f"{what} takes {_gib(n_bytes)}, and {_gib(free)} are free on {torch.device(device)}; use {instead}, "
            f"or fewer points"
        )


def require_dense(
    rows: int, columns: int, dtype: torch.dtype, instead: str, device: torch.device | str = "cpu"
) -> None:
    """Refuse a dense ``rows`` x ``columns`` matrix that does not fit; see :func:`require`."""
    name = str(dtype).removeprefix("torch.")
    require(rows * columns * dtype.itemsize, f"the {rows} x {columns} kernel in {name}", instead, device)


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:,.0f} MiB"
