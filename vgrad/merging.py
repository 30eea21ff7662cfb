"""Branches of a pure function, merged: if-conversion, as compilers call it.

A function of which nothing else is known is a black box: each way through it is a path of its own.
One that depends on its arguments only, and changes nothing outside, may be run through all of its
answers where it is called, and the results joined by `where`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from .operand import recordings

F = TypeVar("F", bound=Callable[..., object])


def merge_branches(function: F) -> F:
    """Decorate a pure function, so that its branches become `where` while it is recorded.

    The function must depend on its arguments and on parameters only, and change nothing outside.
    Where it is called while a function is recorded, it is run through all answers to its questions,
    at most 16 ways, each with copies of the arrays and lists it is given, and results are joined by
    `vgrad.where`: so it is no branch of `compile`, and `trace` records it too. As `where`, that
    computes every way for every sample; a way that is not taken gives no gradient, and what it
    raises does not count (if it is taken, the result is nan). Elsewhere the function runs as it is.

    >>> import vgrad
    >>> @vgrad.merge_branches
    ... def leaky(x):
    ...     return x if x > 0 else 0.1 * x
    >>> leaky(-2.0), vgrad.trace(lambda x: leaky(x) + 1, ())
    (-0.2, Graph(8 nodes, 3 levels, 1 input, 0 parameters, 1 output))

    Raises TraceError while recording if there are more ways, if results differ in more than
    numbers, or if it asks for a whole number, as by int(x). Raises TypeError at once if it is given
    no function.
    """

    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"merge_branches takes a function (got {function!r}, a {kind})")

    @wraps(function)
    def merged(*args: object, **named: object) -> object:
        for watch in recordings():
            if watch.records_here():
                return watch.merged(function, args, named)
        return function(*args, **named)

    return merged  # type: ignore[return-value]
