"""The op table's rules as NumPy calls: recorded as any function is, then added node by node."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import ops
from ..flat import Graph, recorded
from .calls import Array, Calls, Source


def add_op(
    calls: Calls,
    op: ops.Op,
    numbers: tuple[float | None, ...],
    operands: list[Source],
    out: Array | None,
) -> Source:
    """The op's own rule, or where the row has it an equal one that NumPy runs faster."""
    if op.fast is not None:
        rule = recorded(op.fast, 0, numbers)
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
    results: dict[int, Source] = dict(zip(rule.inputs.tolist(), operands))
    final = int(rule.outputs[0])
    for node, code in enumerate(rule.op.tolist()):
        op = ops.OPS[code]
        if op is ops.const:
            results[node] = calls.constant(rule.value[node])
        elif op.arity:
            arguments = [results[x] for x in rule.parents[node, : op.arity].tolist()]
            if op is not ops.mul and op is not ops.where:
                arguments = [_as_floats(calls, x) for x in arguments]
            numbers: list[float | None] = [None] * op.arity
            if op.static is not None and _is_number(arguments[op.static]):
                numbers[op.static] = float(arguments[op.static].array)
            into = out if node == final else None
            if op is ops.where and masks:
                c, x, y = arguments
                results[node] = _mask(calls, c, x, y, into)
            else:
                results[node] = add_op(calls, op, tuple(numbers), arguments, into)
    return _as_floats(calls, results[final])


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
