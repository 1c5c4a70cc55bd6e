"""Exchange with tiny-cuda-nn: against a stand-in with its documented behaviour, and the real one where there is a GPU."""

from __future__ import annotations

import copy
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neuralfield import encodings, field
from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.interop import tinycudann
from neuralfield.networks import MLP
from tests.interop import tinycudann_standin as standin

HASH = {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 8, "base_resolution": 5, "per_level_scale": 1.7}
SMALL = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2}
ENCODINGS = [
    (2, HASH),
    (3, HASH),
    (4, {**HASH, "n_features_per_level": 1, "interpolation": "Smoothstep"}),
    (3, {**HASH, "n_features_per_level": 8, "interpolation": "Nearest"}),
    (2, {**HASH, "otype": "DenseGrid", "n_levels": 3}),
    (3, {"otype": "Grid", "type": "Dense", "n_levels": 2, "base_resolution": 4, "per_level_scale": 2.0}),
    (2, {"otype": "DenseGrid", "n_levels": 3, "base_resolution": 8}),
    (3, {"otype": "Frequency", "n_frequencies": 5}),
    (2, {"otype": "Identity"}),
    (3, {"otype": "Identity", "scale": 2.0, "offset": -1.0}),
]
NETWORKS = [
    # inputs, outputs, configuration
    (16, 16, SMALL),
    (3, 1, SMALL),
    (20, 17, {**SMALL, "n_neurons": 32, "n_hidden_layers": 1}),
    (5, 3, {"otype": "CutlassMLP", "n_neurons": 24, "n_hidden_layers": 3, "activation": "Sine"}),
    (5, 3, {"otype": "CutlassMLP", "n_hidden_layers": 0, "activation": "None", "output_activation": "Sigmoid"}),
    (32, 4, {"otype": "MLP", "n_neurons": 16, "activation": "SiLU", "output_activation": "Tanh"}),
    (7, 2, {**SMALL, "activation": "LeakyReLU", "output_activation": "Exponential"}),
    (7, 2, {**SMALL, "activation": "tanh", "output_activation": "relu"}),
]
BOTH = [
    (3, HASH, SMALL),  # 8 features, padded with zeros
    (2, {**HASH, "n_levels": 8}, SMALL),  # 16, not padded
    (3, {"otype": "Frequency", "n_frequencies": 4}, SMALL),  # 24, padded with ones
    (2, {"otype": "Identity"}, {**SMALL, "output_activation": "Sigmoid"}),
]


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny-cuda-nn that was built without half precision."""
    monkeypatch.setattr(standin, "HALF", False)


def excite(theirs: nn.Module, scale: float = 1.0) -> None:
    """Parameters that matter, padding included: a grid's initial values are too small to show anything."""
    with torch.no_grad():
        theirs.params.add_(scale * 0.3 * torch.randn_like(theirs.params))


def coordinates(rows: int, dim: int) -> Tensor:
    points = torch.rand(rows, dim)
    points[0], points[1] = 0, 1
    return points.requires_grad_()


def assert_same(ours: nn.Module, theirs: nn.Module, dim: int, device: str = "cpu", **tolerance: float) -> None:
    """Values and gradients with respect to the coordinates, on a batch that has to be padded."""
    x = coordinates(300, dim).detach().to(device).requires_grad_()
    expected, actual = theirs(x), ours(x)
    torch.testing.assert_close(actual, expected.float(), **tolerance)
    if expected.requires_grad:
        factors = torch.randn_like(actual)
        mine, other = (
            torch.autograd.grad((factors * y).sum(), x, materialize_grads=True)[0] for y in (actual, expected)
        )
        torch.testing.assert_close(mine, other, **{k: 10 * v for k, v in tolerance.items()})


@pytest.mark.parametrize(("dim", "config"), ENCODINGS, ids=str)
def test_an_encoding_has_their_numbers(dim: int, config: dict[str, Any]) -> None:
    theirs = standin.Encoding(dim, config, dtype=torch.float32)
    excite(theirs)
    ours = tinycudann.from_config(config, dim, theirs.n_output_dims)
    assert ours.n_output_dims == theirs.n_output_dims
    tinycudann.load_params(ours, theirs.params)
    assert torch.equal(tinycudann.to_params(ours), theirs.params)
    assert_same(ours, theirs, dim, rtol=1e-5, atol=2e-5)
    if isinstance(ours, encodings.HashGrid):
        x, factors = coordinates(64, dim), torch.randn(64, ours.out_dim)
        for module in (ours, theirs):
            (factors * module(x)).sum().backward()
        torch.testing.assert_close(ours.params.grad, theirs.params.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("n_in", "n_out", "config"), NETWORKS, ids=str)
