"""`python -m berid` is the command `berid`."""

import sys

from berid.cli import main

if __name__ == "__main__":
    sys.exit(main())
