"""Write the sample pictures that are drawn rather than photographed, as 8-bit PNG files.

python data/make_samples.py folder
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from neuralfield.files import atomic
from neuralfield.signals.samples import DRAWN, sample


def main(arguments: list[str] | None = None) -> list[Path]:
    """Write every drawn sample into the folder named on the command line; returns the paths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), help="where to write (default: here)")
    folder = parser.parse_args(arguments).folder
    written = []
    for name in DRAWN:
        pixels, _ = sample(name)
        if pixels.dtype != np.uint8:
            pixels = np.rint(pixels * 255.0).astype(np.uint8)
        with atomic(folder / f"{name}.png") as temporary:
            imageio.imwrite(temporary, pixels)
        written.append(folder / f"{name}.png")
        print(written[-1])
    return written


if __name__ == "__main__":
    main()
