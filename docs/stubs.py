"""Sphinx extension: signatures with types and overloads, as they are written in the source, or in the ``.pyi`` stub of what is compiled.

autodoc does not read stubs, and knows nothing of names that are imported for type checkers alone.
"""

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MODULES = ["flatrecord", *(f"flatrecord.{name}" for name in ("flower", "profile", "safetensors", "testing"))]
# By which name each public thing is described, by where it is defined.
PUBLIC = {
    f"{value.__module__}.{name}": f"{module.__name__}.{name}"
    for module in map(importlib.import_module, reversed(MODULES))
    for name in module.__all__
    for value in [getattr(module, name)]
}


class _Names(ast.NodeTransformer):
    """Each name in an annotation as Sphinx can look it up: ``~numpy.typing.NDArray``, which is shown as ``NDArray``."""

    def __init__(self, known: dict[str, tuple[str, str]], aliases: dict[str, ast.expr]) -> None:
        self.known, self.aliases = known, aliases

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.aliases:
            return self.visit(ast.parse(ast.unparse(self.aliases[node.id]), mode="eval").body)
        if node.id not in self.known:
            return node
        module, name = self.known[node.id]
        if module.startswith("flatrecord") and name in (others := _source(module)[1]).aliases:
            return others.visit_Name(ast.Name(name))
        return ast.Name("~" + _public(module, name))


@cache
def _source(module: str) -> tuple[list[ast.stmt], _Names]:
    """The source of a module, or its stub if it is compiled, and what its names mean."""
    found = importlib.import_module(module)
    path = Path(str(found.__file__))
    body = ast.parse((path.parent / f"{path.name.partition('.')[0]}.pyi" if _is_compiled(path) else path).read_text()).body
    known: dict[str, tuple[str, str]] = {}
    aliases: dict[str, ast.expr] = {}
    for node in _statements(body):
        match node:
            case ast.ImportFrom(module=source, names=names, level=level):
                package = importlib.util.resolve_name("." * level + (source or ""), found.__package__)
                known |= {name.asname or name.name: (package, name.name) for name in names}
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias"), value=ast.expr() as value):
                aliases[name] = value
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.ClassDef(name=name):  # a type variable, or a class
                known[name] = module, name
    return body, _Names(known, aliases)


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """What stands in `body`, and in it for type checkers alone."""
    for node in body:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=inner):
                yield from inner
            case _:
                yield node


def _public(module: str, name: str) -> str:
    """By which name something is described here; what is ours and not public is shown as if it were of `typing`."""
    full = f"{module}.{name}"
    return PUBLIC.get(full, f"typing.{name.strip('_')}" if module.startswith("flatrecord") else full)


def _is_compiled(path: Path) -> bool:
    return path.suffix in (".so", ".pyd")


def _place(name: str) -> tuple[str, str | None, str] | None:
    """Where something that is public is defined, if that is in flatrecord: its module, its class if it is a method, and its name there."""
    path, last = name.rpartition(".")[::2]
    owner: Any = sys.modules.get(path)
    if owner is None:
        module, kind = path.rpartition(".")[::2]
        owner = getattr(sys.modules[module], kind)
        owner = next(base for base in owner.__mro__ if last in vars(base))
        found = owner.__module__, owner.__name__, last
    else:
        value = getattr(owner, last)
        if inspect.isclass(value):
            value = next((base for base in value.__mro__ if {"__init__", "__new__", "__cinit__"} & vars(base).keys()), value)
        found = (value.__module__, value.__name__, "__init__") if inspect.isclass(value) else (value.__module__, None, last)
    return found if found[0].startswith("flatrecord") else None


def _signature(
    app: Sphinx, what: str, name: str, value: object, options: object, *written_by_autodoc: str | None
) -> tuple[str, str] | None:
    """Signatures as they are written, one a line where there are several."""
    if what not in ("class", "method", "function") or (place := _place(name)) is None:
        return None
    module, owner, last = place
    body, names = _source(module)
    if owner is not None:
        (body,) = [node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
    functions = [node for node in _statements(body) if isinstance(node, ast.FunctionDef) and node.name == last]
    overloads = [node for node in functions if "overload" in map(ast.unparse, node.decorator_list)]
    written = []
    for node in overloads or functions:
        arguments = ast.parse(ast.unparse(node.args).join(("def f(", "): ..."))).body[0].args  # type: ignore[attr-defined]
        if owner is not None:
            (arguments.posonlyargs or arguments.args).pop(0)
        rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
        for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *rest]:
            argument.annotation = argument.annotation and names.visit(argument.annotation)
        gives = f" -> {ast.unparse(names.visit(node.returns))}" if node.returns and what != "class" else ""
        written.append(f"({ast.unparse(arguments)}){gives}")
    shown = name.removeprefix("flatrecord.")
    return (f"\n{shown}".join(written), "") if written else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Let autodoc ask for the stubs' signatures."""
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}
