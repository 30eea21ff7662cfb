"""A number that is not known yet, while a function is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .. import ops
from ..engine import Value
from ..operand import Operand, declined
from .refusals import ONE_NUMBER

if TYPE_CHECKING:
    from .bulk import Bulk
    from .tape import Tape


def _refusing(means: str) -> Callable[..., NoReturn]:
    """A method that refuses this way of looking at a node's number."""
    return lambda node, *_: node.tape.refuse(means)


def _asking(means: str) -> Callable[..., int]:
    """A method that asks for a whole number."""

    def method(node: Node, *digits: Any) -> int:
        return node.tape.refuse("digits") if digits else int(node.tape.ask(node.place, means))

    return method


class Node(Operand):
    """A number that is not known yet: a place on the tape that records the function."""

    __slots__ = ("tape", "place")

    def __init__(self, tape: Tape, place: int) -> None:
        self.tape = tape
        self.place = place

    @property
    def _bulk(self) -> Bulk:
        return self.tape.bulk

    @staticmethod
    def _apply(op: ops.Op, *operands: Any) -> Any:
        # Hot path. The usual operands first: two nodes, or a node and a parameter met before.
        if len(operands) == 2:
            x, y = operands
            if x.__class__ is Node:
                tape = x.tape
                if y.__class__ is Node:
                    if y.tape is tape:
                        return tape.record(op.code, x.place, y.place)
                elif y.__class__ is Value and y in tape.index:
                    return tape.record(op.code, x.place, tape.index[y])
            elif x.__class__ is Value and y.__class__ is Node and x in y.tape.index:
                return y.tape.record(op.code, y.tape.index[x], y.place)
        tape = next(x.tape for x in operands if x.__class__ is Node)
        if not all(isinstance(x, Operand) or ops.is_number(x) for x in operands):
            return declined(op, operands)
        return tape.record(op.code, *map(tape.lift, operands))

    @property
    def label(self) -> str:
        """The node's name in drawings and errors; settable."""
        return self.tape.labels.get(self.place, "")

    @label.setter
    def label(self, label: str) -> None:
        self.tape.labels[self.place] = label

    def __repr__(self) -> str:
        name = ops.OPS[self.tape.op[self.place]].name
        return f"Node({self.label or name}, level {self.tape.level[self.place]})"

    def __format__(self, spec: str) -> str:
        return self.tape.refuse("format") if spec else repr(self)

    # A question, whose answer decides which way the function goes; or else refused.
    __int__, __trunc__ = _asking("int"), _asking("int")
    __floor__, __ceil__ = _asking("floor"), _asking("ceil")
    __round__, __index__ = _asking("round"), _asking("index")
    __float__ = _refusing("float")
    __hash__ = _refusing("hash")
    data = property(Operand.stop_gradient, _refusing("set"))  # type: ignore[misc]

    def __bool__(self) -> bool:
        return self.tape.truth(self.place)

    def __getattr__(self, name: str) -> NoReturn:
        if hasattr(Value, name) or hasattr(float, name):
            self.tape.refuse(name)
        of_arrays = f", as it is one number: {ONE_NUMBER}" * (hasattr(np.ndarray, name))
        raise AttributeError(f"a traced value has no attribute {name!r}{of_arrays}")
