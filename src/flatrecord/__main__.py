"""``python -m flatrecord``: the same as the command ``flatrecord``."""

import sys

from .cli import main

sys.exit(main())
