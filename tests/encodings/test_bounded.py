"""Encodings of a box other than the unit cube."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuralfield import encodings
from neuralfield.encodings import Bounded, Encoding, Fourier, HashGrid, Identity, Positional
from neuralfield.errors import ConfigError


def test_box_becomes_the_unit_cube() -> None:
    module = Bounded(Identity(2), low=[-1.0, 10.0], high=[3.0, 20.0])
    x = torch.tensor([[-1.0, 10.0], [3.0, 20.0], [1.0, 12.5]])
    assert module(x).tolist() == [[0, 0], [1, 1], [0.5, 0.25]]


def test_scalar_corners_hold_for_every_axis() -> None:
    assert Bounded(Identity(3), low=-2, high=2)(torch.zeros(3)).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "inner",
    [Identity(3), Positional(3), Fourier(3), HashGrid(3, log2_hashmap_size=8, engine="reference")],
    ids=lambda e: type(e).__name__,
)
def test_equals_the_inner_encoding_of_scaled_points(inner: Encoding) -> None:
    module = Bounded(inner, low=-1.0, high=1.0)
    x = 2 * torch.rand(20, 3) - 1
    assert (module.in_dim, module.out_dim) == (3, inner.out_dim)
    assert torch.equal(module(x), inner((x + 1) / 2))


def test_negative_positions_reach_a_grid_without_wrapping() -> None:
    """NeRF hosts hand over world coordinates; tiny-cuda-nn's grid wraps the negative ones without a word."""
    module = Bounded(HashGrid(3, log2_hashmap_size=8, outside="error", engine="reference"), low=-4.0, high=4.0)
    assert torch.isfinite(module(torch.tensor([[-4.0, 0.0, 4.0]]))).all()
    with pytest.raises(ConfigError, match="outside"):
        module(torch.tensor([[-4.5, 0.0, 0.0]]))


def test_gradient_is_divided_by_the_size_of_the_box() -> None:
    x = torch.tensor([[1.0, 15.0]], requires_grad=True)
    Bounded(Identity(2), low=[-1.0, 10.0], high=[3.0, 20.0])(x).sum().backward()
    assert x.grad.tolist() == [[pytest.approx(0.25), pytest.approx(0.1)]]


def test_box_is_saved_with_the_encoding() -> None:
    module, other = Bounded(Fourier(2, n_features=3), low=-1.0, high=1.0), Bounded(Fourier(2, n_features=3, seed=1))
    assert set(module.state_dict()) == {"low", "high", "encoding.frequencies", "encoding.amplitudes"}
    other.load_state_dict(module.state_dict())
    x = torch.rand(5, 2)
    assert torch.equal(other(x), module(x))


def test_config_holds_the_inner_encoding_by_name() -> None:
    module = Bounded(Bounded(Identity(1), high=2.0), low=[-1.0], high=[3.0])
    inner = {"name": "bounded", "encoding": {"name": "none", "in_dim": 1, "centered": False}, "low": 0.0, "high": 2.0}
    assert module.config == {"encoding": inner, "low": [-1.0], "high": [3.0]}
    again = encodings.build("bounded", **module.config)
    assert again.config == module.config
    assert again(torch.tensor([1.0])).tolist() == module(torch.tensor([1.0])).tolist() == [0.25]


class Unregistered(Encoding):
    """An encoding of a user who has not (yet) given it a name."""

    @property
    def out_dim(self) -> int:
        return self.in_dim

    def encode(self, x: Tensor) -> Tensor:
        return x


def test_encoding_without_a_name_can_be_used_and_shown_but_not_configured() -> None:
    module = Bounded(Unregistered(2), high=2.0)
    assert module(torch.tensor([1.0, 2.0])).tolist() == [0.5, 1.0]
    with pytest.raises(ConfigError, match="Unregistered is not a registered encoding"):
        _ = module.config
    assert "Unregistered" in repr(module)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, 0.0, "low must lie below high"),
        ([0.0, 2.0], [1.0, 1.0], "low must lie below high"),
        ([0.0], 1.0, r"low needs one number, or 2 \(one per axis\); got 1"),
        (0.0, [1.0, 1.0, 1.0], "high needs one number, or 2"),
        (float("nan"), 1.0, "low must be a finite number"),
        (0.0, float("inf"), "high must be a finite number"),
    ],
)
def test_bad_boxes(low: object, high: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Bounded(Identity(2), low=low, high=high)


def test_unknown_inner_encoding() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fourier'"):
        encodings.build("bounded", encoding={"name": "fouier", "in_dim": 2})
