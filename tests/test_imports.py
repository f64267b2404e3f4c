"""Imports go in one direction: no two modules name each other, not even for type checkers alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import ventris


def module_names(source: Path) -> dict[str, Path]:
    """Every module below a package's folder, by its full name; a package is its ``__init__``."""
    names = {}
    for file in source.rglob("*.py"):
        parts = file.relative_to(source.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def of_the_module(nodes: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements outside functions, those for type checkers among them."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from of_the_module(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from of_the_module(handler.body)


def needed(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a module imports, or would with its types.

    Importing ``a.b.c`` runs ``a`` and ``a.b`` too. That counts only for packages that the module is not in:
    those are being imported already, and may go on to re-export what stands below them.
    """
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    targets = set()
    for node in of_the_module(ast.parse(file.read_bytes()).body):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        else:
            origin = resolve_name("." * node.level + (node.module or ""), package)
            # `from package import x` needs the module x if there is one, otherwise what the package defines.
            targets |= {
                inside if (inside := f"{origin}.{alias.name}") in known else origin for alias in node.names
            }
    around = {".".join(package.split(".")[:depth]) for depth in range(1, package.count(".") + 2)}
    parents = {
        ".".join(target.split(".")[:depth]) for target in targets for depth in range(1, target.count(".") + 1)
    }
    return (targets | (parents - around)) & known.keys() - {name}


def cycle(source: Path) -> list[str]:
    """Modules each of which needs the next one; empty if there is no such ring."""
    known = module_names(source)
    graph = {name: needed(name, file, known) for name, file in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_modules_import_each_other() -> None:
    found = cycle(Path(ventris.__file__).parent)
    assert not found, f"{' -> '.join(found)}; move what they share to a module of its own"


@pytest.mark.parametrize(
    ("files", "ring"),
    [
        ({"a": "import p.b", "b": "from p import a"}, {"p.a", "p.b"}),
        (
            {"a": "from .b import x", "b": "try:\n from p.a import y\nexcept ImportError:\n pass"},
            {"p.a", "p.b"},
        ),
        ({"a": "import p.b", "b": "def f():\n import p.a"}, set()),
        ({"a": "import p.b", "b": "if TYPE_CHECKING:\n import p.a"}, {"p.a", "p.b"}),
        ({"__init__": "from p.a import x", "a": "x = 1", "b": "import p.a"}, set()),
        ({"__init__": "from p.a import x", "a": "from p import y"}, {"p", "p.a"}),
        ({"q/__init__": "import p.a", "q/c": "", "a": "import p.q.c"}, {"p.q", "p.a"}),
    ],
)
def test_what_counts_as_a_ring(tmp_path: Path, files: dict[str, str], ring: set[str]) -> None:
    for name, text in {"__init__": "", **files}.items():
        file = tmp_path / "p" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert set(cycle(tmp_path / "p")) == ring
