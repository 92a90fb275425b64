"""Sphinx extension: what is compiled has its signatures in ``.pyi`` stubs beside it, with types, which autodoc does not read."""

import ast
import importlib.util
import inspect
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import flatrecord

PUBLIC = {f"{value.__module__}.{name}": f"flatrecord.{name}" for name in flatrecord.__all__ for value in [getattr(flatrecord, name)]}


class _Names(ast.NodeTransformer):
    """Each name in an annotation as Sphinx can look it up: ``~numpy.typing.NDArray``, which is shown as ``NDArray``."""

    def __init__(self, known: dict[str, str], aliases: dict[str, ast.expr]) -> None:
        self.known, self.aliases = known, aliases

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.aliases:
            return self.visit(ast.parse(ast.unparse(self.aliases[node.id]), mode="eval").body)
        return ast.Name("~" + self.known[node.id] if node.id in self.known else node.id)


@cache
def _stub(module: str) -> tuple[ast.Module, _Names]:
    """The stub of a compiled module, and what its names mean."""
    path = Path(str(sys.modules[module].__file__))
    tree = ast.parse((path.parent / f"{path.name.partition('.')[0]}.pyi").read_text())
    known: dict[str, str] = {}
    aliases: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.ImportFrom(module=source, names=names, level=level):
                package = importlib.util.resolve_name("." * level + (source or ""), module.rpartition(".")[0])
                known |= {name.asname or name.name: _public(package, name.name) for name in names}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                aliases[name] = value
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.ClassDef(name=name):  # a type variable, or a class
                known[name] = _public(module, name)
    return tree, _Names(known, aliases)


def _public(module: str, name: str) -> str:
    """By which name something is described here; what is private to a stub is shown as if it were of `typing`."""
    return f"typing.{name.strip('_')}" if name.startswith("_") else PUBLIC.get(f"{module}.{name}", f"{module}.{name}")


def _is_compiled(module: object) -> bool:
    return isinstance(module, str) and str(getattr(sys.modules.get(module), "__file__", ".py")).endswith((".so", ".pyd"))


def _place(name: str) -> tuple[str, str | None, str] | None:
    """Where something that is public is defined, if that is compiled: its module, its class if it is a method, and its name there."""
    path, last = name.rpartition(".")[::2]
    owner: Any = sys.modules.get(path)
    if owner is None:
        module, kind = path.rpartition(".")[::2]
        owner = getattr(sys.modules[module], kind)
        owner = next(base for base in owner.__mro__ if last in vars(base))
        return (owner.__module__, owner.__name__, last) if _is_compiled(owner.__module__) else None
    value = getattr(owner, last)
    if not _is_compiled(getattr(value, "__module__", None)):
        return None
    return (value.__module__, last, "__init__") if inspect.isclass(value) else (value.__module__, None, last)


def _signature(
    app: Sphinx, what: str, name: str, value: object, options: object, *written_by_autodoc: str | None
) -> tuple[str, str] | None:
    """Signatures of the stub, one a line where there are several."""
    if what not in ("class", "method", "function") or (place := _place(name)) is None:
        return None
    module, owner, last = place
    tree, names = _stub(module)
    body: list[ast.stmt] = tree.body
    if owner is not None:
        (body,) = [node.body for node in body if isinstance(node, ast.ClassDef) and node.name == owner]
    written = []
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == last:
            arguments = ast.parse(ast.unparse(node.args).join(("def f(", "): ..."))).body[0].args  # type: ignore[attr-defined]
            if owner is not None:
                (arguments.posonlyargs or arguments.args).pop(0)
            for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                argument.annotation = argument.annotation and names.visit(argument.annotation)
            gives = f" -> {ast.unparse(names.visit(node.returns))}" if node.returns and what != "class" else ""
            written.append(f"({ast.unparse(arguments)}){gives}")
    shown = name.removeprefix("flatrecord.")
    return (f"\n{shown}".join(written), "") if written else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Let autodoc ask for the stubs' signatures."""
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}
