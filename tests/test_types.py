"""What type checkers see, where there are some: real code passes, and mistakes are found."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typical
from test_readme import snippets

import vgrad
from vgrad import Value, ops
from vgrad.operand import Operand
from vgrad.program.options import Named
from vgrad.signatures import Methods

HERE = Path(__file__).parent
CHECKERS = {
    "mypy": ["mypy", "--strict"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
FOUND = re.compile(r"^ *(\S+\.py):(\d+):.*? error: (.*)", re.MULTILINE)

# `sum` starts at the int 0, which is what it gives of nothing; `Value(0)` as its start passes.
OF_SUMS = re.compile(r'Cannot access attribute "\w+" for class "(int|float)"')


@cache
def errors(checker: str, *files: Path) -> list[tuple[str, int, str]]:
    """What a checker says of files: name, line, message."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    command = [sys.executable, "-m", *CHECKERS[checker], *map(str, files)]
    run = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return [(Path(name).name, int(line), text) for name, line, text in FOUND.findall(run.stdout)]


def both(checker: str) -> list[tuple[str, int, str]]:
    return errors(checker, HERE / "typical.py", HERE / "mistakes.py")


@pytest.mark.parametrize("checker", CHECKERS)
def test_typical_code_passes(checker):
    assert [x for x in both(checker) if x[0] != "mistakes.py"] == []


@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_found_where_they_are(checker):
    lines = (HERE / "mistakes.py").read_text().splitlines()
    marked = {k for k, line in enumerate(lines, 1) if line.endswith("# error")}
    assert len(marked) > 40
    assert {line for name, line, _ in both(checker) if name == "mistakes.py"} == marked


def test_the_readme_passes(tmp_path):
    """As one file, whose blocks may define a name anew."""
    file = tmp_path / "readme.py"
    heading = "# pyright: basic, reportRedeclaration=false\n"
    file.write_text(heading + "".join(code for code, _ in snippets()))
    assert [x for x in errors("pyright", file) if not OF_SUMS.match(x[2])] == []


def test_typical_code_runs():
    before = len(ops.OPS)
    typical.main()
    del ops.OPS[before:]


def test_signatures_have_the_methods_that_operands_have():
    """But for `__index__`, which a checker would take for leave to call math.exp(x)."""
    known, there = methods(Methods), methods(Operand)
    of_all = {"__index__", "__format__", "__array_ufunc__", "__array_function__"}
    assert known == there - of_all


def methods(kind: type) -> set[str]:
    names = {name for name, thing in vars(kind).items() if callable(thing)}
    return {name for name in names if name.endswith("__") or not name.startswith("_")}


def test_options_have_the_names_that_compile_takes():
    options = inspect.signature(vgrad.compile).parameters.values()
    assert list(Named.__annotations__) == [p.name for p in options if p.kind is p.KEYWORD_ONLY]


def test_signatures_have_as_many_operands_as_the_table():
    own = {"leaky_relu", "elu"}  # which have a default
    for op in ops.OPS:
        if hasattr(Value, op.name) and op.name not in own:
            assert getattr(Methods, op.name) is (Methods._one, Methods._two)[op.arity - 1], op.name
