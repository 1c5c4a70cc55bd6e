"""`nf.fit` as people call it from Python."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.errors import ConfigError, NeuralFieldError, SignalError

QUICK = {"steps": 20, "progress": False, "network": {"width": 16, "depth": 1}}


def test_the_readme_example(picture: np.ndarray, tmp_path: Path) -> None:
    field = nf.fit(picture, encoding="hashgrid", **QUICK)
    coords = torch.rand(5, 2)
    nf.save(field, tmp_path / "field.safetensors")
    again = nf.load(tmp_path / "field.safetensors")
    assert torch.equal(field(coords), again(coords))
    assert again.signal["width"] == 32 and again.signal["height"] == 24
    assert field.history[-1]["step"] == 20


@pytest.mark.parametrize("kind", ["uint8", "float", "grey", "tensor", "uint16", "path", "signal"])
def test_all_kinds_of_input_give_the_same_fit(picture: np.ndarray, tmp_path: Path, kind: str) -> None:
    grey = picture[..., 0]
    given: object = {
        "uint8": picture,
        "float": picture / np.float32(255),
        "grey": grey,
        "tensor": torch.from_numpy(picture),
        "uint16": picture.astype(np.uint16) * 257,
        "path": tmp_path / "image.png",
        "signal": nf.ImageSignal.from_array(picture),
    }[kind]
    iio.imwrite(tmp_path / "image.png", picture)
    field = nf.fit(given, encoding="fourier", **QUICK)
    expected = nf.fit(grey if kind == "grey" else picture, encoding="fourier", **QUICK)
    x = torch.rand(10, 2)
    assert field.out_dim == (1 if kind == "grey" else 3)
    assert torch.allclose(field(x), expected(x), atol=2e-4)


def test_encodings_by_name_by_options_and_by_module(picture: np.ndarray) -> None:
    by_options = nf.fit(picture, encoding={"name": "fourier", "sigma": 3.0, "n_features": 8}, **QUICK)
    module = nf.encodings.Fourier(2, n_features=8, sigma=3.0)
    by_module = nf.fit(picture, encoding=module, **QUICK)
    assert by_module.encoding is module
    x = torch.rand(10, 2)
    assert torch.equal(by_options(x), by_module(x))


def test_a_network_of_ones_own_and_a_grid_of_given_size(picture: np.ndarray) -> None:
    grid = nf.encodings.HashGrid(2, n_levels=2, log2_hashmap_size=8, max_resolution=32)
    network = nf.networks.MLP(grid.out_dim, 3, width=8)
    field = nf.fit(picture, encoding=grid, network=network, steps=3, progress=False)
    assert field.network is network and field.encoding is grid


def test_a_name_alone_gives_a_grid_that_suits_the_image(picture: np.ndarray) -> None:
    field = nf.fit(picture, encoding="hashgrid", **QUICK)
    assert field.encoding.config["max_resolution"] == 32
    given = nf.fit(picture, encoding={"name": "hashgrid", "per_level_scale": 1.3, "log2_hashmap_size": 9}, **QUICK)
    assert given.encoding.config["per_level_scale"] == 1.3 and given.encoding.config["log2_hashmap_size"] == 9


def test_seeds_decide_everything_and_leave_the_global_generator_alone(picture: np.ndarray) -> None:
    torch.manual_seed(5)
    expected_next = torch.rand(1)
    torch.manual_seed(5)
    one = nf.fit(picture, seed=1, **QUICK)
    assert torch.equal(torch.rand(1), expected_next)
    torch.manual_seed(77)
    same, other = nf.fit(picture, seed=1, **QUICK), nf.fit(picture, seed=2, **QUICK)
    x = torch.rand(10, 2)
    assert torch.equal(one(x), same(x))
    assert not torch.equal(one(x), other(x))


def test_modules_that_are_not_registered_can_be_fitted(picture: np.ndarray) -> None:
    class Own(nf.encodings.Encoding):
        @property
        def out_dim(self) -> int:
            return self.in_dim

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x**2

    field = nf.fit(picture, encoding=Own(2), network=torch.nn.Linear(2, 3), steps=3, progress=False)
    assert field(torch.rand(4, 2)).shape == (4, 3)


def test_the_seed_draws_the_frequencies_too(picture: np.ndarray) -> None:
    one, two = (nf.fit(picture, encoding="fourier", seed=seed, **QUICK).encoding.frequencies for seed in (1, 2))
    assert not torch.equal(one, two)


def test_holdout_and_history(picture: np.ndarray) -> None:
    field = nf.fit(picture, holdout="every_other", **QUICK)
    assert "psnr_heldout" in field.history[-1]
    with pytest.raises(ConfigError, match="has its own hold-out"):
        nf.fit(nf.ImageSignal.from_array(picture), holdout="every_other", **QUICK)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"encoding": "hashgird"}, "did you mean 'hashgrid'"),
        ({"encoding": {"name": "fourier", "sigmma": 3}}, "did you mean 'sigma'"),
        ({"network": {"widht": 3}}, "did you mean 'width'"),
        ({"stesp": 3}, "did you mean 'steps'"),
        ({"encoding": nf.encodings.Identity(3)}, "3 coordinates but the signal has 2"),
        ({"device": "tpu"}, "auto, cpu, cuda"),
    ],
)
def test_mistakes_are_explained(picture: np.ndarray, call: dict, words: str) -> None:
    with pytest.raises(NeuralFieldError, match=words):
        nf.fit(picture, **{"steps": 1, "progress": False, **call})


@pytest.mark.parametrize("bad", [np.full((4, 4), np.nan), np.zeros((0, 3)), np.zeros((1, 1)), np.zeros((2, 2, 2, 2))])
def test_unusable_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(SignalError):
        nf.fit(bad, **QUICK)


def test_a_fit_resumes_from_its_folder(picture: np.ndarray, tmp_path: Path) -> None:
    whole = nf.fit(picture, **QUICK)
    options = {**QUICK, "folder": tmp_path, "checkpoint_seconds": 1e-9}
    nf.fit(picture, **options)  # its last checkpoint is at the last step
    resumed = nf.fit(picture, **options, resume=True)
    x = torch.rand(10, 2)
    assert torch.equal(whole(x), resumed(x))
