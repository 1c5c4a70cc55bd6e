"""Infinite-width kernels: against independent software, 60-digit numbers and the circle's spectrum; bad input."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralfield import encodings
from neuralfield.encodings import Fourier
from neuralfield.errors import ConfigError, DeviceError
from neuralfield.ntk import blocks, memory
from neuralfield.ntk.covariance import Inputs
from neuralfield.ntk.kernels import MLPKernel

FOLDER = Path(__file__).parents[1] / "oracles"
MLPS = json.loads((FOLDER / "kernels_mlp.json").read_text())
FOURIER = json.loads((FOLDER / "kernels_fourier.json").read_text())
NEAR = json.loads((FOLDER / "kernels_near_diagonal.json").read_text())
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32])


def tensor(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).to(dtype)


def symmetric(upper: list[float], n: int = 16) -> Tensor:
    matrix = torch.zeros(n, n, dtype=torch.float64)
    matrix[tuple(torch.triu_indices(n, n))] = tensor(upper)
    return matrix.triu() + matrix.triu(1).T


def distance(found: Tensor, expected: Tensor) -> Tensor:
    """Of each entry, in units of the largest."""
    return (found.double() - expected).abs() / expected.abs().max()


def described(key: str) -> tuple[int, str, float, float]:
    name, depth, w, b = re.match(r"(\w+)_d(\d)_w([\d.]+)_b([\d.]+)_", key).groups()  # type: ignore[union-attr]
    return int(depth), name, {"1.4142": math.sqrt(2)}.get(w, float(w)), float(b)


@DTYPES
@pytest.mark.parametrize("key", MLPS["gold"])
def test_gold(key: str, dtype: torch.dtype) -> None:
    """Exact numbers on the diagonal and for (near) duplicates, opposite points and unit norms too."""
    kernel = MLPKernel(*described(key))
    found = getattr(kernel, key.rsplit("_", 1)[1])(tensor(MLPS["X"], dtype))
    assert found.dtype == dtype and torch.equal(found, found.T)
    assert float(distance(found, symmetric(MLPS["gold"][key])).max()) < (1e-13 if dtype == torch.float64 else 2e-6)


@DTYPES
@pytest.mark.parametrize("key", MLPS["ntk"])
def test_neural_tangents(key: str, dtype: torch.dtype) -> None:
    found = getattr(MLPKernel(*described(key)), key.rsplit("_", 1)[1])(tensor(MLPS["X"], dtype))
    assert float(distance(found, symmetric(MLPS["ntk"][key])).max()) < (1e-13 if dtype == torch.float64 else 2e-6)


@DTYPES
@pytest.mark.parametrize("key", MLPS["test_train"])
def test_two_sets_of_points(key: str, dtype: torch.dtype) -> None:
    found = MLPKernel(*described(key)).ntk(tensor(MLPS["Xt"], dtype), tensor(MLPS["X"], dtype))
    expected = tensor(MLPS["test_train"][key]).reshape(5, 16)
    assert float(distance(found, expected).max()) < (1e-12 if dtype == torch.float64 else 2e-6)


@DTYPES
@pytest.mark.parametrize("key", MLPS["standard"])
def test_standard_parameterization(key: str, dtype: torch.dtype) -> None:
    depth, width, bias, which = re.match(r"relu_std_d(\d)_width(\d+)_(nobias|b[\d.]+)_(\w+)", key).groups()  # type: ignore[union-attr]
    b_std = None if bias == "nobias" else float(bias[1:])
    kernel = MLPKernel(int(depth), "relu", math.sqrt(2), b_std, "standard", int(width))
    error = distance(getattr(kernel, which)(tensor(MLPS["X"], dtype)), symmetric(MLPS["standard"][key]))
    # The oracle's own diagonal and (near) duplicates are 1e-9 off in float64: it works with the cosine.
    rough = torch.eye(16, dtype=torch.bool)
    for i, j in ((0, 12), (2, 15)):
        rough[i, j] = rough[j, i] = True
    assert float(error[~rough].max()) < (1e-12 if dtype == torch.float64 else 2e-6)
    assert float(error[rough].max()) < (5e-9 if dtype == torch.float64 else 2e-6)


@DTYPES
def test_circle_of_jacot(dtype: torch.dtype) -> None:
    """The limit curve of Jacot et al. 2018, figure 1."""
    gamma = tensor(FOURIER["circle"]["gamma"])
    circle = torch.stack([gamma.cos(), gamma.sin()], dim=1).to(dtype)
    nngp, ntk = MLPKernel(3, "relu", 1.0, 0.1).both(tensor([[1.0, 0.0]], dtype), circle)
    for name, row in (("nngp", nngp), ("ntk", ntk)):
        error = distance(row[0], tensor(FOURIER["circle"][name]))
        assert float(error.max()) < (1e-12 if dtype == torch.float64 else 2e-6)


def fourier_of(frequencies: Tensor, amplitudes: Tensor) -> Fourier:
    """Unit norm, frequencies [m, D] as given, float64."""
    encoding = Fourier(frequencies.shape[1], len(frequencies), amplitudes=amplitudes.tolist(), normalize=True).double()
    encoding.frequencies.copy_(frequencies.T)
    encoding.amplitudes.copy_(amplitudes / amplitudes.norm())
    return encoding


@DTYPES
@pytest.mark.parametrize("p", ["0", "1", "1.5", "inf"])
def test_figure_2_of_tancik(p: str, dtype: torch.dtype) -> None:
    """Composed with Fourier features; K(0) = 14."""
    encoding = fourier_of(tensor(FOURIER["b1"])[:, None], torch.arange(1, 17, dtype=torch.float64) ** -float(p))
    x = tensor(FOURIER["x1"], dtype)[:, None]
    for name, kernel in (
        ("std1024", MLPKernel(3, "relu", 1.0, 0.0, "standard", 1024, encoding)),
        ("ntkparam", MLPKernel(3, "relu", math.sqrt(2), encoding=encoding)),
    ):
        expected = tensor(FOURIER[f"fig2_{name}_p{p}"])
        tolerance = 1e-13 if dtype == torch.float64 else 1e-6
        assert float(distance(kernel.ntk(x[:1], x)[0], expected).max()) < tolerance
        assert float(distance(kernel.of_offsets(x), expected).max()) < tolerance
        assert float(distance(kernel.diagonal(x).ntk, expected[0].expand(32)).max()) < tolerance


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("which", ["nngp", "ntk"])
def test_fourier_features_of_the_plane(depth: int, which: str) -> None:
    kernel = MLPKernel(
        depth, "relu", math.sqrt(2), 0.1, encoding=fourier_of(tensor(FOURIER["B"]), torch.ones(32).double())
    )
    rows, v = [0, 9, 27, 63], tensor(FOURIER["V"])
    error = distance(getattr(kernel, which)(v)[rows], tensor(FOURIER[f"ff2d_real_d{depth}_{which}"]))
    own = torch.zeros(4, 64, dtype=torch.bool)
    own[range(4), rows] = True
    assert float(error[~own].max()) < 1e-12
    assert float(error[own].max()) < 1e-8  # the oracle's own error there


@DTYPES
@pytest.mark.parametrize("name", NEAR["kernels"])
def test_differences_near_the_diagonal(name: str, dtype: torch.dtype) -> None:
    """K(0) - K(dv) against 60 digits: off by roundings of K(0) alone, dv from 1e-7."""
    encoding = fourier_of(tensor([[1.0]]), tensor([1.0]))
    kernel = MLPKernel(3, name, 1.5, 0.3, encoding=encoding)
    numbers = NEAR["kernels"][name]
    dv = tensor([0.0] + [row[0] for row in numbers["drops"]])
    eps = torch.finfo(dtype).eps
    for column, which in ((1, "nngp"), (2, "ntk")):
        # Coordinates stay float64: in float32 they would themselves be rounded.
        prepared = blocks.Prepared(*_uniform(kernel, dv), dtype, dv.device)
        both = prepared.at(kernel.covariance.of_offsets(dv[:, None])[1].to(dtype), "both")
        values = both[0 if which == "nngp" else 1].double()
        assert float(values[0]) == pytest.approx(numbers[which], rel=8 * eps)
        drops = (values[0] - values[1:]).tolist()
        for drop, row in zip(drops, numbers["drops"], strict=True):
            assert drop == pytest.approx(row[column], abs=8 * eps * numbers[which], rel=20 * eps)


def _uniform(kernel: MLPKernel, dv: Tensor) -> tuple[Any, Any]:
    q, u = kernel.covariance.of_offsets(dv[:, None])
    return kernel.network(2), Inputs(q, q, lambda *_: u, None, (len(u), 1), 2)


def test_spectrum_on_the_circle() -> None:
    """Basri et al. 2019: eigenvalues fall as k^-2; without biases a two-layer network has no odd frequency above 1."""
    n = 1024
    gamma = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    circle = torch.stack([gamma.cos(), gamma.sin()], dim=1)

    def eigenvalues(kernel: MLPKernel) -> Tensor:
        return torch.fft.fft(kernel.ntk(circle[:1], circle)[0]).real / n

    def exponent(values: Tensor, first: int) -> float:
        k = torch.arange(first, 65, 2, dtype=torch.float64)
        x, y = k.log(), values[first:65:2].log()
        return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())

    shallow = eigenvalues(MLPKernel(1, "relu", math.sqrt(2), None))
    assert float(shallow[3:64:2].abs().max()) < 1e-15 * n**0.5 * float(shallow[0])
    assert float(shallow[2:64:2].min()) > 1e-6
    assert exponent(shallow, 8) == pytest.approx(-2.0, abs=0.1)
    assert exponent(eigenvalues(MLPKernel(1, "relu", math.sqrt(2), 1.0)), 9) == pytest.approx(-2.0, abs=0.1)
    deep = eigenvalues(MLPKernel(3, "relu", math.sqrt(2), None))
    assert exponent(deep, 8) == pytest.approx(-2.0, abs=0.1)
    assert exponent(deep, 9) == pytest.approx(-2.0, abs=0.1)


def test_names_for_the_same_thing() -> None:
    x = tensor(MLPS["X"])
    same = [
        ("sin", {}, "sine", {}),
        ("identity", {}, "linear", {}),
        ("relu", {}, "leaky_relu", {"negative_slope": 0.0}),
    ]
    for first, one, second, two in same:
        torch.testing.assert_close(
            MLPKernel(2, first, **one).ntk(x), MLPKernel(2, second, **two).ntk(x), rtol=1e-14, atol=0
        )
    scaled, plain = MLPKernel(1, "sin", [2.0, 1.0], activation_scale=3.0), MLPKernel(1, "sin", [6.0, 1.0])
    torch.testing.assert_close(scaled.nngp(x), plain.nngp(x), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(
        MLPKernel(1, torch.erf, 1.2, 0.1).ntk(x), MLPKernel(1, "erf", 1.2, 0.1).ntk(x), rtol=1e-10, atol=1e-11
    )
    torch.testing.assert_close(MLPKernel(1, "relu").ntk(x.int()), MLPKernel(1, "relu").ntk(x.int().float()))


def test_half_precision_and_empty_sets() -> None:
    x = tensor(MLPS["X"], torch.float16)
    assert MLPKernel(1).ntk(x).dtype == torch.float32
    assert MLPKernel(1).ntk(x[:0].float(), x.float()).shape == (0, 16)
    assert MLPKernel(1).diagonal(x[:0].float()).ntk.shape == (0,)


def test_repr_tells_everything() -> None:
    text = repr(MLPKernel(2, "leaky_relu", [1.0, 2.0, 1.0], None, "standard", 64, Fourier(2, 8), skip=1))
    shown = [
        "MLPKernel(2",
        "'leaky_relu'",
        "[1.0, 2.0, 1.0]",
        "b_std=None",
        "'standard'",
        "width=64",
        "Fourier(",
        "=0.01",
    ]
    for part in [*shown, "skip=[1]"]:
        assert part in text
    assert "softsign" in repr(MLPKernel(1, torch.nn.functional.softsign))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": -1}, "depth must be between 0 and 10000, got -1"),
        ({"activation": "rely"}, "did you mean 'relu'"),
        ({"w_std": -1.0}, "w_std must be a finite number at least 0, got -1"),
        ({"b_std": [0.1, 0.2]}, "b_std needs one number, or 3 .one for each affine layer"),
        ({"parameterization": "standart", "width": 4}, "did you mean 'standard'"),
        ({"parameterization": "standard"}, "needs the width of the hidden layers; give width=256"),
        ({"width": [4, 4, 4]}, "width needs one number, or 2"),
        ({"skip": 1}, "skip needs the width"),
        ({"skip": 2, "width": 8}, "skip must be"),
        ({"activation_scale": 0.0}, "activation_scale"),
        ({"frequencies": "expected"}, "averages over a random encoding"),
        ({"output_activation": "sigmoit"}, "did you mean 'sigmoid'"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MLPKernel(**{"depth": 2, **arguments})


def test_bad_points(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = MLPKernel(1, encoding=Fourier(2, 4))
    x = torch.rand(5, 2)
    with pytest.raises(ConfigError, match=r"shape \[n, 2\]"):
        kernel.ntk(torch.rand(5, 3))
    with pytest.raises(ConfigError, match=r"1 of 10 numbers are not, the first at index \(4, 1\)"):
        kernel.ntk(torch.cat([x[:4], tensor([[0.0, math.nan]], torch.float32)]))
    with pytest.raises(ConfigError, match="needs a stationary kernel"):
        MLPKernel(1).of_offsets(x)
    with pytest.raises(ConfigError, match="which must be one of"):
        kernel.of_offsets(x, "nntk")
    monkeypatch.setattr(memory, "available_bytes", lambda device: 50.0)
    with pytest.raises(DeviceError, match=r"5 x 5 kernel in float32 .* ntk.kernel_operator\(kernel, x\)"):
        kernel.ntk(x)


def test_blocks_of_a_prepared_kernel() -> None:
    kernel = MLPKernel(2, "relu", encoding=encodings.Positional(2, 3))
    x, y = torch.rand(9, 2), torch.rand(6, 2)
    prepared = kernel.prepare(x, y)
    nngp, ntk = prepared.block(slice(2, 5), slice(1, 6), "both")
    torch.testing.assert_close(ntk, kernel.ntk(x, y)[2:5, 1:6])
    torch.testing.assert_close(nngp, kernel.nngp(x, y)[2:5, 1:6])
    assert prepared.shape == (9, 6) and prepared.dtype == torch.float32
