"""The notebooks are true: their cells run without Jupyter and print what stands below them."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import linecache
import re
from typing import Any

import pytest
from helpers import DEMOS

NOTEBOOKS = sorted((DEMOS / "notebooks").glob("*.ipynb"))
PROMISE = re.compile(r"```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOOSELY = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE  # long messages are broken into lines

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path: Any) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def promised(cell: dict[str, Any]) -> str | None:
    """What the code cell before this one prints, if this is a text that begins with it."""
    found = PROMISE.match("".join(cell["source"])) if cell["cell_type"] == "markdown" else None
    return found and found[1]


def run(cell: dict[str, Any], namespace: dict[str, Any]) -> str:
    """What a cell prints; what its last line gives is shown, as a notebook does."""
    source, file = "".join(cell["source"]), f"{cell['id']}.py"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    tree, out = ast.parse(source), io.StringIO()
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(out):
        exec(compile(tree, file, "exec"), namespace)
        if isinstance(last, ast.Expr):
            show(eval(compile(ast.Expression(last.value), file, "eval"), namespace))
    return out.getvalue()


def show(result: Any) -> None:
    """Prints the text of a result, or makes its picture."""
    ways = [getattr(result, name, None) for name in ("_repr_html_", "_repr_svg_")]
    pictures = [picture for way in ways if way is not None and (picture := way()) is not None]
    if pictures:
        assert re.search("</(svg|iframe)>\n?$", pictures[0])
    elif result is not None:
        print(repr(result))


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["lecture", "your_own_code"]


@notebooks
def test_cells_run_in_order_and_print_what_the_notebook_says(path, tmp_path, monkeypatch):
    """A promise may have "..." for what differs, as doctests do. Times are not promised."""
    monkeypatch.chdir(tmp_path)
    fits, cells = doctest.OutputChecker().check_output, cells_of(path)
    namespace: dict[str, Any] = {}
    for cell, following in zip(cells, [*cells[1:], cells[0]]):
        if cell["cell_type"] == "code":
            printed, want = run(cell, namespace), promised(following)
            if want is None and "seconds" in "".join(cell["source"]):
                continue
            assert fits(want or "", printed, LOOSELY), (cell["id"], printed)


@notebooks
def test_it_is_stored_as_jupyter_does_and_without_outputs(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert text == json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = {"outputs": [], "execution_count": None}
    for cell in notebook["cells"]:
        own = code if cell["cell_type"] == "code" else {}
        assert cell == {k: cell[k] for k in ("cell_type", "id", "metadata", "source")} | own
        assert cell["metadata"] == {} and re.fullmatch(r"[\w-]{1,64}", cell["id"])
    names = [cell["id"] for cell in notebook["cells"]]
    assert len(names) == len({*names})
