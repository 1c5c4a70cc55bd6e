"""Devices by name, and what is to be said about this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

from neuralfield.checks import choice
from neuralfield.errors import DeviceError
from neuralfield.version import __version__

_PACKAGES = ("torch", "numpy", "imageio", "scikit-image", "hydra-core", "lpips", "tifffile", "imagecodecs", "numba")


def resolve(device: str) -> torch.device:
    """The torch device that "auto", "cpu", "cuda" or "cuda:1" means here; auto is CUDA where there is one.

    Raises :class:`~neuralfield.errors.DeviceError` when CUDA is asked for and absent.
    """
    kind, _, index = str(device).partition(":")
    choice("device", kind, ("auto", "cpu", "cuda"))
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        if not torch.cuda.is_available():
            why = "this build of torch has no CUDA" if torch.version.cuda is None else "torch finds no usable GPU"
            raise DeviceError(
                f"device={device} was asked for, but {why} (torch {torch.__version__}). Use device=cpu or device=auto, or "
                f"install a CUDA build of torch and check with nvidia-smi"
            )
        if index and (not index.isdigit() or int(index) >= torch.cuda.device_count()):
            raise DeviceError(f"device={device}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    elif index:
        raise DeviceError(f"device={device}: a CPU has no number; use device=cpu")
    return torch.device(device)


def describe(device: torch.device) -> str:
    """The device in words: "AMD EPYC 7763, 2 threads", "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str | None]:
    """Versions of neuralfield, Python and the packages that numbers depend on; None for what is not installed."""
    found: dict[str, str | None] = {"neuralfield": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    found["torch"] = torch.__version__  # with the local part, which tells a CPU build from a CUDA build
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or os.name
