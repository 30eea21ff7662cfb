"""What cannot be recorded, and what to write instead."""

from __future__ import annotations

import re
from dis import opname
from functools import lru_cache
from linecache import getline
from sys import version_info
from types import CodeType

from ..errors import TraceError
from ..lines import source_line, user_frame
from ..operand import INSTEAD_OF_FLOAT, INSTEAD_OF_STATISTICS
from .questions import ANSWERS, STEPS

# A look at a number would freeze one outcome into the graph. For each way of looking: what the line
# of the user's code has on it, if that matters; what must not be done; and what to write instead.
# fmt: off
_CALLS = [  # what asks for a truth from within a function that is called
    (r"\bmax\(", "max() must not compare", "vgrad.maximum(a, b), pair by pair"),
    (r"\bmin\(", "min() must not compare", "vgrad.minimum(a, b), pair by pair"),
    (r"\b(arg)?sort(ed)?\(", "sorting must not compare",
     "vgrad.minimum(a, b) and vgrad.maximum(a, b), which put two in order"),
    (r"\b(any|all)\(", "any() and all() must not depend on",
     "the maximum or the product of the conditions, which are 1.0 or 0.0"),
]
_STATEMENTS = [  # what asks for it directly
    (r"^\s*while\b", "while must not depend on",
     f"{STEPS}, x = vgrad.where(condition, step(x), x) in each"),
    (r"^\s*assert\b", "assert must not depend on",
     "a further output for the condition, and assert that"),
    (r"\b(el)?if\b", "if must not depend on", "vgrad.where(condition, a, b)"),
    (r"\b(and|or|not)\b", "and, or and not must not combine",
     "a * b, vgrad.maximum(a, b) and 1 - a, on conditions, which are 1.0 or 0.0"),
    (r"\bassert\b", "assert must not depend on", "a further output for the condition"),
    (r"[<>]=?[^<>]*[<>]", "a < b < c must not compare",
     "(a < b) * (b < c), as conditions are 1.0 or 0.0"),
]
_IN = [("", "in must not look for", "vgrad.maximum of x == a, x == b, ...")]
_ARRAYS = [("", "a comparison of a whole array must not ask for the truth of",
            "one comparison for each number, as in [x > 0 for x in xs], or vgrad.array in place of "
            "np.array")]
_ANY = [("", "if, while, and, or, max(), comparing whole arrays and the like must not depend on",
         "vgrad.where(condition, a, b), vgrad.maximum(a, b), vgrad.minimum(a, b) or x.relu()")]
_RANGE = (r"\brange\(", "the argument of range() must not be",
          f"{STEPS}, x = vgrad.where(k < n, step(x), x) in each")
_INDEX = ("the index of a list or array must not be", "vgrad.take(rows, index) to pick by a number")
_REFUSALS = {
    "float": [("", "float(), the functions of math, and arrays of floats must not be given",
               INSTEAD_OF_FLOAT)],
    "format": [("", "a format such as :.3f must not be given",
                "the scalar engine to print numbers, or return the value as a further output")],
    "recorded": [("", "a graph recorded or captured within a function must not hold the number of",
                  "the value itself")],
    "int": [_RANGE, (r"\[.*\bint\(", *_INDEX),
            ("", "int(), round() and floor() must not be given",
             "arithmetic on the value itself, vgrad.floor(x), vgrad.trunc(x) or vgrad.rint(x), or "
             "vgrad.take(rows, index) to pick by a number")],
    "merged": [("", "a pure function whose branches are merged, by merge_branches or as an "
                "activation, must not ask for a whole number of",
                "vgrad.floor(x), vgrad.trunc(x) or vgrad.rint(x)")],
    "as_integer_ratio": [("", "the functions of statistics must not be given",
                          INSTEAD_OF_STATISTICS)],
    "digits": [("", "round() to digits must not be given", "vgrad.rint(100 * x) / 100")],
    "copied": [("", "a copy must not be made of", "the value itself")],
    "set": [("", ".data must not be set on", "a new value, as in w = w + 1")],
    "hash": [("", "a set, and the key of a dict, must not hold",
              "vgrad.where(x == key, a, b) to look up by a number")],
    "index": [_RANGE, ("", *_INDEX)],
}
# fmt: on
_WHOLE = {"int", "floor", "ceil", "round"}


ONE_NUMBER = (
    "the first axis of every array is the batch, so one of shape (200,) is 200 samples of one "
    "number each; a single sample of 200 numbers has shape (1, 200), as x[None] has"
)
_NO_ITEMS = re.compile(
    r"'Node' object (is not iterable|is not subscriptable|does not support item)|of type 'Node' "
    r"(has no len|is not iterable)|non-iterable Node|argument after \* .* not Node|does not have "
    r"enough dimensions"
)


def wants_numbers(error: Exception) -> str:
    """What to say where a node is taken for an array, or NumPy refuses an index; else ""."""
    if isinstance(error, TypeError | ValueError) and _NO_ITEMS.search(str(error)):
        return f"one number of a sample must not be taken for an array: {ONE_NUMBER}"
    if isinstance(error, IndexError) and "arrays used as indices" in str(error):
        return (
            "conditions on traced values must not pick numbers out of an array, as in x[x > 0]; "
            "use np.where(x > 0, x, 0.0), or a product with the conditions, which are 1.0 or 0.0"
        )
    return ""


def refusal(means: str, elsewhere: bool = False) -> TraceError:
    """The error for looking at the number of a value that is being traced, by `means`.

    In a thread `elsewhere` nobody answers questions.
    """
    line, _, what, instead = _place(means)
    follow = ", or vgrad.compile without paths=1, which follows every branch"
    if elsewhere:
        follow = ", or ask in the thread that records the function"
    return TraceError(
        f"{what} a value that is being traced, whose number is not known yet ({line}); use "
        f"{instead}{follow * (means in ANSWERS)}"
    )


def asked_here(means: str) -> tuple[str, str, str]:
    """The line of the user's code that asks by `means`, its function, and what to write instead."""
    line, function, _, instead = _place(means)
    return line, function, instead


def _place(means: str) -> tuple[str, str, str, str]:
    frame = user_frame()
    return _described(means, frame.f_code, frame.f_lasti, frame.f_lineno)


@lru_cache(maxsize=1024)  # a loop asks by the same operation again and again
def _described(
    means: str, code: CodeType, operation: int, number: int
) -> tuple[str, str, str, str]:
    """The line at an operation of some code, the function, what it must not do, what to write."""
    line = getline(code.co_filename, number)
    # without strings and comments, as far as that is easy
    text = re.sub(r"#.*", "", re.sub(r"'[^']*'|\"[^\"]*\"", "''", line))
    if means == "bool":
        name, argument = code.co_code[operation : operation + 2]
        known = [*_askers(opname[name], argument), *_ANY]
    else:
        known = _REFUSALS.get("int" if means in _WHOLE else means, [])
    fits = (entry[1:] for entry in known if re.search(entry[0], text))
    what, instead = next(fits, None) or (
        f".{means} must not be asked of",
        "the value itself; to see its number, return it as a further output",
    )
    return source_line(code.co_filename, number), code.co_name, what, instead


def _askers(operation: str, argument: int) -> list[tuple[str, str, str]]:
    """What may be asking for a truth, going by the bytecode operation that is running."""
    if "CALL" in operation:
        return _CALLS
    if operation == "COMPARE_OP" and version_info >= (3, 13) and argument & 16:
        return _STATEMENTS  # as of this version the comparison itself asks for the truth
    return {"COMPARE_OP": _ARRAYS, "CONTAINS_OP": _IN}.get(operation, _STATEMENTS)
