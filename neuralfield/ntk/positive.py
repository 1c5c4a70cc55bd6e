"""Is it a kernel: symmetric and positive semidefinite, up to rounding?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import ConfigError


def floor_of(dtype: torch.dtype, n: int, largest_entry: float, largest_eigenvalue: float) -> float:
    r"""How negative rounding alone can make an eigenvalue, $4\,\varepsilon\,n \max|K_{ij}| + 16\,\varepsilon\,\lambda_1$.

    Entries that are each off by a few units in the last place make a matrix of norm at most that times
    $n \max |K_{ij}|$ (of a positive semidefinite matrix the largest entry is on the diagonal), and a decomposition adds a few
    units of $\lambda_1$. $\varepsilon$ is that of the dtype in which the kernel was computed.
    """
    eps = torch.finfo(dtype).eps
    return 4 * eps * n * abs(largest_entry) + 16 * eps * abs(largest_eigenvalue)


def require_positive(lowest: float, highest: float, floor: float, what: str) -> None:
    """Refuse a matrix with an eigenvalue below -floor, and say what that suggests."""
    if lowest >= -floor:
        return
    ratio = abs(lowest) / highest if highest > 0 else float("inf")
    if ratio < 1e-4:
        hint = "so small a violation suggests entries of too few digits: compute the kernel in float64"
    else:
        hint = (
            "so large a violation is no rounding: it suggests rows and columns of different points, a product of the wrong "
            "sign, or a kernel treated as periodic that is not"
        )
    raise ConfigError(
        f"{what} is not positive semidefinite: its most negative eigenvalue is {lowest:.6g}, {ratio:.1e} of the largest "
        f"({highest:.6g}), beyond the rounding of {floor:.1e}; {hint}"
    )


def require_symmetric(matrix: Float[Tensor, "n m"], name: str = "kernel") -> None:
    """Refuse a matrix that is not square, or not symmetric to 256 units in the last place of its largest entry."""
    n, m = matrix.shape
    if n != m or n == 0:
        raise ConfigError(f"{name} must be a square matrix, [n, n]; got {tuple(matrix.shape)}")
    largest, worst = 0.0, 0.0
    for start in range(0, n, 1024):  # in pieces: the transpose of a large matrix is another one
        rows = matrix[start : start + 1024]
        largest = max(largest, float(rows.abs().max()))
        worst = max(worst, float((rows - matrix[:, start : start + 1024].T).abs().max()))
    if worst > 256 * torch.finfo(matrix.dtype).eps * largest:
        raise ConfigError(
            f"{name} is not symmetric: K_ij and K_ji differ by up to {worst:.3g}, {worst / largest:.1e} of the largest entry "
            f"(256 roundings of {matrix.dtype} are allowed); are rows and columns the same points in the same order?"
        )
