"""The parts of a stationary kernel on a grid against those between its points one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import neuralfield as nf
from neuralfield.encodings import Bounded, Encoding, Fourier, Identity, Positional
from neuralfield.errors import ConfigError
from neuralfield.networks import MLP
from neuralfield.ntk.kernel_parts import kernel_parts
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.ntk.lattice_parts import lattice_parts


def _kernel(encoding: Encoding, activation: str = "relu") -> MLPKernel:
    network = MLP(encoding.out_dim, 2, width=16, depth=2, activation=activation)
    return MLPKernel.of(nf.Field(encoding, network))


def _points(shape: tuple[int, ...], steps: Tensor) -> Tensor:
    index = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape)).reshape(-1, len(shape))
    return 0.1 + index @ steps


GRIDS = {
    1: ((9,), [[0.07]]),
    2: ((4, 6), [[0.0, 0.11], [0.05, 0.0]]),
    3: ((2, 3, 4), [[0, 0, 0.1], [0, 0.05, 0], [0.2, 0, 0]]),
}


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize(
    "encoding",
    [
        Fourier(2, 24, 3.0),
        Fourier(1, 8, 2.0),
        Fourier(3, 16, 1.5),
        Positional(2, 4),
        Bounded(Fourier(2, 24, 3.0), -1.0, 2.0),
    ],
    ids=["fourier2", "fourier1", "fourier3", "positional", "bounded"],
)
def test_they_are_the_dense_ones(encoding: Encoding, activation: str) -> None:
    kernel = _kernel(encoding, activation)
    shape, rows = GRIDS[encoding.in_dim]
    steps = torch.tensor(rows, dtype=torch.float64)
    x = _points(shape, steps)
    shift = steps.sum(dim=0) / 2
    for other, found in (
        (None, lattice_parts(kernel, shape, steps)[0]),
        (x + shift, lattice_parts(kernel, shape, steps, shift)[0]),
    ):
        expected = kernel_parts(kernel, x if other is None else other, None if other is None else x)
        assert set(found) == set(expected)
        for name, part in expected.items():
            largest = float(part.abs().max())
            torch.testing.assert_close(found[name].to_dense().double(), part, rtol=0, atol=3e-6 * largest, msg=name)


@pytest.mark.parametrize("encoding", [Fourier(2, 10, 3.0), Positional(2, 4)], ids=["fourier", "positional"])
def test_bands_add_up_to_the_first_layer(encoding: Encoding) -> None:
    kernel = _kernel(encoding)
    shape, rows = GRIDS[2]
    steps = torch.tensor(rows, dtype=torch.float64)
    whole, _ = lattice_parts(kernel, shape, steps)
    split, shares = lattice_parts(kernel, shape, steps, bands=4)
    bands = [name for name in split if ".band" in name]
    assert len(bands) == 4 and sum(shares[name] for name in bands) == pytest.approx(1)
    assert set(split) - set(bands) == set(whole) - {"network.layers.0.weight"}
    total = sum(split[name].to_dense() for name in bands)
    torch.testing.assert_close(total, whole["network.layers.0.weight"].to_dense(), rtol=1e-4, atol=1e-5)
    # The lowest band varies least from point to point.
    falls = [float(1 - split[name].to_dense()[0, 1] / split[name].to_dense()[0, 0]) for name in bands]
    assert falls[0] == min(falls)


def test_a_kernel_that_moves_is_refused() -> None:
    with pytest.raises(ConfigError, match="lines"):
        lattice_parts(_kernel(Identity(2)), (3, 3), torch.eye(2, dtype=torch.float64))
