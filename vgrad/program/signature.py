"""A function's arguments by position and by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from ..errors import ShapeError
from ..flat import Graph
from .arrays import Axes

Names = tuple[str, ...]
Kind = inspect.Parameter


class Signature:
    """What a function calls its arguments, if it can be known; of a graph, the names of its inputs.

    >>> def f(x, y, scale=1.0):
    ...     return scale * (x - y)
    >>> Signature(f).bound([1.0], {"scale": 3.0, "y": 2.0})
    ([1.0, 2.0, 3.0], ())
    """

    def __init__(self, fn: Callable[..., Any] | Sequence[Graph]) -> None:
        self.known: inspect.Signature | None
        self.is_whole = callable(fn)  # whether it has what was left out, too
        graphs = [fn] if isinstance(fn, Graph) else [] if callable(fn) else fn
        # of a program without its function, by what else it recorded
        self.others = [Signature(graph) for graph in graphs[1:]]
        if graphs:
            self.function, self.known = "the graph", _of_names(graphs[0].argument_names)
            return
        assert callable(fn)
        self.function = getattr(fn, "__name__", type(fn).__name__)
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
        for other in self.others:
            own = [] if other.known is None else list(other.known.parameters)
            if len(own) == len(arrays) + len(named) and not named.keys() - set(own):
                return other.bound(arrays, named)
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

    def axes(self, axes: Axes, count: int, names: Names) -> Axes:
        """The axes of so many arrays, the last by these names, from those of all arguments.

        Raises ShapeError if there are fewer, or more than the function has arguments.
        """
        parameters = {} if self.known is None else self.known.parameters
        is_fixed = not any(p.kind is Kind.VAR_POSITIONAL for p in parameters.values())
        order = list(parameters) if is_fixed else []
        first, most = count - len(names), len(order) if is_fixed and self.is_whole else len(axes)
        places = [*range(first), *(order.index(name) for name in names if name in order)]
        if max(places, default=-1) >= len(axes) or len(axes) > max(count, most):
            raise ShapeError(
                f"in_axes must have one axis for each argument of {self} (got {axes}, and {count} "
                "arrays)"
            )
        # as in JAX, arrays by names of which the function has no list are cut at their first axis
        by_name = (axes[order.index(name)] if name in order else 0 for name in names)
        return (*axes[:first], *by_name)

    def require(self, count: int, names: Names) -> None:
        """Raise TypeError if the function does not take so many arrays, the last by these names."""
        try:
            self._bind(count, names)
        except TypeError as error:
            hint = (
                "; was theta left out, or what comes between it and the arrays? Theta is first: "
                "program.theta() are the parameters' present numbers, and [] is right if there are "
                "none"
            )
            raise TypeError(
                f"a call must have theta and then an array for each argument of {self} (got "
                f"{count} after theta: {error}){hint * self.takes(count + 1, names)}"
            ) from None

    def takes(self, count: int, names: Names = ()) -> bool:
        """Whether the function takes so many arrays, the last by these names, or may do so."""
        try:
            self._bind(count, names)
        except TypeError:
            return False
        return True

    def _bind(self, count: int, names: Names) -> None:
        if self.known is not None:
            self.known.bind(*range(count - len(names)), **dict.fromkeys(names))


def _of_names(names: list[str]) -> inspect.Signature | None:
    if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        return None
    return inspect.Signature([Kind(name, Kind.POSITIONAL_OR_KEYWORD) for name in names])


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
