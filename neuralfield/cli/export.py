"""`neuralfield export`: a fitted shape as a mesh, a fitted volume as voxels or as the surface at a level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.checks import number
from neuralfield.cli.arguments import Parser, add_run, field_file
from neuralfield.errors import ConfigError, nearest
from neuralfield.field import Field
from neuralfield.plugins import import_modules
from neuralfield.signals.placement import Placement


def export(arguments: list[str]) -> int:
    """Write the mesh or the voxels of a run."""
    parser = Parser(
        prog="neuralfield export",
        description="Write a fitted shape as a mesh, or a fitted volume as voxels or as its surface at a level, in the "
        "coordinates of the source.",
    )
    add_run(parser)
    parser.add_argument(
        "--resolution", type=int, default=256, help="cells of a mesh along the cube's side (default 256)"
    )
    parser.add_argument(
        "--level", type=float, help="of a volume, in its own units: the surface there, instead of voxels"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of voxels: times as many along each side (default 1)")
    parser.add_argument("--dense", action="store_true", help="evaluate every cell, also where nothing seems to be")
    parser.add_argument("-o", "--output", help="ply, obj, stl, glb, off | nii.gz, nrrd, npy, tiff; default: in the run")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    given = parser.parse_args(arguments)

    from neuralfield import devices
    from neuralfield import field as fields

    import_modules(given.imports)
    path = field_file(given.run)
    field = fields.load(path, devices.resolve(given.device))
    kind = field.signal.get("type", "image")
    if field.in_dim != 3 or kind not in ("shape", "volume"):
        raise ConfigError(f"{path} is a field of an {kind}; `neuralfield render` draws it")
    surface = kind == "shape" or given.level is not None
    output = Path(given.output) if given.output else path.parent / _name(surface, given.resolution, given.scale)
    _check_suffix(output, surface)
    return (_mesh if surface else _voxels)(field, output, given)


def _mesh(field: Field, output: Path, given: Any) -> int:
    from rich.progress import Progress

    from neuralfield.extraction import extract, of_field
    from neuralfield.mesh_export import write_mesh
    from neuralfield.shape_results import inside_is

    signal = field.signal
    shape = signal.get("type") == "shape"
    if shape and given.level is not None:
        raise ConfigError("--level is for volumes; a shape has its surface where it is")
    level, side = 0.0, inside_is(signal.get("kind"))
    if not shape:
        low, high = float(signal["low"]), float(signal["high"])
        level, side = (number("--level", given.level) - low) / (high - low), "above"
    box = ((0.0,) * 3, (1.0,) * 3) if shape else signal["box"]
    with Progress(transient=True) as bar:
        task = bar.add_task("extracting the surface", total=1.0)
        mesh = extract(
            of_field(field), given.resolution, level=level, inside_is=side, box=box, skip_empty=not given.dense,
            on_progress=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
    placement = Placement(float(signal["scale"]), tuple(signal["offset"]))
    write_mesh(output, mesh, placement, comment=f"neuralfield: {signal.get('name')}")
    print(f"{output}: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} triangles")
    return 0


def _voxels(field: Field, output: Path, given: Any) -> int:
    from rich.progress import Progress

    from neuralfield.export import voxels
    from neuralfield.volume_export import write_volume

    signal = field.signal
    scale = number("--scale", given.scale, 0, 64, above=True)
    sides = [int(signal[name]) for name in ("depth", "height", "width")]
    depth, height, width = (max(1, round(n * scale)) for n in sides)
    low, high = float(signal["low"]), float(signal["high"])
    steps = np.array(sides[::-1]) / [width, height, depth]  # old voxels in a new one, x, y, z
    affine = None
    if signal.get("affine") is not None:
        finer = np.diag([*steps, 1.0])
        finer[:3, 3] = (steps - 1) / 2  # the centre of the first new voxel
        affine = np.array(signal["affine"]) @ finer
    with Progress(transient=True) as bar:
        task = bar.add_task("evaluating the voxels", total=1.0)
        slabs = voxels(
            field, depth, height, width, signal["box"], on_progress=lambda done: bar.update(task, completed=done)
        )
        write_volume(
            output,
            (slab * np.float32(high - low) + np.float32(low) for slab in slabs),
            (depth, height, width, field.out_dim),
            spacing=[float(s * t) for s, t in zip(signal["spacing"], steps, strict=True)],
            affine=affine,
            unit=str(signal.get("unit", "")),
        )
    print(f"{output}: {width} x {height} x {depth} voxels")
    return 0


def _name(surface: bool, resolution: int, scale: float) -> str:
    return f"mesh_{resolution}.ply" if surface else f"volume_x{scale:g}.nii.gz"


def _check_suffix(output: Path, surface: bool) -> None:
    """Found out before minutes of work."""
    from neuralfield import mesh_export, volume_export

    known = mesh_export.MESH_SUFFIXES if surface else volume_export.SUFFIXES
    if not output.name.lower().endswith(tuple(known)):
        what = "a mesh" if surface else "voxels (with --level: a mesh)"
        raise ConfigError(
            f"cannot write {output.name}: {what} can be {', '.join(known)}{nearest(output.suffix.lower(), known)}"
        )
