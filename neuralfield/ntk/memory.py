"""Memory that a dense kernel would take, and what to call instead when there is not enough."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from neuralfield.errors import DeviceError

_MARGIN = 0.9  # of what is free: the rest of the process needs some too


def available_bytes(device: torch.device | str = "cpu") -> float:
    """Bytes that can be allocated on a device now; infinity where the system does not tell."""
    device = torch.device(device)
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [_system_bytes(), _control_group_bytes()]
    return min(found)


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


def _system_bytes() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
        return math.inf
    except OSError:  # not Linux
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _control_group_bytes() -> float:
    """What a container's limit leaves; /proc/meminfo speaks of the whole machine."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = (folder / "memory.current").read_text(encoding="ascii").strip()
        # Pages of files that were read count as used, but are given up first.
        cached = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return math.inf if limit == "max" else float(limit) - float(used) + float(cached.get("inactive_file", 0))
    except (OSError, ValueError):
        return math.inf