def test_a_network_has_their_numbers(n_in: int, n_out: int, config: dict[str, Any]) -> None:
    theirs = standin.Network(n_in, n_out, config)
    excite(theirs)
    ours = tinycudann.from_config(config, n_in, n_out)
    tinycudann.load_params(ours, theirs.params)
    assert_same(ours, theirs, n_in, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize(("dim", "encoding", "network"), BOTH, ids=str)
def test_a_field_has_their_numbers_and_gives_them_back(dim: int, encoding: dict, network: dict) -> None:
    theirs = standin.NetworkWithInputEncoding(dim, 3, encoding, network)
    excite(theirs)
    ours = tinycudann.from_config({"encoding": encoding, "network": network, "loss": {"otype": "L2"}}, dim, 3)
    tinycudann.load_params(ours, theirs.params)
    assert_same(ours, theirs, dim, rtol=1e-4, atol=1e-5)
    # Back: the padding differs, the function does not.
    other = standin.NetworkWithInputEncoding(dim, 3, encoding, network)
    other.params.data.copy_(tinycudann.to_params(ours))
    assert_same(ours, other, dim, rtol=1e-4, atol=1e-5)
    before = copy.deepcopy(ours.state_dict())
    tinycudann.load_params(ours, tinycudann.to_params(ours))
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in before.items())


def test_half_precision_agrees_to_three_digits_and_half_vectors_are_taken() -> None:
    dim, encoding, network = BOTH[0]
    theirs = standin.NetworkWithInputEncoding(dim, 3, encoding, network)
    excite(theirs)
    ours = tinycudann.from_config({"encoding": encoding, "network": network}, dim, 3)
    tinycudann.load_params(ours, theirs.params.half())
    assert tinycudann.to_params(ours).dtype == torch.float32
    x = torch.rand(20, dim)
    assert theirs(x).dtype == torch.float16
    torch.testing.assert_close(ours(x), theirs(x).float(), rtol=5e-3, atol=5e-3)


def test_ours_takes_leading_dimensions_where_theirs_does_not() -> None:
    theirs = standin.Encoding(3, HASH, dtype=torch.float32)
    ours = tinycudann.from_config(HASH, 3)
    tinycudann.load_params(ours, theirs.params)
    x = torch.rand(2, 5, 3)
    torch.testing.assert_close(ours(x), theirs(x.view(10, 3)).view(2, 5, -1), rtol=1e-5, atol=1e-9)
    with pytest.raises(AssertionError, match="rows"):
        theirs(x)


def test_columns_that_see_ones_are_the_first_layers_bias() -> None:
    """3 inputs, so 13 columns of ones: numbers by hand, 1 + 2 + ... would differ if one were missing."""
    ours = tinycudann.from_config({**SMALL, "n_hidden_layers": 1}, 3, 2)
    first, last = torch.zeros(16, 16), torch.zeros(16, 16)
    first[4, 0], first[4, 3:] = 7.0, torch.arange(1.0, 14.0)
    first[5, 15] = -3.0
    last[1, 4], last[2:, :] = 2.0, 99.0
    tinycudann.load_params(ours, torch.cat([first.flatten(), last.flatten()]))
    assert ours.layers[0].bias.tolist() == [0.0] * 4 + [91.0, -3.0] + [0.0] * 10
    assert ours(torch.tensor([1.0, 5.0, 5.0])).tolist() == [0.0, 2 * 98.0]
    back = tinycudann.to_params(ours)[:256].view(16, 16)
    assert back[4].tolist() == [7.0, 0.0, 0.0, 91.0] + [0.0] * 12


def test_training_stays_among_the_functions_that_they_can_have() -> None:
    ours = tinycudann.from_config({"encoding": {"otype": "Frequency", "n_frequencies": 2}, "network": SMALL}, 2, 1)
    adam = torch.optim.Adam(ours.parameters(), 1e-2)
    x = torch.rand(64, 2)
    for _ in range(3):
        adam.zero_grad()
        (ours(x) - 1).square().mean().backward()
        adam.step()
    assert ours.network.layers[0].bias.abs().max() > 1e-3
    assert tinycudann.to_params(ours).numel() == 16 * 16 * 3
    other = tinycudann.from_config(tinycudann.to_config(ours), 2, 1)
    tinycudann.load_params(other, tinycudann.to_params(ours))
    assert torch.equal(ours(x), other(x))


def test_a_field_survives_its_file(tmp_path: Path) -> None:
    ours = tinycudann.from_config({"encoding": {"otype": "Identity"}, "network": SMALL}, 2, 3)
    tinycudann.load_params(ours, torch.randn(3 * 256))
    field.save(ours, tmp_path / "field.safetensors")
    back = field.load(tmp_path / "field.safetensors")
    assert torch.equal(tinycudann.to_params(back), tinycudann.to_params(ours))


