"""Reads a package with `ast`: its modules, their imports, where each import stands. Nothing is imported or run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module.

    Attributes:
        target: absolute dotted name: a module of the package where there is one, else as written.
        names: what ``from target import ...`` takes; empty for ``import target``.
        line: where.
        lazy: inside a function: paid for by whoever calls it.
        typing: under ``if TYPE_CHECKING``: never executed.
    """

    target: str
    names: tuple[str, ...]
    line: int
    lazy: bool
    typing: bool

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]


class Module:
    """One file of the package."""

    def __init__(self, name: str, path: Path, label: str) -> None:
        self.name = name
        self.path = path
        self.label = label
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def at(self, line: int, rule: str) -> str:
        """One finding, as an editor can follow it."""
        return f"{self.label}:{line}: {rule}"


class Package:
    """All modules below ``root``, the folder of the package itself."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name
        self.modules: dict[str, Module] = {}
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self.modules[name] = Module(name, path, str(path.relative_to(root.parent)))

    def room(self, name: str) -> str:
        """The first part below the package: ``asyncinfer.wire.sse`` lives in ``wire``; the package itself is ``""``."""
        parts = name.split(".")
        return parts[1] if len(parts) > 1 else ""

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        return {name: list(self._imports_of(module)) for name, module in self.modules.items()}

    def _imports_of(self, module: Module) -> Iterator[Import]:
        for node, lazy, typing in _walk(module.tree, lazy=False, typing=False):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, (), node.lineno, lazy, typing)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                inside = [alias.name for alias in node.names if f"{base}.{alias.name}" in self.modules]
                rest = tuple(alias.name for alias in node.names if alias.name not in inside)
                for name in inside:
                    yield Import(f"{base}.{name}", (), node.lineno, lazy, typing)
                if rest:
                    yield Import(base, rest, node.lineno, lazy, typing)

    def _absolute(self, module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.name.split(".")
        up = node.level - (1 if module.is_package else 0)
        base = parts[: len(parts) - up] if up else parts
        return ".".join([*base, node.module] if node.module else base)

    def circles(self) -> list[list[str]]:
        """Groups of modules that import each other, however far round and wherever the import stands.

        One edge does not count: a package's ``__init__`` that opens a file of its own room lazily (a front door).
        """
        edges: dict[str, set[str]] = {name: set() for name in self.modules}
        for name, imports in self.imports.items():
            for item in imports:
                door = item.lazy and self.modules[name].is_package and item.target.startswith(f"{name}.")
                if item.target in self.modules and item.target != name and not door:
                    edges[name].add(item.target)
        return [sorted(group) for group in _strong_components(edges) if len(group) > 1]


def _walk(node: ast.AST, *, lazy: bool, typing: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, lazy, typing
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, lazy=True, typing=typing)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for kept in child.body:
                yield kept, lazy, True
                yield from _walk(kept, lazy=lazy, typing=True)
            for other in child.orelse:
                yield other, lazy, typing
                yield from _walk(other, lazy=lazy, typing=typing)
        else:
            yield from _walk(child, lazy=lazy, typing=typing)


def _strong_components(edges: dict[str, set[str]]) -> list[list[str]]:
    """Tarjan's strongly connected components, without recursion."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root, targets in edges.items():
        if root in number:
            continue
        work = [(root, iter(sorted(targets)))]
        number[root] = low[root] = len(number)
        stack.append(root)
        while work:
            name, rest = work[-1]
            for target in rest:
                if target not in number:
                    number[target] = low[target] = len(number)
                    stack.append(target)
                    work.append((target, iter(sorted(edges[target]))))
                    break
                if target in stack:
                    low[name] = min(low[name], number[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == number[name]:
                    cut = stack.index(name)
                    found.append(stack[cut:])
                    del stack[cut:]
    return found
