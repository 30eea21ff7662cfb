"""Methods that a class names, and whose code stands in a wing above the class."""

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
