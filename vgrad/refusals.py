"""What cannot be recorded, and what to write instead."""

from __future__ import annotations

import re
from linecache import getline

from .errors import TraceError
from .lines import user_frame, user_line

# It would freeze one outcome into the graph.
# Where Python only says that it wants a truth or an index, a word on the line tells what for.
_REFUSALS = {
    "bool": [
        (r"\bmax\(", "max() must not compare", "vgrad.maximum(a, b), pair by pair"),
        (r"\bmin\(", "min() must not compare", "vgrad.minimum(a, b), pair by pair"),
        (
            r"\bsort(ed)?\(",
            "sorting must not compare",
            "vgrad.minimum(a, b) and vgrad.maximum(a, b), which put two in order",
        ),
        (
            r"\bwhile\b",
            "while must not depend on",
            "as many steps as it may take, x = vgrad.where(condition, step(x), x) in each",
        ),
        (
            r"\bassert\b",
            "assert must not depend on",
            "a further output for the condition, and assert that",
        ),
        (r"\b(el)?if\b", "if must not depend on", "vgrad.where(condition, a, b)"),
        (
            r"\b(and|or|not)\b",
            "and, or and not must not combine",
            "a * b, vgrad.maximum(a, b) and 1 - a, on conditions, which are 1.0 or 0.0",
        ),
        (
            "",
            "if, while, and, or, max(), comparing whole arrays and the like must not depend on",
            "vgrad.where(condition, a, b), vgrad.maximum(a, b), vgrad.minimum(a, b) or x.relu()",
        ),
    ],
    "float": [
        (
            "",
            "float(), the functions of math, and arrays of floats must not be given",
            "the function of that name in vgrad, as in vgrad.exp(x), and arrays of dtype object",
        )
    ],
    "int": [("", "int() and round() must not be given", "arithmetic on the value itself")],
    "set": [("", ".data must not be set on", "a new value, as in w = w + 1")],
    "hash": [
        (
            "",
            "a set, and the key of a dict, must not hold",
            "vgrad.where(x == key, a, b) to look up by a number",
        )
    ],
    "index": [
        (
            r"\brange\(",
            "the argument of range() must not be",
            "as many steps as it may take, x = vgrad.where(k < n, step(x), x) in each",
        ),
        (
            "",
            "the index of a list or array, and the argument of range(), must not be",
            "vgrad.take(rows, index) to pick by a number",
        ),
    ],
}


def refusal(means: str) -> TraceError:
    """The error for somebody who asks a value that is being traced for its number, by `means`."""
    frame = user_frame()
    text = getline(frame.f_code.co_filename, frame.f_lineno)
    fits = (entry[1:] for entry in _REFUSALS.get(means, ()) if re.search(entry[0], text))
    what, instead = next(fits, None) or (
        f".{means} must not be asked of",
        "the value itself; to see its number, return it as a further output",
    )
    return TraceError(
        f"{what} a value that is being traced, whose number is not known yet "
        f"({user_line()}); use {instead}"
    )
