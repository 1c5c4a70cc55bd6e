"""What every encoding promises (see `Encoding`). A new encoding is tested here by one more row in CASES."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from neuralfield import encodings
from neuralfield.encodings import Encoding
from neuralfield.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """A registered encoding with small options. `seeded`: two builds have equal tensors."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    seeded: bool = True

    def build(self) -> Encoding:
        module = encodings.build(self.name, **self.options)
        with torch.no_grad():  # tables start near zero, where a wrong gradient would pass for a right one
            for parameter in module.parameters():
                if parameter.abs().max() < 1e-3:
                    parameter.normal_(generator=torch.Generator().manual_seed(0))
        return module

    def __str__(self) -> str:
        words = [str(v["name"] if isinstance(v, dict) else v) for v in self.options.values()]
        return "-".join([self.name, *words])


def grid(in_dim: int, interpolation: str = "linear", **options: Any) -> Case:
    small = {
        "n_levels": 2,
        "log2_hashmap_size": 4,
        "base_resolution": 2,
        "max_resolution": 5,
        "n_features_per_level": 1,
        "engine": "reference",  # the others are compared with it in tests of their own
    }
    return Case("hashgrid", {"in_dim": in_dim, "interpolation": interpolation, **small, **options}, seeded=False)


CASES = [
    Case("none", {"in_dim": 2}),
    Case("none", {"in_dim": 3, "centered": True}),
    *(
        Case("positional", {"in_dim": 2, "n_frequencies": 3, "include_input": c != "tinycudann", "convention": c})
        for c in ("neuralfield", "nerfstudio", "tinycudann", "nerf", "nerfacc")
    ),
    Case("positional", {"in_dim": 1, "n_frequencies": None, "max_frequency": 9.0}),
    Case("fourier", {"in_dim": 2, "n_features": 5, "sigma": 2.0}),
    Case("fourier", {"in_dim": 3, "n_features": 4, "sigma": [1.0, 2.0, 0.5], "trainable": True, "decay": 0.5}),
    Case("fourier", {"in_dim": 1, "n_features": 3, "amplitudes": [1.0, 0.5, 2.0], "normalize": True}),
    *(grid(in_dim, interpolation) for in_dim in (1, 2, 3, 4) for interpolation in ("linear", "smoothstep")),
    grid(2, "nearest"),
    grid(2, engine="auto", n_features_per_level=2),
    grid(2, "smoothstep", outside="wrap"),
    grid(2, "linear", outside="zero"),
    *(
        Case("bounded", {"encoding": {"name": case.name, **case.options}, "low": -2.0, "high": [3.0, 5.0]}, case.seeded)
        for case in (
            Case("none", {"in_dim": 2}),
            Case("positional", {"in_dim": 2, "n_frequencies": 2}),
            Case("fourier", {"in_dim": 2, "n_features": 3, "trainable": True}),
            grid(2, "smoothstep"),
        )
    ),
]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
NARROW = (torch.float16, torch.bfloat16)


def points(module: Encoding, n: int, seed: int = 0) -> Tensor:
    """Random float32 coordinates: of the cube, or of the box of a bounded encoding."""
    x = torch.rand(n, module.in_dim, generator=torch.Generator().manual_seed(seed))
    return x * (module.high - module.low) + module.low if isinstance(module, encodings.Bounded) else x


def generic(module: Encoding, n: int) -> Tensor:
    """Float64 points away from the cell faces of every grid inside, so that finite differences see one polynomial."""
    inner = module.encoding if isinstance(module, encodings.Bounded) else module
    x = torch.rand(50 * n, inner.in_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    if isinstance(inner, encodings.HashGrid):
        scales = torch.tensor([level.scale for level in inner.layout.levels], dtype=torch.float64)
        fraction = (x[:, :, None] * scales + 0.5) % 1
        x = x[((fraction > 0.02) & (fraction < 0.98)).flatten(1).all(1)]
    x = x[:n]
    return x * (module.high - module.low).double() + module.low.double() if module is not inner else x


def test_every_encoding_of_the_package_has_a_case() -> None:
    of_the_package = {n for n in encodings.registry if encodings.registry.get(n).__module__.startswith("neuralfield.")}
    assert of_the_package == {case.name for case in CASES}


@each_case
@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,), (4, 0, 2)], ids=str)
def test_any_leading_dimensions(case: Case, leading: tuple[int, ...]) -> None:
    module = case.build()
    flat = points(module, 24)
    count = torch.Size(leading).numel()
    x = flat[:count].reshape(*leading, module.in_dim)
    features = module(x)
    assert features.shape == (*leading, module.out_dim)
    assert torch.equal(features.reshape(-1, module.out_dim), module(flat)[:count])


