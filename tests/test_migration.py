"""The tables of docs/migration.md: each line run with Flower's classes and with ours, and every attribute in its place."""

import ast
import re

import flwr.app
import numpy as np
import pytest
from pages import ROOT, blocks

import flatrecord.flower

PAGE = ROOT / "docs" / "migration.md"
MODULES = (flwr.app, flatrecord, flatrecord.flower)
ROWS = re.findall(r"^\| `(.+?)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
CELL = re.compile(r"`([^`]*)`")
LINES = [(code, CELL.findall(cells)) for code, cells in ROWS if len(CELL.findall(cells)) == 3 and not code.startswith("flwr.")]


def test_there_are_lines():
    assert len(LINES) >= 50


@pytest.mark.parametrize("module", range(3), ids=("flwr", "flatrecord", "flower"))
@pytest.mark.parametrize("code, cells", LINES, ids=[code for code, _ in LINES])
def test_a_line(code, cells, module):
    assert shown(code, MODULES[module]) == cells[module].replace("\\|", "|")


def shown(code, module):
    """What comes out of a line, or the name of the error."""
    names = {"__name__": "page"}
    exec(blocks(PAGE)[0][1], names)
    names |= {"Array": module.Array, "ArrayRecord": module.ArrayRecord}
    tree = ast.parse(code)
    *steps, last = tree.body
    try:
        exec(compile(ast.Module(steps, []), code, "exec"), names)
        if not isinstance(last, ast.Expr):
            exec(compile(ast.Module([last], []), code, "exec"), names)
            return "None"
        return repr(eval(compile(ast.Expression(last.value), code, "eval"), names))
    except Exception as error:
        return next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")


@pytest.mark.parametrize("name", ["Array", "ArrayRecord"])
def test_every_attribute_is_listed(name):
    (table,) = re.findall(rf"^\| attribute of `{name}` .*\n.*\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    listed = [set(), set(), set()]
    for row in table.splitlines():
        _, names, *cells, _ = row.split("|")
        for found, cell in zip(listed, cells, strict=True):
            assert cell.strip() in ("", "yes")
            found |= set(CELL.findall(names)) if cell.strip() else set()
    for module, found in zip(MODULES, listed, strict=True):
        value = getattr(module, name)([np.ones(1)]) if name == "ArrayRecord" else module.Array(np.ones(1))
        assert found == {attribute for attribute in dir(value) if not attribute.startswith("_")}