def test_wrong_vectors_name_both_lengths_and_the_cause_and_change_nothing() -> None:
    ours = tinycudann.from_config({"encoding": HASH, "network": SMALL}, 3, 3)
    before = tinycudann.to_params(ours)
    grid = ours.encoding.layout.n_parameters
    for module, length, cause in [
        (ours, 768, f"takes {768 + grid:,} parameters, but the vector has 768: it holds the network alone"),
        (ours, grid, "it holds the encoding alone"),
        (ours, 8 * 16 + 16 * 16 + 3 * 16 + grid, "not padded to multiples of 16"),
        (ours, 5, "another configuration"),
        (ours.network, 8 * 16 + 16 * 16 + 3 * 16, "not padded to multiples of 16"),
        (ours.network, 768 + grid, "belongs into a Field"),
        (ours.encoding, grid - 16, "log2_hashmap_size"),
        (encodings.Identity(3), 1, "a Identity has no parameters"),
    ]:
        with pytest.raises(ConfigError, match=cause):
            tinycudann.load_params(module, torch.ones(length))
    for wrong in (torch.ones(768 + grid, dtype=torch.int64), torch.ones(1, 768 + grid)):
        with pytest.raises(ConfigError, match="one flat vector of floating-point numbers"):
            tinycudann.load_params(ours, wrong)
    assert torch.equal(tinycudann.to_params(ours), before)


def test_biases_go_only_where_they_have_a_place() -> None:
    plain = MLP(3, 2, width=16, depth=1, bias=False)
    weights = tinycudann.to_params(plain)
    tinycudann.load_params(plain, weights)
    with pytest.raises(ConfigError, match=r"act as a bias, and this network has none"):
        tinycudann.load_params(plain, torch.ones_like(weights))
    assert torch.equal(tinycudann.to_params(plain), weights)
    biased = MLP(3, 2, width=16, depth=1)
    nn.init.ones_(biased.layers[0].bias)
    assert tinycudann.to_params(biased)[:256].view(16, 16)[:, 3].tolist() == [1.0] * 16
    nn.init.ones_(biased.layers[1].bias)
    with pytest.raises(ConfigError, match="layer 2 of the network has a bias"):
        tinycudann.to_params(biased)
    # Behind a grid the padding is zero, and 16 inputs are not padded: no bias in the first layer either.
    for module in (field.Field(encodings.HashGrid(2, 4), MLP(8, 1, width=16)), MLP(16, 1, width=16)):
        network = module if isinstance(module, MLP) else module.network
        nn.init.ones_(network.layers[0].bias)
        with pytest.raises(ConfigError, match="layer 1 of the network has a bias"):
            tinycudann.to_params(module)


@pytest.fixture
def real() -> types.ModuleType:
    """tiny-cuda-nn itself."""
    try:
        return tinycudann.load()
    except MissingDependency as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dim", "config"), ENCODINGS, ids=str)
def test_the_real_encodings(real: types.ModuleType, dim: int, config: dict[str, Any]) -> None:
    theirs = real.Encoding(dim, config, dtype=torch.float32)
    excite(theirs)
    ours = tinycudann.from_config(config, dim, theirs.n_output_dims).cuda()
    tinycudann.load_params(ours, theirs.params)
    assert torch.equal(tinycudann.to_params(ours).cpu(), theirs.params.detach().cpu())
    close = 1e-3 if config["otype"] == "Frequency" else 1e-4  # its sine is the fast one
    assert_same(ours, theirs, dim, "cuda", rtol=close, atol=close)
    if isinstance(ours, encodings.HashGrid):
        x, factors = coordinates(1000, dim).detach().cuda(), torch.randn(1000, ours.out_dim, device="cuda")
        for module in (ours, theirs):
            (factors * module(x)).sum().backward()
        torch.testing.assert_close(ours.params.grad, theirs.params.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dim", "encoding", "network"), BOTH, ids=str)
def test_the_real_network_with_input_encoding(real: types.ModuleType, dim: int, encoding: dict, network: dict) -> None:
    theirs = real.NetworkWithInputEncoding(dim, 3, encoding, network)
    excite(theirs)
    ours = tinycudann.from_config({"encoding": encoding, "network": network}, dim, 3).cuda()
    tinycudann.load_params(ours, theirs.params)
    x = torch.rand(1000, dim, device="cuda")
    torch.testing.assert_close(ours(x), theirs(x).float(), rtol=2e-2, atol=2e-2)
    theirs.params.data.copy_(tinycudann.to_params(ours))
    torch.testing.assert_close(ours(x), theirs(x).float(), rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("n_in", "n_out", "config"), NETWORKS, ids=str)
def test_the_real_network(real: types.ModuleType, n_in: int, n_out: int, config: dict[str, Any]) -> None:
    theirs = real.Network(n_in, n_out, config)
    excite(theirs, 0.5)
    ours = tinycudann.from_config(config, n_in, n_out).cuda()
    tinycudann.load_params(ours, theirs.params)
    x = torch.rand(1000, n_in, device="cuda")
    torch.testing.assert_close(ours(x), theirs(x).float(), rtol=3e-2, atol=3e-2)