@each_case
def test_non_contiguous_points(case: Case) -> None:
    module = case.build()
    x = points(module, 12)
    stored_by_axis = x.T.contiguous().T
    every_other = torch.stack([x, -x], 1).reshape(24, -1)[::2]
    assert not stored_by_axis.is_contiguous() or module.in_dim == 1
    assert torch.equal(module(stored_by_axis), module(x))
    assert torch.equal(module(every_other), module(x))


@each_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8], ids=str)
def test_dtype_is_that_of_the_module_not_of_the_points(case: Case, dtype: torch.dtype) -> None:
    module = case.build()
    x = points(module, 8).clamp(0, 1).to(dtype)
    holds_numbers = bool(list(module.parameters()) + list(module.buffers()))
    expected = torch.float64 if dtype == torch.float64 and not holds_numbers else torch.float32
    features = module(x)
    assert features.dtype == expected
    assert torch.equal(features, module(x.to(expected)))
    if holds_numbers:
        assert module.double()(x).dtype == torch.float64


@each_case
def test_wrong_number_of_coordinates(case: Case) -> None:
    module = case.build()
    for wrong in (module.in_dim + 1, module.in_dim - 1):
        with pytest.raises(ConfigError, match=rf"built for {module.in_dim} coord.*\(4, {wrong}\)"):
            module(torch.zeros(4, wrong))
    with pytest.raises(ConfigError, match="complex64"):
        module(torch.zeros(4, module.in_dim, dtype=torch.complex64))


@each_case
def test_names_of_other_hosts(case: Case) -> None:
    module = case.build()
    width = module(points(module, 1)).shape[-1]
    assert module.n_input_dims == module.in_dim
    assert (
        module.out_dim
        == module.get_out_dim()
        == module.n_output_dims
        == module.output_dim
        == module.latent_dim
        == width
    )
    assert f"out_dim={width}" in repr(module)


@each_case
def test_built_again_from_config_and_state(case: Case) -> None:
    module = case.build()
    config = json.loads(json.dumps(module.config))
    again = encodings.build(encodings.registry.name_of(module), **config)
    x = points(module, 20)
    if case.seeded:
        assert torch.equal(again(x), module(x))
    again.load_state_dict(module.state_dict())
    assert again.config == module.config
    assert torch.equal(again(x), module(x))


@each_case
def test_copies_are_independent_and_equal(case: Case) -> None:
    module = case.build()
    x = points(module, 20)
    expected = module(x)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert type(copied) is type(module) and copied.config == module.config
        assert torch.equal(copied(x), expected)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.add_(1)
        assert torch.equal(module(x), expected)


@each_case
def test_autocast_changes_nothing(case: Case) -> None:
    module = case.build()
    x = points(module, 20).requires_grad_(True)
    expected = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = module(x)
    assert features.dtype == torch.float32
    assert torch.equal(features, expected)


@each_case
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4), seed=st.integers(0, 2**20))
def test_a_point_does_not_see_its_batch(case: Case, sizes: list[int], seed: int) -> None:
    module = case.build()
    x = points(module, sum(sizes), seed)
    parts = [module(part) for part in x.split(sizes)]
    torch.testing.assert_close(torch.cat(parts), module(x), rtol=1e-5, atol=1e-6)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(module(x[order]), module(x)[order], rtol=1e-5, atol=1e-6)


@each_case
def test_differentiable_twice(case: Case) -> None:
    """In points and parameters together, in float64, against finite differences."""
    module = case.build().double()
    names = [name for name, _ in module.named_parameters()]
    inputs = (generic(module, 1 if module.in_dim == 4 else 2), *(p.detach().clone() for p in module.parameters()))

    def encode(x: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    inputs = tuple(value.requires_grad_(True) for value in inputs)
    assert gradcheck(encode, inputs)
    if case.name == "none" or case.options.get("encoding", {}).get("name") == "none":
        return  # an affine map has no second derivative that autograd could record
    assert gradgradcheck(encode, inputs, gen_non_contig_grad_outputs=True, fast_mode=module.in_dim > 2)


def test_one_decorator_registers_an_encoding_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in the docstring of `Encoding`."""
    monkeypatch.setattr(encodings.registry, "_classes", dict(encodings.registry._classes))

    @encodings.register("square")
    class Square(Encoding):
        def __init__(self, in_dim: int, power: float = 2.0) -> None:
            super().__init__(in_dim)
            self.power = power

        @property
        def out_dim(self) -> int:
            return self.in_dim

        def encode(self, x: Tensor) -> Tensor:
            return x**self.power

    module = encodings.build("square", in_dim=2, power=3.0)
    assert module.config == {"in_dim": 2, "power": 3.0}
    assert torch.equal(module(torch.tensor([[[2, 3]]])), torch.tensor([[[8.0, 27.0]]]))
    with pytest.raises(ConfigError, match="did you mean 'power'"):
        encodings.build("square", in_dim=2, powr=3.0)
