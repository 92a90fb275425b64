"""Fixtures that run a test once for each dtype and layout."""

from pathlib import Path

import pytest
from arrays import ALL_DTYPES, LAYOUTS
from hypothesis import settings

import flatrecord

settings.register_profile("untimed", deadline=None)  # how long an example takes says nothing on a machine that is shared, or under Valgrind
settings.load_profile("untimed")


@pytest.fixture(params=ALL_DTYPES, ids=lambda dtype: str(dtype).replace(" ", ""))
def dtype(request):
    return request.param


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return LAYOUTS[request.param]


def pytest_report_header():
    return f"flatrecord {flatrecord.__version__} from {Path(flatrecord.__file__).parent}"
