"""The tangent kernel as an operator: against J R J^T from explicit Jacobians."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import neuralfield as nf
from neuralfield import encodings, networks
from neuralfield.errors import ConfigError
from neuralfield.ntk.linearize import linearize
from neuralfield.ntk.ntk_operator import NTKOperator
from tests.ntk.test_jacobian import ENCODINGS, Wide, explicit, field_of, grid, points


def dense(
    field: nn.Module, x: Tensor, x2: Tensor | None = None, outputs: str = "full", scales: dict[str, float] | None = None
) -> Tensor:
    """J R J^T, [n C, m C], or its mean over outputs, [n, m]."""
    left, right = explicit(field, x), explicit(field, x if x2 is None else x2)
    rate = dict.fromkeys(left, 1.0)
    for key in sorted(scales or {}, key=len):
        rate.update({name: (scales or {})[key] for name in left if name.startswith(key)})
    full = sum(
        rate[name] * torch.einsum("ncp,mdp->ncmd", left[name].flatten(2), right[name].flatten(2)) for name in left
    )
    assert isinstance(full, Tensor)
    if outputs == "trace":
        return full.diagonal(dim1=1, dim2=3).mean(2)
    return full.flatten(2, 3).flatten(0, 1)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_equals_the_jacobian_times_its_transpose(encoding: str, outputs: str) -> None:
    field = field_of(ENCODINGS[encoding](), activation="silu", output_activation="sigmoid", skip=1)
    x = points(field)
    operator = NTKOperator(field, x, outputs=outputs, chunk=3)  # 3 + 3 + 1 points
    expected = dense(field, x, outputs=outputs)
    assert operator.reason is None and operator.shape == expected.shape
    close(operator.to_dense(), expected, 1e-12)
    close(operator.diagonal(), expected.diagonal(), 1e-12)
    assert operator.trace() == pytest.approx(float(expected.trace()), rel=1e-12)
    v = torch.randn(len(expected), 40, dtype=torch.float64)  # more vectors than go together
    close(operator @ v, expected @ v, 1e-12)
    close(operator @ v[:, 0], expected @ v[:, 0], 1e-12)


@pytest.mark.parametrize("activation", networks.ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    scale = {"sine": 2.0, "gaussian": 0.7}.get(activation)
    field = field_of(grid(2), activation=activation, activation_scale=scale)
    x = points(field)
    operator = NTKOperator(field, x)
    expected = dense(field, x)
    close(operator.to_dense(), expected, 1e-12)
    close(operator.diagonal(), expected.diagonal(), 1e-12)
    assert float(torch.linalg.eigvalsh(operator.to_dense())[0]) > -1e-12 * float(expected.trace())


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_cross_kernels(outputs: str) -> None:
    field = field_of(ENCODINGS["colliding"](), activation="tanh")
    x = points(field, 9)
    rows, columns = x[:4], x[4:]
    operator = NTKOperator(field, rows, columns, outputs=outputs, chunk=3)
    expected = dense(field, rows, columns, outputs)
    close(operator.to_dense(), expected, 1e-12)
    close(operator.transpose().to_dense(), expected.T, 1e-12)
    square = NTKOperator(field, rows, columns[:4], outputs=outputs)
    assert not square.symmetric
    close(square.diagonal(), dense(field, rows, columns[:4], outputs).diagonal(), 1e-12)


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_scales_weigh_groups_by_the_longest_beginning(outputs: str) -> None:
    field = field_of(grid(2), activation="tanh")
    x = points(field)
    scales = {"encoding": 100.0, "network": 0.5, "network.layers.1": 0.0, "network.layers.2.bias": 3.0}
    operator = NTKOperator(field, x, outputs=outputs, scales=scales)
    expected = dense(field, x, outputs=outputs, scales=scales)
    close(operator.to_dense(), expected, 1e-12)
    close(operator.diagonal(), expected.diagonal(), 1e-12)


def test_scales_of_single_levels_add_up() -> None:
    field = field_of(encodings.Bounded(grid(2), low=-1, high=1), activation="tanh")
    x = points(field)
    only = [{"network": 0.0, "encoding": 0.0, f"encoding.encoding.level{level:02d}": 2.0} for level in range(3)]
    kernels = [NTKOperator(field, x, scales=scales) for scales in only]
    close(
        torch.stack([k.to_dense() for k in kernels]).sum(0),
        dense(field, x, scales={"network": 0.0, "encoding": 2.0}),
        1e-12,
    )
    for kernel in kernels:
        close(kernel.diagonal(), kernel.to_dense().diagonal(), 1e-12)
    # A level's kernel is local: two points in far cells of the finest level have nothing in common there.
    far = torch.tensor([[0.1, 0.1], [0.9, 0.9]], dtype=torch.float64)
    pair = NTKOperator(
        field_of(grid(2, log2_hashmap_size=12)),
        far,
        outputs="trace",
        scales={"network": 0, "encoding": 0, "encoding.level02": 1},
    ).to_dense()
    assert float(pair[0, 1]) == 0 and float(pair[0, 0]) > 0


@pytest.mark.parametrize("encoding", ["fourier", "hashgrid"])
def test_float32(encoding: str) -> None:
    field = field_of(ENCODINGS[encoding]())
    x = points(field, 33)
    operator = NTKOperator(field.float(), x.float(), chunk=8)
    expected = dense(field.double(), x.float().double())
    assert operator.dtype == torch.float32
    close(operator.to_dense().double(), expected, 5e-6)
    close(operator.diagonal().double(), expected.diagonal(), 5e-6)


def test_chunks_blocks_and_kept_tapes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    field = field_of(grid(2), activation="tanh")
    x = points(field, 50)
    v = torch.randn(150, 3, dtype=torch.float64)
    expected = NTKOperator(field, x) @ v
    kept = NTKOperator(field, x, chunk=7)
    assert torch.equal(kept @ v, kept @ v)
    close(kept @ v, expected, 1e-13)
    monkeypatch.setattr("neuralfield.ntk.block_jacobian._BLOCK_BYTES", 2000)  # several blocks of several chunks
    for keep_bytes in (0, 20_000, 2**28):
        operator = NTKOperator(field, x, chunk=7, keep_bytes=keep_bytes)
        assert len(list(operator._blocks(False, 3))) > 1
        close(operator @ v, expected, 1e-13)
        close(operator @ v[:, :1], expected[:, :1], 1e-13)
        close(operator @ v, expected, 1e-13)


def test_the_kernel_stays_when_the_field_is_trained() -> None:
    field = field_of(grid(2))
    x = points(field)
    before = dense(field, x)
    operator = NTKOperator(field, x, keep_bytes=0)
    with torch.no_grad():
        for parameter in field.parameters():
            parameter += 0.1
    close(operator.to_dense(), before, 1e-12)
    close(operator.diagonal(), before.diagonal(), 1e-12)


def test_frozen_parameters_have_no_part() -> None:
    field = field_of(grid(2))
    field.encoding.requires_grad_(False)
    field.network.layers[1].requires_grad_(False)  # type: ignore[union-attr,index]
    x = points(field)
    operator = NTKOperator(field, x)
    close(operator.to_dense(), dense(field, x), 1e-12)
    close(operator.diagonal(), dense(field, x).diagonal(), 1e-12)


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_any_module(outputs: str) -> None:
    torch.manual_seed(0)
    encoding = grid(2)
    field = nf.Field(encoding, Wide(encoding.out_dim)).double()
    x = points(field)
    operator = NTKOperator(field, x, outputs=outputs, scales={"encoding.params": 7.0}, chunk=3)
    assert "Wide" in str(operator.reason) and "Wide" in repr(operator)
    expected = dense(field, x, outputs=outputs, scales={"encoding": 7.0})
    close(operator.to_dense(), expected, 1e-12)
    close(operator.diagonal(), expected.diagonal(), 1e-12)


def test_the_kernel_of_a_linearised_field_is_its_bases() -> None:
    field = field_of(grid(2))
    x = points(field)
    model = linearize(field)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    operator = NTKOperator(model, x)
    assert operator.reason is None
    close(operator.to_dense(), dense(field, x), 1e-12)
    close(dense(model, x), dense(field, x), 1e-12)


def test_scipy_finds_the_same_eigenvalues() -> None:
    from scipy.sparse.linalg import eigsh

    field = field_of(ENCODINGS["fourier"]())
    x = points(field, 12)
    operator = NTKOperator(field, x)
    found = eigsh(operator.to_scipy(), k=3, v0=np.ones(36), return_eigenvectors=False)
    expected = torch.linalg.eigvalsh(dense(field, x))[-3:].numpy()
    np.testing.assert_allclose(np.sort(found), expected, rtol=1e-10)


def test_no_points_and_one() -> None:
    field = field_of(grid(2))
    none = NTKOperator(field, torch.zeros(0, 2, dtype=torch.float64))
    assert none.shape == (0, 0) and none.diagonal().shape == (0,)
    assert (none @ torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 2)
    x = points(field, 1)
    close(NTKOperator(field, x).to_dense(), dense(field, x), 1e-12)


def test_bad_input_says_what_is_wrong() -> None:
    field = field_of(grid(2))
    x = points(field)
    with pytest.raises(ConfigError, match="outputs must be one of full, trace, got 'mean'"):
        NTKOperator(field, x, outputs="mean")
    with pytest.raises(ConfigError, match=r"scales has 'encoder'.*did you mean"):
        NTKOperator(field, x, scales={"encoder": 1.0})
    with pytest.raises(ConfigError, match=r"scales\['network'\] must be a finite number at least 0, got -1"):
        NTKOperator(field, x, scales={"network": -1.0})
    with pytest.raises(ConfigError, match=r"must be a real tensor of shape \[n, 2\]"):
        NTKOperator(field, torch.zeros(3, 3))
    with pytest.raises(ConfigError, match="must be finite"):
        NTKOperator(field, torch.full((3, 2), torch.nan))
    with pytest.raises(ConfigError, match="must be finite"):
        NTKOperator(field, x, torch.full((3, 2), torch.inf))
    with pytest.raises(ConfigError, match="Dropout in training mode"):
        NTKOperator(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1)), torch.zeros(1, 2))
    close(
        NTKOperator(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.1)).eval(), torch.ones(1, 2)).to_dense(),
        3 * torch.eye(3),  # |x|^2 + 1
        1e-6,
    )
    with pytest.raises(ConfigError, match=r"takes \[21\] or \[21, k\]; got \(7,\)"):
        NTKOperator(field, x) @ torch.zeros(7)


_MEMORY = """
import resource, torch
import neuralfield as nf
from neuralfield.ntk.ntk_operator import NTKOperator
torch.set_num_threads(1)
field = nf.Field(nf.encodings.{encoding}, nf.networks.MLP({features}, 3, width=128, depth=2))
n = 32768
x, v = torch.rand(n, 2), torch.randn(3 * n)
small = NTKOperator(field, x[:4096]) @ v[:3 * 4096]  # what the first product loads and compiles
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
NTKOperator(field, x, keep_bytes={keep}) @ v
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(
    ("encoding", "features", "keep", "limit"),
    # The activations of all points are 100 MiB and more, the Jacobian 12 GiB and more.
    [
        ("Fourier(2, 64)", 128, 0, 50),
        ("HashGrid(2, log2_hashmap_size=17)", 32, 0, 120),
        ("Fourier(2, 64)", 128, 2**24, 70),
    ],
)
def test_memory(encoding: str, features: int, keep: int, limit: float) -> None:
    """MiB beyond what is loaded: bounded by chunks and by keep_bytes, not by the number of points."""
    code = _MEMORY.format(encoding=encoding, features=features, keep=keep)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < limit
