"""The op table's rules as NumPy calls: recorded as any function is, then added node by node."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import ops
from ..arguments import Array
from ..flat import Graph, interpret, recorded
from .calls import Calls, Source


def add_op(
    calls: Calls,
    op: ops.Op,
    number: float | None,
    operands: list[Source],
    out: Array | None,
) -> Source:
    """The op's own rule, or where the row has it an equal one that NumPy runs faster.

    `number` is the value of the op's static operand, if that is known.
    """
    if op.fast is not None:
        rule = recorded(op, op.fast, number)
        if op.code not in rule.op:
            return add_rule(calls, rule, operands, out, masks=False)
    if op is ops.where:
        c, x, y = operands
        return _select(calls, c, x, y, out)
    if op.ufunc is not None:
        return calls.compute(op.ufunc, *operands, out=out)
    return calls.compute(partial(_evaluate, op.forward), *operands, out=out)


def _evaluate(rule: ops.Rule, *arrays: Array) -> None:
    *operands, out = arrays
    np.copyto(out, rule(*operands))


def add_rule(
    calls: Calls, rule: Graph, operands: list[Source], out: Array | None, masks: bool
) -> Source:
    """The calls of a recorded rule; the last one writes into `out`.

    With `masks`, as a vjp may, a product with a mask stands for a choice between something and 0.
    """

    def apply(op: ops.Op, operands: list[Source], number: float | None, is_last: bool) -> Source:
        into = out if is_last else None
        if op is not ops.mul and op is not ops.where:
            operands = [_as_floats(calls, x) for x in operands]
        if op is ops.where and masks:
            c, x, y = operands
            return _mask(calls, c, x, y, into)
        if op.static is not None and _is_number(operands[op.static]):
            number = float(operands[op.static].array)  # of a constant that the plan computes, too
        return add_op(calls, op, number, operands, into)

    return _as_floats(calls, interpret(rule, operands, calls.constant, apply))


def _is_number(x: Source) -> bool:
    return x.constant and x.array.ndim == 0


def _as_floats(calls: Calls, x: Source) -> Source:
    """A mask of booleans as 0.0 and 1.0, so that arithmetic on it is that of numbers."""
    return x if x.array.dtype != bool else calls.compute(np.add, x, calls.zero)


def _select(calls: Calls, c: Source, x: Source, y: Source, out: Array | None) -> Source:
    """where(c, x, y)."""
    if _is_number(c):
        return x if c.array else y
    return calls.compute(_choose, _as_mask(calls, c), x, y, out=out)


def _mask(calls: Calls, c: Source, x: Source, y: Source, out: Array | None) -> Source:
    """where(c, x, y) in a vjp, which selects a gradient: if the other is 0, a product will do.

    Of inf and nan that are not selected it makes nan, and not 0; then the sweep is done again in
    a way that does not.
    """
    zero = [_is_number(operand) and operand.array == 0 for operand in (x, y)]
    if _is_number(c) or not any(zero):
        return _select(calls, c, x, y, out)
    mask, selected = _as_mask(calls, c), x
    if zero[0]:
        mask, selected = calls.compute(np.logical_not, mask), y
    return calls.compute(np.multiply, selected, mask, out=out)


def _as_mask(calls: Calls, c: Source) -> Source:
    if c.array.dtype == bool:
        return c
    return calls.compute(np.not_equal, c, calls.zero)


def _choose(c: Array, x: Array, y: Array, out: Array) -> None:
    np.copyto(out, y)
    np.copyto(out, x, where=c)
