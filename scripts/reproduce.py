"""Reproduce an experiment of a paper, with the claims that it checks: `python scripts/reproduce.py --help`."""

import sys

from neuralfield.cli.reproduce import main

if __name__ == "__main__":
    sys.exit(main())
