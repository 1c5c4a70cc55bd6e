r"""Where a picture of a surface is taken from: a camera chosen from the object, its projection and its rays.

A point $p$ has the camera's coordinates $x = \langle p - e, r\rangle$, $y = \langle p - e, u\rangle$ and the depth
$z = -\langle p - e, b\rangle$ for the eye $e$ and the unit vectors $r$ (right), $u$ (up) and $b$ (back, to the viewer). A
picture of $W \times H$ pixels shows it at column $W/2 + s\,x/z$, row $H/2 - s\,y/z$, where $s$ is the number of pixels
per unit of slope.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuralfield.checks import choice, number
from neuralfield.errors import SignalError

UPS = ("y", "z")
"""The axis that points up: y in most meshes, z in scans and in technical drawings."""

Vector = Float[np.ndarray, "3"]


@dataclass(frozen=True, eq=False)
class Camera:
    """A perspective camera: see the module for the maths, :meth:`around` for a view of an object.

    - `eye`: where it stands. `right`, `up`, `back`: orthonormal, `back` towards the viewer.
    - `slope`: half the width and half the height of what it shows, at depth 1.
    - `world_up`: the axis that points up in the scene, for light from above.
    """

    eye: Vector
    right: Vector
    up: Vector
    back: Vector
    slope: tuple[float, float]
    world_up: Vector

    @classmethod
    def around(
        cls,
        points: Float[np.ndarray, "n 3"],
        *,
        up: str = "y",
        azimuth: float = 35.0,
        elevation: float = 20.0,
        field_of_view: float = 24.0,
        aspect: float = 1.0,
        margin: float = 0.04,
    ) -> Camera:
        r"""The camera in a given direction that sees all points and no more.

        With $t$ the slope of the frame, a point is inside horizontally when $|x - c_x| \le t\,(c_z - z)$ for the eye
        $(c_x, c_y, c_z)$. So $c_x = (A - B)/2$ and $t\,c_z = (A + B)/2$ with $A = \max(x + t z)$, $B = \max(t z - x)$;
        likewise vertically, and the farther of the two distances shows everything; then both sides
        of the other direction are given the same margin.

        **Arguments**

        - `points`: what must be seen, such as a mesh's vertices or the corners of its box (:func:`corners`). Points that
          are not finite do not count.
        - `up`: "y" or "z". The front is +z for y, and -y for z.
        - `azimuth`, `elevation`: degrees from the front to the right (of a person who looks at the front), and above
          the horizon, the latter in [-89, 89].
        - `field_of_view`: of the picture's height, degrees, 1 to 120. `aspect`: width / height.
        - `margin`: share of the picture left free at each side, 0 to 0.4.

        Raises :class:`~neuralfield.errors.SignalError` when no point is finite.
        """
        up, azimuth = choice("up", up, UPS), math.radians(number("azimuth", azimuth))
        elevation = math.radians(number("elevation", elevation, -89, 89))
        vertical = math.tan(math.radians(number("field_of_view", field_of_view, 1, 120)) / 2)
        aspect, margin = number("aspect", aspect, 0, above=True), number("margin", margin, 0, 0.4)
        front, side, top = np.eye(3)[[2, 0, 1]] if up == "y" else np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        level = math.cos(azimuth) * front + math.sin(azimuth) * side
        back = math.cos(elevation) * level + math.sin(elevation) * top
        right = math.cos(azimuth) * side - math.sin(azimuth) * front
        axes = np.stack([right, np.cross(back, right), back])

        seen = points[np.isfinite(points).all(axis=1)] @ axes.T
        if not len(seen):
            raise SignalError(f"none of the {len(points)} points to look at is finite, so there is nothing to see")
        centre = (seen.max(axis=0) + seen.min(axis=0)) / 2
        seen = seen - centre
        slopes, place = (aspect * vertical, vertical), np.zeros(3)
        for axis, slope in enumerate(slopes):
            inner = slope * (1 - 2 * margin)
            one = float((inner * seen[:, 2] + seen[:, axis]).max())
            other = float((inner * seen[:, 2] - seen[:, axis]).max())
            place[axis], distance = (one - other) / 2, (one + other) / (2 * inner)
            place[2] = max(place[2], distance)
        # A single point, or points in a line towards the camera, leave no distance: any that is in front of them will do.
        nearest, reach = float(seen[:, 2].max()), float(np.abs(seen).max())
        place[2] = max(place[2], nearest + 1e-3 * max(reach, 1e-9 * float(np.abs(centre).max()), 1e-30))
        for axis in (0, 1):
            place[axis] = _middle(seen[:, axis], place[2] - seen[:, 2], place[axis])
        return cls((place + centre) @ axes, axes[0], axes[1], axes[2], slopes, np.asarray(top, np.float64))

    def to_camera(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """x to the right, y up, z the depth (positive in front of the camera)."""
        return (points - self.eye) @ np.stack([self.right, self.up, -self.back], axis=1)

    def scale(self, width: int, height: int) -> float:
        """Pixels per unit of slope: the largest at which the whole frame fits into the picture."""
        return min(width / self.slope[0], height / self.slope[1]) / 2

    def project(self, points: Float[np.ndarray, "*n 3"], width: int, height: int) -> Float[np.ndarray, "*n 3"]:
        """Column, row (pixels from the top left corner; the first pixel's centre is at 0.5, 0.5) and depth.

        Columns and rows of points that are not in front of the camera are NaN.
        """
        seen = self.to_camera(points)
        depth = np.where(seen[..., 2] > 0, seen[..., 2], np.nan)
        with np.errstate(over="ignore"):
            ratio = self.scale(width, height) / depth
            return np.stack(
                [width / 2 + ratio * seen[..., 0], height / 2 - ratio * seen[..., 1], seen[..., 2]], axis=-1
            )

    def rays(
        self, columns: Float[np.ndarray, "*n"], rows: Float[np.ndarray, "*n"], width: int, height: int
    ) -> Float[np.ndarray, "*n 3"]:
        """Directions from the eye through places of the picture, of depth 1: ``eye + z * ray`` has the depth z."""
        scale = self.scale(width, height)
        across, down = (columns - width / 2) / scale, (rows - height / 2) / scale
        return across[..., None] * self.right - down[..., None] * self.up - self.back


def _middle(across: np.ndarray, depth: np.ndarray, place: float) -> float:
    """Where the camera stands so that the outermost points are equally far from the picture's middle.

    The points i and j that are outermost to the right and to the left give (x_i - c) / d_i = (c - x_j) / d_j; from there
    others may be outermost, but few steps find those that stay so.
    """
    for _ in range(20):
        slope = (across - place) / depth
        i, j = int(slope.argmax()), int(slope.argmin())
        last, place = place, float((across[i] * depth[j] + across[j] * depth[i]) / (depth[i] + depth[j]))
        if place == last:
            break
    return place


def corners(low: Vector, high: Vector) -> Float[np.ndarray, "8 3"]:
    """The eight corners of a box."""
    choose = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
    return np.where(choose == 1, high, low)
