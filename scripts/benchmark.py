"""Speed against the peers that are installed: `python scripts/benchmark.py encode | step | fit | tancik | ntk`."""

import sys

from neuralfield.benchmarks.report import main

if __name__ == "__main__":
    sys.exit(main())
