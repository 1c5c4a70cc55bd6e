"""`neuralfield render`: a fitted field at any resolution."""

from __future__ import annotations

import math
from pathlib import Path

from neuralfield.cli.arguments import Parser, add_run, field_file
from neuralfield.errors import ConfigError
from neuralfield.plugins import import_modules


def render(arguments: list[str]) -> int:
    """Draw the field of a run."""
    parser = Parser(prog="neuralfield render", description="Draw a fitted field at any resolution.")
    add_run(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--scale", type=float, help="times the size of the image that was fitted (default 1)")
    size.add_argument("--size", help="WIDTHxHEIGHT in pixels, or WIDTH alone")
    parser.add_argument("--region", help="LEFT,TOP,RIGHT,BOTTOM of the part to draw, each from 0 to 1")
    parser.add_argument("-o", "--output", help="png, jpg, webp (8 bits) or tiff, exr, npy (float); default: in the run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    given = parser.parse_args(arguments)

    from rich.progress import Progress

    from neuralfield import devices, export
    from neuralfield import field as fields

    import_modules(given.imports)
    path = field_file(given.run)
    field = fields.load(path, devices.resolve(given.device))
    export.check_image(field)
    region = export.check_region(_numbers(given.region)) if given.region else (0.0, 0.0, 1.0, 1.0)
    width, height = _size(given.size, given.scale, region, field.signal)
    part = f"_{given.region.replace(',', '_')}" if given.region else ""
    output = Path(given.output) if given.output else path.parent / f"render_{width}x{height}{part}.png"
    # A wrong suffix should not be found out after minutes of drawing.
    if output.suffix.lower() not in export.SUFFIXES:
        raise ConfigError(f"cannot write {output.name}: known formats are {', '.join(export.SUFFIXES)}")
    with Progress(disable=width * height < 2**20, transient=True) as bar:
        task = bar.add_task("drawing", total=height)
        pixels = export.render(field, width, height, region, on_rows=lambda done: bar.update(task, completed=done))
    export.write_image(output, pixels, field.signal.get("space", "srgb"))
    print(f"{output}: {width} x {height}")
    return 0


def _size(
    size: str | None, scale: float | None, region: tuple[float, float, float, float], signal: dict[str, object]
) -> tuple[int, int]:
    """Width and height in pixels; what is not given follows from the fitted image's aspect."""
    try:
        full_width, full_height = int(signal["width"]), int(signal["height"])  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError):
        if size is None or "x" not in size:
            raise ConfigError("this field does not know the size of its image; give --size WIDTHxHEIGHT") from None
        full_width = full_height = 1
    part_width = full_width * (region[2] - region[0])
    part_height = full_height * (region[3] - region[1])
    if size is None:
        factor = 1.0 if scale is None else scale
        if not math.isfinite(factor) or factor <= 0:
            raise ConfigError(f"--scale must be a positive number, got {factor}")
        width, height = round(part_width * factor), round(part_height * factor)
    else:
        first, _, second = size.lower().partition("x")
        if not first.isdigit() or (second and not second.isdigit()):
            raise ConfigError(f"--size must be WIDTHxHEIGHT, for example 1920x1080, got {size!r}")
        width = int(first)
        height = int(second) if second else round(width * part_height / part_width)
    width, height = (max(1, side) if size is None else side for side in (width, height))
    if not 0 < width <= 2**17 or not 0 < height <= 2**17:
        raise ConfigError(f"the size {width} x {height} is not drawable; each side has to be 1 to {2**17}")
    return width, height


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--region must be LEFT,TOP,RIGHT,BOTTOM, for example 0.25,0.25,0.5,0.5; got {text!r}"
        ) from None
