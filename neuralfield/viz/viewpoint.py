"""The side that an object is shown from when nobody says: of the four three-quarter views, the one with most to see."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz.camera import Camera
from neuralfield.viz.visibility import visible_faces

AZIMUTHS = (-35.0, 35.0, -145.0, 145.0)
"""From the front left, front right, back left and back right, in degrees; the first of equals is taken."""

_SIZE = 128  # pixels of the trial pictures


def best_view(mesh: TriangleMesh, *more: TriangleMesh | None, azimuth: float | None = None, **options: Any) -> Camera:
    """The camera of :meth:`Camera.around` for a mesh, from the side that shows most of its form.

    That is the view of :data:`AZIMUTHS` with the largest sum over the picture of the angles between the normals of
    neighbouring pixels: edges, steps and curved parts count, blank walls do not.

    **Arguments**

    - `mesh`: the object. `more`: meshes, or None, that have no say in the choice and are in the frame as well.
    - `azimuth`: degrees; None leaves the choice to this function.
    - `options`: of :meth:`Camera.around`.
    """
    points = _used(mesh)
    if azimuth is None:
        cameras = {a: Camera.around(points, azimuth=a, **options) for a in AZIMUTHS}
        azimuth = max(AZIMUTHS, key=lambda a: _form(mesh, cameras[a]))  # max() keeps the first of equals
    seen = [points, *(_used(other) for other in more if other is not None)]
    return Camera.around(np.concatenate(seen), azimuth=azimuth, **options)


def _used(mesh: TriangleMesh) -> Float[np.ndarray, "n 3"]:
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    return mesh.vertices[used]


def _form(mesh: TriangleMesh, camera: Camera) -> float:
    face = visible_faces(mesh.vertices, mesh.faces, camera, _SIZE, _SIZE)
    seen, index = np.unique(face, return_inverse=True)
    index = index.reshape(face.shape)
    unit = mesh.normals[seen]  # of the background: any, not looked at
    total = 0.0
    for one, other in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        both = (seen[one] >= 0) & (seen[other] >= 0)
        # Sides of triangles do not matter; the outline against the background does not count.
        cosine = np.abs((unit[one[both]] * unit[other[both]]).sum(axis=1))
        total += float(np.arccos(np.clip(cosine, 0, 1)).sum())
    return round(total, 6)  # not decided by rounding
