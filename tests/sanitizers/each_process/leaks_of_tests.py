"""Plugin of pytest under AddressSanitizer: leaks are looked for in what the tests allocate, and not in pytest itself."""

import sys

import pytest
from sitecustomize import _sanitizer, left_out

_sanitizer.__lsan_disable()


def pytest_collection_finish():
    # pyo3's PySlice::new, in safetensors 0.8's safe_open.get_tensors, keeps two ints for each tensor that is read.
    for name in ("safetensors.numpy", "safetensors.torch"):
        if name in sys.modules:
            sys.modules[name].load_file = left_out(sys.modules[name].load_file)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    _sanitizer.__lsan_enable()
    try:
        return (yield)
    finally:
        _sanitizer.__lsan_disable()
