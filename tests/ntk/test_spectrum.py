"""What a spectrum says, against SciPy, NumPy and closed forms; whole and top k; kernels that are none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch

from neuralfield.errors import ConfigError, DeviceError
from neuralfield.ntk import memory
from neuralfield.ntk.alignment import alignment, frobenius_squared
from neuralfield.ntk.blocked import kernel_operator
from neuralfield.ntk.conventions import rate
from neuralfield.ntk.operator import Dense, KernelOperator
from neuralfield.ntk.positive import floor_of
from neuralfield.ntk.spectrum import Spectrum, spectrum
from neuralfield.ntk.toeplitz import ToeplitzOperator
from tests.ntk.stationary_standin import Fourier, Moving, grid
from tests.ntk.test_lanczos import with_eigenvalues

SHAPE = (14, 16)
X = grid(*SHAPE)
K = Moving(sigma=5, m=64).ntk(X)
Y = torch.stack([torch.sin(9 * X[:, 0]) + X[:, 1], torch.cos(14 * X[:, 1] * X[:, 0]), X[:, 0] ** 2], 1)
WHOLE = spectrum(K, Y)
LARGE = (36, 36)  # above the size up to which everything is dense


@pytest.fixture(scope="module")
def large() -> tuple[Spectrum, Spectrum]:
    """The same kernel decomposed whole, and its top 30 matrix-free."""
    operator = ToeplitzOperator.of(Fourier(sigma=5, m=64), LARGE, dtype=torch.float64)
    x = grid(*LARGE)
    y = torch.stack([torch.sin(9 * x[:, 0]) + x[:, 1], torch.cos(14 * x[:, 1])], 1)
    return spectrum(operator, y), spectrum(operator, y, k=30, tol=1e-10)


def test_eigenpairs_are_scipys() -> None:
    values, vectors = scipy.linalg.eigh(K.numpy())
    assert np.allclose(WHOLE.eigenvalues.numpy(), values[::-1], rtol=0, atol=1e-13 * values[-1])
    overlap = np.abs((vectors[:, ::-1][:, :10] * WHOLE.eigenvectors[:, :10].numpy()).sum(0))
    assert np.allclose(overlap, 1, atol=1e-9)
    assert WHOLE.complete and WHOLE.k == WHOLE.n == 224
    assert float(WHOLE.residuals.max()) < 1e-13 * values[-1]
    assert WHOLE.trace == pytest.approx(float(K.trace()), rel=1e-14)


def test_signs_are_fixed() -> None:
    top = WHOLE.eigenvectors.gather(0, WHOLE.eigenvectors.abs().argmax(0)[None])
    assert (top > 0).all()


def test_ranks_and_condition() -> None:
    values = np.linalg.eigvalsh(K.numpy())
    p = values / values.sum()
    assert WHOLE.participation_ratio == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-12)
    assert WHOLE.entropy_rank == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-10)
    assert WHOLE.condition_number() == pytest.approx(values[-1] / values[0], rel=1e-9)
    assert WHOLE.condition_number(2.0) == pytest.approx((values[-1] + 2) / (values[0] + 2), rel=1e-12)
    equal = spectrum(torch.eye(7, dtype=torch.float64))
    assert equal.participation_ratio == pytest.approx(7) and equal.entropy_rank == pytest.approx(7)
    assert spectrum(torch.ones(5, 5)).condition_number() > 1e6  # rank one


def test_decay_exponent() -> None:
    values = torch.arange(1, 200).to(torch.float64) ** -1.7
    law = spectrum(with_eigenvalues(values)).decay_exponent()
    assert law.exponent == pytest.approx(1.7, abs=1e-9) and law.standard_error < 1e-9
    assert (law.first, law.last) == (2, 199)
    noisy = values * torch.exp(0.1 * torch.randn(199, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    law = spectrum(with_eigenvalues(noisy.sort(descending=True).values)).decay_exponent(5, 150)
    slope, cov = np.polyfit(
        np.log(np.arange(5, 151)), np.log(noisy.sort(descending=True).values[4:150].numpy()), 1, cov=True
    )
    assert law.exponent == pytest.approx(-slope[0], rel=1e-6)
    assert law.standard_error == pytest.approx(math.sqrt(cov[0, 0]), rel=1e-6)
    assert "modes 5 to 150" in str(law)


def test_decay_stops_at_rounding() -> None:
    values = 10.0 ** -torch.arange(30, dtype=torch.float64)
    law = spectrum(with_eigenvalues(values)).decay_exponent()
    assert law.last < 16  # 1e-16 and below is noise in float64
    with pytest.raises(ConfigError, match="above rounding"):
        spectrum(with_eigenvalues(values)).decay_exponent(last=30)


def test_alignment_is_its_definition() -> None:
    y = Y.numpy()
    for target in (y, y[:, :1]):
        t = torch.from_numpy(target)
        gram = target @ target.T
        plain = (K.numpy() * gram).sum() / np.linalg.norm(K) / np.linalg.norm(gram)
        assert spectrum(K, t).alignment() == pytest.approx(plain, rel=1e-12)
        h = np.eye(224) - 1 / 224
        kc, gc = h @ K.numpy() @ h, h @ gram @ h
        centred = (kc * gc).sum() / np.linalg.norm(kc) / np.linalg.norm(gc)
        assert spectrum(K, t).alignment(centred=True) == pytest.approx(centred, rel=1e-10)
    one = Y[:, 0]
    assert alignment(torch.outer(one, one), one) == pytest.approx(1, rel=1e-12)  # the best kernel there is
    assert alignment(K, 1000 * Y) == pytest.approx(WHOLE.alignment(), rel=1e-12)
    shifted = alignment(K + 5, Y + 3, centred=True)
    assert shifted == pytest.approx(WHOLE.alignment(centred=True), rel=1e-9)


def test_energy() -> None:
    _, vectors = np.linalg.eigh(K.numpy())
    exact = ((vectors[:, ::-1].T @ Y.numpy()) ** 2).sum(1) / (Y.numpy() ** 2).sum()
    assert np.allclose(WHOLE.energy.numpy(), exact, atol=1e-9)
    assert np.allclose(WHOLE.cumulated_energy.numpy(), np.cumsum(exact), atol=1e-9)
    assert abs(WHOLE.remainder) < 1e-12
    for fraction in (0.5, 0.9, 0.99):
        assert WHOLE.modes_for(fraction) == int(np.searchsorted(np.cumsum(exact), fraction)) + 1
    assert WHOLE.modes_for(1.0) <= 224
    third = WHOLE.with_target(WHOLE.eigenvectors[:, 2])
    assert third.modes_for(0.5) == 3 and float(third.energy[2]) == pytest.approx(1)


@pytest.mark.parametrize("loss", ["sum", "mean", "mse"])
def test_times_are_those_of_gradient_flow(loss: str) -> None:
    r = rate(loss, 224, 3)
    for t in (0.0, 0.003 / r, 0.2 / r):
        left = torch.linalg.matrix_exp(-r * t * K) @ Y
        exact = float(left.square().sum() / Y.square().sum())
        assert float(WHOLE.residual_energy(t, loss)) == pytest.approx(exact, rel=1e-9)
    times = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert WHOLE.residual_energy(times, loss).shape == (2, 2)
    for fraction in (0.5, 0.05, 1e-3):
        t = WHOLE.time_to(fraction, loss)
        assert float(WHOLE.residual_energy(t, loss)) == pytest.approx(fraction, rel=1e-9)
    assert WHOLE.time_to(1.0, loss) == 0


def test_time_of_one_mode() -> None:
    one = WHOLE.with_target(7 * WHOLE.eigenvectors[:, 4])
    assert one.time_to(0.05) == pytest.approx(math.log(20) / (2 * float(WHOLE.eigenvalues[4])), rel=1e-6)
    flat = spectrum(torch.diag(torch.tensor([2.0, 1.0, 0.0])), torch.tensor([1.0, 1.0, 1.0]))
    assert flat.time_to(0.3) == math.inf and flat.time_to(0.5) < 1


def test_images() -> None:
    image = WHOLE.image(3, SHAPE)
    assert image.shape == SHAPE and image[2, 5] == float(WHOLE.eigenvectors[2 * 16 + 5, 3])
    with pytest.raises(ConfigError, match="100 points; the kernel has 224"):
        WHOLE.image(0, (10, 10))


def test_top_k_is_a_part_of_the_whole(large: tuple[Spectrum, Spectrum]) -> None:
    whole, top = large
    assert top.k == 30 and not top.complete and "top 30 of 1296" in repr(top)
    assert torch.allclose(top.eigenvalues, whole.eigenvalues[:30], rtol=1e-9)
    assert float(top.residuals.max()) < 1e-10 * float(top.eigenvalues[0])
    assert torch.allclose(top.energy, whole.energy[:30], atol=1e-6)
    assert top.remainder == pytest.approx(float(whole.energy[30:].sum()), abs=1e-9)
    assert top.participation_ratio == pytest.approx(whole.participation_ratio, rel=1e-10)
    for centred in (False, True):
        assert top.alignment(centred) == pytest.approx(whole.alignment(centred), rel=1e-9)
    assert top.modes_for(0.3) == whole.modes_for(0.3)
    times = torch.tensor([0.0, 1e-4, 1e-2])
    assert (top.residual_energy(times) >= whole.residual_energy(times) - 1e-9).all()  # an upper bound
    law = top.decay_exponent(3, 20)
    assert law.exponent == pytest.approx(whole.decay_exponent(3, 20).exponent, rel=1e-6)
    small = spectrum(K, Y, k=5)
    assert torch.equal(small.eigenvalues, WHOLE.eigenvalues[:5]) and not small.complete


def test_what_top_k_cannot_say(large: tuple[Spectrum, Spectrum]) -> None:
    _, top = large
    for question, message in [
        (lambda: top.entropy_rank, "needs all 1296 eigenvalues"),
        (top.condition_number, "needs all 1296 eigenvalues"),
        (lambda: top.modes_for(1.0), "less than 1.0; ask for more"),
        (lambda: top.time_to(1e-9), "lies outside the 30 modes"),
    ]:
        with pytest.raises(ConfigError, match=message):
            question()


class Products(KernelOperator):
    """An operator that does not know its norm."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix, self.shape = matrix, tuple(matrix.shape)
        self.dtype, self.device = matrix.dtype, matrix.device

    def matmat(self, v: torch.Tensor) -> torch.Tensor:
        return self.matrix @ v


