"""`python -m neuralfield` is the command `neuralfield`."""

import sys

from neuralfield.cli import main

if __name__ == "__main__":
    sys.exit(main())
