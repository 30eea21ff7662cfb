"""The op table's rules as NumPy calls: recorded as any function is, then added node by node."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import ops
from ..arguments import Array
from ..flat import Graph, interpret, recorded
from .arithmetic import Source
from .calls import Calls


def add_forward(
    calls: Calls, op: ops.Op, number: float | None, operands: list[Source], out: Array | None
) -> Source:
    """Add the calls of one op that give what its forward does, to the bit, as `add_op` need not."""
    if op.loose(number) if callable(op.loose) else op.loose:
        return calls.compute(partial(_evaluate, op.forward), *operands, out=out)
    return add_op(calls, op, number, operands, out)


def add_op(
    calls: Calls, op: ops.Op, number: float | None, operands: list[Source], out: Array | None
) -> Source:
    """Add the calls of one op; `number` is the value of its static operand, if that is known.

    The first of these that the op's row has: a faster rule of other ops, the ufunc, the forward.
    """
    if op.fast is not None:
        rule = recorded(op, op.fast, number)
        if op.code not in rule.op:  # for most exponents the fast rule of pow is pow itself
            return add_rule(calls, rule, operands, out)
    if op is ops.where:
        return _select(calls, operands, out)
    return calls.compute(op.ufunc or partial(_evaluate, op.forward), *operands, out=out)


def add_rule(
    calls: Calls, rule: Graph, operands: list[Source], out: Array | None, masks: bool = False
) -> Source:
    """Add the calls of a recorded rule, the last of which writes into `out`.

    With `masks`, which only a vjp may ask for, `where(c, g, 0)` becomes a product.
    """

    def apply(op: ops.Op, operands: list[Source], number: float | None, is_last: bool) -> Source:
        into = out if is_last else None
        if op is ops.where:
            return _select(calls, operands, into, masks)
        if op is not ops.mul:  # a product takes masks as they are
            operands = [_as_floats(calls, x) for x in operands]
        if op.static is not None and _is_number(operands[op.static]):
            number = float(operands[op.static].array)  # the plan knows more than the rule alone
        return add_op(calls, op, number, operands, into)

    return _as_floats(calls, interpret(rule, operands, calls.constant, apply))


def _evaluate(forward: ops.Rule, *arrays: Array) -> None:
    *operands, out = arrays
    if out.size == 1:  # a number takes a tenth of the time that an array does
        out[...] = ops.evaluate(forward, *(x.item() for x in operands))
    else:
        np.copyto(out, forward(*operands))


def _select(calls: Calls, operands: list[Source], out: Array | None, masks: bool = False) -> Source:
    """where(c, x, y); with `masks` as a product, if x or y is 0."""
    c, x, y = operands
    if _is_number(c):
        return x if c.array else y
    mask = _as_mask(calls, c)
    # Instead of _choose(c, x, 0.0, out), which takes two to seven times as long: x * c. It makes
    # nan of an inf or nan that is not selected, and not 0; the sweep is then done again, exactly.
    if masks and _is_zero(x):
        return calls.compute(np.multiply, y, calls.compute(np.logical_not, mask), out=out)
    if masks and _is_zero(y):
        return calls.compute(np.multiply, x, mask, out=out)
    return calls.compute(_choose, mask, x, y, out=out)


def _choose(c: Array, x: Array, y: Array, out: Array) -> None:
    np.copyto(out, y)
    np.copyto(out, x, where=c)


def _is_number(x: Source) -> bool:
    return x.constant and x.array.ndim == 0


def _is_zero(x: Source) -> bool:
    return _is_number(x) and x.array == 0


def _as_mask(calls: Calls, x: Source) -> Source:
    """A condition as booleans."""
    return x if x.array.dtype == bool else calls.compute(np.not_equal, x, calls.zero)


def _as_floats(calls: Calls, x: Source) -> Source:
    """A mask as 0.0 and 1.0, so that arithmetic on it is that of numbers."""
    return x if x.array.dtype != bool else calls.compute(np.add, x, calls.zero)
