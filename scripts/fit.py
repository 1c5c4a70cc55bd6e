"""Fit an image, a shape or a volume with a neural field: `python scripts/fit.py --help`."""

import sys

from neuralfield.cli.fit import main

if __name__ == "__main__":
    sys.exit(main())
