"""Passes before the others: what is known is not computed, and what is equal is computed once.

All of them are exact, for every number, nan, inf and -0 included; there is no algebra that is not.
In x + 1 * (x + (2 - 1)), which has six nodes besides x,

    fold_constants     2 - 1 becomes 1
    merge_constants    of constants of the same bits one is kept
    drop_identities    1 * (x + 1) becomes x + 1
    use_plain_ops      x ** 2 becomes x * x
    merge_equal        of nodes with the same op and operands one is kept
    drop_dead          what no output needs any more is left out

Values keep every bit. So do gradients, but for the order in which they are added up: those that
reach equal nodes are added before they go on, not after. If their sum is 0 and the derivative inf,
that would hide a nan of the graph as it was recorded, so the careful sweep does not merge.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import by_level, hash64, recorded
from .fused import GONE, SMALL_SUM, Fused, Ints, by_code, replaced
from .trees import whole_forest


def merge_constants(fused: Fused) -> Fused:
    """Keep one constant of those with the same bits; for ones, that is the node 1."""
    constants = np.flatnonzero(fused.op == ops.const.code)[::-1]  # the node 1 comes first
    bits = fused.value[constants].view(np.int64)
    _, first, inverse = np.unique(bits, return_index=True, return_inverse=True)
    by = np.arange(len(fused.op))
    by[constants] = constants[first][inverse.reshape(-1)]
    return replaced(fused, by)


def fold_constants(fused: Fused, dtype: np.dtype[Any]) -> Fused:
    """Compute what depends on constants alone, in the arithmetic of `dtype`, as sweeps would."""
    op, parents, value = fused.op.copy(), fused.parents.copy(), fused.value.copy()
    known = by_code(lambda op: bool(op.arity) and not op.defined)
    while True:
        constant = np.append(op == ops.const.code, True)  # the last is for no parent
        found = np.flatnonzero(known[op] & constant[parents].all(axis=1))
        if not len(found):
            return replace(fused, op=op, parents=parents, value=value)
        for node in found.tolist():
            row = ops.OPS[op[node]]
            numbers = value[parents[node, : row.arity], None].astype(dtype)
            with np.errstate(all="ignore"):
                value[node] = row.forward(*numbers)[0]
        op[found], parents[found] = ops.const.code, -1


def drop_identities(fused: Fused) -> Fused:
    """Put x in the place of x * 1, x / 1, x ** 1, --x, and where(1, x, y).

    But not of x * 1 next to y * 2, at the same level: they run as one, and what reads them may too.
    """
    op, parents = fused.op, fused.parents
    by = np.arange(len(op))
    for row in ops.OPS:
        for k, number in enumerate(row.neutral):
            if number is not None:
                nodes = _with_constant(fused, row, k)
                bits = fused.value[parents[nodes, k]].view(np.int64)
                same = bits == np.float64(number).view(np.int64)
                others = fused.depth[nodes[~same]]
                nodes = nodes[same & ~np.isin(fused.depth[nodes], others)]
                by[nodes] = parents[nodes, 1 - k]
    chosen = _with_constant(fused, ops.where, 0)
    by[chosen] = parents[chosen, np.where(fused.value[parents[chosen, 0]] != 0, 1, 2)]
    negated = np.flatnonzero(op == ops.neg.code)
    twice = negated[op[parents[negated, 0]] == ops.neg.code]
    by[twice] = parents[parents[twice, 0], 0]
    while (by[by] != by).any():
        by = by[by]
    return replaced(fused, by)


def _with_constant(fused: Fused, op: ops.Op, k: int) -> Ints:
    """The nodes of an op whose operand k is a constant."""
    nodes = np.flatnonzero(fused.op == op.code)
    constant: Ints = nodes[fused.op[fused.parents[nodes, k]] == ops.const.code]
    return constant


def use_plain_ops(fused: Fused) -> Fused:
    """Put x * x in the place of x ** 2, and 1 / x of x ** -1: they are the same, to the bit."""
    op, parents = fused.op.copy(), fused.parents.copy()
    for row in ops.OPS:
        if row.static is None or not callable(row.loose) or row.fast is None:
            continue
        nodes = _with_constant(fused, row, row.static)
        numbers = fused.value[fused.parents[nodes, row.static]]
        for number in np.unique(numbers).tolist():
            rule = recorded(row, row.fast, number)
            last = int(rule.outputs[0])
            reads = rule.parents[last].tolist()
            some = nodes[numbers == number]
            known = {int(k): fused.parents[some, i] for i, k in enumerate(rule.inputs)} | {-1: -1}
            known |= dict.fromkeys(np.flatnonzero(rule.value == 1).tolist(), fused.one)
            if not row.loose(number) and rule.level[last] == 1 and known.keys() >= {*reads}:
                op[some] = rule.op[last]
                for k, read in enumerate(reads):
                    parents[some, k] = known[read]
    return replace(fused, op=op, parents=parents)


def merge_equal(fused: Fused) -> Fused:
    """Keep one node of those with the same op and the same operands, or operands that are merged.

    In a long sum products stay apart, and what has been added up on their left, unless the whole
    is equal: they cost next to nothing there. Products would keep the sum from being part of a
    matrix product, and sums that go on from each other would wait for each other.
    """
    if not _may_merge(fused):
        return fused
    by, forest = _first_equal(fused), whole_forest(fused)
    terms = np.bincount(forest.terms.node, minlength=len(by))
    within = forest.inner & (~forest.is_sum | (forest.side == 0))
    free = np.flatnonzero(~within | (terms[forest.root] <= SMALL_SUM))
    first = np.full(len(by), len(by))
    np.minimum.at(first, by[free], free)
    merged = np.arange(len(by))
    merged[free] = first[by[free]]
    return replace(replaced(fused, merged), merged=bool((merged[free] != free).any()))


def _may_merge(fused: Fused) -> bool:
    """Whether any two nodes are equal as they are; if none are, merging makes none equal."""
    nodes = np.flatnonzero(fused.parents[:, 0] >= 0)
    return len(np.unique(_keys(fused, nodes, fused.parents[nodes]))) < len(nodes)


def _keys(fused: Fused, nodes: Ints, parents: Ints) -> NDArray[np.uint64]:
    """A number for each node's op and these operands (n, 3), whose order may not matter."""
    first, last, z = _in_order(fused, nodes, parents)
    key = hash64(fused.op[nodes]) + hash64(first)
    return hash64(hash64(key + last.astype(np.uint64)) + z.astype(np.uint64))


