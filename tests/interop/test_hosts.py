"""Encodings inside other projects: the real ones where installed, else hosts that keep the documented contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from neuralfield import encodings
from neuralfield.errors import ConfigError
from neuralfield.interop.torch_ngp import get_encoder

GRID = {"n_levels": 4, "log2_hashmap_size": 10, "max_resolution": 64}


def _encodings() -> dict[str, encodings.Encoding]:
    return {
        "none": encodings.Identity(3),
        "positional": encodings.Positional(3, 4, include_input=True, convention="nerfstudio"),
        "fourier": encodings.Fourier(3, n_features=16, sigma=2.0),
        "hashgrid": encodings.Bounded(encodings.HashGrid(3, **GRID), -2, 2),
    }


class Host(nn.Module):
    """nerfstudio's NeRFField in small: asks `get_out_dim()`, hands over (rays, samples, 3), possibly negative."""

    def __init__(self, encoding: nn.Module) -> None:
        super().__init__()
        self.encoding = encoding
        self.network = nn.Linear(encoding.get_out_dim(), 1)

    def forward(self, positions: Tensor) -> Tensor:
        return self.network(self.encoding(positions))


@pytest.mark.parametrize("name", list(_encodings()))
def test_a_host_trains_every_parameter_and_gets_normals(name: str) -> None:
    host = Host(_encodings()[name])
    positions = (4 * torch.rand(7, 5, 3) - 2).requires_grad_()
    density = host(positions)
    assert density.shape == (7, 5, 1)
    (normals,) = torch.autograd.grad(density.sum(), positions, create_graph=True)
    (density.square().mean() + normals.square().mean()).backward()
    assert normals.shape == positions.shape
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in host.parameters() if p is not host.network.bias)


@pytest.mark.parametrize("name", list(_encodings()))
def test_nerfstudios_own_field_trains_with_our_encodings(name: str) -> None:
    pytest.importorskip("nerfstudio", reason="pip install --no-deps nerfstudio==1.1.5 jaxtyping tensorboard viser")
    from nerfstudio.cameras.rays import Frustums, RaySamples
    from nerfstudio.fields.vanilla_nerf_field import NeRFField

    field = NeRFField(position_encoding=_encodings()[name], direction_encoding=encodings.Positional(3, 2))
    rays, samples = 6, 8
    frustums = Frustums(
        origins=torch.randn(rays, samples, 3) * 0.1,
        directions=nn.functional.normalize(torch.randn(rays, samples, 3), dim=-1),
        starts=torch.rand(rays, samples, 1),
        ends=1 + torch.rand(rays, samples, 1),
        pixel_area=torch.ones(rays, samples, 1),
    )
    adam = torch.optim.Adam(field.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        out = field(RaySamples(frustums=frustums))
        rgb, density = (next(v for k, v in out.items() if k.value == kind) for kind in ("rgb", "density"))
        loss = (rgb - 0.3).square().mean() + (density - 1).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_torch_ngp_gets_an_encoder_and_its_size() -> None:
    encoder, dim = get_encoder("hashgrid", 3, num_levels=4, level_dim=2, log2_hashmap_size=10, desired_resolution=64)
    assert dim == encoder.output_dim == 8
    x = 3 * (2 * torch.rand(5, 6, 3) - 1)
    assert torch.equal(encoder(x, bound=3), encoder.encoding((x + 3) / 6))


def test_torch_ngps_frequency_encoding_by_hand() -> None:
    encoder, dim = get_encoder("frequency", 2, multires=2)
    x = torch.tensor([[-0.3, 1.4]])
    expected = torch.cat([x, torch.sin(x), torch.cos(x), torch.sin(2 * x), torch.cos(2 * x)], dim=-1)
    assert dim == 10
    assert torch.allclose(encoder(x, bound=2), expected, atol=1e-6)


def test_what_torch_ngp_has_and_we_have_not() -> None:
    with pytest.raises(ConfigError, match="tiled"):
        get_encoder("tiledgrid", 3)
    with pytest.raises(ConfigError, match="unknown encoding 'sphere_harmonics'"):
        get_encoder("sphere_harmonics", 3)
