"""torch is optional."""

import subprocess
import sys
import textwrap


def in_fresh_process(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_torch_is_not_imported_for_those_who_do_not_use_it():
    in_fresh_process("""
        import sys, numpy as np
        from flatrecord import Array, ParametersRecord
        record = ParametersRecord({"a": np.zeros(3)})
        try:
            ParametersRecord({"a": "text"})
        except TypeError:
            pass
        record.to_numpy_ndarrays(keep_input=False)
        assert "torch" not in sys.modules and "flatrecord.torch" not in sys.modules
    """)


def test_without_torch_the_error_says_what_to_install():
    printed = in_fresh_process("""
        import sys
        sys.modules["torch"] = None
        import numpy as np
        from flatrecord import Array, ParametersRecord
        record = ParametersRecord({"a": np.zeros(3)})
        for work in (record.to_torch_state_dict, record["a"].torch,
                     lambda: ParametersRecord.from_torch_state_dict({}), lambda: Array.from_torch_tensor(None)):
            try:
                work()
            except ModuleNotFoundError as error:
                print(error)
    """)
    assert printed.splitlines() == ["torch is not installed: pip install 'flatrecord[torch]'"] * 4
