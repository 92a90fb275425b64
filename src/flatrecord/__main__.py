"""``python -m flatrecord``: the same as the command ``flatrecord``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
