"""Recording in bulk: what a loop over arrays would record, node for node, in passes of NumPy.

A loop calls Python three times for each node. Here an op on whole arrays finds the places of all
operands, and adds all nodes to the tape at once. Where that is not possible, since arrays are small
or mix nodes with plain numbers, methods return NotImplemented, and their callers go on by the loop.

    x * y          each        places of x, places of y  ->  a block of products
    x.sum()        accumulated a chain of sums, each of the last one and the next number
    W @ x, dot     products    a block of products, and a chain for every result
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, reduce
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arrays import OperandArray, array_of
from ..engine import Value
from .node import Node

if TYPE_CHECKING:
    from .tape import Tape

Places = NDArray[np.int32]

FEW = 8  # nodes; fewer are recorded sooner one by one
_REAL = (np.floating, np.integer, np.bool_)
_PLAIN = {float, int, bool, *(kind for kind in np.sctypeDict.values() if issubclass(kind, _REAL))}
_PLAIN.discard(np.timedelta64)  # which NumPy counts among the integers


class Bulk:
    """Records on a tape by the array; operands are nodes of this tape, `Value`s and numbers."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def each(self, op: ops.Op, operands: Sequence[Any]) -> Any:
        """An op of arrays (...), and of single numbers, element by element: an object array."""
        found = self._done(operands, partial(self._each, op), "K")
        arrays = [x for x in operands if isinstance(x, np.ndarray)]
        if found is NotImplemented or all(x.flags.c_contiguous for x in arrays):
            return found
        like = np.frompyfunc(lambda *xs: None, len(arrays), 1)(
            *(x.view(np.ndarray) for x in arrays)
        )
        like[...] = found  # which lies in memory as NumPy would lay it out
        return like

    def accumulated(self, op: ops.Op, xs: NDArray[Any]) -> Any:
        """All results (..., n) of an op of two, begun at the first of the numbers (..., n)."""

        def record(places: Places) -> Places:
            chains = self._chains(op, places[..., 0], places[..., 1:])
            return np.concatenate([places[..., :1], chains], axis=-1)

        return self._done([xs], record)

    def reduced(self, op: ops.Op, xs: NDArray[Any]) -> Any:
        """The last of these results, (...): one for each row of numbers (..., n)."""
        return self._done([xs], partial(self._last, op))

    def products(self, xs: NDArray[Any], ys: NDArray[Any]) -> Any:
        """The sums, (...), of the products of numbers (..., n) and (..., n), first to last."""

        def record(x: Places, y: Places) -> Places:
            return self._last(ops.add, self._each(ops.mul, x, y))

        return self._done([xs, ys], record)

    def sum(self, xs: list[Any]) -> Any:
        """The sum of numbers, from the first to the last."""
        return self.reduced(ops.add, array_of(xs, (len(xs),)))

    def dot(self, left: list[list[Any]], right: list[list[Any]], starts: list[Any]) -> Any:
        """A list of sums: each start, and the products of a row of the left and one of the right.

        One of them may have a single row, for all of the other.
        """
        shape = len(starts), len(left[0])
        if math.prod(shape) < FEW:
            return NotImplemented
        xs, ys = ([*chain.from_iterable(rows)] for rows in (left, right))

        def met() -> Iterator[Any]:
            for k, start in enumerate(starts):
                (x, *row), (y, *column) = left[k % len(left)], right[k % len(right)]
                yield from (x, y, start, *chain.from_iterable(zip(row, column)))

        own = [(len(rows), shape[1]) for rows in (left, right)]
        found = self._found([xs, ys], own, shape, met)
        if found is NotImplemented:
            return found
        first = np.array([self._tape.lift(start) for start in starts], np.int32)
        return self.nodes(self._dots(found[0], found[1], first)).tolist()

    def nodes(self, places: Places) -> Any:
        """The nodes at places (...), as an object array of that shape, or the one node of ()."""
        if not places.ndim:
            return self._tape.node(int(places))
        tape, nodes = self._tape, []
        new = object.__new__
        for place in places.ravel().tolist():  # without a call of a function of Python's
            node = new(Node)
            node.tape, node.place = tape, place
            nodes.append(node)
        return array_of(nodes, places.shape)

    # --- places of operands ----------------------------------------------------------------------

    def _done(
        self, operands: Sequence[Any], record: Callable[..., Places], order: Literal["C", "K"] = "C"
    ) -> Any:
        """The nodes that `record` gives for the places of operands, spread out to one shape.

        Operands are arrays, or single numbers. The order is that in which NumPy goes through them.
        """
        arrays = [x for x in operands if isinstance(x, np.ndarray)]
        if not all(type(x) in (np.ndarray, OperandArray) for x in arrays):
            return NotImplemented  # masked arrays, say, of which the loop knows what they mean
        shapes = {x.shape for x in arrays}
        try:
            shape = shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)
        except ValueError:
            return NotImplemented  # NumPy says what is wrong
        if math.prod(shape) < FEW:
            return NotImplemented
        own = [x.shape if isinstance(x, np.ndarray) else () for x in operands]
        lists, met = [_listed(x) for x in operands], partial(_met, operands, order)
        found = self._found(lists, own, shape, met)
        if found is NotImplemented:
            return found
        return self.nodes(record(*[_spread(x, shape) for x in found]))

    def _found(
        self,
        lists: list[list[Any]],
        own: Sequence[tuple[int, ...]],
        shape: tuple[int, ...],
        met: Callable[[], Iterable[Any]],
    ) -> Any:
        """The places of operands, given as lists of the numbers of arrays of their `own` shapes.

        If there are new `Value`s, they are lifted in the order in which a loop has `met` them.
        NotImplemented if a loop over arrays of this shape might give plain numbers or `Value`s, or
        an error: unless one operand has nodes of this tape alone, and each of the others nodes,
        `Value`s or numbers.
        """
        nodes = [self._of_nodes(xs) for xs in lists]
        kinds = [None if x is not None else {*map(type, xs)} for x, xs in zip(nodes, lists)]
        if None not in kinds or not all(x in (None, {Value}) or x <= _PLAIN for x in kinds):
            return NotImplemented
        are_values = [kind == {Value} for kind in kinds]
        if True in are_values:
            try:
                nodes = [self._known(xs) if x else y for xs, x, y in zip(lists, are_values, nodes)]
            except KeyError:
                for x in met():
                    if isinstance(x, Value):
                        self._tape.lift(x)
                nodes = [self._known(xs) if x else y for xs, x, y in zip(lists, are_values, nodes)]
        return [
            self._constants(xs, s, shape) if places is None else places.reshape(s)
            for xs, s, places in zip(lists, own, nodes)
        ]

    def _of_nodes(self, xs: list[Any]) -> Places | None:
        """The places of nodes of this tape; None if anything else is among them."""
        if xs[0].__class__ is not Node:
            return None
        tape = self._tape
        try:
            places = [x.place for x in xs if x.tape is tape]
        except AttributeError:
            return None
        return np.array(places, np.int32) if len(places) == len(xs) else None

    def _known(self, values: list[Value]) -> Places:
        return np.fromiter(map(self._tape.index.__getitem__, values), np.int32, len(values))

    def _constants(self, xs: list[Any], own: tuple[int, ...], shape: tuple[int, ...]) -> Places:
        """New constants of a shape, for these numbers spread out: one for each use of a number."""
        numbers = np.broadcast_to(array_of(xs, own), shape).ravel().tolist()
        size = len(numbers)
        none, codes = np.full(size, -1, np.int32), bytes([ops.const.code]) * size
        start = self._tape.extend(codes, np.zeros(size, np.int32), none)
        self._tape.value.update(zip(range(start, start + size), map(ops.number, numbers)))
        return np.arange(start, start + size, dtype=np.int32).reshape(shape)

    # --- blocks of nodes -------------------------------------------------------------------------

    def _levels(self, places: Places) -> Places:
        return np.frombuffer(self._tape.level, np.int32)[places]

    def _extended(self, op: ops.Op, level: Places, *parents: Places) -> Places:
        """The places of new nodes of an op, of these levels (...) and parents, (...) each."""
        start = self._tape.extend(bytes([op.code]) * level.size, level, *parents)
        return np.arange(start, start + level.size, dtype=np.int32).reshape(level.shape)

    def _each(self, op: ops.Op, *parents: Places) -> Places:
        """Nodes of an op, one for each place of its operands (...)."""
        level = reduce(np.maximum, map(self._levels, parents)) + np.int32(1)
        return self._extended(op, level, *parents)

    def _last(self, op: ops.Op, places: Places) -> Places:
        """The last nodes (...) of chains through places (..., n), each from the first on."""
        first, others = places[..., 0], places[..., 1:]
        return self._chains(op, first, others)[..., -1] if others.shape[-1] else first

    def _chains(self, op: ops.Op, first: Places, others: Places) -> Places:
        """Nodes (..., n) of an op of two, from `first` (...) through the others (..., n).

        Levels are those of a loop, without one: for three numbers of levels 0, 4 and 0,

            node            first           1           2           3
            operand's level     1           0           4           0
            level               1   max(1,0)+1  max(2,4)+1  max(5,0)+1  =  1 2 5 6
            less its number     1           1           3           3   grows where an operand leads
        """
        n = others.shape[-1]
        if not others.size:
            return others
        number = np.arange(n + 1, dtype=np.int32)
        lead = np.empty((*others.shape[:-1], n + 1), np.int32)
        lead[..., 0], lead[..., 1:] = self._levels(first), self._levels(others)
        lead[..., 1:] -= number[:-1]
        level = (np.maximum.accumulate(lead, axis=-1) + number)[..., 1:]
        start = len(self._tape.op)
        before = np.arange(start - 1, start + others.size - 1, dtype=np.int32).reshape(others.shape)
        before[..., 0] = first
        return self._extended(op, level, before, others)

    def _dots(self, x: Places, y: Places, first: Places) -> Places:
        """The last nodes (k,) of chains, from `first` (k,) through products: of (k, n) or (1, n).

        They are those of `_last` of `first` and `_each(ops.mul, x, y)`, in half the calls of NumPy,
        which take most of the time of a row of 64 numbers. Hot path.
        """
        levels = np.frombuffer(self._tape.level, np.int32)
        level = np.maximum(levels[x], levels[y])
        start, size, n = len(self._tape.level), level.size, level.shape[-1]
        number = np.arange(n, dtype=np.int32)
        lead = np.maximum.accumulate(level - number, axis=1) + np.int32(1)
        block = np.empty((3, 2, *level.shape), np.int32)  # parents x, y, levels; products and sums
        block[0, 0], block[1, 0] = x, y
        np.add(level, 1, out=block[2, 0])
        products = np.arange(start, start + size, dtype=np.int32).reshape(level.shape)
        np.add(products, size - 1, out=block[0, 1])
        block[0, 1, :, 0] = first
        block[1, 1] = products
        np.add(np.maximum(lead, levels[first][:, None]), number + np.int32(1), out=block[2, 1])
        del levels  # so that the tape can grow
        codes = bytes([ops.mul.code]) * size + bytes([ops.add.code]) * size
        self._tape.extend(codes, block[2], block[0], block[1])
        return products[:, -1] + np.int32(size)


def _spread(places: Places, shape: tuple[int, ...]) -> Places:
    """Broadcast to a shape; `np.broadcast_to` takes longer than small arrays do."""
    if places.shape == shape:
        return places
    full = np.empty(shape, np.int32)
    full[...] = places
    return full


def _met(operands: Sequence[Any], order: Literal["C", "K"]) -> Iterator[Any]:
    """The numbers of arrays in the order in which NumPy's loops go through them.

    That is "C" for sums of products, and "K" element by element, as they lie in memory.
    """
    boxes = [
        x.view(np.ndarray) if isinstance(x, np.ndarray) else array_of([x], ()) for x in operands
    ]
    if order == "C":
        boxes = [np.ascontiguousarray(x) for x in np.broadcast_arrays(*boxes)]
    met: list[Any] = []
    np.frompyfunc(lambda *xs: met.extend(xs), len(boxes), 1)(*boxes)
    yield from met


def _listed(x: Any) -> list[Any]:
    """The numbers of an operand, one after the other."""
    if isinstance(x, np.ndarray):
        return x.view(np.ndarray).ravel().tolist()
    return [x]
