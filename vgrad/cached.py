"""A property that is computed once, without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class cached_property(Generic[T]):  # the name of the one in functools
    """A property that is computed when it is first asked for, and then kept.

    That of functools holds a lock meanwhile, before Python 3.12, and a process that is forked just
    then waits for it for ever. Here threads that ask at once all compute it, and get the same one.

    >>> class Circle:
    ...     radius = 2.0
    ...     @cached_property
    ...     def area(self):
    ...         return 3.0 * self.radius**2
    >>> Circle().area
    12.0
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        if instance is None:
            return self  # type: ignore[return-value]  # asked of the class, as help() does
        # Kept in the instance, where it is found first from now on.
        value: T = instance.__dict__.setdefault(self.function.__name__, self.function(instance))
        return value
