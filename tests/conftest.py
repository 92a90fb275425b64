"""Fixtures that run a test once for each dtype and layout."""

import pytest
from arrays import ALL_DTYPES, LAYOUTS


@pytest.fixture(params=ALL_DTYPES, ids=lambda dtype: str(dtype).replace(" ", ""))
def dtype(request):
    return request.param


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request):
    return LAYOUTS[request.param]
