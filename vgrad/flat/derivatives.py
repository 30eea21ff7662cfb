"""Derivatives as operands: the op table's rules applied to nodes or `Value`s, which records them.

    gradients   backward: of one result to many operands, as `Value.backward` does it
    changes     forward: of many results along one direction

Both go over operands in their order, whatever these are: the nodes of a tape, or `Value`s. What
they record compiles, and can be differentiated again; `derived` makes graphs of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product
from math import inf, isnan, nan
from operator import attrgetter
from typing import Any

import numpy as np

from .. import ops
from ..arrays import array_of, as_operands
from ..engine import Value
from ..operand import Operand
from ..trees import holds_parameters
from .node import Node
from .recording import interpret, recorded
from .tape import Tape

Number = Any  # a node or `Value`, or a float that is known already
Key = Any  # what stands for an operand: its place on a tape, or the `Value` itself


def gradient(y: Any, wrt: Any) -> Any:
    """The derivatives of `y` to `wrt`, as operands: inside a function, or on `Value`s.

    `y` is one operand; `wrt` is an operand, or a list, tuple, dict, array or module of them, and
    the result is like it. The results can be used in what the function returns, and differentiated
    again, as those of PyTorch's `autograd.grad(..., create_graph=True)`. What `y` does not depend
    on has the derivative 0, and a gradient of 0 stays 0, as in `Value.backward`.

    >>> import vgrad
    >>> def heat(t, x):  # how well exp(-t) sin(x) fulfils the heat equation u_t = u_xx
    ...     u = vgrad.exp(-t) * vgrad.sin(x)
    ...     u_t, u_x = vgrad.gradient(u, [t, x])
    ...     return u_t - vgrad.gradient(u_x, x)
    >>> vgrad.compile(heat)([], [0.5, 1.0], [2.0, 3.0])
    array([0., 0.])
    >>> x = vgrad.Value(2.0)
    >>> vgrad.gradient(vgrad.gradient(x**3, x), x)
    Value(data=12.0, grad=0.0)

    Raises TypeError if `y` or a part of `wrt` is no operand.
    """
    if not isinstance(y, Operand):
        raise TypeError(f"y must be one Value or traced value (got {y!r}, a {type(y).__name__})")
    wanted: list[Operand] = []
    rebuild = _collected(wrt, wanted)
    node = next((x for x in (y, *wanted) if isinstance(x, Node)), None)
    view: View = _Values() if node is None else Nodes(node.tape)
    parts = gradients(view, view.recorded(y), [view.key(x) for x in wanted])
    return rebuild(iter([view.operand_of(part) for part in parts]))


def _collected(wrt: Any, found: list[Operand]) -> Callable[[Any], Any]:
    """Collect the operands of a nesting; returns how to make one like it of as many results."""
    if isinstance(wrt, Operand):
        found.append(wrt)
        return next
    if isinstance(wrt, np.ndarray):
        _collected(wrt.ravel().tolist(), found)
        return lambda results: as_operands(array_of([next(results) for _ in wrt.flat], wrt.shape))
    if isinstance(wrt, dict):
        parts = {key: _collected(part, found) for key, part in wrt.items()}
        return lambda results: {key: part(results) for key, part in parts.items()}
    if isinstance(wrt, list | tuple):
        items, kind = [_collected(part, found) for part in wrt], type(wrt)
        as_kind = getattr(kind, "_make", kind)  # of a named tuple
        return lambda results: as_kind([part(results) for part in items])
    if holds_parameters(wrt):
        return _collected(wrt.parameters(), found)
    raise TypeError(
        "wrt must be a Value or traced value, or a list, dict, array or module of them (got "
        f"{wrt!r}, a {type(wrt).__name__})"
    )


# --- over operands -------------------------------------------------------------------------------


class Nodes:
    """The nodes of a tape, by their places."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def key(self, x: Operand) -> Key:
        """What stands for an operand; a `Value` that was not recorded stands for itself."""
        return self.tape.index.get(x, x) if isinstance(x, Value) else self.tape.lift(x)

    def recorded(self, x: Operand) -> Key:
        """What stands for an operand that is recorded now, if it was not before."""
        return self.tape.lift(x)

    def between(self, first: Iterable[Key], last: Iterable[Key]) -> list[Key]:
        """The last ones, and what they are computed from and the first may reach, operands first.

        What was recorded before the first ones is left out.
        """
        lowest = min([place for place in first if isinstance(place, int)], default=self.count())
        found, stack = set[int](), list(last)
        while stack:
            place = stack.pop()
            if place >= lowest and place not in found:
                found.add(place)
                stack += self.parents(place)
        return sorted(found)

    def op(self, place: Key) -> ops.Op:
        return ops.OPS[self.tape.op[place]]

    def parents(self, place: Key) -> tuple[Key, ...]:
        """The keys of its operands."""
        x, y = self.tape.x[place], self.tape.y[place]
        if y < 0:
            return () if x < 0 else (x,)
        return (x, y, self.tape.z[place]) if place in self.tape.z else (x, y)

    def operand(self, place: Key) -> Number:
        """The operand itself, or its number if it is a constant."""
        is_constant = self.tape.op[place] == ops.const.code
        return float(self.tape.value[place]) if is_constant else Node(self.tape, place)

    def operand_of(self, x: Number) -> Node:
        """What was computed, as an operand."""
        return Node(self.tape, self.tape.lift(x))

    def count(self) -> int:
        """How many nodes there are."""
        return len(self.tape.op)

    def note_lines(self, place: Key, first: int) -> None:
        """Let errors in the nodes from `first` on lead to the line of the one at `place`."""
        lines = self.tape.lines
        if lines and place in lines:
            lines.update(dict.fromkeys(range(first, len(self.tape.op)), lines[place]))