def _in_order(fused: Fused, nodes: Ints, parents: Ints) -> tuple[Ints, Ints, Ints]:
    """The operands (n,) each of some nodes; of a sum or product the lower one comes first."""
    x, y, z = parents.T
    swap = _COMMUTES[fused.op[nodes]] & (x > y)
    return np.where(swap, y, x), np.where(swap, x, y), z


_COMMUTES = by_code(lambda op: op.signs == (1, 1) or op is ops.mul)


def _first_equal(fused: Fused) -> Ints:
    """(m,) the first node that is equal to each.

    The loop does this for all nodes of a level at a time, if there are many:

        for node in nodes:
            key = op[node], *by[parents[node]]
            by[node] = seen.setdefault(key, node)
    """
    by, op = np.arange(len(fused.op) + 1), fused.op
    by[-1] = -1  # of no parent
    is_computed = fused.parents[:, 0] >= 0
    for nodes, wide in by_level(np.where(is_computed, fused.depth, 0)):
        if wide:
            columns = _in_order(fused, nodes, by[fused.parents[nodes]])
            keys = _keys(fused, nodes, by[fused.parents[nodes]])
            _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            same = first[inverse.reshape(-1)]
            if all((column[same] == column).all() for column in (op[nodes], *columns)):
                by[nodes] = nodes[same]  # else two keys are equal by chance
            continue
        seen: dict[tuple[int, int, int, int], int] = {}
        codes, parents = op[nodes].tolist(), fused.parents[nodes].tolist()
        for node, code, (x, y, z) in zip(nodes.tolist(), codes, parents):
            a, b = by.item(x), by.item(y)
            if a > b and _COMMUTES[code]:
                a, b = b, a
            by[node] = seen.setdefault((code, a, b, by.item(z)), node)
    return by[:-1]


def drop_dead(fused: Fused) -> Fused:
    """Leave out what no output needs: what nobody reads, and then what only that has read."""
    op, parents = fused.op.copy(), fused.parents.copy()
    uses = np.bincount(np.append(parents[parents >= 0], fused.outputs), minlength=len(op))
    dead = np.flatnonzero((parents[:, 0] >= 0) & (uses == 0))
    while len(dead):
        read = parents[dead]
        read, times = np.unique(read[read >= 0], return_counts=True)
        op[dead], parents[dead] = GONE, -1
        uses[read] -= times
        dead = read[(parents[read, 0] >= 0) & (uses[read] == 0)]
    return replace(fused, op=op, parents=parents)
