"""The package as a whole: what importing it does, what it shows, and what its wings may import."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import vgrad

PACKAGE = Path(vgrad.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each wing may import of the others; "" is what stands at the top, the definition.
MAY_IMPORT = {
    "": set(),
    "flat": {""},
    "floats": {"", "flat"},
    "compiler": {"", "flat", "floats"},
    "program": {"", "flat", "compiler", "floats"},
    "checks": {"", "flat", "program"},
    "pictures": {"", "flat", "program"},
    "export": {"", "flat", "compiler"},
}


def name_of(path: Path) -> str:
    """A file as an import names it: "flat.graph" for vgrad/flat/graph.py."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def wing_of(name: str) -> str:
    return name.rpartition(".")[0] or (name if name in MAY_IMPORT else "")


def running(path: Path) -> ast.Module:
    """A file without what stands under TYPE_CHECKING, which never runs."""
    tree = ast.parse(path.read_text())
    tree.body = [
        x for x in tree.body if not (isinstance(x, ast.If) and "TYPE_" in ast.dump(x.test))
    ]
    return tree


def imports_of(path: Path) -> set[str]:
    """What a file imports of the package, wherever it does: "flat" for a door, "flat.graph"."""
    found = set()
    for node in ast.walk(running(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            here = name_of(path).split(".")[: -node.level]
            start = ".".join([*here, *([node.module] if node.module else [])])
            if node.module and not (PACKAGE / start.replace(".", "/")).is_dir():
                found.add(start)
                continue
            for alias in node.names:  # of a folder: its files, or what its door shows
                inner = f"{start}.{alias.name}".strip(".")
                file = PACKAGE / f"{inner.replace('.', '/')}.py"
                found.add(inner if file.is_file() else start)
    return found


GRAPH = {name_of(path): imports_of(path) for path in FILES if path != PACKAGE / "__init__.py"}


def test_the_imports_are_found():
    """So that the tests below hold something; of every kind one."""
    assert GRAPH["engine"] == {"ops", "operand", "finite", "elsewhere"}
    assert {"flat.graph", "flat.sweep"} <= GRAPH["flat.__init__"]
    assert {"flat", "ops", "compiler.fuse"} <= GRAPH["compiler.levels"]


@pytest.mark.parametrize("name", GRAPH)
def test_a_wing_imports_what_it_may_and_through_the_doors(name):
    own = wing_of(name)
    for other in GRAPH[name]:
        wing = wing_of(other)
        assert wing == own or wing in MAY_IMPORT[own], other
        assert wing in ("", own) or other == wing, f"not through the door: {other}"


def test_imports_run_one_way():
    """Also within the wings: no file imports another that imports it, directly or not."""
    left = dict(GRAPH)
    left |= {wing: {f"{wing}.__init__"} for wing in MAY_IMPORT if wing}
    while left:
        free = [name for name, found in left.items() if not found & set(left)]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


def test_importing_vgrad_does_not_import_matplotlib():
    code = "import sys, vgrad; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_pictures_import_matplotlib():
    importing = set()
    for path in FILES:
        for node in ast.walk(running(path)):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [getattr(node, "module", None) or "", *(x.name for x in node.names)]
                importing |= {name_of(path) for name in names if name.startswith("matplotlib")}
    assert importing == {"pictures.drawing", "pictures.figures"}


def test_what_micrograd_calls_its_rooms():
    from vgrad.engine import Value
    from vgrad.nn import MLP

    assert Value is vgrad.Value and MLP is vgrad.nn.MLP


def test_all_lists_what_is_there_and_no_more():
    public = {name for name in vars(vgrad) if not name.startswith("_")}
    modules = {name for name, thing in vars(vgrad).items() if type(thing) is type(sys)}
    assert set(vgrad.__all__) == public - (modules - {"nn", "optim", "datasets", "linalg"})
    assert sorted(vgrad.__all__) == vgrad.__all__


def test_dir_shows_what_is_public_and_nothing_else():
    assert {x for x in dir(vgrad) if not x.startswith("_")} == set(vgrad.__all__)
    for module in (vgrad.nn, vgrad.optim, vgrad.datasets, vgrad.linalg):
        assert dir(module) == sorted(module.__all__)
        own = {
            k for k, x in vars(module).items() if getattr(x, "__module__", "") == module.__name__
        }
        assert {name for name in own if not name.startswith("_")} == set(dir(module))


def test_no_module_hides_behind_a_function_of_its_name():
    for folder in (
        vgrad,
        *(importlib.import_module(f"vgrad.{wing}") for wing in MAY_IMPORT if wing),
    ):
        for module in pkgutil.iter_modules(folder.__path__):
            thing = importlib.import_module(f"{folder.__name__}.{module.name}")
            assert getattr(folder, module.name) is thing


def test_a_door_shows_what_it_says():
    for wing in filter(None, MAY_IMPORT):
        door = importlib.import_module(f"vgrad.{wing}")
        assert len(door.__doc__.splitlines()) > 5
        assert all(hasattr(door, name) for name in door.__all__)


def defined(path: Path):
    """Classes, functions and methods of a file: the node, and whether it is public."""
    waiting = [(node, True) for node in ast.parse(path.read_text()).body]
    for node, public in waiting:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            public = public and not node.name.startswith("_")
            if not any(
                ast.unparse(x).endswith((".setter", "overload")) for x in node.decorator_list
            ):
                yield node, public
            if isinstance(node, ast.ClassDef):
                waiting += [(inner, public) for inner in node.body]


DOCUMENTED = {node.name for path in FILES for node, _ in defined(path) if ast.get_docstring(node)}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_class_and_every_public_function_has_a_docstring(path):
    """A method that overrides another may leave it to that."""
    for node, public in defined(path):
        if public or isinstance(node, ast.ClassDef):
            overrides = node.col_offset and node.name in DOCUMENTED
            assert ast.get_docstring(node) or overrides, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_file_and_no_function_grows_too_long(path):
    """400 lines, and a screen: 60 lines, without the docstring."""
    assert len(path.read_text().splitlines()) <= 400
    for node, _ in defined(path):
        if isinstance(node, ast.FunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert node.end_lineno - first.lineno < 60, f"{path.name}:{node.lineno}"
