"""`python -m gridcompute` is the command `gridcompute`."""

from __future__ import annotations

import sys

from gridcompute.cli import main

if __name__ == "__main__":
    sys.exit(main())
