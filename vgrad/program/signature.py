"""A function's arguments by position and by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..flat import Graph

Names = tuple[str, ...]
Kind = inspect.Parameter


class Signature:
    """What a function calls its arguments, if it can be known; of a graph, the names of its inputs.

    >>> def f(x, y, scale=1.0):
    ...     return scale * (x - y)
    >>> Signature(f).bound([1.0], {"scale": 3.0, "y": 2.0})
    ([1.0, 2.0, 3.0], ())
    """

    def __init__(self, fn: Callable[..., Any] | Graph) -> None:
        self.function = getattr(fn, "__name__", type(fn).__name__)
        self.known: inspect.Signature | None
        if isinstance(fn, Graph):
            self.function, names = "the graph", fn.argument_names
            distinct = len(set(names)) == len(names)
            kinds = [Kind(x, Kind.POSITIONAL_OR_KEYWORD) for x in names] if distinct else None
            self.known = None if kinds is None else inspect.Signature(kinds)
            return
        try:
            self.known = inspect.signature(fn)
        except (TypeError, ValueError):  # as of functions written in C
            self.known = None

    def __str__(self) -> str:
        names = () if self.known is None else self.known.parameters
        return f"{self.function}({', '.join(names)})"

    def bound(self, arrays: Sequence[Any], named: dict[str, Any]) -> tuple[list[Any], Names]:
        """All arrays in the function's order, and the names of the last, which go by name.

        These are the ones behind an argument that was left out. Raises TypeError for a name that
        the function does not have, or that has its array already.
        """
        if self.known is None:
            raise TypeError(
                f"arrays must go by position, as the names of {self.function}'s arguments are not "
                f"known (got {', '.join(named)})"
            )
        parameters = self.known.parameters
        takes_any = any(p.kind is Kind.VAR_KEYWORD for p in parameters.values())
        by_name = [n for n, p in parameters.items() if p.kind in _BY_NAME]
        for name in named:
            if name not in by_name and not takes_any:
                raise TypeError(
                    f"an array by name must be one of the arguments of {self} (got {name!r})"
                )
        order = [n for n, p in parameters.items() if p.kind in _BY_POSITION]
        for name in order[: len(arrays)]:
            if name in named:
                raise TypeError(f"argument {name!r} of {self} must be given once (got it twice)")
        all_arrays, left = list(arrays), dict(named)
        for name in order[len(arrays) :]:
            if name not in left:
                break
            all_arrays.append(left.pop(name))
        rank = {name: k for k, name in enumerate(parameters)}
        names = sorted(left, key=lambda name: rank.get(name, len(rank)))
        return [*all_arrays, *(left[name] for name in names)], tuple(names)

    def places(self, count: int, names: Names) -> list[int]:
        """The place of each of so many arrays, the last by these names, in the function's order."""
        order = [] if self.known is None else list(self.known.parameters)
        first = count - len(names)
        return [*range(first), *(order.index(n) if n in order else len(order) for n in names)]

    def require(self, count: int, names: Names) -> None:
        """Raise TypeError if the function does not take so many arrays, the last by these names."""
        if self.known is None:
            return
        try:
            self.known.bind(*range(count - len(names)), **dict.fromkeys(names))
        except TypeError as error:
            raise TypeError(
                f"a call must have theta and then an array for each argument of {self} (got "
                f"{count} after theta: {error}){self._hint(count + 1, names)}"
            ) from None

    def _hint(self, count: int, names: Names) -> str:
        """What may be the matter if one array more would do."""
        try:
            assert self.known is not None
            self.known.bind(*range(count - len(names)), **dict.fromkeys(names))
        except TypeError:
            return ""
        return (
            "; was theta left out? It comes first: program.theta() are the parameters' present "
            "numbers, and [] is right if there are none"
        )


_BY_POSITION = (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY)


def of_program(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a program's call, which editors show: theta, and the function's arguments.

    >>> of_program(lambda x, y: x * y)
    <Signature (theta, x, y)>
    """
    known = Signature(fn).known
    if known is None or "theta" in known.parameters:
        return None
    rest = [p.replace(annotation=Kind.empty) for p in known.parameters.values()]
    theta = Kind("theta", Kind.POSITIONAL_ONLY if _has_positional_only(rest) else _BY_POSITION[1])
    return inspect.Signature([theta, *rest])


def _has_positional_only(parameters: list[Kind]) -> bool:
    return any(p.kind is Kind.POSITIONAL_ONLY for p in parameters)


def calling_by_name(fn: Callable[..., Any], count: int, names: Names) -> Callable[..., Any]:
    """The function of so many positional arguments that takes its last ones by these names."""
    if not names:
        return fn
    first = count - len(names)

    @wraps(fn)
    def call(*arguments: Any) -> Any:
        return fn(*arguments[:first], **dict(zip(names, arguments[first:])))

    order = [n for n, p in inspect.signature(fn).parameters.items() if p.kind in _BY_POSITION]
    kinds = [Kind(name, Kind.POSITIONAL_ONLY) for name in (*order[:first], *names)]
    call.__signature__ = inspect.Signature(kinds)  # type: ignore[attr-defined]
    return call
