"""How much memory there is for the taking."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import torch


def available_bytes(device: torch.device | str = "cpu") -> float:
    """Bytes that can be allocated on a device now, the limit of a container included; infinity where nobody says."""
    device = torch.device(device)
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return min(_system_bytes(), container_bytes())


def _system_bytes() -> float:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):  # not Linux
        pass
    if sys.platform == "win32":
        return math.inf
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def container_bytes(root: Path = Path("/sys/fs/cgroup")) -> float:
    """What a container's limit leaves, infinity without one; /proc/meminfo speaks of the whole machine."""
    try:
        limit = int((root / "memory.max").read_text(encoding="ascii"))
        used = int((root / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (root / "memory.stat").read_text(encoding="ascii").splitlines())
        # Pages of files that were read count as used, but the kernel gives them back on demand.
        return float(max(0, limit - used + int(stat.get("inactive_file", 0))))
    except (OSError, ValueError):  # no container, "max" (no limit), or another version of control groups
        return math.inf