class _Values:
    """`Value`s, which stand for themselves."""

    def key(self, x: Operand) -> Key:
        return x

    recorded = key

    def between(self, first: Iterable[Key], last: Iterable[Key]) -> list[Key]:
        lowest = min([value.level for value in first], default=0)
        found, stack = dict[Value, None](), list(last)
        while stack:
            value = stack.pop()
            if value.level >= lowest and value not in found:
                found[value] = None
                stack += value.parents
        return sorted(found, key=attrgetter("level"))

    def op(self, value: Key) -> ops.Op:
        op: ops.Op = value.op
        return op

    def parents(self, value: Key) -> tuple[Key, ...]:
        parents: tuple[Key, ...] = value.parents
        return parents

    def operand(self, value: Key) -> Number:
        return value._number if value.op is ops.const else value

    def operand_of(self, x: Number) -> Operand:
        return x if isinstance(x, Operand) else Value(x, trainable=False)

    def count(self) -> int:
        return 0

    def note_lines(self, value: Key, first: int) -> None:
        pass


View = Nodes | _Values


def gradients(view: View, of: Key, wrt: Sequence[Key], guarded: bool = True) -> list[Number]:
    """The gradient of an operand to others. If `guarded`, one of 0 stays 0 where it meets inf."""
    before, concerned = view.between(wrt, [of]), set(wrt)
    for key in before:
        if not concerned.isdisjoint(view.parents(key)):
            concerned.add(key)
    found: dict[Key, Number] = {of: 1.0}
    for key in reversed(before):
        g = found.get(key, 0.0)
        if key in concerned and not is_zero(g):
            for k, parent in enumerate(view.parents(key)):
                if parent in concerned:
                    _add(found, parent, _part(view, key, k, g, guarded))
    return [found.get(key, 0.0) for key in wrt]


def changes(view: View, of: Sequence[Key], along: dict[Key, Number]) -> list[Number]:
    """The changes of operands along a direction, which is the changes of others.

    Along one of its operands an op changes by its vjp with the operand's own change in place of g.
    Where a change of 0 meets inf it is nan, as by IEEE 754: `gradients` has the last word there.
    """
    found = dict(along)
    for key in view.between(along, of):
        for k, parent in enumerate(view.parents(key)):
            if parent in found:
                _add(found, key, _part(view, key, k, found[parent], guarded=False))
    return [found.get(key, 0.0) for key in of]


def _add(sums: dict[Key, Number], key: Key, part: Number) -> None:
    if not is_zero(part):
        sums[key] = sums[key] + part if key in sums else part


def is_zero(x: Number) -> bool:
    """Whether it is known to be 0."""
    return isinstance(x, float) and x == 0


def _part(view: View, key: Key, k: int, g: Number, guarded: bool) -> Number:
    """The vjp of an operand's op for operand k of that and the gradient `g`, recorded."""
    op = view.op(key)
    vjp = op.vjp[k]
    if vjp is None:
        return 0.0
    operands = [view.operand(parent) for parent in view.parents(key)]
    known = tuple(x if isinstance(x, float) else None for x in operands)
    rule = recorded(op, vjp, None if op.static is None else known[op.static], leading=2)
    before = view.count()
    part = interpret(rule, [g, view.operand(key), *operands], float, _applied)
    if guarded and isinstance(g, Operand) and isinstance(part, Operand) and part is not g:
        part = ops.guard(g, part, part) if _loses_zero(op, k, known) else part
    view.note_lines(key, before)
    return part


def _applied(op: ops.Op, operands: list[Number], *_: Any) -> Number:
    """`op(*operands)`, without a node if the result is known or is one of the operands."""
    x, *others = operands
    if op is ops.where and isinstance(x, float):
        return others[0] if x else others[1]
    if op is ops.mul and 1.0 in [x for x in operands if isinstance(x, float)]:
        return others[0] if isinstance(x, float) and x == 1.0 else x
    result: Number = op(*operands)
    return result


@lru_cache(maxsize=4096)
def _loses_zero(op: ops.Op, k: int, known: tuple[float | None, ...]) -> bool:
    """Whether the rule for operand k can make nan of a gradient of 0; some operands are `known`."""
    rule = op.vjp[k]
    assert rule is not None
    edges = (0.0, 0.5, -2.0, inf, -inf, nan)
    return any(
        isnan(ops.evaluate(rule, 0.0, ops.evaluate(op.forward, *xs), *xs))
        for xs in product(*(edges if x is None else (x,) for x in known))
    )
