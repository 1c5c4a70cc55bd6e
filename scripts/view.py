"""Look at runs in the browser: `python scripts/view.py RUN [RUN...]`, `--help` says more."""

import sys

from neuralfield.cli.view import main

if __name__ == "__main__":
    sys.exit(main())
