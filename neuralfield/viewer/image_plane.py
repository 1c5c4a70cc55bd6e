r"""Where a camera sees an image that lies in a plane, and where it has to go so that a point comes to a place.

The image lies in the plane z = 0 of the scene, its middle at the origin, x to the right, y downwards, its longest side
:data:`SIDE` long. The camera looks along +z, with -y upwards, from $(c_x, c_y, -d)$. What it shows of the plane is
$2 d \tan(\text{fov}/2)$ high, and as much wider as the canvas is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SIDE = 100.0
MOST_ZOOM = 1000.0
"""How many times smaller than the image what is seen may become: beyond it, float32 coordinates show as steps."""
LIFT = 1e-3
"""How much nearer than the plane sharper pictures are put, as a part of the camera's distance, so that they cover it."""


@dataclass(frozen=True)
class Camera:
    """A camera in front of the plane.

    - `x`, `y`, `distance`: where it is, in scene units.
    - `fov`: vertical field of view in radians.
    - `width`, `height`: of its canvas, in pixels.
    """

    x: float
    y: float
    distance: float
    fov: float
    width: int
    height: int

    @property
    def seen(self) -> tuple[float, float]:
        """Width and height of what is seen of the plane."""
        height = 2 * self.distance * math.tan(self.fov / 2)
        return height * self.width / self.height, height


@dataclass(frozen=True)
class Picture:
    """A part of the image and how many pixels to draw it with: `region` is left, top, right, bottom in [0, 1]."""

    region: tuple[float, float, float, float]
    width: int
    height: int


def plane_size(width: float, height: float) -> tuple[float, float]:
    """Sides of the plane for an image of that many pixels."""
    longest = max(width, height)
    return SIDE * width / longest, SIDE * height / longest


def visible(camera: Camera, size: tuple[float, float], most_pixels: int = 1 << 22) -> Picture | None:
    """What the camera shows of an image of `size`, one pixel for each of the canvas; None where it shows nothing of it.

    Where the image reaches beyond the canvas, the pixels that are drawn are the screen's; at its own edges they may differ
    in size by a part of one pixel. Of more than `most_pixels` all are drawn larger.
    """
    seen = camera.seen
    coarse = max(1.0, math.sqrt(camera.width * camera.height / most_pixels))
    edges, counts = [], []
    for at, side, extent, pixels in zip((camera.x, camera.y), size, seen, (camera.width, camera.height), strict=True):
        step = extent / pixels
        low, high = max(at - extent / 2, -side / 2), min(at + extent / 2, side / 2)
        if not high - low > step * 1e-3:
            return None
        counts.append(max(1, round((high - low) / step / coarse)))
        edges.append((min(max(low / side + 0.5, 0.0), 1.0), min(max(high / side + 0.5, 0.0), 1.0)))
    (left, right), (top, bottom) = edges
    return Picture((left, top, right, bottom), counts[0], counts[1]) if left < right and top < bottom else None


def placed(
    picture: Picture, camera: Camera, size: tuple[float, float], layer: int = 1
) -> tuple[tuple[float, float, float], float, float]:
    """Middle, width and height in the scene at which `picture` covers its part of the plane for this camera.

    It is nearer than the plane (by `layer` times :data:`LIFT`) and as much smaller, so that it looks as if it lay in it.
    """
    left, top, right, bottom = picture.region
    x, y = ((left + right) / 2 - 0.5) * size[0], ((top + bottom) / 2 - 0.5) * size[1]
    less = 1 - layer * LIFT
    middle = (camera.x + (x - camera.x) * less, camera.y + (y - camera.y) * less, -layer * LIFT * camera.distance)
    return middle, (right - left) * size[0] * less, (bottom - top) * size[1] * less


def under(camera: Camera, place: tuple[float, float]) -> tuple[float, float]:
    """The point of the plane at a place of the canvas (0, 0 its upper left, 1, 1 its lower right corner)."""
    width, height = camera.seen
    return camera.x + (place[0] - 0.5) * width, camera.y + (place[1] - 0.5) * height


def centred(camera: Camera, point: tuple[float, float], place: tuple[float, float]) -> tuple[float, float]:
    """Where the camera has to be, x and y, so that `point` of the plane is at that place of the canvas."""
    width, height = camera.seen
    return point[0] - (place[0] - 0.5) * width, point[1] - (place[1] - 0.5) * height


def fitting(size: tuple[float, float], fov: float, aspect: float, margin: float = 0.04) -> float:
    """The distance from which all of an image is seen, with that much of its side free around it."""
    height = max(size[1], size[0] / aspect) * (1 + 2 * margin)
    return height / (2 * math.tan(fov / 2))


def zoom(camera: Camera, size: tuple[float, float], pixels: tuple[float, float]) -> float:
    """Pixels of the screen to one of the image, which has that many (width, height)."""
    return camera.width / camera.seen[0] / (pixels[0] / size[0])
