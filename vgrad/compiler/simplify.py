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
that would hide a nan of the graph as it was recorded, so the careful sweep does not merge. Where
gradients of equal nodes would each overflow further down, and cancel, the result is finite: in
y * exp(x) - y * exp(x) at x = 400 and y = 1e200 it is 0, where the scalar engine has inf - inf.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..flat import hash64, recorded
from .fused import GONE, SMALL_SUM, Fused, Ints, Mask, by_code, replaced
from .trees import named, whole_forest


def merge_constants(fused: Fused) -> Fused:
    """Keep one constant of those with the same bits; for ones, that is the node 1."""
    constants = np.flatnonzero(fused.op == ops.const.code)[::-1]  # the node 1 comes first
    bits = fused.value[constants].view(np.int64)
    _, first, inverse = np.unique(bits, return_index=True, return_inverse=True)
    by = np.arange(len(fused.op), dtype=np.int32)
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
    by = np.arange(len(op), dtype=np.int32)
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
    by = _first_equal(fused)
    merged = np.flatnonzero(by != np.arange(len(by)))
    if not len(merged):
        return fused
    free: Ints = np.arange(len(by), dtype=by.dtype)
    if by_code(lambda op: bool(op.signs) or op is ops.mul)[fused.op[merged]].any():
        forest = whole_forest(fused)
        terms = forest.lengths
        within = forest.inner & (~forest.is_sum | (forest.side == 0))
        free = np.flatnonzero(~within | (terms[forest.root] <= SMALL_SUM)).astype(by.dtype)
        del forest  # which is as large as the graph, several times
    first = np.empty_like(by)
    first[by[free[::-1]]] = free[::-1]  # of several, the first one stays
    kept = np.arange(len(by), dtype=by.dtype)
    kept[free] = first[by[free]]
    return replace(replaced(fused, kept), merged=bool((kept[free] != free).any()))


def _first_equal(fused: Fused) -> Ints:
    """(m,) the first node that is equal to each.

    The loop does this for all nodes in rounds, of which each looks at those that read what the
    last one has merged:

        for node in nodes:
            key = op[node], *by[parents[node]]
            by[node] = seen.setdefault(key, node)
    """
    m, op, parents = len(fused.op), fused.op, fused.parents
    by = np.append(np.arange(m, dtype=np.int32), np.int32(-1))  # the last, of no parent
    nodes = _may_be_equal(op, parents)
    if not len(nodes):
        return by[:-1]
    parents = parents.copy()
    columns = [np.ascontiguousarray(x) for x in parents.T]  # quicker to look at from end to end
    thirds = np.flatnonzero(parents[:, 2] >= 0)
    while True:
        keys = _keys(op[nodes], *(x[nodes] for x in columns))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        same = nodes[first][inverse.reshape(-1)]
        nodes, same = nodes[nodes != same], same[nodes != same]
        alike = _are_alike(op, parents, nodes, same)  # else two keys are equal by chance
        nodes, same = nodes[alike], same[alike]
        if not len(nodes):
            break
        by[nodes] = same
        # what reads these may be equal now to something else that reads what they are equal to
        reads = named(np.append(nodes, same), m + 1)
        x, y, z = columns
        touched = reads[x] | reads[y]
        touched[thirds] |= reads[z[thirds]]
        touched = np.flatnonzero(touched)
        nodes = touched[by[touched] == touched]
        parents[nodes] = by[parents[nodes]]
        for column, own in zip(columns, parents[nodes].T):
            column[nodes] = own
    while (by[by] != by).any():  # what a node was equal to is equal to another
        by = by[by]
    return by[:-1]


_COMMUTES = by_code(lambda op: op.signs == (1, 1) or op is ops.mul)
_FACTORS = hash64(np.arange(ops.MAX_ARITY + 1)) | np.uint64(1)


def _may_be_equal(op: NDArray[np.uint8], parents: Ints) -> Ints:
    """The nodes whose key may be another's too, as both fall into one of many buckets.

    To find out by sorting all keys would take several times as long.
    """
    nodes = np.flatnonzero(parents[:, 0] >= 0).astype(np.int32)
    keys = _keys(op[nodes], *parents[nodes].T)
    bits = max(8, (4 * len(keys)).bit_length())
    bucket = (keys >> np.uint64(64 - bits)).astype(np.int64)
    number = np.arange(len(nodes), dtype=np.int32)
    last = np.empty(1 << bits, np.int32)
    last[bucket] = number
    shared = named(bucket[last[bucket] != number], 1 << bits)
    return nodes[shared[bucket]]


def _keys(op: NDArray[np.uint8], x: Ints, y: Ints, z: Ints) -> NDArray[np.uint64]:
    """(n,) a number that stands for a node's op and operands, whose order may not matter."""
    last, *others = _FACTORS
    key: NDArray[np.uint64] = op * last
    for column, factor in zip(_in_order(op, x, y, z), others):
        key += column.astype(np.uint64) * factor
    return key


def _in_order(op: NDArray[np.uint8], x: Ints, y: Ints, z: Ints) -> tuple[Ints, Ints, Ints]:
    """The operands of some nodes, (n,) each; of a sum or product the lower one comes first."""
    swap = _COMMUTES[op] & (x > y)
    return np.where(swap, y, x), np.where(swap, x, y), z


def _are_alike(op: NDArray[np.uint8], parents: Ints, nodes: Ints, others: Ints) -> Mask:
    """(n,) whether two nodes have the same op and operands."""
    alike: Mask = op[nodes] == op[others]
    pairs = [_in_order(op[some], *parents[some].T) for some in (nodes, others)]
    for x, y in zip(*pairs):
        alike &= x == y
    return alike


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
