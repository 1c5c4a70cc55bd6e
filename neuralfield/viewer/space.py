"""A scene around the cube, whose middle is the origin: where the camera stands, and what views of such scenes share."""

from __future__ import annotations

from typing import Any

from neuralfield.viewer.desk import Desk

Vector = tuple[float, float, float]

_FRONT = {
    "y": ((0.4, 0.35, 0.95), (0.0, 1.0, 0.0)),
    "z": ((0.55, -0.95, 0.5), (0.0, 0.0, 1.0)),
}
_ALONG: dict[str, tuple[Vector, Vector]] = {
    "x": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0)),
    "z": ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
}


def look_from(up: str, distance: float = 1.0) -> tuple[Vector, Vector, Vector]:
    """Position, target and upward direction of the first view, with the axis "y" or "z" upwards.

    At `distance` 1 a shape that has some space around it fills the page; the whole cube asks for more.
    """
    (x, y, z), upward = _FRONT[up]
    return (x * distance, y * distance, z * distance), (0.0, 0.0, 0.0), upward


def look_along(axis: str, distance: float = 0.8) -> tuple[Vector, Vector, Vector]:
    """The same, at a plane across "x", "y" or "z" from the front; z is upwards, or y when looked at from above."""
    (x, y, z), upward = _ALONG[axis]
    return (x * distance, y * distance, z * distance), (0.0, 0.0, 0.0), upward


def look(client: Any, position: Vector, target: Vector, up: Vector) -> None:
    """Move a browser's camera."""
    with client.atomic():
        client.camera.position = position
        client.camera.look_at = target
        client.camera.up_direction = up


def clear_limits(client: Any) -> None:
    """Let a browser's camera come as near and go as far as a scene of about one unit asks for."""
    client.camera.min_orbit_distance = 0.01
    client.camera.max_orbit_distance = 20.0


class SpaceStage:
    """What the views of shapes and volumes share: the browser draws their scene itself.

    **Arguments**

    - `desk`: where to show it.
    - `prefix`: of the keys under which work is submitted and things are said, "shape/".
    """

    _folder: Any  # in the panel, made by the view

    def __init__(self, desk: Desk, prefix: str) -> None:
        self._desk, self._prefix = desk, prefix
        self._nodes: dict[str, Any] = {}

    def left(self, client: Any) -> None:
        """Nothing is kept for a browser."""

    def moved(self, client: Any) -> None:
        """Nothing has to be drawn anew."""

    def close(self) -> None:
        """Take everything of this view away."""
        self._desk.worker.cancel(self._prefix)
        self._desk.progress(None)
        self._desk.hush(self._prefix)
        for node in self._nodes.values():
            node.remove()
        self._nodes.clear()
        self._folder.remove()
