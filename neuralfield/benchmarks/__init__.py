"""Speed, measured against the peers that are installed: `python scripts/benchmark.py encode | step | fit | ntk`."""
