"""A graph with contractions, which is what the passes of the compiler work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..cached import cached_property
from ..flat import FROM_INPUTS, FROM_PARAMETERS, Graph, asked, hash64, reached, span_lengths

Floats = NDArray[np.float64]
Ints = NDArray[np.signedinteger[Any]]
Mask = NDArray[np.bool_]

CONTRACTION, GONE = 255, 254  # in `Fused.op`: no op has these codes
SMALL_SUM = 4  # terms; as they run one after the other, they may be of several kinds
STEPS = 4  # of depth between levels of the graph, to have room for new nodes


def by_code(fact: Callable[[ops.Op], bool]) -> Mask:
    """(256,) for each op code whether a fact holds for its row; not for codes of no row."""
    mask = np.zeros(256, bool)
    mask[: len(ops.OPS)] = [fact(op) for op in ops.OPS]
    return mask


class Terms(NamedTuple):
    """The terms of all contractions, t in all, those of one contraction side by side."""

    node: Ints  # (t,) the contraction
    u: Ints  # (t,) one factor
    v: Ints  # (t,) the other, or the node that is 1
    coef: Floats  # (t,)

    def take(self, order: Ints | Mask | slice) -> Terms:
        """The terms at these places."""
        return Terms(self.node[order], self.u[order], self.v[order], self.coef[order])

    def joined(self, other: Terms) -> Terms:
        """These terms and then the others."""
        columns: list[Any] = [np.append(*pair) for pair in zip(self, other)]
        return Terms(*columns)

    def how_many(self, mask: Mask) -> Ints:
        """(t,) for each term how many terms of its contraction are in `mask`."""
        return np.bincount(self.node[mask], minlength=self.node.max(initial=0) + 1)[self.node]

    def spans(self) -> tuple[Ints, Ints, Ints]:
        """Where each contraction's terms begin, how many it has, and (t,) their places in it."""
        starts, counts = span_lengths(self.node)
        return starts, counts, np.arange(len(self.node)) - np.repeat(starts, counts)

    def keys(self, *columns: NDArray[Any]) -> list[NDArray[np.uint64]]:
        """For each column x (t,) one number per contraction, in place of the tuple of its terms' x.

        A sum of hashes takes one call for all; different tuples have equal keys by chance alone.
        """
        starts, _, places = self.spans()
        factor = hash64(places) | 1
        return [np.add.reduceat(x * factor, starts) for x in columns]


@dataclass(frozen=True, eq=False)
class Fused:
    """A graph with contractions: the nodes of the `Graph`, then the node 1, then new ones.

    Those that are gone may have been left out; `number` has what the others were called before.
    """

    op: NDArray[np.uint8]  # (m,) op codes, CONTRACTION, or GONE: replaced by another node
    parents: Ints  # (m, 3) of nodes with an op; -1 elsewhere
    value: Floats  # (m,) of constants
    origin: NDArray[np.uint8]  # (m,) FROM_... bits: what each is computed from,
    aims: NDArray[np.uint8]  # (m,) and where its gradient goes; not past a stop_gradient, or x > y
    depth: Ints  # (m,) grows from parents to children; 0 for leaves
    sources: Ints  # (m,) how many computed nodes of the graph each one stands for
    outputs: Ints
    one: int  # the node that is 1
    terms: Terms
    alone: bool  # whether no other sweep can take over
    ordered: Mask  # (m,) which contractions must add up their terms in order,
    exact: Mask  # (m,) and which then give what the graph does, to the bit
    one_sign: Mask  # (m,) which contractions have terms that are all >= 0, or all <= 0
    stands: Ints  # (n + 1,) of the graph's nodes and the 1: which node stands for each
    number: Ints  # (m,) the graph's own numbers of its nodes, n of the node 1, and then of new ones
    largest: Mask  # (m,) which contractions are not sums, but the largest of their terms
    asked: Mask  # (m,) which nodes a question depends on: no bit of them may change
    merged: bool = False  # whether nodes that were recorded apart are computed once
    picks: bool = False  # whether parameters must be finite, as products stand for where(c, w, 0)
    unguarded: bool = False  # whether nan may come out where the graph has a guard

    @cached_property
    def batched(self) -> Mask:
        """(m,) which nodes differ between samples."""
        batched: Mask = (self.origin & FROM_INPUTS) > 0
        return batched


