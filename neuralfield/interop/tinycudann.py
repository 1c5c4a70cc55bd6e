r"""Exchange with tiny-cuda-nn: its configurations become our modules with the same numbers, and back.

```python
ours = tinycudann.from_config({"encoding": {"otype": "HashGrid"}, "network": {"otype": "FullyFusedMLP"}}, 3, 4)
tinycudann.load_params(ours, theirs.params)  # theirs: a NetworkWithInputEncoding, or its saved vector
theirs.params.data.copy_(tinycudann.to_params(ours))
```

Nothing of this needs tiny-cuda-nn, CUDA or a GPU; only :func:`load` imports it. What it cannot do, and these modules can:

- run on a CPU;
- differentiate twice through its networks (through its grids it can);
- take any batch: it wants [rows, coordinates], and its torch binding pads the rows to a multiple of 256 on each call;
  here any leading dimensions are taken and nothing is padded;
- biases: its networks have none. Inputs are padded to a multiple of 16, by zeros after a grid but by ones after
  Frequency, Identity and in a network of its own, and there the padded columns of the first matrix act as a bias. Such
  a network gets biases here: the first layer's is the sum of those columns, the others are zero and frozen.
  :mod:`.tinycudann_layout` has the details. (In training one bias makes smaller steps than up to 15 columns together.)
- float32 throughout: it rounds the parameters to float16 on each call and returns float16, so agreement is to three
  digits there. In its float32 grids it is to rounding, for coordinates in [0, 1]; outside them, where it lets indices
  wrap, :class:`~neuralfield.encodings.HashGrid` clamps.

Its `Frequency` takes a fast sine whose absolute error grows with the phase, hence with the frequency.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from neuralfield.checks import flag, integer, number
from neuralfield.encodings import Encoding, HashGrid, Identity, Positional
from neuralfield.encodings.hashgrid import growth_factor, make_layout
from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.field import Field
from neuralfield.interop import tinycudann_layout as layout
from neuralfield.networks import MLP

INSTALL = (
    'pip install "setuptools<82" wheel ninja && pip install --no-build-isolation '
    '"git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"'
)
"""The command that builds tiny-cuda-nn's torch binding; it needs nvcc and a CUDA build of torch."""

# What tiny-cuda-nn knows under each type, with its defaults; names are compared without regard to case, as it does.
_GRID = {
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 19,
    "base_resolution": 16,
    "interpolation": "Linear",
    "hash": "CoherentPrime",
    "stochastic_interpolation": False,
    "fixed_point_pos": False,
}
_GRID_TYPES = {"Grid": "Hash", "HashGrid": "Hash", "DenseGrid": "Dense", "TiledGrid": "Tiled"}
_ENCODINGS = (*_GRID_TYPES, "Frequency", "Identity")
_OTHER_ENCODINGS = ("Composite", "Empty", "OneBlob", "SphericalHarmonics", "TriangleWave", "OneBlobFrequency", "NRC")
_INTERPOLATIONS = {"Linear": "linear", "Smoothstep": "smoothstep", "Nearest": "nearest"}
_LARGEST_TABLE = 30  # log2 of the rows of a level of ours


def from_config(
    config: Mapping[str, Any], n_input_dims: int, n_output_dims: int | None = None
) -> Encoding | MLP | Field:
    """The module that a tiny-cuda-nn configuration describes, with the same parameters and numbers.

    **Arguments**

    - `config`: of an encoding (`HashGrid`, `DenseGrid`, `Grid`, `Frequency`, `Identity`), of a network (`FullyFusedMLP`,
      `CutlassMLP`), or ``{"encoding": ..., "network": ...}`` for a NetworkWithInputEncoding; there `loss` and
      `optimizer` may stand beside them and are ignored. Missing keys have tiny-cuda-nn's defaults.
    - `n_input_dims`: coordinates, or a network's inputs.
    - `n_output_dims`: a network's outputs; an encoding has its own, and must agree if it is given.

    A network's initial weights have the variance of tiny-cuda-nn's, not its values: use :func:`load_params`.

    Raises :class:`~neuralfield.errors.ConfigError` for what cannot be had exactly (it names what can) and for unknown
    keys, which tiny-cuda-nn itself ignores.
    """
    if "encoding" in config or "network" in config:
        layout.known(config, ("otype", "encoding", "network", "loss", "optimizer"), "a configuration")
        if "encoding" not in config or "network" not in config:
            there, absent = ("encoding", "network") if "encoding" in config else ("network", "encoding")
            raise ConfigError(f"there is no '{absent}' beside the '{there}'; for one alone pass config['{there}']")
        encoding = _encoding(config["encoding"], n_input_dims)
        ones = layout.pads_with_ones(encoding)
        return Field(encoding, layout.network_from_config(config["network"], encoding.out_dim, n_output_dims, ones))
    otype = _otype(config, (*_ENCODINGS, *layout.NETWORKS))
    if otype in layout.NETWORKS:
        return layout.network_from_config(config, n_input_dims, n_output_dims, ones=True)
    encoding = _encoding(config, n_input_dims)
    if n_output_dims is not None and n_output_dims != encoding.out_dim:
        raise ConfigError(
            f"this {otype} has {encoding.out_dim} features, not n_output_dims={n_output_dims}; leave it out"
        )
    return encoding


