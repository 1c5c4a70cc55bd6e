"""Pictures to try things on without downloading anything: :func:`sample`.

Photographs come from inside the installed scikit-image package (free licences, listed in its data folder); the others
are drawn on the spot.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from neuralfield.errors import ConfigError, MissingDependency, SignalError, nearest

_SIDE = 512
# The files that every wheel of scikit-image carries; the other pictures of skimage.data are fetched from the network.
_PACKAGED = {
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "chelsea": "chelsea.png",
    "rocket": "rocket.jpg",
    "retina": "retina.jpg",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "immunohistochemistry": "ihc.png",
    "camera": "camera.png",
    "brick": "brick.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "moon": "moon.png",
    "logo": "logo.png",
}
_SENTENCES = (
    "The quick brown fox jumps over the lazy dog",
    "0123456789  +-*/=()[]{}<>  .,:;!?",
    "Sphinx of black quartz",
    "HIGH FREQUENCIES IN LOW DIMENSIONAL DOMAINS",
    "minimum illicit million ill",
    "MWMWM iiiii MWMWM lllll",
)


def zoneplate(side: int = _SIDE) -> Float[np.ndarray, "side side"]:
    """(1 + sin(pi r^2 / side)) / 2 with r in pixels from the centre: the frequency grows as r / side.

    It reaches half a cycle per pixel, the Nyquist limit, in the middle of each edge; the corners alias. In [0, 1].
    """
    axis = np.arange(side, dtype=np.float64) + 0.5 - side / 2
    squared = axis[:, None] ** 2 + axis[None, :] ** 2
    return (0.5 + 0.5 * np.sin(math.pi / side * squared)).astype(np.float32)


def text(side: int = _SIDE) -> UInt8[np.ndarray, "side side"]:
    """Black on white lines of growing size: sharp edges at many scales. Drawn with the font built into Pillow.

    The shapes of the letters may differ by a few grey levels between versions of Pillow.
    """
    image = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(image)
    top, line = 6.0, 0
    for size in (8, 10, 12, 16, 20, 26, 34, 44, 58):
        for _ in range(2):
            words = _SENTENCES[line % len(_SENTENCES)]
            draw.text((8, top), f"{words}   {words}", fill=0, font=ImageFont.load_default(size))
            top, line = top + 1.2 * size, line + 1
    return np.asarray(image).copy()


DRAWN: dict[str, Callable[[], np.ndarray]] = {"zoneplate": zoneplate, "text": text}
SAMPLES = (*_PACKAGED, *DRAWN)


def sample(name: str = "astronaut") -> tuple[Shaped[np.ndarray, "height width *channels"], str]:
    """One of the pictures :data:`SAMPLES` and the name to show for it.

    Returns:
        uint8 ``[height, width]``, ``[height, width, 3]`` or (logo) ``[height, width, 4]``; zoneplate is float32 in
        [0, 1]. All are sRGB.

    Raises:
        ConfigError: there is no such sample.
        MissingDependency: it comes from scikit-image, which is not installed.
    """
    if name in DRAWN:
        return DRAWN[name](), name
    if name not in _PACKAGED:
        raise ConfigError(
            f"there is no sample image {name!r}{nearest(name, SAMPLES)}; the samples are "
            f"{', '.join(SAMPLES)}. An image of your own is given with signal.path=picture.png"
        )
    path = _skimage_data() / _PACKAGED[name]
    if not path.is_file():
        raise SignalError(
            f"the installed scikit-image does not carry {path.name}; use signal.name=zoneplate, or "
            "reinstall it with: pip install --force-reinstall scikit-image"
        )
    return imageio.imread(path), name.replace("_", " ")


def _skimage_data() -> Path:
    # Found, not imported: importing scikit-image costs more than reading the picture.
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency(
            "the photographs among the sample images come with scikit-image; install it with: "
            "pip install scikit-image, or use signal.name=zoneplate"
        )
    return Path(next(iter(found.submodule_search_locations))) / "data"
