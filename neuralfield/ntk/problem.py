"""What a prediction is asked about: kernels, targets and initial values, checked and brought into matrices."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.errors import ConfigError
from neuralfield.ntk.conventions import finite


class Problem:
    """Targets and initial values as float64 matrices beside a kernel, and the way back to the shapes that were given.

    **Arguments**

    - `shape`: (n,) for a kernel [n, n], (n, C) for a full one, [n, C, n, C].
    - `y`: targets, [n] or [n, C].
    - `f0`: initial values on the training points, shaped as y; None is zero.
    - `f0_test`: on the test points; needed with `f0` when there are any.
    - `test_rows`: rows of the test kernel, None without test points.
    - `dtype`, `device`: of the kernel.

    **Attributes**

    - `error`: y - f0, [N, K] with one column per output, or [n C, 1] for a full kernel. `target`: y so.
    - `start_test`: f0_test so, or zero.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        y: Tensor,
        f0: Tensor | None,
        f0_test: Tensor | None,
        test_rows: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        full = len(shape) == 2
        expected = f"[{shape[0]}, {shape[1]}]" if full else f"[{shape[0]}] or [{shape[0]}, C]"
        fits = isinstance(y, Tensor) and (y.shape == shape if full else y.ndim in (1, 2) and y.shape[0] == shape[0])
        if not fits or y.numel() == 0:
            raise ConfigError(f"y must have the shape {expected} beside this kernel; got {describe(y)}")
        self.shape, self.full, self.dtype = shape, full, _result_dtype(dtype, y)
        self.outputs = tuple(y.shape[1:])
        self.columns = 1 if full or y.ndim == 1 else y.shape[1]
        self.n_outputs = y.shape[1] if y.ndim == 2 else 1
        self.target = self._matrix("y", y, device)
        if f0 is not None and (not isinstance(f0, Tensor) or f0.shape != y.shape):
            raise ConfigError(f"f0 must have the shape of y, {tuple(y.shape)}; got {describe(f0)}")
        self.error = self.target if f0 is None else self.target - self._matrix("f0", f0, device)
        self.start_test: Tensor | float = 0.0
        if f0_test is not None:
            rows = test_rows if test_rows is None or not full else test_rows // shape[1]
            if rows is None:
                raise ConfigError("f0_test was given without test points; pass k_test as well")
            if not isinstance(f0_test, Tensor) or tuple(f0_test.shape) != (rows, *self.outputs):
                raise ConfigError(f"f0_test must have the shape {(rows, *self.outputs)}; got {describe(f0_test)}")
            self.start_test = self._matrix("f0_test", f0_test, device)
        elif f0 is not None and test_rows is not None:
            raise ConfigError(
                "f0 was given without f0_test: the values on test points start from f0_test. Pass it (zeros if the initial "
                "function was subtracted), or no f0 at all"
            )

    @property
    def n_points(self) -> int:
        """Training points."""
        return self.shape[0]

    def restore(self, values: Float[Tensor, "times rows columns"]) -> Tensor:
        """Inner rows and columns to [T, points] or [T, points, C], in the result's dtype."""
        points = values.shape[1] // (self.shape[1] if self.full else 1)
        return values.reshape(len(values), points, *self.outputs).to(self.dtype)

    def _matrix(self, name: str, values: Tensor, device: torch.device) -> Tensor:
        if values.is_complex():
            raise ConfigError(f"{name} must be real, got {values.dtype}")
        return finite(name, values.detach()).to(device, torch.float64).reshape(-1, self.columns)


def kernel_matrices(k_train: Tensor, k_test: Tensor | None) -> tuple[tuple[int, ...], Tensor, Tensor | None]:
    """(n,) or (n, C), and the kernels as matrices; ConfigError for shapes that do not fit."""
    given = tuple(k_train.shape) if isinstance(k_train, Tensor) else ()
    square = len(given) in (2, 4) and given[: len(given) // 2] == given[len(given) // 2 :] and 0 not in given
    if not square or not k_train.is_floating_point():
        kind = f"{given} of {k_train.dtype}" if isinstance(k_train, Tensor) else type(k_train).__name__
        raise ConfigError(f"k_train must be a real kernel of shape [n, n] or [n, C, n, C]; got {kind}")
    half = given[: len(given) // 2]
    rows = math.prod(half)
    matrix = k_train.detach().reshape(rows, rows)
    # aminmax makes no copy, and an infinity or nan shows in it.
    low, high = (float(value) for value in torch.aminmax(matrix))
    if not math.isfinite(low + high):
        finite("k_train", matrix)
    skew = float((matrix - matrix.T).abs_().max())
    if skew > 64 * torch.finfo(matrix.dtype).eps * math.sqrt(rows) * max(abs(low), abs(high)):
        raise ConfigError(f"k_train must be symmetric; entries mirrored at the diagonal differ by up to {skew:.3g}")
    if k_test is None:
        return half, matrix, None
    got = tuple(k_test.shape) if isinstance(k_test, Tensor) else type(k_test).__name__
    expected = ("m", *half[1:], *half)
    if not isinstance(k_test, Tensor) or k_test.ndim != len(given) or tuple(k_test.shape[1:]) != expected[1:]:
        wanted = ", ".join(str(size) for size in expected)
        raise ConfigError(f"k_test must have the shape [{wanted}] beside k_train of shape {given}; got {got}")
    test = k_test.detach().to(k_train.device).reshape(-1, rows)
    if not all(math.isfinite(float(value)) for value in torch.aminmax(test)):
        finite("k_test", test)
    return half, matrix, test


def describe(value: object) -> str:
    """Its shape, for messages."""
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _result_dtype(kernel: torch.dtype, y: Tensor) -> torch.dtype:
    return torch.promote_types(kernel, y.dtype) if y.is_floating_point() else kernel