def to_config(module: nn.Module) -> dict[str, Any]:
    """The tiny-cuda-nn configuration of an encoding, a network or a field: the inverse of :func:`from_config`.

    Widths that `FullyFusedMLP` can have get it, others `CutlassMLP`; the parameters of both are the same. A dense grid
    becomes a `HashGrid` whose tables are large enough. What a grid does outside [0, 1] and its engine are not written.

    Raises :class:`~neuralfield.errors.ConfigError` for what tiny-cuda-nn does not have.
    """
    if isinstance(module, Field):
        if not isinstance(module.network, MLP):
            raise ConfigError(f"tiny-cuda-nn's networks are MLPs; this is a {type(module.network).__name__}")
        return {"encoding": to_config(module.encoding), "network": to_config(module.network)}
    if isinstance(module, MLP):
        return layout.network_to_config(module)
    if isinstance(module, HashGrid):
        return _grid_config(module)
    if isinstance(module, Positional):
        octaves = 0.5 * torch.exp2(torch.arange(module.n_frequencies))
        if module.convention != "tinycudann" or not torch.allclose(
            module.frequencies.float().cpu(), octaves, rtol=1e-6
        ):
            raise ConfigError(
                "tiny-cuda-nn's Frequency is Positional(convention='tinycudann') with min_frequency 1 and one frequency "
                "per octave; others differ in factor, order or spacing"
            )
        return {"otype": "Frequency", "n_frequencies": module.n_frequencies}
    if isinstance(module, Identity):
        return {
            "otype": "Identity",
            "scale": 2.0 if module.centered else 1.0,
            "offset": -1.0 if module.centered else 0.0,
        }
    raise ConfigError(
        f"tiny-cuda-nn has no {type(module).__name__}; only HashGrid, Positional, Identity, MLP and a Field of them go there"
        + ("; bring coordinates to [0, 1] outside of the field" if type(module).__name__ == "Bounded" else "")
    )


def load_params(module: nn.Module, params: Shaped[Tensor, "*shape"]) -> None:
    """Copy tiny-cuda-nn's flat parameter vector (float32 or float16) into a module of the same configuration.

    Matrices lose their padding, and where it acted as a bias its sum becomes the first layer's. A Field takes the vector
    of a NetworkWithInputEncoding, network first. The module changes wholly or, on an error, not at all.

    Raises :class:`~neuralfield.errors.ConfigError` for a vector of another length, naming both and the likely cause, and
    for a module that tiny-cuda-nn does not have.
    """
    to_config(module)  # the numbers mean the same only if the module is one of tiny-cuda-nn's
    layout.read(module, params)


def to_params(module: nn.Module) -> Float[Tensor, " n"]:
    """The flat vector, float32, that tiny-cuda-nn's module of the same configuration takes; padding is zero.

    ``load_params(module, to_params(module))`` changes no bit of a float32 module.

    Raises :class:`~neuralfield.errors.ConfigError` for biases that tiny-cuda-nn cannot have and for modules that it has
    not.
    """
    to_config(module)
    return layout.write(module)


def load() -> ModuleType:
    """Import `tinycudann`.

    Raises :class:`~neuralfield.errors.MissingDependency` when it is not installed, and when it is but finds no CUDA
    (which it reports as an OSError).
    """
    try:
        return importlib.import_module("tinycudann")
    except ImportError as error:
        raise MissingDependency(f"tinycudann is not installed ({error}); to build it: {INSTALL}") from error
    except OSError as error:
        raise MissingDependency(
            f"tinycudann is installed but cannot be used here: {error} It needs an NVIDIA GPU and a build for it: {INSTALL}"
        ) from error


def _encoding(config: Any, in_dim: int) -> Encoding:
    otype = _otype(config, _ENCODINGS)
    if otype in _GRID_TYPES:
        return _grid(config, otype, in_dim)
    if otype == "Frequency":
        layout.known(config, ("otype", "n_frequencies"), otype)
        count = integer("n_frequencies", config.get("n_frequencies", 12), 1, 64)
        return Positional(in_dim, count, convention="tinycudann")
    layout.known(config, ("otype", "scale", "offset"), otype)
    scale, offset = number("scale", config.get("scale", 1.0)), number("offset", config.get("offset", 0.0))
    if (scale, offset) not in ((1, 0), (2, -1)):
        raise ConfigError(
            f"Identity is offered with scale 1 and offset 0, or 2 and -1 (centered); got {scale:g} and {offset:g}: "
            f"scale the coordinates before the field"
        )
    return Identity(in_dim, centered=scale == 2)


