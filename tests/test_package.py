"""The package as a whole: what importing it does, and what its files may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import vgrad

PACKAGE = Path(vgrad.__file__).parent

# From the ground up: what each file imports of the others.
IMPORTS = {
    "errors": set(),
    "ops": set(),
    "memory": {"errors"},
    "operators": {"ops"},
    "finite": {"errors", "ops", "operators"},
    "value": {"ops", "operators", "finite"},
    "lines": {"value"},
    "refusals": {"errors", "lines"},
    "functions": {"errors", "ops", "operators"},
    "files": {"errors"},
    "graph": {"errors", "files", "ops", "value"},
    "arrays": {"errors", "graph", "memory"},
    "passes": {"graph"},
    "tape": {*("errors", "ops", "operators", "value", "graph", "lines", "refusals", "passes")},
    "trace": {"ops", "operators", "value", "graph", "lines", "tape"},
    "plain": {"ops", "graph", "memory", "passes"},
    "fuse": {"ops", "graph", "passes"},
    "levels": {"ops", "graph", "passes", "fuse"},
    "grids": {"passes", "fuse"},
    "schedule": {"ops", "graph", "passes", "fuse", "levels", "grids"},
    "calls": {"graph", "passes", "fuse"},
    "rules": {"ops", "graph", "value", "trace", "calls"},
    "derivatives": {"ops", "graph", "passes", "value", "tape", "rules"},
    "kernels": {"ops", "graph", "fuse", "schedule", "calls", "rules"},
    "sums": {"graph", "fuse", "schedule", "calls", "kernels"},
    "text": {"ops", "graph", "fuse", "calls", "rules"},
    "operands": {"graph", "fuse", "text"},
    "source": {"ops", "graph", "fuse", "schedule", "text", "operands"},
    "plan": {"ops", "graph", "memory", "fuse", "schedule", "calls", "kernels", "sums"},
    "engine": {"errors", "ops", "graph", "memory", "plain", "derivatives", "plan"},
    "explain": {"graph", "memory", "calls", "kernels", "plan", "engine"},
    "replay": {"errors", "ops", "finite", "value", "graph", "engine"},
    "verify": {"errors", "ops", "value", "engine", "replay"},
    "optim": {"errors", "graph", "ops", "value"},
    "checkpoint": {"errors", "files", "graph", "optim"},
    "program": {
        *("errors", "ops", "files", "graph", "value", "arrays", "tape", "trace", "optim"),
        *("checkpoint", "engine", "explain", "replay", "verify"),
    },
    "differences": set(),
    "gradcheck": {
        *("ops", "finite", "value", "graph", "arrays", "trace", "replay", "program"),
        "differences",
    },
    "diagram": {"ops"},
    "layout": set(),
    "page": set(),
    "nodes": {"ops", "graph", "value", "diagram"},
    "steps": {"ops", "operators", "value", "diagram"},
    "overview": {
        *("graph", "value", "trace", "fuse", "schedule", "kernels", "engine", "program"),
        *("diagram", "nodes"),
    },
    "draw": {"graph", "value", "program", "diagram", "layout", "overview"},
    "animate": {"ops", "value", "diagram", "nodes", "overview", "steps", "page", "draw"},
    "plots": {"errors", "ops", "value", "graph", "diagram", "draw"},
    "nn": {"errors", "ops", "value"},
    "datasets": set(),
}


def test_importing_vgrad_does_not_import_matplotlib():
    code = "import sys, vgrad; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_only_draw_imports_matplotlib():
    """Types apart: what stands under TYPE_CHECKING never runs."""
    importing = set()
    for path in PACKAGE.glob("*.py"):
        tree = ast.parse(path.read_text())
        tree.body = [x for x in tree.body if not (isinstance(x, ast.If) and "TYPE_" in ast.dump(x))]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [getattr(node, "module", None) or "", *(x.name for x in node.names)]
                importing |= {path.stem for name in names if name.startswith("matplotlib")}
    assert importing == {"draw"}


def test_imports_run_one_way():
    """No file imports what stands above it, and `value` knows nothing of the vector engine."""
    files = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert set(files) == set(IMPORTS)
    for name, path in files.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                found |= {node.module} if node.module else {alias.name for alias in node.names}
        assert found == IMPORTS[name], name
    order = list(IMPORTS)
    assert all(order.index(b) < order.index(a) for a, below in IMPORTS.items() for b in below)


def test_all_lists_what_is_there_and_no_more():
    public = {name for name in vars(vgrad) if not name.startswith("_")}
    modules = {name for name, thing in vars(vgrad).items() if type(thing) is type(sys)}
    assert set(vgrad.__all__) == public - (modules - {"nn", "optim", "datasets"})
    assert sorted(vgrad.__all__) == vgrad.__all__


def test_every_public_thing_has_a_docstring():
    for name in vgrad.__all__:
        assert getattr(vgrad, name).__doc__, name


def test_no_file_grows_past_400_lines():
    for path in PACKAGE.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
