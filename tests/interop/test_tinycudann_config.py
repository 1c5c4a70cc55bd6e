"""tiny-cuda-nn's configurations, read and written; what has no counterpart; importing the package itself."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from neuralfield import encodings, field
from neuralfield.cli import doctor
from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.interop import tinycudann
from neuralfield.networks import MLP
from tests.interop import tinycudann_standin as standin
from tests.interop.test_tinycudann import ENCODINGS, HASH, NETWORKS, SMALL

# tiny-cuda-nn's own unit test of its grid
TALL = {"otype": "HashGrid", "n_levels": 20, "log2_hashmap_size": 16, "base_resolution": 32, "per_level_scale": 1.5}


@pytest.mark.parametrize(
    ("config", "dim", "out", "length"),
    [
        ({"otype": "HashGrid"}, 3, None, 14_229_504),  # all defaults
        ({"otype": "hashgrid", "per_level_scale": 1.381912879967776}, 3, None, 12_196_240),  # nerfacto, 16 to 2048
        (TALL, 3, None, 2_555_904),
        ({"otype": "FullyFusedMLP"}, 3, 3, 128 * (16 + 4 * 128 + 16)),  # all defaults
        ({"otype": "FullyFusedMLP", "n_neurons": 64, "n_hidden_layers": 1}, 32, 16, 3072),  # nerfacto's mlp_base
        ({"otype": "Frequency"}, 3, 72, 0),
    ],
    ids=str,
)  # fmt: skip
def test_known_lengths(config: dict[str, Any], dim: int, out: int | None, length: int) -> None:
    assert tinycudann.to_params(tinycudann.from_config(config, dim, out)).numel() == length


@pytest.mark.parametrize(("dim", "config"), ENCODINGS, ids=str)
def test_to_config_is_the_inverse_for_encodings(dim: int, config: dict[str, Any]) -> None:
    ours = tinycudann.from_config(config, dim)
    again = tinycudann.from_config(tinycudann.to_config(ours), dim)
    tinycudann.load_params(again, tinycudann.to_params(ours))
    x = torch.rand(50, dim)
    assert again.config == ours.config
    assert torch.equal(again(x), ours(x))


def test_to_config_says_everything() -> None:
    grid = encodings.HashGrid(3, n_levels=16, log2_hashmap_size=10, max_resolution=2048, interpolation="smoothstep")
    config = tinycudann.to_config(grid)
    assert config.pop("per_level_scale") == pytest.approx(128 ** (1 / 15), rel=1e-12)
    assert config == {
        "otype": "HashGrid", "n_levels": 16, "n_features_per_level": 2, "log2_hashmap_size": 10, "base_resolution": 16,
        "interpolation": "Smoothstep",
    }  # fmt: skip
    assert tinycudann.from_config(tinycudann.to_config(grid), 3).layout == grid.layout
    for n_in, n_out, given in NETWORKS:
        full = {"activation": "ReLU", "output_activation": "None", "n_neurons": 128, "n_hidden_layers": 5, **given}
        full["otype"] = "FullyFusedMLP" if given["otype"] == "FullyFusedMLP" else "CutlassMLP"
        written = tinycudann.to_config(tinycudann.from_config(given, n_in, n_out))
        assert {k: str(v).lower() for k, v in written.items()} == {k: str(v).lower() for k, v in full.items()}


@pytest.mark.parametrize(
    ("config", "dim", "message"),
    [
        ({"otype": "TiledGrid"}, 3, "tiled grid is not offered"),
        ({"otype": "Grid", "type": "Tiled"}, 3, "tiled grid is not offered"),
        ({"otype": "SphericalHarmonics"}, 3, "SphericalHarmonics is not offered here; offered: Grid, HashGrid"),
        ({"otype": "HashGird"}, 3, "did you mean 'HashGrid'"),
        ({}, 3, "a dictionary with an 'otype'"),
        ({**HASH, "num_levels": 4}, 3, "no key 'num_levels' .*did you mean 'n_levels'"),
        ({**HASH, "interpolation": "Cubic"}, 3, "Linear, Smoothstep, Nearest"),
        ({**HASH, "hash": "Rng"}, 3, "hash must be one of CoherentPrime"),
        ({**HASH, "stochastic_interpolation": True}, 3, "stochastic_interpolation=true is not offered"),
        ({**HASH, "n_features_per_level": 3}, 3, "1, 2, 4 or 8 features"),
        (HASH, 5, "n_input_dims must be between 2 and 4"),
        ({"otype": "DenseGrid", "per_level_scale": 2.0}, 3, "2\\^30 vertices; use HashGrid"),
        ({"otype": "DenseGrid", "n_levels": 1}, 3, "no default per_level_scale"),
        ({"otype": "Identity", "scale": 3.0}, 3, "scale 1 and offset 0"),
        ({"otype": "Frequency", "n_frequency": 3}, 3, "did you mean 'n_frequencies'"),
        ({**SMALL, "neurons": 3}, 3, "no key 'neurons' .*did you mean 'n_neurons'"),
        ({**SMALL, "n_neurons": 48}, 3, "use CutlassMLP for n_neurons=48"),
        ({**SMALL, "activation": "Sine"}, 3, "neither Sine nor SiLU"),
        ({**SMALL, "n_hidden_layers": 0}, 3, "at least one hidden layer"),
        ({**SMALL, "activation": "Softplus"}, 3, "activation Softplus is not offered.*log\\(1 \\+ exp\\(10 x\\)\\)"),
        ({**SMALL, "activation": "None"}, 3, "activation None is not offered"),
        ({**SMALL, "output_activation": "Squareplus"}, 3, "output_activation Squareplus is not offered"),
        ({**SMALL, "activation": "ReLu6"}, 3, "activation must be one of"),
        ({"encoding": HASH}, 3, "no 'network' beside the 'encoding'"),
        ({"encoding": HASH, "network": SMALL, "losses": {}}, 3, "did you mean 'loss'"),
        ({"encoding": "HashGrid", "network": SMALL}, 3, "dictionary with an 'otype'"),
        ({"encoding": HASH, "network": "FullyFusedMLP"}, 3, "a network is given as a dictionary"),
    ],
    ids=str,
)
def test_what_is_refused(config: dict[str, Any], dim: int, message: str) -> None:
    network = "network" in config or "MLP" in str(config.get("otype"))
    with pytest.raises(ConfigError, match=message):
        tinycudann.from_config(config, dim, 2 if network else None)


def test_outputs_have_to_be_said_once() -> None:
    with pytest.raises(ConfigError, match="needs n_output_dims"):
        tinycudann.from_config(SMALL, 3)
    with pytest.raises(ConfigError, match="8 features, not n_output_dims=3"):
        tinycudann.from_config(HASH, 3, 3)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (encodings.Fourier(2), "no Fourier; only HashGrid"),
        (encodings.Bounded(encodings.HashGrid(2, 2), -1, 1), "no Bounded.*outside of the field"),
        (encodings.Positional(2, 4), "convention='tinycudann'"),
        (encodings.Positional(2, 4, max_frequency=3.0, convention="tinycudann"), "one frequency per octave"),
        (encodings.HashGrid(1, 2), "between 2 and 4"),
        (encodings.HashGrid(2, 2, n_features_per_level=3), "1, 2, 4 or 8"),
        (MLP(16, 1, activation="gelu"), "no activation 'gelu'"),
        (MLP(16, 1, output_activation="softplus"), "no output_activation 'softplus'.*exp\\(10 x\\)"),
        (MLP(16, 1, activation="sine"), "sin\\(30 x\\)"),
        (MLP(16, 1, skip=1), "skip"),
        (field.Field(encodings.Identity(2), nn.Identity()), "this is a Identity"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_modules_that_they_do_not_have(module: nn.Module, message: str) -> None:
    for export in (tinycudann.to_config, tinycudann.to_params):
        with pytest.raises(ConfigError, match=message):
            export(module)
    with pytest.raises(ConfigError, match=message):
        tinycudann.load_params(module, torch.zeros(3))


def test_load_explains_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_with(error: Exception) -> None:
        def fail(name: str) -> types.ModuleType:
            assert name == "tinycudann"
            raise error

        monkeypatch.setattr(importlib, "import_module", fail)

    fails_with(ModuleNotFoundError("No module named 'tinycudann'"))
    with pytest.raises(MissingDependency, match="not installed") as caught:
        tinycudann.load()
    assert tinycudann.INSTALL in str(caught.value)
    # What `import tinycudann` does without CUDA.
    fails_with(OSError("Unknown compute capability."))
    with pytest.raises(MissingDependency, match="installed but cannot be used here: Unknown compute") as caught:
        tinycudann.load()
    assert tinycudann.INSTALL in str(caught.value)
    assert doctor._OPTIONAL["tinycudann"][1] == tinycudann.INSTALL


def test_load_returns_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", standin)
    assert tinycudann.load() is standin
