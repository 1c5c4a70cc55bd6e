r"""Pictures of triangle meshes on the CPU: no GPU, no screen, the same bytes each time.

:mod:`.visibility` finds the triangle behind each sample of a pixel; here its colour is computed. Light comes from a key at
the viewer's upper left, a fill at the right and a sky above the object:

$$ L = k\,\frac{\max(0, \langle n, l_k\rangle + h)}{1 + h} + f\,\max(0, \langle n, l_f\rangle)
     + s\,A\,\frac{1 + \langle n, \text{up}\rangle}{2} $$

with the normal $n$ turned to the viewer (a surface has two sides), $h$ = 0.2 to soften the shadow's edge, and the share $A$
of the sky that the surroundings leave open (ambient occlusion of what is seen: McGuire, Osman, Bukowski and Hennessy,
"The Alchemy screen-space ambient obscurance algorithm", HPG 2011, in its form with cosines). Light is added and pixels are
averaged as light, then encoded for the screen (sRGB).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from neuralfield.checks import choice, integer, number
from neuralfield.errors import ConfigError, nearest
from neuralfield.signals.colour import linear_to_srgb, srgb_to_linear
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz.camera import Camera, Vector
from neuralfield.viz.normals import corner_normals
from neuralfield.viz.occlusion import open_sky
from neuralfield.viz.style import BODY, GREY, Page
from neuralfield.viz.viewpoint import best_view
from neuralfield.viz.visibility import visible_faces

CLAY = "#c3cad6"
"""The colour of a surface without values."""

_KEY, _FILL, _SKY, _SOFT = 1.0, 0.18, 0.25, 0.2  # of light; h above
_KEY_FROM, _FILL_FROM = (-0.55, 0.60, 0.58), (0.80, 0.05, 0.60)  # right, up, back
_FLATTEN = 0.45  # how far the light on a surface with values is moved to even light, so that colours can be read off
_MOST_SAMPLES = 2**26
_BLOCK = 2**17  # samples shaded at a time


def render_mesh(
    mesh: TriangleMesh | None,
    camera: Camera | None,
    width: int,
    height: int,
    *,
    colour: str = CLAY,
    values: Float[np.ndarray, " v"] | None = None,
    colormap: Any = "viridis",
    limits: tuple[float, float] = (0.0, 1.0),
    samples: int = 4,
    background: str = "#ffffff",
) -> UInt8[np.ndarray, "height width 3"]:
    """A shaded picture of a mesh.

    Normals are smooth over edges of less than 50 degrees and flat at sharper ones. Memory: about 70 bytes per sample and
    250 per triangle.

    Args:
        mesh: what to show; without one, or with nothing in view, the picture is empty and says "no surface".
        camera: where from, see :meth:`Camera.around` and :func:`~neuralfield.viz.viewpoint.best_view`, which None means.
        width, height: of the picture, pixels, 1 to 8192; all samples together at most 2^26.
        colour: of the surface, as matplotlib names colours.
        values: one number per vertex, shown in place of ``colour`` through the colormap; not finite ones are cyan.
        colormap: name of a colormap of matplotlib, or one itself.
        limits: the values at the two ends of the colormap.
        samples: per pixel: 1, 4, 9 or 16.
        background: a colour.

    Raises:
        ConfigError: an option that is not as above.
    """
    width, height = integer("width", width, 1, 8192), integer("height", height, 1, 8192)
    factor = math.isqrt(int(choice("samples", str(samples), ("1", "4", "9", "16"))))
    if width * height * factor**2 > _MOST_SAMPLES:
        raise ConfigError(
            f"{width} x {height} pixels of {samples} samples are more than 2^26 samples; use fewer of either"
        )
    if values is not None and mesh is not None and len(values) != len(mesh.vertices):
        raise ConfigError(f"values must be one number per vertex: got {len(values)} for {len(mesh.vertices)} vertices")
    if mesh is None:
        return _no_surface(width, height, background, "no surface")
    camera = best_view(mesh, aspect=width / height) if camera is None else camera
    face = visible_faces(mesh.vertices, mesh.faces, camera, factor * width, factor * height)
    hit = face >= 0
    if not hit.any():
        return _no_surface(width, height, background, "no surface in view")
    where = np.flatnonzero(hit.reshape(-1))
    place, normal, value = _surface(mesh, camera, face, where, values)
    paint = _paint(colour, value, colormap, limits)
    share = _sky_share(camera, hit, where, place, normal, factor)
    light = _light(normal, camera, share)
    if values is not None:
        light += _FLATTEN * (0.9 - light)
    linear = np.empty((hit.size, 3), np.float32)
    linear[:] = srgb_to_linear(_rgb(background))
    linear[where] = np.clip(paint * light[:, None], 0, 1)
    pixels = linear.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    return np.rint(linear_to_srgb(pixels) * 255).astype(np.uint8)


def _surface(
    mesh: TriangleMesh, camera: Camera, face: Int64[np.ndarray, "h w"], where: Int64[np.ndarray, " n"], values: Any
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"], Float[np.ndarray, " n"] | None]:
    """Where the samples' rays meet their triangles, the unit normals there, the values.

    Places are in the camera's coordinates, in units of its distance from the middle of the mesh.
    """
    height, width = face.shape
    seen, index = np.unique(face.reshape(-1)[where], return_inverse=True)
    corner = mesh.vertices[mesh.faces[seen]]
    normals = corner_normals(mesh, seen)
    unit = np.linalg.norm(camera.eye - sum(mesh.box) / 2)
    place, normal = np.empty((len(where), 3), np.float32), np.empty((len(where), 3), np.float32)
    value = None if values is None else np.empty(len(where))
    for start in range(0, len(where), _BLOCK):
        part = slice(start, start + _BLOCK)
        at, own = where[part], index[part]
        ray = camera.rays(at % width + 0.5, at // width + 0.5, width, height)
        weight, flat = _weights(camera.eye, ray, corner[own])
        met = np.einsum("ij,ijk->ik", weight, corner[own])
        place[part] = camera.to_camera(met) / unit
        smooth = np.einsum("ij,ijk->ik", weight, normals[own])
        smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-30)
        # The triangle's own side decides, not the smooth normal, which may point away at the outline.
        normal[part] = smooth * -np.sign((flat * ray).sum(axis=1))[:, None]
        if value is not None:
            value[part] = (weight * values[mesh.faces[seen[own]]]).sum(axis=1)
    return place, normal, value


def _weights(
    eye: Vector, ray: Float[np.ndarray, "n 3"], corner: Float[np.ndarray, "n 3 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Barycentric weights of the points where rays from the eye meet the planes of triangles, and these planes' normals.

    Cramer's rule for eye + z ray = a + v (b - a) + w (c - a), as Möller and Trumbore (1997). A triangle seen on its edge
    has rays beside it by rounding: they are moved onto it.
    """
    one, two, gap = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0], eye - corner[:, 0]
    cross = np.cross(ray, two)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1 / (one * cross).sum(axis=1)
        v = (gap * cross).sum(axis=1) * scale
        w = (ray * np.cross(gap, one)).sum(axis=1) * scale
    weight = np.clip(np.nan_to_num(np.stack([1 - v - w, v, w], axis=1), nan=1 / 3), 0, 1)
    return weight / weight.sum(axis=1, keepdims=True), np.cross(one, two)


