"""Pieces of a graph: nodes that run as one function on floats, and what they read from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .graph import Graph
from .parts import asked
from .passes import hash64
from .repeats import Stretch, alike, cut

Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]

# How many turns a piece has: longer code leaves the processor's cache, shorter has more borders.
NODES, WEIGHT = 256, 64
SHARE, REPEATS = 1 / 8, 4  # of a graph that is worth it: of one loop, and over all


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


def in_pieces(graph: Graph, order: Ints) -> Pieces:
    """Cut nodes, which come in running order, into pieces of about 256, and find those alike."""
    at = _positions(graph, order)
    symbols = graph.op[order].astype(np.uint64)
    stretches = cut(symbols, np.ones(len(order)), _live(at), NODES, 2 * NODES)
    return _found(graph, order, at, stretches, np.zeros((len(graph) + 1), np.uint8))


def in_turns(
    graph: Graph, order: Ints, kinds: NDArray[np.uint8], weights: NDArray[np.float64]
) -> Pieces | None:
    """Cut nodes into pieces, each of as many turns of a loop as have `weights` (n,) of 64 together.

    Pieces that are alike read nodes of the same `kinds` (n + 1,). None if less than three quarters
    of the nodes repeat. Turns are told by where they read from, so that those of a network are its
    layers and not its neurons, or else, where that differs, by ops alone.
    """
    at = _positions(graph, order)
    live, ops_alone = _live(at), graph.op[order].astype(np.uint64)
    distances = np.where(at < 0, 0, np.arange(len(order))[:, None] - at)
    places = (hash64(distances) * hash64(np.arange(3))).sum(axis=1)
    for symbols in (ops_alone + places, ops_alone):
        stretches = cut(symbols, weights[order], live, WEIGHT, len(order) + 1, SHARE)
        if REPEATS * sum(x.size for x in stretches) <= len(order):
            pieces = _found(graph, order, at, stretches, kinds)
            if REPEATS * sum(len(form.op) for form in pieces.forms) <= len(order):
                return pieces
    return None


def _positions(graph: Graph, order: Ints) -> Ints:
    """(m, 3) where in the order the parents are, -1 if they are not in it."""
    position = np.full(len(graph) + 1, -1)
    position[order] = np.arange(len(order))
    return position[graph.parents[order]]


def _found(
    graph: Graph, order: Ints, at: Ints, stretches: list[Stretch], kinds: NDArray[np.uint8]
) -> Pieces:
    """The pieces of these stretches, by form."""
    is_asked, parents = asked(graph)[order], graph.parents[order]
    indices = [x.starts[:, None] + np.arange(x.size) for x in stretches]
    first = np.empty(len(order), np.intp)  # of its piece
    for index in indices:
        first[index] = index[:, :1]
    inside = at >= first[:, None]
    is_output = np.zeros(len(graph), bool)
    is_output[graph.outputs] = True
    leaving = np.append(is_output[order], False)
    leaving[at[~inside]] = True
    leaving = leaving[:-1]
    forms = []
    for index in indices:
        leaving[index] = leaving[index].any(axis=0)  # the same in all that may be alike
        reads = np.where(inside[index], at[index] - index[:, :1, None], -1)
        facts = graph.op[order[index]], is_asked[index], reads, kinds[parents[index]]
        for some in alike(np.concatenate([x.reshape(len(index), -1) for x in facts], axis=1)):
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
                    asked=is_asked[own[0]].tolist(),
                    order=own[:, 0],
                    nodes=order[own],
                    outside=slots,
                )
            )
    return Pieces(forms, order[leaving])


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
    distinct, slot = read[:, first], slot.reshape(-1)
    assert (distinct[:, slot] == read).all(), "two columns have one key by chance"
    return distinct, slot


def _are_same(graph: Graph, slots: Ints) -> Mask:
    """Which columns of slots are constants that have the same bits in all rows."""
    constant = (graph.op[slots] == ops.const.code).all(axis=0)
    bits = graph.value[slots].view(np.int64)
    same: Mask = constant & (bits == bits[:1]).all(axis=0)
    return same
