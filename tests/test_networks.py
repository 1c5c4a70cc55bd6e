"""The multilayer perceptron: its formula, its options and the statistics of its initialisations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from neuralfield import networks
from neuralfield.errors import ConfigError
from neuralfield.networks import ACTIVATIONS, INITIALIZATIONS, MLP, OUTPUTS

# Each activation and output activation again, from its definition.
FORMULAS = {
    "relu": lambda z: z * (z > 0),
    "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / math.sqrt(2))),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "elu": lambda z: torch.where(z > 0, z, torch.exp(z) - 1),
    "softplus": lambda z: torch.log1p(torch.exp(z)),
    "tanh": lambda z: (torch.exp(z) - torch.exp(-z)) / (torch.exp(z) + torch.exp(-z)),
    "sine": lambda z: torch.sin(30 * z),
    "gaussian": lambda z: torch.exp(-100 * z**2),
}
OUTPUT_FORMULAS = {
    "none": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + torch.exp(-z)),
    "exp": lambda z: math.e**z,
    **{name: FORMULAS[name] for name in ("tanh", "relu", "softplus")},
}


def seeded(seed: int = 0, **options: object) -> MLP:
    torch.manual_seed(seed)
    return MLP(**{"in_dim": 5, "out_dim": 3, "width": 16, "depth": 2, **options})


@pytest.mark.parametrize("depth", [0, 1, 2, 4])
@pytest.mark.parametrize("leading", [(), (7,), (2, 3), (0,)], ids=str)
def test_shapes(depth: int, leading: tuple[int, ...]) -> None:
    network = seeded(depth=depth)
    assert network(torch.rand(*leading, 5)).shape == (*leading, 3)
    widths = [5, *[16] * depth, 3]
    assert [tuple(layer.weight.shape) for layer in network.layers] == list(zip(widths[1:], widths[:-1], strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output", ["none", "sigmoid"])
def test_formula(activation: str, output: str) -> None:
    network = seeded(activation=activation, output_activation=output, output_scale=1.0).double()
    x = torch.randn(20, 5, dtype=torch.float64)
    (w1, b1), (w2, b2), (w3, b3) = [(layer.weight, layer.bias) for layer in network.layers]
    act = FORMULAS[activation]
    expected = OUTPUT_FORMULAS[output](act(act(x @ w1.T + b1) @ w2.T + b2) @ w3.T + b3)
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output", OUTPUTS)
def test_output_activations(output: str) -> None:
    plain, network = seeded(output_scale=3.0), seeded(output_scale=3.0, output_activation=output)
    x = torch.randn(20, 5)
    torch.testing.assert_close(network(x), OUTPUT_FORMULAS[output](plain(x)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("activation", "default"), [("sine", 30.0), ("gaussian", 10.0)])
def test_activation_scale(activation: str, default: float) -> None:
    assert seeded(activation=activation).activation_scale == default
    scaled = seeded(activation=activation, activation_scale=2.0, depth=1, initialization="he", output_scale=1.0)
    x = torch.randn(10, 5)
    first, last = scaled.layers
    hidden = torch.sin(2 * first(x)) if activation == "sine" else torch.exp(-4 * first(x) ** 2)
    torch.testing.assert_close(scaled(x), last(hidden))


@pytest.mark.parametrize(("skip", "joined"), [(1, {1}), (2, {2}), ([1, 3], {1, 3}), ((3, 1, 3), {1, 3}), ([], set())])
def test_skip_joins_the_features_again(skip: object, joined: set) -> None:
    network = seeded(depth=4, skip=skip, output_scale=1.0)
    assert [layer.in_features for layer in network.layers] == [5, *[16 + 5 * (k in joined) for k in (1, 2, 3)], 16]
    x = torch.randn(10, 5)
    hidden = x
    for index, layer in enumerate(network.layers):
        if index in joined:
            hidden = torch.cat([hidden, x], 1)
        hidden = layer(hidden) if index == 4 else F.relu(layer(hidden))
    torch.testing.assert_close(network(x), hidden)


def test_without_biases() -> None:
    network = seeded(bias=False, depth=3)
    assert all(layer.bias is None for layer in network.layers)
    assert (network(torch.zeros(4, 5)) == 0).all()
    assert seeded(bias=True, initialization="pytorch")(torch.zeros(4, 5)).abs().sum() > 0


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_variance_of_the_weights(initialization: str) -> None:
    """Of a 300 x 400 layer and the first and last ones, against the table in the docstring; 4 standard errors."""
    network = seeded(in_dim=200, width=400, depth=2, out_dim=300, initialization=initialization, output_scale=1.0)
    for index, (n, m) in enumerate(((200, 400), (400, 400), (400, 300))):
        siren = 1 / (3 * n * n) if index == 0 else 2 / n  # activation_scale of relu is 1
        variance = {"auto": 2 / n, "he": 2 / n, "xavier": 2 / (n + m), "pytorch": 1 / (3 * n), "siren": siren}
        layer = network.layers[index]
        assert layer.weight.var().item() == pytest.approx(variance[initialization], rel=4 * math.sqrt(2 / (n * m)))
        assert layer.weight.mean().item() == pytest.approx(0, abs=4 * math.sqrt(variance[initialization] / (n * m)))
        bounded = initialization in ("pytorch", "siren")
        assert layer.bias.abs().max().item() == (pytest.approx(1 / math.sqrt(n), rel=0.1) if bounded else 0)


def test_automatic_initialization_is_sirens_for_sine() -> None:
    for activation, rule in (("sine", "siren"), ("relu", "he"), ("gaussian", "he")):
        automatic, named = seeded(activation=activation), seeded(activation=activation, initialization=rule)
        assert torch.equal(automatic.layers[1].weight, named.layers[1].weight)


def test_siren_bounds() -> None:
    """Section 3.2 of Sitzmann et al. 2020: U(+-1/n) in the first layer, U(+-sqrt(6/n)/omega) in the others."""
    network = seeded(in_dim=2, width=256, depth=3, activation="sine", activation_scale=20.0, output_scale=1.0)
    bounds = [1 / 2, *[math.sqrt(6 / 256) / 20] * 3]
    for layer, bound in zip(network.layers, bounds, strict=True):
        assert layer.weight.abs().max().item() <= bound
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_siren_keeps_the_distribution_through_the_layers() -> None:
    """Phases of variance v give sines of variance (1 - e^{-2v})/2, and weights of variance 2/(n omega^2) then phases of
    variance 1 - e^{-2v}: near one after the first layer (theorem 1.8), and settling where v = 1 - e^{-2v} = 0.797."""
    network = seeded(in_dim=2, width=512, depth=8, activation="sine", bias=False)
    hidden = 2 * torch.rand(1000, 2) - 1
    variances = []
    for layer in network.layers[:-1]:
        phase = 30 * layer(hidden)
        variances.append(phase.var().item())
        hidden = torch.sin(phase)
    assert variances[1] == pytest.approx(0.95, abs=0.12)
    for before, after in itertools.pairwise(variances[1:]):
        assert after == pytest.approx(1 - math.exp(-2 * before), rel=0.08)
    assert variances[-1] == pytest.approx(0.797, abs=0.05)


def test_he_keeps_the_second_moment_through_the_layers() -> None:
    network = seeded(in_dim=512, width=512, depth=6)
    hidden = torch.randn(500, 512)
    for layer in network.layers[:-1]:
        hidden = F.relu(layer(hidden))
    assert hidden.square().mean().item() == pytest.approx(1, rel=0.25)


def test_output_scale_multiplies_the_initial_function() -> None:
    x = torch.randn(10, 5)
    full, small = seeded(output_scale=1.0, initialization="pytorch"), seeded(initialization="pytorch")
    torch.testing.assert_close(small(x), 0.1 * full(x))
    nothing = seeded(output_scale=0.0, initialization="pytorch")
    assert (nothing(x) == 0).all()
    nothing(x).sum().backward()
    assert (nothing.layers[-1].weight.grad != 0).any()  # it can still leave zero


def test_seeds() -> None:
    first, again, other = seeded(3), seeded(3), seeded(4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
    torch.manual_seed(3)
    other.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_built_again_from_config() -> None:
    network = networks.build("mlp", in_dim=5, out_dim=3, width=8, depth=3, skip=(2,), activation="sine")
    assert network.config["skip"] == [2] and network.config["activation_scale"] is None
    again = networks.registry.build(networks.registry.name_of(network), **network.config)
    again.load_state_dict(network.state_dict())
    x = torch.rand(4, 5)
    assert torch.equal(again(x), network(x))
    assert "activation='sine'" in repr(network)


def test_meta_device() -> None:
    with torch.device("meta"):
        network = MLP(10**6, 10**6, width=65536, depth=1)
    assert all(parameter.is_meta for parameter in network.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_dim": 0}, "in_dim"),
        ({"out_dim": 0}, "out_dim"),
        ({"width": 0}, "network.width"),
        ({"depth": -1}, "network.depth must be between 0 and 256"),
        ({"depth": 1.5}, "depth"),
        ({"activation": "rleu"}, "did you mean 'relu'"),
        ({"output_activation": "sigmod"}, "did you mean 'sigmoid'"),
        ({"initialization": "kaiming"}, "one of auto, he"),
        ({"activation_scale": 2.0}, "belongs to sine and gaussian; relu has none"),
        ({"activation": "sine", "activation_scale": 0.0}, "above 0"),
        ({"output_scale": -1.0}, "output_scale"),
        ({"output_scale": math.inf}, "output_scale"),
        ({"skip": 0}, "network.skip must be between 1 and 1"),
        ({"skip": 2}, "network.skip"),
        ({"skip": [1, 5]}, "network.skip"),
        ({"depth": 1, "skip": 1}, "network.skip"),
    ],
    ids=str,
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises((ConfigError, TypeError), match=message):
        seeded(**options)


def test_a_typo_names_the_nearest_option() -> None:
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        networks.build("mlp", 2, 3, widht=64)
    with pytest.raises(ConfigError, match=r"unknown network 'mpl'.*did you mean 'mlp'"):
        networks.build("mpl", 2, 3)