def _light(
    normal: Float32[np.ndarray, "n 3"], camera: Camera, share: Float32[np.ndarray, " n"]
) -> Float32[np.ndarray, " n"]:
    axes = np.stack([camera.right, camera.up, camera.back])
    key, fill = ((np.array(v) / np.linalg.norm(v) @ axes).astype(np.float32) for v in (_KEY_FROM, _FILL_FROM))
    sky = (1 + normal @ camera.world_up.astype(np.float32)) / 2
    light = _KEY * np.maximum(normal @ key + np.float32(_SOFT), 0) / (1 + _SOFT) * (0.4 + 0.6 * share)
    light += _FILL * np.maximum(normal @ fill, 0) * share
    return (light + _SKY * (0.3 + 0.7 * sky) * share).astype(np.float32)


def _sky_share(
    camera: Camera, hit: Bool[np.ndarray, "h w"], where: np.ndarray, place: np.ndarray, normal: np.ndarray, factor: int
) -> Float32[np.ndarray, " n"]:
    """The share A of every sample, from one sample of each pixel; R is 8 % of the extent of what is seen."""
    one = (slice(factor // 2, None, factor),) * 2
    points, facing = np.full((*hit.shape, 3), np.nan, np.float32), np.zeros((*hit.shape, 3), np.float32)
    points.reshape(-1, 3)[where] = place
    facing.reshape(-1, 3)[where] = normal @ np.stack([camera.right, camera.up, -camera.back], axis=1).astype(np.float32)
    height, width = hit[one].shape
    reach = 0.08 * float(np.ptp(place[:, :2], axis=0).max())
    share = open_sky(
        points[one], facing[one], reach, reach * camera.scale(width, height) / float(np.median(place[:, 2]))
    )
    return share[where // hit.shape[1] // factor, where % hit.shape[1] // factor]


def _paint(colour: str, value: Any, colormap: Any, limits: tuple[float, float]) -> Float32[np.ndarray, "#n 3"]:
    """The colours of the samples as light."""
    if value is None:
        return srgb_to_linear(_rgb(colour))[None]
    from matplotlib import colormaps

    low, high = (number("limits", limit) for limit in limits)
    if not low < high:
        raise ConfigError(f"limits must be two numbers, the first below the second, got {limits}")
    if isinstance(colormap, str):
        if colormap not in colormaps:
            raise ConfigError(f"{colormap!r} is not a colormap of matplotlib{nearest(colormap, colormaps)}")
        colormap = colormaps[colormap]
    table = colormap.with_extremes(bad="cyan")
    colours = table(np.ma.masked_invalid((value - low) / (high - low)))[:, :3].astype(np.float32)
    return srgb_to_linear(colours)


def _rgb(colour: str) -> Float32[np.ndarray, " 3"]:
    from matplotlib.colors import to_rgb

    try:
        return np.array(to_rgb(colour), np.float32)
    except ValueError as error:
        raise ConfigError(
            f"{colour!r} is not a colour; write it as '#rrggbb' or by its name, such as 'white'"
        ) from error


def _no_surface(width: int, height: int, background: str, words: str) -> UInt8[np.ndarray, "height width 3"]:
    page = Page(width, height)
    page.figure.set_facecolor(background)
    page.text(width / 2, height / 2, words, BODY, width, color=GREY, ha="center", va="center")
    canvas: Any = page.figure.canvas  # Agg's, which draws into an array
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
