"""Figures of spectra and kernels: valid pictures in every case, the same bytes each time, showing what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError
from neuralfield.ntk.spectrum import Spectrum, spectrum
from neuralfield.ntk.toeplitz import ToeplitzOperator
from neuralfield.viz.kernel import kernel_figure
from neuralfield.viz.spectra import _binned, _percent, _times, modes_figure, spectrum_figure
from neuralfield.viz.style import BEST, GROUPS
from tests.ntk.stationary_standin import Fourier, Moving, grid
from tests.viz.pictures import holds, pixels

pytestmark = pytest.mark.filterwarnings("error")
SHAPE = (12, 18)
X = grid(*SHAPE)
TARGET = torch.sin(9 * X[:, 0]) + X[:, 1]


def found(sigma: float, target: bool = True, shape: tuple[int, int] = SHAPE) -> Spectrum:
    operator = ToeplitzOperator.of(Fourier(sigma=sigma, m=64), shape, dtype=torch.float64)
    return spectrum(operator, TARGET if target else None)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_spectrum_figure(count: int, tmp_path: Path) -> None:
    spectra = {f"sigma {i} $x$ 漢字 " + "long " * 6: found(1.0 + i) for i in range(count)}
    for name in ("a.png", "b.png"):
        spectrum_figure(spectra, tmp_path / name, title="Title $1")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == 1600
    assert all(holds(image, colour) for colour in GROUPS[:count]) and not any(holds(image, c) for c in GROUPS[count:])
    assert (image[-8:] == 255).all() and (image[:, -8:] == 255).all()


def test_without_targets_one_panel(tmp_path: Path) -> None:
    spectrum_figure({"a": found(2, target=False)}, tmp_path / "a.png", title="")
    assert pixels(tmp_path / "a.png").shape[1] < 1000


def test_odd_spectra(tmp_path: Path) -> None:
    zero = spectrum(torch.diag(torch.tensor([2.0, 1.0, 0.0])), torch.tensor([1.0, 0.0, 1.0]))
    one = spectrum(torch.ones(1, 1), torch.ones(1))
    top = spectrum(found(3).kernel, TARGET, k=5)
    spectrum_figure({"zero": zero, "one": one, "top": top, "none": found(2, False)}, tmp_path / "a.png", title="odd")
    spectrum_figure({"one": one}, tmp_path / "b.png", title="one")
    assert pixels(tmp_path / "a.png").shape[1] == 1600


def test_the_energy_is_averaged_and_not_lost() -> None:
    energy = np.random.default_rng(0).random(777)
    modes, means = _binned(energy)
    assert np.array_equal(modes[:5], np.arange(1, 6)) and np.array_equal(means[:5], energy[:5])
    assert modes[5] == pytest.approx(42**0.5) and means[5] == pytest.approx(energy[5:7].mean())  # the modes 6 and 7
    assert modes[-1] <= 777 and (np.diff(modes) > 0).all()
    assert means[-1] == pytest.approx(energy[630:].mean())  # from 10^2.8 on


@pytest.mark.parametrize("shape", [(12, 18), (18, 12), (216, 1), (2, 108)])
def test_modes_figure(shape: tuple[int, int], tmp_path: Path) -> None:
    modes_figure(found(3), shape, tmp_path / "a.png", title="modes")
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == 1600 and image.shape[0] < 2400
    assert holds(image, BEST)  # where the target is
    modes_figure(found(3, target=False), shape, tmp_path / "b.png", title="modes", count=3)
    assert not holds(pixels(tmp_path / "b.png"), BEST)


def test_modes_are_the_eigenvectors(tmp_path: Path) -> None:
    """One mode that is 1 on the left and -1 on the right: red there, blue here."""
    v = torch.ones(8, 8, dtype=torch.float64)
    v[:, 4:] = -1
    v[0, 0] = 1.5  # fixes the sign: the largest entry is positive
    v = v.flatten() / v.norm()
    modes_figure(spectrum(torch.outer(v, v)), (8, 8), tmp_path / "a.png", title="t", count=1)
    image = pixels(tmp_path / "a.png")[200:240, 36:336].astype(int)
    left, right = image[:, 40:120].mean((0, 1)), image[:, 200:280].mean((0, 1))
    assert left[0] > left[2] + 50 and right[2] > right[0] + 50
    with pytest.raises(ConfigError, match="points"):
        modes_figure(spectrum(torch.outer(v, v)), (8, 9), tmp_path / "a.png", title="t")


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_kernel_figure(count: int, tmp_path: Path) -> None:
    kernels = {f"sigma {2**i}": Fourier(sigma=2.0**i, m=32) for i in range(count)}
    for name in ("a.png", "b.png"):
        kernel_figure(kernels, tmp_path / name, title="kernels", pixels=256 if count > 1 else None)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == 1600 and all(holds(image, colour) for colour in GROUPS[:count])


def test_a_kernel_that_never_falls(tmp_path: Path) -> None:
    class Constant:
        stationary = True

        def of_offsets(self, dv: torch.Tensor, which: str = "ntk") -> torch.Tensor:
            return torch.ones(len(dv), dtype=dv.dtype)

    kernel_figure({"constant": Constant()}, tmp_path / "a.png", title="constant", reach=0.2)
    assert pixels(tmp_path / "a.png").shape[1] == 1600


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 to 8"):
        spectrum_figure({}, tmp_path / "a.png", title="")
    with pytest.raises(ConfigError, match="1 to 8"):
        kernel_figure({str(i): Fourier() for i in range(9)}, tmp_path / "a.png", title="")
    with pytest.raises(ConfigError, match="not stationary"):
        kernel_figure({"a": Moving()}, tmp_path / "a.png", title="")


def test_words() -> None:
    assert _times(10.0, 4.0) == "2.5 x" and _times(10.0, 0.001) == "10,000 x" and _times(1.0, 0.0) == "never"
    assert _percent(0.1234) == "12.3 %" and _percent(1e-5) == "< 0.1 %"
