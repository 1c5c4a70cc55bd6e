"""A field as an image or a volume, at any resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError, OutputError
from neuralfield.field import Field
from neuralfield.files import atomic
from neuralfield.fitting.evaluation import block_points, evaluate, inference
from neuralfield.signals.colour import linear_to_srgb

_EIGHT_BIT = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FLOAT = (".tif", ".tiff", ".exr", ".npy")
SUFFIXES = (*_EIGHT_BIT, *_FLOAT)


def render(
    field: Field,
    width: int,
    height: int,
    region: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    on_rows: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "height width channels"]:
    r"""The field on a `height` x `width` raster of pixel centres, float32.

    **Arguments**

    - `region`: (left, top, right, bottom) of the part to draw, in [0, 1]; pixel (r, c) is at
      $(l + (c + \tfrac12)(r - l)/W,\; t + (r + \tfrac12)(b - t)/H)$.
    - `on_rows`: called with the number of rows done so far.

    Memory: the result, and one block of activations.
    """
    integer("width", width, 1)
    integer("height", height, 1)
    check_image(field)
    left, top, right, bottom = check_region(region)
    out = np.empty((height, width, field.out_dim), np.float32)
    device = field.device
    # Positions in float64, rounded once: at width 1e5 a float32 sum would be off by a tenth of a pixel.
    x = (left + (torch.arange(width, dtype=torch.float64) + 0.5) / width * (right - left)).float().to(device)
    y = (top + (torch.arange(height, dtype=torch.float64) + 0.5) / height * (bottom - top)).float().to(device)
    rows = max(1, block_points(field) // width)
    with inference(field):
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            grid = torch.stack(torch.meshgrid(x, y[start:stop], indexing="xy"), dim=-1).reshape(-1, 2)
            # A row longer than a block is cut: the block, not the image, decides how much memory is used.
            values = torch.cat([field(part).float().cpu() for part in grid.split(block_points(field))])
            out[start:stop] = values.reshape(stop - start, width, -1).numpy()
            if on_rows is not None:
                on_rows(stop)
    return out


def voxels(
    field: Field,
    depth: int,
    height: int,
    width: int,
    box: Sequence[Sequence[float]] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[Float[np.ndarray, "k height width channels"]]:
    r"""The field at the centres of depth x height x width voxels, float32, in slabs of a few slices, in order of z.

    **Arguments**

    - `box`: lower and upper corner x, y, z of the part, in [0, 1]; voxel (k, j, i) is at
      $l + \left(\frac{i + 1/2}{W}, \frac{j + 1/2}{H}, \frac{k + 1/2}{D}\right)(u - l)$.
    - `on_progress`: called with the fraction done.

    Memory: one slab of about a million points, and one block of activations.
    """
    sizes = [integer(name, n, 1) for name, n in (("width", width), ("height", height), ("depth", depth))]
    if field.in_dim != 3:
        raise ConfigError(f"only a field of 3 coordinates is a volume; this one has {field.in_dim}")
    x, y, z = (
        (low + (torch.arange(n, dtype=torch.float64) + 0.5) / n * (high - low)).float()
        for n, low, high in zip(sizes, *box, strict=True)
    )
    thickness = max(1, 2**20 // (height * width))
    for first in range(0, depth, thickness):
        last = min(first + thickness, depth)
        grid = torch.stack(torch.meshgrid(z[first:last], y, x, indexing="ij")[::-1], dim=-1)
        yield evaluate(field, grid.reshape(-1, 3)).reshape(last - first, height, width, -1).numpy()
        if on_progress is not None:
            on_progress(last / depth)


def check_image(field: Field) -> None:
    """Raise :class:`~neuralfield.errors.ConfigError` where a field is no image."""
    if field.in_dim != 2:
        raise ConfigError(
            f"only a field of 2 coordinates is an image; this one has {field.in_dim}: `neuralfield export` writes its mesh "
            "or its voxels, `neuralfield view` shows it"
        )


def check_region(region: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, each in [0, 1] and in order."""
    if len(region) != 4:
        raise ConfigError(f"a region is four numbers, left,top,right,bottom in [0, 1]; got {list(region)}")
    left, top, right, bottom = (number("region", value, 0, 1) for value in region)
    if left >= right or top >= bottom:
        raise ConfigError(f"the region {left:g},{top:g},{right:g},{bottom:g} is empty; give left,top,right,bottom")
    return left, top, right, bottom


def to_8bit(values: Float[np.ndarray, "height width channels"], space: str) -> np.ndarray:
    """uint8 sRGB: clamped, a linear image encoded first (alpha never), rounded to nearest; NaN is 0."""
    values = np.clip(values, 0, 1)
    if space == "linear":
        colours = 3 if values.shape[2] >= 3 else 1
        values = np.concatenate([linear_to_srgb(values[..., :colours]), values[..., colours:]], axis=-1)
    return np.rint(np.nan_to_num(values) * 255).astype(np.uint8)


def write_image(path: str | Path, values: Float[np.ndarray, "height width channels"], space: str = "srgb") -> None:
    """Write an image in the format of the suffix.

    PNG, JPEG, WebP, BMP: 8 bits, sRGB. TIFF, EXR, NPY: float32 as it is (EXR is linear by convention: sRGB values are
    linearised for it).

    Raises :class:`~neuralfield.errors.ConfigError` for another suffix or a channel count that the format lacks, and
    :class:`~neuralfield.errors.OutputError` when it cannot be written; nothing half-written is left.
    """
    path = Path(path)
    suffix, channels = path.suffix.lower(), values.shape[2]
    if suffix not in SUFFIXES:
        raise ConfigError(f"cannot write {path.name}: known formats are {', '.join(SUFFIXES)}")
    if channels > 4 and suffix != ".npy":
        raise ConfigError(f"{suffix} holds at most 4 channels, the image has {channels}; write .npy")
    if channels in (2, 4) and suffix in (".jpg", ".jpeg", ".bmp"):
        raise ConfigError(f"{suffix} has no transparency; write .png, .webp, .tiff or .exr")
    with atomic(path) as temporary:
        try:
            if suffix in _EIGHT_BIT:
                import imageio.v3 as iio

                pixels = to_8bit(values, space)
                iio.imwrite(temporary, pixels[..., 0] if channels == 1 else pixels)
            elif suffix == ".npy":
                np.save(temporary, values)
            elif suffix == ".exr":
                _write_exr(temporary, values, space)
            else:
                import tifffile

                extra = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
                photometric = "rgb" if channels >= 3 else "minisblack"
                tifffile.imwrite(
                    temporary, values if channels > 1 else values[..., 0], photometric=photometric, **extra
                )
        except (OSError, ConfigError):
            raise
        except Exception as error:
            raise OutputError(f"cannot write {path}: {error}") from error


def _write_exr(path: Path, values: np.ndarray, space: str) -> None:
    import OpenEXR

    from neuralfield.signals.colour import srgb_to_linear

    channels = values.shape[2]
    colours = 3 if channels >= 3 else 1
    if space == "srgb":
        values = np.concatenate([srgb_to_linear(values[..., :colours]), values[..., colours:]], axis=-1)
    if channels in (2, 4):  # EXR's alpha is premultiplied by convention
        values = np.concatenate([values[..., :-1] * values[..., -1:], values[..., -1:]], axis=-1)
    names = {1: "Y", 2: "YA", 3: "RGB", 4: "RGBA"}[channels]
    planes = {name: np.ascontiguousarray(values[..., i], np.float32) for i, name in enumerate(names)}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, planes).write(str(path))
