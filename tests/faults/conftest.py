"""The library that lets calls go wrong, compiled once."""

import pytest
from faults.injection import compiled


@pytest.fixture(scope="session")
def injector(tmp_path_factory):
    return compiled(tmp_path_factory.mktemp("injector"))
