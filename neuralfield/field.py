"""A neural field: an encoding followed by a network, and how it is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from neuralfield import encodings, networks
from neuralfield.encodings import Encoding
from neuralfield.errors import ConfigError, FieldFileError
from neuralfield.files import write_tensors

FORMAT = "neuralfield/1"
"""Version of the file format; a later, incompatible one gets another number."""


class Field(nn.Module):
    r"""$f(x) = \text{network}(\gamma(x))$, from coordinates in $[0, 1]^D$ to C channels.

    **Arguments**

    - `encoding`: an :class:`~neuralfield.encodings.Encoding`.
    - `network`: a module from ``encoding.out_dim`` features to C channels, with ``in_dim`` and ``out_dim``; as a rule a
      :class:`~neuralfield.networks.MLP`.
    - `signal`: what the field was fitted to (size, colour space, ...), as a JSON-able dictionary; `render` uses it.
    """

    def __init__(self, encoding: Encoding, network: nn.Module, signal: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if getattr(network, "in_dim", encoding.out_dim) != encoding.out_dim:
            raise ConfigError(
                f"the encoding gives {encoding.out_dim} features but the network takes {network.in_dim}; "
                f"build it with in_dim={encoding.out_dim}"
            )
        self.encoding = encoding
        self.network = network
        self.signal: dict[str, Any] = dict(signal or {})
        self.history: list[dict[str, Any]] = []

    @property
    def in_dim(self) -> int:
        """D, the number of coordinates."""
        return self.encoding.in_dim

    @property
    def out_dim(self) -> int:
        """C, the number of channels."""
        return int(self.network.out_dim)  # type: ignore[arg-type]

    @property
    def n_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(self, x: Shaped[Tensor, "*batch in_dim"]) -> Float[Tensor, "*batch out_dim"]:
        """Values at coordinates with any leading dimensions."""
        return self.network(self.encoding(x))  # type: ignore[no-any-return]

    @property
    def config(self) -> dict[str, Any]:
        """Names and options from which :func:`build` makes an equal field (with other weights)."""
        return {
            "encoding": {"name": encodings.registry.name_of(self.encoding), **self.encoding.config},
            "network": {"name": networks.registry.name_of(self.network), **self.network.config},  # type: ignore[dict-item]
        }


def build(
    in_dim: int,
    out_dim: int,
    encoding: str | Mapping[str, Any] | Encoding = "hashgrid",
    network: Mapping[str, Any] | nn.Module | None = None,
    signal: Mapping[str, Any] | None = None,
) -> Field:
    """A field from names and options, or from modules that exist already.

    **Arguments**

    - `in_dim`, `out_dim`: coordinates in, channels out.
    - `encoding`: a name, a dictionary ``{"name": ..., options}``, or a module.
    - `network`: a dictionary ``{"name": "mlp", options}`` (name optional), a module, or None for the default MLP.
    """
    if not isinstance(encoding, Encoding):
        options: dict[str, Any] = {"name": encoding} if isinstance(encoding, str) else dict(encoding)
        name = str(options.pop("name", "hashgrid"))
        # An encoding that wraps another (Bounded) has no in_dim of its own.
        if "in_dim" in encodings.registry.options(name):
            options["in_dim"] = in_dim
        encoding = encodings.build(name, **options)
    if encoding.in_dim != in_dim:
        raise ConfigError(f"the encoding takes {encoding.in_dim} coordinates but the signal has {in_dim}")
    if not isinstance(network, nn.Module):
        options = {**(network or {}), "in_dim": encoding.out_dim, "out_dim": out_dim}
        network = networks.build(options.pop("name", "mlp"), **options)
    return Field(encoding, network, signal)


def save(field: Field, path: str | Path) -> None:
    """Write a field as one `.safetensors` file, its configuration as JSON in the header.

    Whole or not at all: an existing file is replaced only when the new one is complete.
    """
    header = {"format": FORMAT, **field.config, "signal": field.signal}
    write_tensors(path, field.state_dict(), {"neuralfield": json.dumps(header)})


def load(path: str | Path, device: str | torch.device = "cpu") -> Field:
    """Read a field that :func:`save` wrote.

    Nothing in the file is executed: only classes of the package's own registries are built, on torch's meta device, so
    that a header that claims terabytes allocates nothing; then the tensors are put in, if each has the right shape.

    Raises :class:`~neuralfield.errors.FieldFileError` for a file that is missing, truncated, of another kind, or whose
    tensors do not fit its configuration.
    """
    path = Path(path)
    header, tensors = _read(path)
    try:
        with torch.device("meta"):
            encoding = encodings.build(**header["encoding"])
            field = Field(encoding, networks.build(**header["network"]), header.get("signal"))
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise FieldFileError(f"{path} holds a configuration that cannot be built: {error}") from error
    expected = field.state_dict()
    wrong = [
        f"{name} {list(tensors[name].shape) if name in tensors else 'missing'}"
        for name in expected.keys() | tensors.keys()
        if name not in expected
        or name not in tensors
        or expected[name].shape != tensors[name].shape
        or expected[name].is_floating_point() != tensors[name].is_floating_point()
    ]
    if wrong:
        raise FieldFileError(f"{path}: the tensors do not fit the configuration ({', '.join(sorted(wrong)[:3])})")
    field.load_state_dict(tensors, assign=True)
    for parameter in field.parameters():
        parameter.requires_grad_(True)
    return field.to(device)


def read_header(path: str | Path) -> dict[str, Any]:
    """The configuration in a field file's header, without reading the tensors."""
    return _read(Path(path), tensors=False)[0]


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        kind = "is a folder; give the file field.safetensors in it" if path.is_dir() else "does not exist"
        raise FieldFileError(f"{path} {kind}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            values = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
        header = json.loads(metadata["neuralfield"])
        version = header["format"]
    except KeyError as error:
        raise FieldFileError(f"{path} is a safetensors file, but not one that neuralfield wrote") from error
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError, RuntimeError) as error:
        raise FieldFileError(
            f"{path} cannot be read as a field ({error}); it is truncated or of another kind. Fit again or restore a copy"
        ) from error
    if version != FORMAT:
        raise FieldFileError(f"{path} has format {version!r}, this version reads {FORMAT!r}; upgrade neuralfield")
    return header, values
