"""Copies and pickles of `Value`s: graphs of any depth, and what is shared stays shared.

Pickle and `copy.deepcopy` go from an object to those that it holds, and would go as deep as a graph
is. So only leaves go one by one. What is computed goes in parts: a part is a value and all below it
that has not gone yet, as lists of attributes, and each value goes as a part and its number there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from weakref import ref

from . import ops
from .engine import NO_GRADIENT, Value
from .operand import look

PARENTS = ("_x", "_y", "_z")
LISTED = ("op", "_number", "level")  # attributes that go as one list each


def copied(value: Value) -> Value:
    """Another value with the same attributes, computed from the same values."""
    look(value, "copied")
    twin = _leaf(type(value))
    for name, x in _own(value, twin).items():
        setattr(twin, name, x)
    return twin


def reduced(value: Value, protocol: Any) -> Any:
    """What `pickle` and `copy.deepcopy` are to make of a value, as `__reduce_ex__` says it."""
    look(value, "copied")
    if _goes_alone(value):
        leaf = _leaf(type(value))
        return _leaf, (type(value),), (None, _own(value, leaf))
    return Part.value, _place(value)


def _goes_alone(value: Value) -> bool:
    return not value.level and value.op is not ops.const


def _leaf(kind: type[Value]) -> Value:
    leaf: Value = object.__new__(kind)
    Value.__init__(leaf, 0.0, trainable=False)
    return leaf


def _own(value: Value, leaf: Value) -> dict[str, Any]:
    """The attributes in which a value differs from a new leaf, by identity, as NO_GRADIENT asks."""
    reduced: Any = object.__reduce_ex__(value, 2)
    others, slots = reduced[2]  # slots may also be those of a class derived from Value
    found = {**slots, **(others or {})}
    return {name: x for name, x in found.items() if x is not getattr(leaf, name, leaf)}


def _in_dict(value: Value) -> dict[str, Any] | None:
    """The attributes that are in the value's dict; None, and no dict, if there are none."""
    found = value.__dict__
    if found:
        return found
    del value.__dict__  # which it did not have before it was asked for
    return None


class Index(dict[Value, Any]):
    """The part, as a weak reference, and the number in it of each value that has gone so far."""


class Part:
    """Values that go together; each is known by its number.

    They come into being at once, as leaves, and get their attributes afterwards: so these may lead
    back to them.
    """

    def __init__(self, values: list[Value], index: Index | None = None) -> None:
        self.values = values
        self.index = index  # which lasts as long as one of its parts does

    def value(self, number: int) -> Value:
        return self.values[number]

    def __reduce__(self) -> Any:
        values = self.values
        operands = [x for value in values for x in (value._x, value._y, value._z)]
        number = {x: k for k, x in enumerate(dict.fromkeys([*values, *operands]))}
        outside = list(number)[len(values) :]  # leaves, values of other parts, and None
        lists = {name: [getattr(value, name) for value in values] for name in LISTED}
        grads = {k: x.grad for k, x in enumerate(values) if x.grad is not NO_GRADIENT}
        dicts = {k: x for k, x in enumerate(map(_in_dict, values)) if x}
        state = lists, [number[x] for x in operands], outside, grads, dicts
        return _leaves, ([type(value) for value in values],), state

    def __setstate__(self, state: Any) -> None:
        lists, numbers, outside, grads, dicts = state
        known = [*self.values, *outside]
        for k, name in enumerate(PARENTS):
            lists[name] = [known[i] for i in numbers[k::3]]
        for name, column in lists.items():
            for value, x in zip(self.values, column):
                setattr(value, name, x)
        for i, grad in grads.items():
            self.values[i].grad = grad
        for i, found in dicts.items():
            self.values[i].__dict__.update(found)


def _leaves(kinds: list[type[Value]]) -> Part:
    return Part([_leaf(kind) for kind in kinds])


# What has gone so far must be known when the next value is pickled, and pickle does not tell one
# pickle from another. But it keeps the parts until it is done, these keep the index, and here it is
# found as long as it lasts. If it lasts longer, as a Pickler that is kept makes it, parts may hold
# parts in later pickles, and thousands of them would be too deep.
_latest: ContextVar[Callable[[], Index | None]] = ContextVar("_latest", default=lambda: None)


def _place(value: Value) -> tuple[Part, int]:
    """A part that has the value, new if none has it yet, and the value's number there."""
    index = _latest.get()()
    if index is None:
        index = Index()
        _latest.set(ref(index))
    known, number = index.get(value, (lambda: None, 0))
    part = known()
    return (_new_part(value, index), 0) if part is None else (part, number)


def _new_part(root: Value, index: Index) -> Part:
    """The value and all below it that is in no part yet, and does not go alone."""
    part = Part([], index)
    index.pop(root, None)  # its part may be gone
    known, stack = ref(part), [root]
    while stack:
        value = stack.pop()
        if value not in index and not _goes_alone(value):
            index[value] = known, len(part.values)
            part.values.append(value)
            stack += value.parents
    return part