def unfused(graph: Graph, alone: bool, marks: dict[int, Ints] | None = None) -> Fused:
    """The graph as it is, and the node 1. Of an excerpt, `marks` has FROM_... bits of leaves."""
    nothing = np.empty(0, np.intp)
    origin, aims = _origins(graph, marks)
    return Fused(
        op=np.append(graph.op, np.uint8(ops.const.code)),
        parents=np.pad(graph.parents, ((0, 1), (0, 0)), constant_values=-1),
        value=np.append(graph.value, 1.0),
        # the last entry, for no parent, serves the node 1: from nothing
        origin=origin,
        aims=aims,
        depth=np.append(STEPS * graph.level, np.int32(0)),
        sources=np.append(graph.level > 0, False).astype(np.int32),
        outputs=graph.outputs,
        one=len(graph),
        terms=Terms(nothing, nothing, nothing, np.empty(0)),
        alone=alone,
        ordered=np.zeros(len(graph) + 1, bool),
        exact=np.ones(len(graph) + 1, bool),
        one_sign=np.zeros(len(graph) + 1, bool),
        largest=np.zeros(len(graph) + 1, bool),
        stands=np.arange(len(graph) + 1, dtype=np.int32),
        number=np.arange(len(graph) + 1, dtype=np.int32),
        asked=asked(graph),
    )


def traced_anew(fused: Fused, graph: Graph, marks: dict[int, Ints] | None) -> Fused:
    """The same with the origins and aims that nodes have by the operands they have now."""
    now = replace(graph, op=fused.op[:-1], parents=fused.parents[:-1])
    origin, aims = _origins(now, marks)
    return replace(fused, origin=origin, aims=aims)


def _origins(graph: Graph, marks: dict[int, Ints] | None) -> tuple[Any, Any]:
    """What nodes are computed from, and where gradients go: not to operands without a rule."""
    marks = marks or {FROM_INPUTS: graph.inputs, FROM_PARAMETERS: graph.parameters}
    origin, has_rule = reached(graph, marks), np.zeros((256, ops.MAX_ARITY), bool)
    for op in ops.OPS:
        has_rule[op.code, : op.arity] = [vjp is not None for vjp in op.vjp]
    parents = np.where(has_rule[graph.op], graph.parents, -1)
    if np.array_equal(parents, graph.parents):
        return origin, origin
    return origin, reached(replace(graph, parents=parents), marks)


def replaced(fused: Fused, by: Ints) -> Fused:
    """Put node by[i] in the place of every node i; what is replaced is gone."""
    gone = by != np.arange(len(by), dtype=by.dtype)
    some = np.flatnonzero(gone)
    if not len(some):
        return fused
    parents = np.append(by, -1).astype(np.int32)[fused.parents]
    parents[some] = -1
    sources = np.bincount(by, fused.sources, len(by)).astype(np.int32)
    op, outputs = np.where(gone, np.uint8(GONE), fused.op), by[fused.outputs]
    stands = by[fused.stands]
    return replace(fused, op=op, parents=parents, sources=sources, outputs=outputs, stands=stands)


def without_gone(fused: Fused) -> Fused:
    """The same without the nodes that are gone: of a large network, all but one in a hundred."""
    kept = np.flatnonzero(fused.op != GONE)
    new = np.full(len(fused.op) + 1, -1, np.int32)  # one more, for the parent -1
    new[kept] = np.arange(len(kept), dtype=np.int32)
    node, u, v, coef = fused.terms
    stands = new[fused.stands]
    one = int(new[fused.one])
    return replace(
        fused,
        **{name: getattr(fused, name)[kept] for name in _OF_NODES},
        parents=new[fused.parents[kept]],
        outputs=new[fused.outputs],
        one=one,
        terms=Terms(new[node].astype(np.intp), new[u], new[v], coef),
        stands=np.where(stands < 0, one, stands),  # 1 for what no output needs
    )


_OF_NODES = (
    *("op", "value", "origin", "aims", "depth", "sources", "number"),
    *("ordered", "exact", "one_sign", "largest", "asked"),
)
