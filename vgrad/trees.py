"""Parameters as people keep them: a nesting of dicts, lists, arrays and modules, beside flat theta.

    {"W": [[a, b], [c, d]], "b": e}      the nesting that a user gives
    {"W": [[0, 1], [2, 3]], "b": 4}      its places in theta
    ["W[0, 0]", "W[0, 1]", ..., "b"]     the names of theta's numbers

A `Tree` knows the way from each to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import FLOAT64, Array, as_numbers, distinct_leaves
from .cached import cached_property
from .engine import Value
from .errors import ShapeError

Nesting = Any  # an array, or a dict, list or tuple of nestings


@dataclass(frozen=True, eq=False)
class Tree:
    """A nesting of `Value`s, and the order of theta.

    In a dict, list or tuple each item is an array of `Value`s, or a nesting itself. Lists of lists
    are arrays if all their rows have one length. `values`, (P,), are those that are trainable.
    """

    nesting: Nesting
    values: tuple[Value, ...]

    @cached_property
    def places(self) -> Nesting:
        """Where each number is in theta; -1 for one that is not trainable."""
        place = {value: k for k, value in enumerate(self.values)}
        find = np.frompyfunc(lambda value: place.get(value, -1), 1, 1)
        return mapped(lambda array, _: np.asarray(find(array), np.intp), self.nesting)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each number of theta is called, (P,): by its place, as "layers[0].w[2, 1]".

        One that has several places is called by the first. In a flat list a number is called by its
        `Value`'s label, or else theta[k].
        """
        flat = isinstance(self.places, np.ndarray)
        names: dict[int, str] = {}
        for place, k in _numbers(self.places):
            if k >= 0:
                label = self.values[k].label or f"theta[{k}]"
                names.setdefault(int(k), label if flat else place)
        return tuple(names[k] for k in range(len(self.values)))

    @cached_property
    def labels(self) -> dict[Value, str]:
        """The names of those that have one: by their place in a nesting, or their own label."""
        if isinstance(self.places, np.ndarray):
            return {}
        return dict(zip(self.values, self.names))

    def unflatten(
        self, theta: Any, frozen: float | None = None, dtype: np.dtype[Any] = FLOAT64
    ) -> Nesting:
        """The nesting of numbers, from theta (P,) or any array (..., P), as of gradients.

        What is not trainable has its own number, or what is given for `frozen`. Raises ShapeError
        for another last axis.
        """
        array, size = as_numbers(theta, "theta", dtype), len(self.values)
        if array.shape[-1:] != (size,):
            raise ShapeError(
                f"theta must have {size} numbers, one per parameter, in its last axis "
                f"(got shape {array.shape})"
            )

        def numbers(values: NDArray[Any], places: NDArray[np.intp]) -> Any:
            found = np.empty((*array.shape[:-1], *places.shape), array.dtype)
            chosen = places >= 0
            found[..., chosen] = array[..., places[chosen]]
            own = [value.data for value in values[~chosen]]
            found[..., ~chosen] = own if frozen is None else frozen
            return found if found.ndim else found.item()

        return mapped(numbers, self.nesting, self.places)

    def flatten(self, tree: Any, dtype: np.dtype[Any] = FLOAT64) -> Array:
        """Theta (P,) from a nesting of numbers; a single number stands for a whole array or branch.

        Raises ShapeError or TypeError, which names the place, if the nesting is not the same, and
        ValueError if a number that has several places differs between them.
        """
        theta = np.zeros(len(self.values), dtype)
        written = []
        for name, places, part in _together(self.places, tree, may_end=_is_number):
            numbers = as_numbers(part, name or "the tree", dtype)
            if numbers.shape not in ((), places.shape):
                raise ShapeError(
                    f"{name or 'the tree'} must have the shape {places.shape} of the parameters "
                    f"(got {numbers.shape})"
                )
            chosen = places >= 0
            written.append((name, places[chosen], np.broadcast_to(numbers, places.shape)[chosen]))
            theta[places[chosen]] = written[-1][-1]
        for name, where, numbers in written:
            if not np.array_equal(theta[where], numbers, equal_nan=True):
                raise ValueError(
                    f"{name or 'the tree'} must have the same numbers as other places of the same "
                    f"parameters (got {numbers} and {theta[where]})"
                )
        return theta

    def of(self, model: Any) -> list[Value]:
        """The `Value`s of another model, in the order of theta; raises ShapeError if it differs."""
        other = as_tree(model)
        if isinstance(self.nesting, np.ndarray) and len(other.values) == len(self.values):
            return list(other.values)  # of a flat list only the number is known
        found: dict[int, Value] = {}
        for name, places, part in _together(self.places, other.nesting):
            if not (isinstance(part, np.ndarray) and part.shape == places.shape):
                got = part.shape if isinstance(part, np.ndarray) else type(part).__name__
                raise ShapeError(
                    f"{name or 'the model'} must be like that of the program's parameters, an "
                    f"array {places.shape} (got {got})"
                )
            for place, value in zip(places.flat, part.flat):
                if value.trainable != (place >= 0):
                    raise ShapeError(
                        f"{name or 'the model'} must be trainable where that of the program's "
                        f"parameters is (got {value}, trainable={value.trainable})"
                    )
                found[int(place)] = value
        return [found[k] for k in range(len(self.values))]


