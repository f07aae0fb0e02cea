"""`python -m fuseloop` is the command `fuseloop`."""

from __future__ import annotations

import sys

from fuseloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
