"""Whether all is tried that the tests otherwise try a part of: ``make exhaustive``."""

import os

EXHAUSTIVE = os.environ.get("FLATRECORD_EXHAUSTIVE", "0") not in ("", "0")
