r"""How close the surface of a fitted solid is to the truth: Chamfer distance, F-score, normals.

Conventions (papers differ by factors of two, by squares and by scales):

* All lengths are in the units of the meshes, as a rule those of the unit cube; times a placement's `scale` they are in
  the source's units (``chamfer_l2`` times its square).
* Distances are exact: from points spread over one surface to the nearest point of the other's triangles, not to points
  sampled on it, which would add about half the distance between samples. Computed by libigl.
* With samples $P$ of the fit, $T$ of the truth, $d(p, S)$ the distance to a surface:
  ``accuracy`` $= \frac1{|P|}\sum_p d(p, \text{truth})$; ``completeness`` $= \frac1{|T|}\sum_t d(t, \text{fit})$;
  ``chamfer_l1`` is the **mean** of the two (Mescheder et al. 2019); ``chamfer_l2`` is the mean of the two mean **squared**
  distances. Fan et al. 2017 and many after them add the two instead, which is twice as much.
* ``precision`` and ``recall`` are the fractions of $P$ and of $T$ within ``threshold`` of the other surface, and ``f_score``
  is their harmonic mean (Knapitsch et al. 2017). The usual threshold is a hundredth of the longest side.
* ``normal_consistency`` is the mean of $|n \cdot n'|$ over the samples of both surfaces, $n'$ being the normal of the
  triangle nearest to the sample; 1 for equal surfaces, 1/2 for independent directions. Orientation does not enter.

Sources: L. Mescheder et al., "Occupancy networks", CVPR 2019, section 4 and its supplement; H. Fan, H. Su, L. Guibas, "A
point set generation network for 3D object reconstruction from a single image", CVPR 2017, equation 1; A. Knapitsch et al.,
"Tanks and temples", ACM Trans. Graphics 36 (2017), section 5.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64

from neuralfield.checks import integer, number
from neuralfield.signals.mesh import TriangleMesh


def surface_quality(
    truth: TriangleMesh, fit: TriangleMesh, n: int = 2**17, seed: int = 0, threshold: float = 0.01
) -> dict[str, float]:
    r"""Compare two surfaces by points spread over each; the module's text defines every number.

    **Arguments**

    - `truth`, `fit`: in the same coordinates; closed or not, either orientation.
    - `n`: points on each. Sampling moves the means by about $\text{std}(d) / \sqrt n$ at the most.
    - `seed`: of the points; equal seeds give equal numbers.
    - `threshold`: distance for the F-score, above 0, in the units of the meshes.

    Returns ``chamfer_l1``, ``chamfer_l2``, ``accuracy``, ``completeness``, ``f_score``, ``precision``, ``recall``,
    ``normal_consistency``. Memory: 100 bytes a triangle and 200 a point.
    """
    integer("n", n, 1)
    number("threshold", threshold, 0, above=True)
    sides = {}
    for name, points_of, other, stream in (("precision", fit, truth, 0), ("recall", truth, fit, 1)):
        points, face = points_of.sample(n, np.random.default_rng([integer("seed", seed, 0), stream]))
        distance, nearest, _ = nearest_on(other, points)
        cosine = np.abs((points_of.normals[face] * other.normals[nearest]).sum(axis=1))
        sides[name] = (
            float(distance.mean()),
            float(np.square(distance).mean()),
            float((distance <= threshold).mean()),
            float(cosine.mean()),
        )
    (accuracy, squared, precision, cosine_fit), (completeness, squared_too, recall, cosine_truth) = sides.values()
    return {
        "chamfer_l1": (accuracy + completeness) / 2,
        "chamfer_l2": (squared + squared_too) / 2,
        "accuracy": accuracy,
        "completeness": completeness,
        "f_score": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "precision": precision,
        "recall": recall,
        "normal_consistency": (cosine_fit + cosine_truth) / 2,
    }


def chamfer(a: TriangleMesh, b: TriangleMesh, n: int = 2**17, seed: int = 0) -> tuple[float, float]:
    """``chamfer_l1`` and ``chamfer_l2`` of two surfaces, see :func:`surface_quality`; symmetric up to the sampling."""
    quality = surface_quality(a, b, n, seed)
    return quality["chamfer_l1"], quality["chamfer_l2"]


def nearest_on(
    mesh: TriangleMesh, points: Float[np.ndarray, "n 3"]
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"], Float64[np.ndarray, "n 3"]]:
    """The point of a surface nearest to each of `points`: distances, numbers of triangles, positions.

    Exact in float64; triangles without an area, which have no normal, are not looked at.
    """
    import igl

    whole = np.flatnonzero(mesh.areas > 0)
    faces = mesh.faces if len(whole) == len(mesh.faces) else mesh.faces[whole]
    squared, number, position = igl.point_mesh_squared_distance(
        np.ascontiguousarray(points, np.float64), mesh.vertices, faces
    )
    return np.sqrt(np.maximum(squared, 0)), whole[np.asarray(number).ravel()], position