def as_tree(parameters: Any) -> Tree:
    """A module, or any nesting of dicts, lists and arrays of `Value`s, as a tree.

    Raises TypeError or ValueError unless they are distinct leaf `Value`s.

    >>> w, b = [Value(1.0), Value(2.0)], Value(3.0)
    >>> tree = as_tree({"w": w, "b": b})
    >>> tree.names
    ('w[0]', 'w[1]', 'b')
    >>> tree.unflatten([4.0, 5.0, 6.0])
    {'w': array([4., 5.]), 'b': 6.0}
    >>> tree.flatten({"w": 0.1, "b": 7.0})
    array([0.1, 0.1, 7. ])
    """
    if isinstance(parameters, Tree):
        return parameters
    if not holds_parameters(parameters) and not isinstance(parameters, Iterable | Value):
        raise TypeError(
            "parameters must be a list of Values, a module, or a nesting of dicts, lists and "
            f"arrays of Values (got {parameters!r})"
        )
    nesting, values = _nested(parameters)
    _require_distinct_leaves(nesting, values)
    return Tree(nesting, tuple(value for value in values if value.trainable))


def _require_distinct_leaves(nesting: Nesting, values: list[Any]) -> None:
    """Raise TypeError or ValueError unless they are distinct leaf `Value`s, and say where."""
    try:
        distinct_leaves("parameters", values)
    except (TypeError, ValueError) as error:
        places: dict[int, str] = {}
        for place, value in _numbers(nesting):
            first = places.setdefault(id(value), place)
            if place and not (_is_leaf(value) and first == place):
                at = place if first == place else f"{first} and {place}"
                raise type(error)(f"{error}, at {at}") from None
        raise


def _numbers(nesting: Nesting) -> Iterator[tuple[str, Any]]:
    """What stands in the arrays of a nesting, each with the name of its place."""
    for name, array, _ in _together(nesting, nesting):
        for index, x in np.ndenumerate(array):
            yield name + (f"[{', '.join(map(str, index))}]" if index else ""), x


def mapped(function: Callable[..., Any], nesting: Nesting, *others: Nesting) -> Nesting:
    """What `function` makes of each array of a nesting, and of those at its place in others."""
    if isinstance(nesting, np.ndarray):
        return function(nesting, *(others or (None,)))
    if isinstance(nesting, dict):
        return {k: mapped(function, x, *(y[k] for y in others)) for k, x in nesting.items()}
    return _like(nesting, [mapped(function, *parts) for parts in zip(nesting, *others)])


def leaves(
    x: Any, enter: Callable[[Any], bool] = lambda _: False, within: tuple[Any, ...] = ()
) -> Iterator[Any]:
    """What is in dicts, lists, tuples, arrays and modules, one by one; iterators are not used up.

    A module, unless it is one of those around it, `within`, gives its `parameters()`, or what is
    in its attributes if there is reason to `enter` it. An array of plain numbers is one thing.
    """
    if isinstance(x, np.ndarray):
        yield from x.flat if x.dtype == object else [x]
    elif isinstance(x, dict | list | tuple):
        for part in x.values() if isinstance(x, dict) else x:
            yield from leaves(part, enter, within)
    elif not holds_parameters(x):
        yield x
    elif not any(x is outer for outer in within):
        yield from leaves(vars(x), enter, (*within, x)) if enter(x) else x.parameters()


def holds_parameters(x: Any) -> bool:
    """Whether it is a module: anything with a method `parameters`."""
    return callable(getattr(x, "parameters", None)) and not isinstance(x, type)


