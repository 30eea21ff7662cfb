"""Every public name has a docstring that says what it is, shows it, and names what it raises."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

import vgrad
from vgrad.ops import Op

# A type alias, to annotate with: Python keeps no docstring for it.
WITHOUT = {"Number"}
ARRAYS = re.compile(r"\b(Array|NDArray|ndarray|Matrix|Vector)\b")
A_SHAPE = re.compile(r"\([A-Z\d]\w*,[^)]*\)|\(n, ?\w*\)|\b(shapes?|nesting|like that|square)\b")


def public() -> dict[str, Any]:
    """Every public name and what it stands for: of the package, its modules, and their classes."""
    waiting: list[tuple[str, Any]] = [(name, getattr(vgrad, name)) for name in vgrad.__all__]
    found: dict[str, Any] = {}
    for name, thing in waiting:
        found[name] = thing
        if isinstance(thing, ModuleType):
            waiting += [(f"{name}.{inner}", getattr(thing, inner)) for inner in thing.__all__]
        elif inspect.isclass(thing):
            waiting += [(f"{name}.{inner}", member) for inner, member in members(thing)]
    return {name: thing for name, thing in found.items() if name not in WITHOUT}


def members(kind: type) -> list[tuple[str, Any]]:
    """The public methods and properties of a class, without those of Python's own classes."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("vgrad")]
    names = dict.fromkeys(name for base in reversed(ours) for name in vars(base))
    found = [(name, getattr(kind, name)) for name in names if not name.startswith("_")]
    return [(name, x) for name, x in found if inspect.isroutine(x) or hasattr(x, "fget")]


PUBLIC = public()


def text_of(thing: Any) -> str:
    """The docstring, without the heading that an op's has."""
    text = inspect.getdoc(thing) or ""
    return re.sub(r"\A\w+\(.*\)\n\n", "", text)


def examples_of(thing: Any) -> str:
    """What its examples run."""
    return "".join(x.source for x in doctest.DocTestParser().get_examples(text_of(thing)))


def code_of(thing: Any) -> ast.AST | None:
    """What runs when it is called: its function, its property's or its `__init__`."""
    if inspect.isclass(thing):
        thing = vars(thing).get("__init__")
    thing = inspect.unwrap(getattr(thing, "fget", thing))
    if not inspect.isfunction(thing) or not Path(thing.__code__.co_filename).is_file():
        return None
    return ast.parse(textwrap.dedent(inspect.getsource(thing)))


def raised(thing: Any) -> set[str]:
    """The names of the errors that its own lines raise."""
    code = code_of(thing)
    calls = [node.exc for node in ast.walk(code) if isinstance(node, ast.Raise)] if code else []
    names = {ast.unparse(x.func) for x in calls if isinstance(x, ast.Call)}
    return {name for name in names if name.endswith("Error")}


def says_what_it_is(thing: Any) -> bool:
    """Its first paragraph is a sentence of two lines at most."""
    return bool(re.match(r"[^\n]+(\n[^\n]+)?\.(\n\n|$)", text_of(thing)))


def is_shown(name: str) -> bool:
    """By its own example, or a method by that of its class or of another method, as `load`."""
    owner, _, own = name.rpartition(".")
    if examples_of(PUBLIC[name]) or not inspect.isclass(PUBLIC.get(owner)):
        return bool(examples_of(PUBLIC[name]))
    beside = [examples_of(x) for other, x in PUBLIC.items() if f"{other}.".startswith(f"{owner}.")]
    return any(re.search(rf"\.{own}\b", examples) for examples in beside)


def says_what_shapes(thing: Any, text: str) -> bool:
    """If arrays are among its arguments or results."""
    hints = " ".join(map(str, getattr(thing, "__annotations__", {}).values()))
    is_function = inspect.isfunction(thing)
    return not (is_function and ARRAYS.search(hints)) or bool(A_SHAPE.search(text))


def lacks(name: str) -> list[str]:
    """What the docstring of a name lacks. A method may leave errors and shapes to its class."""
    thing, owner = PUBLIC[name], PUBLIC.get(name.rpartition(".")[0])
    text = text_of(thing) + (text_of(owner) if inspect.isclass(owner) else "")
    errors = [error for error in raised(thing) if not re.search(rf"\b{error}\b", text)]
    complete = {
        "a first sentence": says_what_it_is(thing),
        "an example": is_shown(name),
        "when it raises " + " and ".join(errors): not errors,
        "shapes": says_what_shapes(thing, text),
        "its derivative": not isinstance(thing, Op) or bool(re.search("erivative|gradient", text)),
    }
    return [what for what, there in complete.items() if not there]


def test_every_public_name_is_documented():
    found = {name: ", ".join(lacks(name)) for name in PUBLIC}
    undocumented = [f"{name} lacks {what}" for name, what in found.items() if what]
    assert not undocumented, "\n".join([f"{len(undocumented)} names:", *undocumented])


def test_what_is_not_documented_is_found(monkeypatch):
    """One name for each thing that may be missing."""

    def nothing(x: Any) -> Any:
        return x

    def raises(x: Any) -> Any:
        """Says what it is.

        >>> 1
        1
        """
        raise ValueError("here")

    def arrays(x: NDArray[Any]) -> None:
        """Says what it is: that which shows itself in an example.

        >>> 1
        1
        """

    op = object.__new__(Op)  # outside the table
    vars(op)["__doc__"] = "f(x)\n\n    Says what it is.\n\n    >>> 1\n    1\n"
    for thing, wanted in (
        (op, ["its derivative"]),
        (nothing, ["a first sentence", "an example"]),
        (raises, ["when it raises ValueError"]),
        (arrays, ["shapes"]),
    ):
        monkeypatch.setitem(PUBLIC, "name", thing)
        assert lacks("name") == wanted