def test_the_norm_by_sampling() -> None:
    exact = float(K.square().sum())
    assert frobenius_squared(K).value == pytest.approx(exact, rel=1e-13)
    sampled = frobenius_squared(Products(K), spectrum(K, k=20))
    assert 0 < sampled.standard_error < 0.01 * exact
    assert abs(sampled.value - exact) < 4 * sampled.standard_error
    assert frobenius_squared(Products(K)).standard_error > sampled.standard_error


def test_float32_kernels() -> None:
    single = spectrum(K.float(), Y.float())
    assert float((single.eigenvalues - WHOLE.eigenvalues).abs().max()) < 1e-6 * float(WHOLE.eigenvalues[0])
    assert single.alignment() == pytest.approx(WHOLE.alignment(), rel=1e-5)
    assert "in float32" in repr(single)
    operator = kernel_operator(Fourier(sigma=5, m=64), grid(*LARGE).float())
    found = spectrum(operator, k=20)
    assert float(found.residuals.max()) < 1e-6 * float(found.eigenvalues[0])
    assert "ntk of Fourier()" in repr(found)


def indefinite(lowest: float) -> torch.Tensor:
    values = torch.linspace(5, 0.1, 60, dtype=torch.float64)
    values[-1] = lowest
    return with_eigenvalues(values).matrix


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda: K[:, :-1], r"square matrix, \[n, n\]; got \(224, 223\)"),
        (lambda: K + torch.triu(torch.ones_like(K)), "not symmetric"),
        (lambda: torch.where(torch.eye(224, dtype=torch.bool), math.nan, K), "kernel must be finite: 224 of"),
        (lambda: indefinite(-2.0), r"most negative eigenvalue is -2, 4.0e-01 of the largest \(5\).*no rounding"),
        (lambda: indefinite(-1e-5), "most negative eigenvalue is -1e-05.*compute the kernel in float64"),
        (lambda: -K, "not positive semidefinite"),
        (lambda: Dense(K[:, :-1]), "symmetric"),
    ],
)
def test_what_is_no_kernel(kernel: Callable[[], torch.Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spectrum(kernel())


def test_an_indefinite_operator_is_refused_by_its_top_k_as_well() -> None:
    values = torch.linspace(3, 0.1, 1200)
    values[-1] = -0.7
    with pytest.raises(ConfigError, match="not positive semidefinite"):
        spectrum(with_eigenvalues(values), k=5)


def test_rounding_is_no_reason_to_refuse() -> None:
    x = torch.linspace(0, 1, 300, dtype=torch.float64)
    smooth = torch.exp(-3 * (x[:, None] - x) ** 2)  # numerical rank 12: the rest is rounding, half of it negative
    for matrix in (smooth, smooth.float()):
        found = spectrum(matrix)
        lowest = float(found.eigenvalues[-1])
        assert -floor_of(matrix.dtype, 300, 1.0, float(found.eigenvalues[0])) <= lowest < 0


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.ones(5), r"shape \[224\] or \[224, channels\].*got \(5,\)"),
        (torch.zeros(224), "zero everywhere"),
        (torch.full((224,), math.inf), "target must be finite"),
        (torch.ones(224, 2, 2), "one row per point"),
    ],
)
def test_bad_targets(target: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spectrum(K, target)
    with pytest.raises(ConfigError, match=message):
        alignment(K, target)


def test_questions_without_a_target() -> None:
    for question in ("energy", "remainder", "cumulated_energy"):
        with pytest.raises(ConfigError, match="with_target"):
            getattr(spectrum(torch.eye(3)), question)
    with pytest.raises(ConfigError, match="constant"):
        alignment(K, torch.ones(224), centred=True)


def test_too_many_points_name_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1e6)
    with pytest.raises(DeviceError, match=r"ntk\.spectrum\(ntk\.kernel_operator\(kernel, x\), k=100\)"):
        spectrum(K)
    with pytest.raises(DeviceError, match=r"262144 x 262144"):
        spectrum(ToeplitzOperator.of(Fourier(m=2, depth=1), (512, 512)))