def _nested(x: Any, within: tuple[Any, ...] = ()) -> tuple[Nesting, list[Any]]:
    """The nesting of what a user gives, its arrays those of objects; and these, in order.

    `within` are the modules around it.
    """
    if isinstance(x, np.ndarray) or _is_rows(x):
        array = np.array(x, dtype=object)
        return array, list(array.flat)
    if holds_parameters(x):
        return ({}, []) if any(x is outer for outer in within) else _of_module(x, within)
    if isinstance(x, dict):
        nested = {key: _nested(part, within) for key, part in x.items()}
        return {k: a for k, (a, _) in nested.items()}, [v for _, vs in nested.values() for v in vs]
    if isinstance(x, list | tuple):
        parts = [_nested(part, within) for part in x]
        return _like(x, [a for a, _ in parts]), [v for _, values in parts for v in values]
    if isinstance(x, Iterable) and not isinstance(x, str):
        return _nested(list(x), within)
    box = np.empty((), dtype=object)  # a Value, or something that is none
    box[()] = x
    return box, [x]


def _like(x: Any, parts: list[Any]) -> Any:
    """The parts as a list, a tuple, or a named tuple, as `x` is one."""
    if hasattr(x, "_fields"):
        return type(x)(*parts)
    return tuple(parts) if isinstance(x, tuple) else parts


def _is_rows(x: Any) -> bool:
    """Whether it is a list of `Value`s, or lists of such lists, all of one length."""
    if not isinstance(x, list):
        return False
    if not any(isinstance(row, list) for row in x):
        return all(isinstance(value, Value) for value in x)
    return all(map(_is_rows, x)) and not any(
        isinstance(value, list) for value in np.array(x, dtype=object).flat
    )


def _of_module(module: Any, within: tuple[Any, ...]) -> tuple[Nesting, list[Any]]:
    """What holds a module's parameters: what it has `named`, and attributes, by their names."""
    values = list(module.parameters())
    inner, mine, left = (*within, module), set(values), dict.fromkeys(values)
    named = getattr(module, "named", None)
    parts = dict(named()) if callable(named) else {}
    for name, part in getattr(module, "__dict__", {}).items():
        parts.setdefault(name, part)
    nesting: dict[str, Nesting] = {}
    for name, part in parts.items():
        # Asked one by one, so that what else a module keeps, as its data, is not gone through.
        ours = (_is_leaf(v) and (v in mine or not v.trainable) for v in leaves(part, within=inner))
        if all(ours) and any(v in left for v in leaves(part, within=inner)):
            nesting[name], found = _nested(part, inner)
            for value in found:
                left.pop(value, None)
    if left:  # those that are kept elsewhere
        nesting["parameters"] = np.array(list(left), dtype=object)
    return nesting, values


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Value) and not x.parents


def _together(
    nesting: Nesting,
    other: Any,
    name: str = "",
    may_end: Callable[[Any], bool] = lambda _: False,
) -> Iterator[tuple[str, NDArray[np.intp], Any]]:
    """The arrays of a nesting, and what is at their place in another: (name, array, part).

    A part that `may_end` stands for whatever is at its place. Raises ShapeError where keys differ.
    """
    if isinstance(nesting, np.ndarray):
        yield name, nesting, other
        return
    is_dict = isinstance(nesting, dict)
    keys = list(nesting) if is_dict else range(len(nesting))
    fields = getattr(nesting, "_fields", ())  # of a named tuple
    if not may_end(other):
        fits = set(other) == set(keys) if isinstance(other, dict) else _count(other) == len(keys)
        if isinstance(other, dict) != is_dict or not fits:
            wanted = f"the keys {list(keys)}" if is_dict else f"{len(keys)} items"
            got: Any = list(other) if isinstance(other, dict) else other
            got = f"an array {got.shape}" if isinstance(got, np.ndarray) else f"{got!r:.200}"
            raise ShapeError(f"{name or 'the tree'} must have {wanted} (got {got})")
    for key in keys:
        field = key if is_dict else fields[key] if fields else None
        inner = f"{name}[{key}]" if field is None else f"{name}.{field}".lstrip(".")
        yield from _together(nesting[key], other if may_end(other) else other[key], inner, may_end)


def _count(x: Any) -> int:
    """How many items a list, tuple or array has; -1 for anything else."""
    return len(x) if isinstance(x, list | tuple) or _shape(x) else -1


def _is_number(x: Any) -> bool:
    return _shape(x) == () and not isinstance(x, dict | list | tuple)


def _shape(x: Any) -> Any:
    return getattr(x, "shape", ())
