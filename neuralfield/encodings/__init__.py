"""Encodings: maps from coordinates in [0, 1]^D to features.

Each is an ``nn.Module`` with ``in_dim``, ``out_dim`` and ``forward([*batch, in_dim]) -> [*batch, out_dim]``; see
:class:`Encoding` for the contract and for how to write and register one's own.
"""

from neuralfield.encodings.base import Encoding, build, register, registry
from neuralfield.encodings.bounded import Bounded
from neuralfield.encodings.fourier import Fourier
from neuralfield.encodings.hashgrid import HashGrid
from neuralfield.encodings.identity import Identity
from neuralfield.encodings.positional import Positional

__all__ = ["Bounded", "Encoding", "Fourier", "HashGrid", "Identity", "Positional", "build", "register", "registry"]
