"""The line that is to blame is the innermost one of the program's own."""

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import flatrecord
from flatrecord.profile.places import Blame, Place, blame, caller, inside_library, shortened

NUMPY = str(Path(np.__file__).parent / "_core" / "numeric.py")
STANDARD = json.__file__
OURS = str(Path(flatrecord.__file__).parent / "safetensors" / "files.py")
OWN, MAIN = "/home/somebody/app/model.py", "/home/somebody/app/train.py"
IMPORT = ("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)
RUN = ("run_path", "<frozen runpy>", 291)


def test_what_a_library_is():
    assert inside_library(NUMPY) == "numpy/_core/numeric.py"
    assert inside_library(STANDARD) == "json/__init__.py"
    assert inside_library(OURS) == "flatrecord/safetensors/files.py"
    assert inside_library("<frozen runpy>") and inside_library("<__array_function__ internals>")
    assert inside_library("<string>")  # what a dataclass or exec has made: of the line that called it
    assert inside_library("/opt/other/lib/python3.13/site-packages/torch/nn.py") == "torch/nn.py"
    assert inside_library(OWN) is None
    assert inside_library(sysconfig.get_path("stdlib") + "-of-mine/x.py") is None
    assert inside_library("~/flatrecord-app/train.py") is None


def test_the_innermost_line_that_is_no_librarys():
    stack = [
        ("full", NUMPY, 3),
        ("loads", STANDARD, 9),
        ("make", OWN, 5),
        ("call", NUMPY, 1),
        ("main", MAIN, 7),
        ("<module>", MAIN, 9),
        RUN,
    ]
    place, *callers = Place(OWN, 5, "make"), Place(MAIN, 7, "main"), Place(MAIN, 9, "<module>")
    assert blame(stack) == Blame(place, "json.loads", tuple(callers))


@pytest.mark.parametrize("outer, expected", [(5, [Place(OWN, 5, "make")]), (4, [Place(OWN, 5, "make"), Place(OWN, 4, "make")])])
def test_a_comprehension_belongs_to_its_function(outer, expected):
    found = blame([("<listcomp>", OWN, 5), ("<dictcomp>", OWN, 5), ("make", OWN, outer), RUN])
    assert [found.place, *found.callers] == expected


def test_a_generator_that_another_file_consumes_stands_for_itself():
    assert blame([("<genexpr>", OWN, 5), ("main", MAIN, 7)]).place == Place(OWN, 5, "<genexpr>")


def test_the_import_of_a_library_is_nobodys():
    assert blame([("<module>", NUMPY, 3), IMPORT, ("<module>", MAIN, 1), RUN]) is None
    assert blame([("read", "<frozen importlib._bootstrap_external>", 3), ("<module>", MAIN, 1), RUN]) is None


def test_what_the_programs_own_modules_do_as_they_are_imported_is_theirs():
    found = blame([("ones", NUMPY, 3), ("<module>", OWN, 2), IMPORT, ("<module>", MAIN, 1), RUN])
    assert found.place == Place(OWN, 2, "<module>") and found.via == "numpy.ones"


def test_where_there_is_no_line_of_the_programs():
    assert blame([("full", NUMPY, 3), ("_bootstrap", STANDARD, 5)]).place == Place(NUMPY, 3, "full")
    assert str(blame([]).place) == "a thread that runs no Python" and blame([]).place.inside == ""


def test_what_the_profiler_needs_itself_is_nobodys():
    tracked = str(Path(flatrecord.__file__).parent / "profile" / "tracked.py")
    assert blame([RUN, ("main", tracked, 3)]) is None
    assert blame([("full", NUMPY, 3), RUN, ("main", tracked, 3)]).place == Place(NUMPY, 3, "full")  # the program is a library


def test_the_package_that_is_run_will_do():
    package = str(Path(np.__file__).parent) + "/"
    stack = [("loads", STANDARD, 9), ("full", NUMPY, 3), RUN]
    assert blame(stack, package) == Blame(Place(NUMPY, 3, "full"), "json.loads")
    assert blame([*stack[:2], ("main", MAIN, 7)], package).place == Place(MAIN, 7, "main")  # but not where there is a better one
    assert blame([("loads", STANDARD, 9), IMPORT, ("full", NUMPY, 3), RUN], package) is None
    assert blame([("full", NUMPY, 3), IMPORT, ("<module>", MAIN, 1)], package).place == Place(NUMPY, 3, "full")


def test_compiled_code_that_allocates_is_called_by_nothing_of_the_profilers():
    watching = str(Path(flatrecord.__file__).parent / "profile" / "watching.py")
    assert blame([("call", watching, 3), ("main", MAIN, 7)]).via == ""
    assert blame([("load", OURS, 4), ("call", watching, 3), ("main", MAIN, 7)]).via == "flatrecord.load"


def test_the_caller_is_the_line_that_calls():
    here = caller()
    assert here.file == __file__ and here.function == "test_the_caller_is_the_line_that_calls" and here.source == "here = caller()"


def test_paths_are_shortened(monkeypatch):
    monkeypatch.chdir("/tmp")
    assert shortened("/tmp/app/train.py") == "app/train.py" == shortened("app/train.py")
    assert shortened(OWN) == OWN and shortened(NUMPY) == "numpy/_core/numeric.py"
