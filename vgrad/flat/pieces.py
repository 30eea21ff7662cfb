"""Pieces of a graph: nodes that run as one function on floats, and what they read from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .graph import Graph
from .parts import needed
from .passes import hash64
from .repeats import alike, cut

Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]

# How many turns a piece has: longer code leaves the processor's cache, shorter has more borders.
NODES, WEIGHT = 256, 64


@dataclass(frozen=True, eq=False)
class Form:
    """Pieces that are alike, p in all: one function, that reads and writes in other places.

    Operands are nodes of the piece, by their place in it, or what is read from outside, by slot.
    A slot has another node in every piece, or the same constant in all of them. Two turns of a
    loop, a * h + x, where the first h is a leaf:

        nodes      0  1  2  3    4    5      6    7          op       mul      add
                   h  x  y  a  a*h   +x  a*(+x)  +y          reads    -2, -3   0, -4
        pieces                  4, 5         6, 7            outside  (3, 0, 1), (3, 5, 2)
    """

    op: list[int]  # (size,) op codes
    reads: list[list[int]]  # (size, 3) places; -2 - s for slot s; -1 for none
    constants: dict[int, float]  # of the slots that are the same in all pieces
    leaving: list[int]  # the places that are read from outside
    asked: list[bool]  # (size,) which a question depends on: no bit may change
    order: Ints  # (p,) in which the pieces of all forms run
    nodes: Ints  # (p, size)
    outside: Ints  # (p, slots) the nodes that slots stand for

    @property
    def slots(self) -> list[int]:
        """Those that are no constants."""
        return [k for k in range(self.outside.shape[1]) if k not in self.constants]


class Pieces(NamedTuple):
    """A graph in pieces, each of which is of some form."""

    forms: list[Form]
    leaving: Ints  # the nodes that are read from outside their pieces, in running order

    def constants(self, graph: Graph) -> Ints:
        """The constants that are read from outside, or are outputs, and not the same everywhere."""
        read = np.zeros(len(graph), bool)
        read[graph.outputs] = True
        for form in self.forms:
            read[form.outside[:, form.slots]] = True
        return np.flatnonzero(read & (graph.op == ops.const.code))

    def running_order(self) -> list[tuple[int, int]]:
        """The pieces in running order, each as the number of its form and its own in that."""
        found = [
            (order, k, piece)
            for k, form in enumerate(self.forms)
            for piece, order in enumerate(form.order.tolist())
        ]
        return [(k, piece) for _, k, piece in sorted(found)]


def in_pieces(
    graph: Graph,
    order: Ints,
    kinds: NDArray[np.uint8] | None = None,
    weights: NDArray[np.float64] | None = None,
    by_op: bool = True,
) -> Pieces:
    """Cut nodes, which come in running order, into pieces, and find those that are alike.

    These read nodes from outside that are of the same `kinds` (n,). A piece has about 256 nodes, or
    so many that their `weights` (n,) come to 64. Turns are found by their ops alone, or if not
    `by_op` by where they read from as well: then a network's are layers, and not neurons.
    """
    asked = needed(graph, _asked(graph))[order]
    position = np.full(len(graph) + 1, -1)
    position[order] = np.arange(len(order))
    parents = graph.parents[order]
    at = position[parents]
    symbols = graph.op[order].astype(np.uint64)
    if not by_op:
        distances = np.where(at < 0, 0, np.arange(len(order))[:, None] - at)
        symbols += (hash64(distances) * hash64(np.arange(3))).sum(axis=1)
    if weights is None:
        limits = np.ones(len(order)), _live(at), NODES, 2 * NODES
    else:
        limits = weights[order], _live(at), WEIGHT, len(order) + 1
    stretches = cut(symbols, *limits)
    indices = [x.starts[:, None] + np.arange(x.size) for x in stretches]
    first = np.empty(len(order), np.intp)  # of its piece
    for index in indices:
        first[index] = index[:, :1]
    inside = at >= first[:, None]
    leaving = np.zeros(len(order) + 1, bool)
    leaving[at[~inside]] = leaving[position[graph.outputs]] = True
    leaving = leaving[:-1]
    forms = []
    for index in indices:
        leaving[index] = leaving[index].any(axis=0)  # the same in all that may be alike
        reads = np.where(inside[index], at[index] - index[:, :1, None], -1)
        facts = [graph.op[order[index]], reads.reshape(len(index), -1), asked[index]]
        if kinds is not None:
            facts.append(np.append(kinds, 0)[parents[index]].reshape(len(index), -1))
        for some in alike(np.concatenate(facts, axis=1)):
            own = index[some]
            outside = (parents[own[0]] >= 0) & ~inside[own[0]]
            slots, slot = _distinct(parents[own][:, outside])
            local = reads[some[0]]
            local[outside] = -2 - slot
            constants = np.flatnonzero(_are_same(graph, slots)).tolist()
            forms.append(
                Form(
                    op=graph.op[order[own[0]]].tolist(),
                    reads=local.tolist(),
                    constants=dict(zip(constants, graph.value[slots[0, constants]].tolist())),
                    leaving=np.flatnonzero(leaving[own[0]]).tolist(),
                    asked=asked[own[0]].tolist(),
                    order=own[:, 0],
                    nodes=order[own],
                    outside=slots,
                )
            )
    return Pieces(forms, order[leaving])


def _asked(graph: Graph) -> NDArray[np.int32]:
    return graph.outputs[len(graph.outputs) - len(graph.questions) :]


def _live(at: Ints) -> Ints:
    """(n + 1,) how many of the nodes before each one are read by it or later ones."""
    last = np.arange(len(at) + 1)
    np.maximum.at(last, at, np.arange(len(at))[:, None])
    ends = np.bincount(last[:-1] + 1, minlength=len(at) + 1)
    live: Ints = np.arange(len(at) + 1) - np.cumsum(ends)
    return live


def _distinct(read: Ints) -> tuple[Ints, Ints]:
    """The distinct columns of (n, k), (n, slots), and (k,) which of them each column is."""
    keys = (hash64(read) * (hash64(np.arange(len(read))) | np.uint64(1))[:, None]).sum(axis=0)
    _, first, slot = np.unique(keys, return_index=True, return_inverse=True)
    return read[:, first], slot.reshape(-1)


def _are_same(graph: Graph, slots: Ints) -> Mask:
    """Which columns of slots are constants that have the same bits in all rows."""
    constant = (graph.op[slots] == ops.const.code).all(axis=0)
    bits = graph.value[slots].view(np.int64)
    same: Mask = constant & (bits == bits[:1]).all(axis=0)
    return same
