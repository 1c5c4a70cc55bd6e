"""Coordinate-based neural fields: fit them, and understand why an encoding works.

```python
import neuralfield as nf

field = nf.fit(image, encoding="hashgrid")   # image: [H, W, C], uint8 or floats in [0, 1]
values = field(coords)                       # coords: [N, 2] in [0, 1], x then y
nf.save(field, "field.safetensors")
field = nf.load("field.safetensors")
```
"""

import importlib
from typing import Any

from neuralfield import encodings, errors, networks
from neuralfield.api import fit
from neuralfield.export import render, write_image
from neuralfield.field import Field, build, load, save
from neuralfield.signals import ImageSignal, load_image
from neuralfield.version import __version__

__all__ = [
    "Field",
    "ImageSignal",
    "__version__",
    "build",
    "encodings",
    "errors",
    "fit",
    "load",
    "load_image",
    "networks",
    "render",
    "save",
    "write_image",
]


def __getattr__(name: str) -> Any:
    """``nf.ntk`` is imported when it is first used: fitting does without."""
    if name == "ntk":
        return importlib.import_module("neuralfield.ntk")
    raise AttributeError(f"module 'neuralfield' has no attribute '{name}'")
