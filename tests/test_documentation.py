"""The README and the pages of docs/ are true: what they show runs, and what they list is all there is."""

import argparse
import importlib
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from pages import BLOCK, PAGES, ROOT, Reader, agree, blocks, check, commands, name_of

import flatrecord
from flatrecord.profile.command import add_arguments

NO_COMMANDS = [
    "flatrecord prophile",
    "flatrecord inspect x --jason",
    "make tost",
    "make demo ARGS=--gb",
    "python -m profiling micro --gib 1",
    "pip install flatrecord[torc]",
    "rm x",
]
WRONG = [
    "python\nprint(1)  # 2\n",
    "python\nprint(1)\n",
    "python\n1 / 0\n",
    "python\n# a.py\nx = 1\n```\n\n```diff\n--- a.py\n+++ a.py\n-y\n+z\n",
    "console\n$ python --version\nPython 2\n",
]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in commands(page):
        check(command)
    Reader(page, tmp_path).read()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_is_in_blocks_that_say_what_they_are(page):
    rest = BLOCK.sub("", page.read_text())
    assert "```" not in rest and "~~~" not in rest and not re.search(r"^\n {4}", rest, re.MULTILINE)


def test_there_are_examples():
    run = {name_of(page): [kind for kind, _ in blocks(page)] for page in PAGES}
    assert run["README.md"].count("python") >= 2
    assert run["docs/tutorial.md"].count("console") >= 5 and run["docs/tutorial.md"].count("diff") >= 3


def test_what_is_not_so_is_noticed(tmp_path):
    assert agree("a  1.00 models, 0.5 s after\n...\nend\n", "a 1.04  models, 7.1 s after\nx\ny\nend\n")
    assert agree("key ... bytes\n", "key 6 and 7 bytes\n")
    for shown in ("a 1.00 models\n", "a 1 models\n", "b 2.00 models\n", "a 2.00 models\n\nmore\n", ""):
        assert not agree(shown, "a 2.00 models\n")
    for command in NO_COMMANDS:
        with pytest.raises(AssertionError):
            check(command)
    for number, block in enumerate(WRONG):
        folder = tmp_path / str(number)
        folder.mkdir()
        page = folder / "page.md"
        page.write_text(f"```{block}```\n")
        with pytest.raises((AssertionError, ZeroDivisionError)):
            Reader(page, folder).read()


def test_the_links_of_the_readme():
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", (ROOT / "README.md").read_text()):
        path, _, anchor = target.partition("#")
        page = ROOT / (path or "README.md")
        assert page.exists(), target
        assert not anchor or anchor in {slug(title) for title in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)}, target


def test_every_public_name_is_in_the_reference():
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md")}
    public = {name: importlib.import_module(f"flatrecord.{name}") for name in ("flower", "profile", "safetensors", "testing")}
    public["flatrecord"] = flatrecord
    for page, module in public.items():
        documented = set(re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)", pages[page], re.MULTILINE))
        assert set(module.__all__) <= documented, page
    assert {f"{module.__name__}.{name}" for module in public.values() for name in module.__all__} > {
        "flatrecord.Array",
        "flatrecord.profile.phase",
    }


def test_every_setting_is_listed():
    sources = Path(flatrecord.__file__).parent.rglob("*.py")
    read = {name for path in sources for name in re.findall(r"\bFLATRECORD_[A-Z_]+\b", path.read_text())}
    listed = re.findall(r"^\| `(\w+)`", (ROOT / "docs/reference/settings.md").read_text(), re.MULTILINE)
    assert read == set(listed) and len(listed) == len(read) >= 4


def test_every_option_of_the_profiler_is_explained():
    explained = re.findall(r"^\| `(-[\w-]+)", (ROOT / "docs/guides/profile.md").read_text(), re.MULTILINE)
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    assert set(explained) == {flag for action in parser._actions for flag in action.option_strings}


def slug(title):
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_flowers_first_example():
    from flatrecord import ParametersRecord, array_from_numpy

    arr_np = np.random.randn(3, 3)
    arr = array_from_numpy(arr_np)
    assert repr(arr).startswith("Array(dtype='float64', shape=[3, 3], stype='numpy.ndarray', data=b'")
    p_record = ParametersRecord({"my_array": arr})
    assert p_record["my_array"] is arr
    arr_np_d = arr.numpy()
    assert np.array_equal(arr_np_d, arr_np)


def test_flowers_example_of_a_serialization_of_ones_own():
    from flatrecord import Array, ParametersRecord

    ndarray = np.random.randn(3, 3)
    arr = Array(
        data=ndarray.tobytes(),
        dtype=str(ndarray.dtype),
        stype="",  # Could be used in a deserialization function
        shape=list(ndarray.shape),
    )
    array = ParametersRecord({"mine": arr})["mine"]
    arr_np_d = np.frombuffer(
        buffer=array.data,
        dtype=array.dtype,
    ).reshape(array.shape)
    assert np.array_equal(arr_np_d, ndarray)


def test_flowers_methods():
    from flatrecord import ParametersRecord, array_from_numpy

    def fresh(*names):
        return OrderedDict((name, array_from_numpy(np.full(2, i))) for i, name in enumerate(names))

    array_dict = fresh("a", "b", "c")
    a, b, c = array_dict.values()
    record = ParametersRecord(array_dict, keep_input=False)
    assert len(array_dict) == 0  # "the dictionary passed will be empty once exiting from that function"
    assert record.count_bytes() == sum(len(array.data) + 1 for array in (a, b, c))
    assert record.get("a") is a and record.get("z") is None and record.get("z", b) is b
    assert list(record.items()) == [("a", a), ("b", b), ("c", c)]
    assert list(record.keys()) == ["a", "b", "c"] and list(record.values()) == [a, b, c]
    assert record.pop("a") is a and record.pop("a", None) is None
    assert record.popitem() == ("b", b)
    assert record.setdefault("c", a) is c and record.setdefault("d", a) is a
    record.update(fresh("e"), f=b)
    assert list(record) == ["c", "d", "e", "f"]
    record.clear()
    with pytest.raises(KeyError):
        record.popitem()
    kept = fresh("a")
    assert ParametersRecord(kept, keep_input=True) == kept and list(kept) == ["a"]
