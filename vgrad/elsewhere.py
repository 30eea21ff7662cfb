"""What stands elsewhere: methods whose code is in a wing above, and names that others have."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import MethodType
from typing import Any


class Elsewhere:
    """A method that is a function of one of vgrad's wings, imported when it is first asked for.

    So a graph can be drawn, or a program verified, by rooms that the class knows nothing of.

    >>> class Name(str):
    ...     split = Elsewhere("datasets", "make_moons")
    >>> Name.split.__module__
    'vgrad.datasets'
    """

    def __init__(self, wing: str, function: str) -> None:
        self.wing, self.function = wing, function

    def __get__(self, instance: Any, owner: type) -> Callable[..., Any]:
        function = getattr(import_module(f".{self.wing}", __package__), self.function)
        return function if instance is None else MethodType(function, instance)


# What to write for a function of `math` or `statistics` that has another name here, or none.
INSTEAD = {
    **{f"a{name}": f"vgrad.arc{name}" for name in ("cos", "sin", "tan", "cosh", "sinh", "tanh")},
    "atan2": "vgrad.arctan2",
    "copysign": "abs(x) * vgrad.sign(y)",
    "degrees": "x * (180 / math.pi)",
    "dist": "vgrad.hypot(x1 - x2, y1 - y2)",
    "fabs": "vgrad.abs",
    "factorial": "vgrad.exp(vgrad.lgamma(n + 1))",
    "fsum": "vgrad.sum",
    "gamma": "vgrad.exp(vgrad.lgamma(x)), for x > 0",
    "isclose": "abs(a - b) <= tolerance",
    "isfinite": "abs(x) < math.inf",
    "isinf": "abs(x) == math.inf",
    "isnan": "x != x",
    "mean": "vgrad.sum(xs) / len(xs)",
    "modf": "x - vgrad.trunc(x) and vgrad.trunc(x)",
    "prod": "np.prod(xs)",
    "radians": "x * (math.pi / 180)",
    "stdev": "np.std(xs, ddof=1)",
    "variance": "np.var(xs, ddof=1)",
}


def instead_of(name: str) -> str:
    """The end of an error for a name that vgrad does not have.

    >>> instead_of("acos"), instead_of("spam")
    ('; use vgrad.arccos', '')
    """
    return f"; use {INSTEAD[name]}" if name in INSTEAD else ""
