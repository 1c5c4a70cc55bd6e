"""Which encoding will serve an image, how far it will get, and why, before training: `python scripts/explain.py --help`."""

import sys

from neuralfield.cli.explain import main

if __name__ == "__main__":
    sys.exit(main())
