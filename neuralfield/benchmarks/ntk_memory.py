"""Memory that a kernel takes beyond its inputs, in a process of its own: `python -m neuralfield.benchmarks.ntk_memory`.

A process that has done other things before would reuse what they left, and show less.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from neuralfield.benchmarks.ntk_problems import PROBLEMS, Sizes

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(
    what: str, sizes: Sizes, n: int, dtype: torch.dtype, device: torch.device, check: bool = False
) -> dict[str, Any]:
    """Run one of :data:`.ntk_problems.PROBLEMS` once in a fresh process.

    **Returns**

    "bytes": the peak beyond what was held before, the result included, or None where the system does not tell; "seconds";
    "deviation": what the problem's own check finds, or None without `check`.
    """
    given: dict[str, Any] = {"what": what, "sizes": asdict(sizes), "n": n, "check": check}
    given |= {"dtype": str(dtype).removeprefix("torch."), "device": str(device)}
    command = [sys.executable, "-m", __name__, json.dumps(given)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measured(what: str, sizes: dict[str, Any], n: int, dtype: str, device: str, check: bool) -> dict[str, Any]:
    options = getattr(torch, dtype), torch.device(device)
    restored: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
    made = Sizes(**restored)
    PROBLEMS[what](made, min(n, 64), *options).run()  # libraries load what they need
    problem = PROBLEMS[what](made, n, *options)
    problem.prepare()
    gc.collect()
    before = _reset(options[1])
    started = time.perf_counter()
    result = problem.run()
    seconds = time.perf_counter() - started
    after = _peak(options[1])
    used = None if before is None or after is None else after - before
    return {"bytes": used, "seconds": seconds, "deviation": problem.check(result) if check else None}


def _reset(device: torch.device) -> int | None:
    """Bytes held now; from here on the peak counts anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:
        return None
    return _status("VmRSS")


def _peak(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    print(json.dumps(_measured(**json.loads(sys.argv[1]))))