def _grid(config: Mapping[str, Any], otype: str, in_dim: int) -> HashGrid:
    layout.known(config, ("otype", "type", "per_level_scale", *_GRID), otype)
    kind = layout.word("type", config.get("type", _GRID_TYPES[otype]), ("Hash", "Dense", "Tiled"))
    if kind == "Tiled":
        raise ConfigError(
            "a tiled grid is not offered: its levels repeat with the period of base_resolution (and above 1625 vertices "
            "per axis in 3D share one entry); use HashGrid, or DenseGrid"
        )
    values = {**_GRID, **config}
    for key in ("stochastic_interpolation", "fixed_point_pos"):
        if flag(key, values[key]):
            raise ConfigError(f"{key}=true is not offered; leave it out")
    layout.word("hash", values["hash"], ("CoherentPrime",))
    in_dim = integer("a grid's n_input_dims", in_dim, 2, 4)
    levels = integer("n_levels", values["n_levels"], 1, 64)
    features = _features(values["n_features_per_level"])
    base = integer("base_resolution", values["base_resolution"], 1)
    growth = number("per_level_scale", config.get("per_level_scale", _growth(kind, base, levels)), 1)
    table = values["log2_hashmap_size"]
    if kind == "Dense":
        shape = make_layout(in_dim, levels, features, _LARGEST_TABLE, base, growth)
        if any(level.hashed for level in shape.levels):
            raise ConfigError(f"a dense level would have more than 2^{_LARGEST_TABLE} vertices; use HashGrid")
        # The smallest table that hashes no level: the hash grid is then the dense one, row for row.
        table = max(3, (max(level.entries for level in shape.levels) - 1).bit_length())
    return HashGrid(
        in_dim,
        n_levels=levels,
        n_features_per_level=features,
        log2_hashmap_size=table,
        base_resolution=base,
        per_level_scale=growth,
        interpolation=_INTERPOLATIONS[layout.word("interpolation", values["interpolation"], _INTERPOLATIONS)],
    )


def _grid_config(grid: HashGrid) -> dict[str, Any]:
    """A grid of ours, if tiny-cuda-nn has it: 2 to 4 coordinates and 1, 2, 4 or 8 features per level."""
    integer("a grid's n_input_dims", grid.in_dim, 2, 4)
    _features(grid.layout.n_features)
    options = grid.config
    growth = options["per_level_scale"]
    if growth is None:
        highest = 2048 if options["max_resolution"] is None else options["max_resolution"]
        growth = growth_factor(options["n_levels"], options["base_resolution"], highest)
    return {
        "otype": "HashGrid",
        "n_levels": len(grid.layout.levels),
        "n_features_per_level": grid.layout.n_features,
        "log2_hashmap_size": int(options["log2_hashmap_size"]),
        "base_resolution": int(options["base_resolution"]),
        "per_level_scale": float(growth),
        "interpolation": grid.interpolation.capitalize(),
    }


def _features(value: Any) -> int:
    if integer("n_features_per_level", value, 1) not in (1, 2, 4, 8):
        raise ConfigError(f"tiny-cuda-nn's grids have 1, 2, 4 or 8 features per level, got {value}")
    return int(value)


def _growth(kind: str, base: int, levels: int) -> float:
    """tiny-cuda-nn's default per_level_scale: 2, and for dense grids what leads to 256 vertices, in float32."""
    if kind == "Hash":
        return 2.0
    if levels == 1 or base > 256:
        raise ConfigError("a DenseGrid of one level, or finer than 256, has no default per_level_scale; give it")
    return float(np.exp(np.log(np.float32(256) / np.float32(base)) / np.float32(levels - 1)))


def _otype(config: Any, offered: tuple[str, ...]) -> str:
    """The canonical name of a configuration's type; one that tiny-cuda-nn has and we have not is an error of its own."""
    if not isinstance(config, Mapping) or "otype" not in config:
        raise ConfigError(f"a configuration is a dictionary with an 'otype' ({', '.join(offered)}), got {config!r}")
    otype = layout.word("otype", config["otype"], (*offered, *_OTHER_ENCODINGS))
    if otype in _OTHER_ENCODINGS:
        raise ConfigError(f"tiny-cuda-nn's {otype} is not offered here; offered: {', '.join(offered)}")
    return otype
