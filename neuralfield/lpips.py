"""LPIPS, a learned perceptual distance, without importing torchvision and without a silent download.

For features ``f_l`` of the five ReLU outputs of AlexNet, divided by their length over the channels, and learned
weights ``w_l >= 0``::

    d(x, y) = sum_l mean_hw sum_c w_lc (f_lc(x) - f_lc(y))^2

0 for equal images; about 0.05 is hardly visible, 0.5 is another image. Version 0.1 of the weights, values scaled to
[-1, 1] and then by the statistics of ImageNet. Equals ``lpips.LPIPS(net="alex")`` of the reference package. The linear
weights ``w`` are read from that package (``pip install lpips``), which is not imported: it imports torchvision, which
does not load beside every build of torch. The AlexNet weights (230 MB) are those that torchvision would download.

Source: R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The unreasonable effectiveness of deep features as a
perceptual metric", CVPR 2018.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from neuralfield.checks import choice

logger = logging.getLogger(__name__)

TRUNK_FILE = "alexnet-owt-7be5be79.pth"
TRUNK_URL = f"https://download.pytorch.org/models/{TRUNK_FILE}"
TRUNK_SHA256 = "7be5be79"  # first digits, as in the name of the file
MODES = ("auto", "off", "download")
SMALLEST_SIDE = 31  # below, AlexNet's second pooling has nothing left
LARGEST_AUTO_PIXELS = 4_000_000

_MEAN = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class _Unavailable(Exception):
    """Why there is no value; its text becomes the reason."""


@dataclass(frozen=True)
class LPIPSResult:
    """Exactly one of the two is given: the distance, or one sentence that says why there is none."""

    value: float | None
    reason: str | None = None


def lpips_distance(
    truth: Float[np.ndarray, "height width channels"],
    fit: Float[np.ndarray, "_height _width _channels"],
    mode: str = "auto",
    net: str = "alex",
) -> LPIPSResult:
    """LPIPS between two images with values in [0, 1] (clamped), grey or RGB.

    Args:
        truth: image, ``[height, width, channels]``; one channel is repeated to three.
        fit: image of the same shape.
        mode: ``auto`` computes if the weights are on this machine and the image has at most 4 megapixels; ``off``
            never computes; ``download`` first fetches missing weights (230 MB), says so in the log, and has no limit
            on the size of the image.
        net: features to compare; only ``alex``, which the authors recommend for measuring.

    Returns:
        The distance or the reason why there is none. Missing packages, missing weights, a failed download, images too
        small or too large and values that are not finite are reasons, never errors.

    Raises:
        ConfigError: an unknown ``mode`` or ``net``.
    """
    choice("metrics.lpips", mode, MODES)
    choice("net", net, ["alex"])
    if mode == "off":
        return LPIPSResult(None, "switched off by metrics.lpips=off")
    try:
        _check_images(truth, fit, mode)
        heads = _heads(net)
        trunk = _trunk(mode)
        with torch.inference_mode():
            return LPIPSResult(_distance(trunk, heads, _prepare(truth), _prepare(fit)))
    except _Unavailable as reason:
        return LPIPSResult(None, str(reason))
    except (RuntimeError, MemoryError) as error:  # torch reports exhausted memory as RuntimeError
        return LPIPSResult(
            None, f"LPIPS could not be computed: {str(error).splitlines()[0] if str(error) else error!r}"
        )


def _check_images(truth: np.ndarray, fit: np.ndarray, mode: str) -> None:
    if truth.shape != fit.shape:
        raise _Unavailable(f"the truth has shape {truth.shape} and the fit {fit.shape}")
    height, width, channels = truth.shape
    if channels not in (1, 3):
        raise _Unavailable(f"LPIPS is defined for grey and RGB images, this one has {channels} channels")
    if min(height, width) < SMALLEST_SIDE:
        raise _Unavailable(f"LPIPS needs sides of at least {SMALLEST_SIDE} pixels, the image has {width} x {height}")
    if mode == "auto" and height * width > LARGEST_AUTO_PIXELS:
        raise _Unavailable("the image has more than 4 megapixels; metrics.lpips=download computes LPIPS all the same")
    if not (np.isfinite(truth).all() and np.isfinite(fit).all()):
        raise _Unavailable("some values are not finite")


def _heads(net: str) -> list[torch.Tensor]:
    """The weights ``w_l`` of each layer, ``[1, channels, 1, 1]``, read from the installed lpips package."""
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise _Unavailable("the lpips package, which holds the learned weights, is not here: pip install lpips")
    path = Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")  # the file names CUDA storages
        return [state[f"lin{layer}.model.1.weight"].float() for layer in range(5)]
    except Exception as error:  # torch.load has no common class for a broken file
        raise _Unavailable(
            f"cannot read {path} ({type(error).__name__}): pip install --force-reinstall lpips"
        ) from error


def _trunk(mode: str) -> nn.Sequential:
    """AlexNet's convolutions with ImageNet weights; its first, second, ... fifth ReLU give the features."""
    try:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path = folder / TRUNK_FILE
        if not path.is_file():
            if mode != "download":
                raise _Unavailable(f"needs {path} (metrics.lpips=download fetches it, 230 MB, from {TRUNK_URL})")
            _download(folder)
        with path.open("rb") as file:
            digest = _sha256(file)
        if not digest.startswith(TRUNK_SHA256):
            raise _Unavailable(f"{path} is damaged: delete it, then metrics.lpips=download fetches it again (230 MB)")
        state = torch.load(path, weights_only=True, map_location="cpu")
    except OSError as error:
        raise _Unavailable(f"the AlexNet weights {TRUNK_FILE} are out of reach: {error}") from error
    trunk = _alexnet()
    trunk.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")})
    return trunk.eval().requires_grad_(False)


def _alexnet() -> nn.Sequential:
    """The convolutions of AlexNet ("one weird trick" version), numbered as in torchvision."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def _download(folder: Path) -> None:
    logger.warning("metrics.lpips=download: fetching %s (230 MB) into %s", TRUNK_URL, folder)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torch sets none: behind a firewall that drops packets it would wait for ever
    try:
        torch.hub.load_state_dict_from_url(
            TRUNK_URL,
            model_dir=str(folder),
            map_location="cpu",
            progress=sys.stderr.isatty(),
            check_hash=True,
            weights_only=True,
        )
    except Exception as error:  # no network, no space, a wrong hash, a proxy's page instead of the file
        raise _Unavailable(f"cannot download {TRUNK_URL}: {error}; put the file into {folder} by hand") from error
    finally:
        socket.setdefaulttimeout(before)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()  # hashlib.file_digest needs Python 3.11
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _prepare(image: np.ndarray) -> torch.Tensor:
    """``[height, width, 1 or 3]`` in [0, 1] to the ``[1, 3, height, width]`` that the network expects."""
    values = torch.from_numpy(np.array(image, np.float32)).clamp(0, 1).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
    return (2 * values - 1 - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_SCALE).view(1, 3, 1, 1)


def _distance(trunk: nn.Sequential, heads: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> float:
    total, layer = 0.0, 0
    for module in trunk:
        x, y = module(x), module(y)
        if isinstance(module, nn.ReLU):
            total += float((heads[layer] * (_unit(x) - _unit(y)).square()).sum(dim=1).mean(dtype=torch.float64))
            layer += 1
    return total


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)
