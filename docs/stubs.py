"""Sphinx extension: what is compiled has its signatures in ``.pyi`` stubs beside it, with types, which autodoc does not read."""

import ast
import importlib
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
    path = Path(importlib.import_module(module).__file__ or "")
    tree = ast.parse((path.parent / f"{path.name.partition('.')[0]}.pyi").read_text())
    known, aliases = {}, {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            package = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
                if node.level
                else node.module
            )
            for name in node.names:
                full = f"{package}.{name.name}"
                known[name.asname or name.name] = PUBLIC.get(full, full)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            aliases[node.target.id] = node.value
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            known[node.targets[0].id] = f"typing.{node.targets[0].id.strip('_')}"  # a type variable
        elif isinstance(node, ast.ClassDef):
            known[node.name] = PUBLIC.get(f"{module}.{node.name}", f"typing.{node.name.strip('_')}")
    return tree, _Names(known, aliases)


def _is_compiled(module: str | None) -> bool:
    return not str(getattr(sys.modules.get(module or ""), "__file__", ".py")).endswith(".py")


def _place(name: str) -> tuple[str, str | None, str] | None:
    """The compiled module in which something of a public name is defined, its class there if it is a method, and its name there."""
    package, _, rest = name.partition(".")
    value: Any = sys.modules[package]
    owner = None
    while rest:
        first, _, rest = rest.partition(".")
        owner, value = value, getattr(value, first)
    if not inspect.isclass(owner):
        module = getattr(value, "__module__", None)
        last = name.rpartition(".")[2]
        return (
            (module, last, "__init__")
            if inspect.isclass(value) and _is_compiled(module)
            else (module, None, last)
            if _is_compiled(module)
            else None
        )
    last = name.rpartition(".")[2]
    (base,) = [base for base in owner.__mro__ if last in vars(base)][:1]
    return (base.__module__, base.__name__, last) if _is_compiled(base.__module__) else None


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returned: str | None
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
