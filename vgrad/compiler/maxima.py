"""Maxima that no gradient goes through, as softmax takes them off: trees that become one kernel.

`logsumexp` of five numbers, of which a, b, ... are the differences from the largest:

    x0   x1  x2   x3  x4
      max      max    |                   largest of x0 x1 x2 x3 x4
          max         |         ->                   |
              max                         x0 - h, x1 - h, ...
               |
        stop_gradient

The tree of maxima becomes a contraction of another kind, whose value is the largest of its terms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .. import ops
from ..arguments import Array
from ..flat import Rows, span_lengths
from .arithmetic import Source
from .calls import Calls
from .fused import CONTRACTION, Floats, Fused, Ints, Terms, replaced
from .kernels import Kernel
from .layout import Layout
from .trees import climb, named


def join_maxima(fused: Fused) -> Fused:
    """Turn trees of maxima that feed nothing but stop_gradient into one node each.

    Next to them a stop_gradient of any other number is the largest of one, so that where lengths
    differ, as in a causal model, all positions are one kernel.
    """
    m, is_max = len(fused.op), (fused.op == ops.maximum.code) & ~fused.asked
    stops = np.flatnonzero(fused.op == ops.stop_gradient.code)
    if fused.alone or not len(stops) or not is_max.any():
        return fused
    of_max = np.append(is_max, False)[fused.parents.T]
    some = np.flatnonzero(is_max | of_max[0] | of_max[1] | of_max[2])
    user, side = np.nonzero(fused.parents[some] >= 0)
    user = some[user]
    used = fused.parents[user, side]
    elsewhere = named(np.concatenate([fused.outputs, fused.terms.u, fused.terms.v]), m)
    joins = is_max[user] & is_max[used] & ~elsewhere[used]
    joins &= np.bincount(used, minlength=m)[used] == 1
    inner, above = named(used[joins], m), np.arange(m)
    above[used[joins]] = user[joins]
    root, _ = climb(above, np.ones(m), inner)
    is_root = is_max & ~inner & named(used[fused.op[user] == ops.stop_gradient.code], m)
    is_root &= ~elsewhere & ~named(used[fused.op[user] != ops.stop_gradient.code], m)
    reads = is_root[root[user]] & is_max[user] & ~inner[used]
    other_buffer = fused.batched[used] != fused.batched[root[user]]
    is_root &= ~named(root[user[reads & other_buffer]], m)
    reads &= is_root[root[user]]
    by = np.where(inner & is_root[root], root, np.arange(m))
    read = fused.parents[stops, 0]
    of_tree = is_root[read]
    by[stops[of_tree]] = read[of_tree]
    lone = stops[~of_tree & (fused.batched[read] == fused.batched[stops])]  # the largest of one
    node, leaf = np.append(root[user[reads]], lone), np.append(used[reads], fused.parents[lone, 0])
    roots = np.append(np.flatnonzero(is_root), lone)
    return _contracted(fused, by, roots, node, leaf) if is_root.any() else fused


def _contracted(fused: Fused, by: Ints, roots: Ints, node: Ints, leaf: Ints) -> Fused:
    """Put by[i] in the place of node i, and make the roots the largest of their leaves."""
    own = Terms(node, leaf, np.full_like(leaf, fused.one), np.ones(len(leaf)))
    terms = fused.terms._replace(u=by[fused.terms.u], v=by[fused.terms.v]).joined(own)
    terms = terms.take(np.argsort(terms.node, kind="stable"))
    is_root = named(roots, len(by))
    fused = replaced(fused, by)
    fused.op[roots], fused.parents[roots] = CONTRACTION, -1
    return replace(
        fused,
        terms=terms,
        largest=is_root,
        ordered=fused.ordered | is_root,  # so that nothing is split off
        aims=np.where(is_root, np.uint8(0), fused.aims),
    )


@dataclass(eq=False)
class Largest(Kernel):
    """The largest of k numbers, n times; where there are fewer, the last stands there again."""

    leaves: Ints  # (n, k)

    name = "largest"

    @staticmethod
    def of(terms: Terms, one: int, level: int, buffer: int) -> Largest:
        """That of each contraction."""
        starts, counts = span_lengths(terms.node)
        leaf = np.where(terms.u == one, terms.v, terms.u)
        places = np.minimum(np.arange(counts.max()), counts[:, None] - 1)
        return Largest(level, buffer, terms.node[starts], leaf[starts[:, None] + places])

    def reads(self) -> tuple[Ints, ...]:
        return (self.leaves,)

    def title(self, one: int) -> str:
        return f"{len(self.nodes):,} × largest of {self.leaves.shape[1]:,}"

    def is_exact(self, fused: Fused) -> bool:
        return True

    def exponent(self, bound: Floats) -> float:
        return float(bound[self.leaves].max())

    def in_order(self, layout: Layout) -> Kernel:
        by = np.argsort(layout.row[self.leaves[:, 0]], kind="stable")
        return replace(self, nodes=self.nodes[by], leaves=self.leaves[by])

    def locate(self, fused: Fused, layout: Layout) -> None:
        self.flops = self.scratch = self.leaves.size
        self.out, self.operands = layout.rows(self.nodes), [layout.rows(self.leaves)]

    def saved(self, wanted: int) -> list[Rows]:
        return []

    def adjoint(self, calls: Calls, wanted: int) -> None:
        """Nothing, as no gradient arrives."""

    def _produce(self, calls: Calls, out: Array | None) -> Source:
        x = calls.value(self.operands[0])
        result = calls.result((len(x.array), *x.array.shape[2:]), x, out=out)
        reduce = partial(np.maximum.reduce, x.array, 1, None, result.array)
        calls.call(reduce, result.constant)
        return result
