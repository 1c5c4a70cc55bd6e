"""No encoding."""

from __future__ import annotations

import pytest
import torch

from neuralfield.encodings import Identity
from neuralfield.errors import ConfigError


def test_hands_through_the_coordinates() -> None:
    x = torch.rand(7, 3)
    assert torch.equal(Identity(3)(x), x)
    assert Identity(3).out_dim == 3
    assert not list(Identity(3).state_dict())


def test_centred_maps_the_cube_to_minus_one_and_one() -> None:
    assert Identity(2, centered=True)(torch.tensor([[0.0, 1.0], [0.5, 0.25]])).tolist() == [[-1, 1], [0, -0.5]]


@pytest.mark.parametrize("in_dim", [0, -1, 65, 1.5, True])
def test_number_of_coordinates(in_dim: object) -> None:
    with pytest.raises((ConfigError, TypeError), match="in_dim"):
        Identity(in_dim)
