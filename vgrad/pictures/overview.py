"""A diagram of a plan, one box per kernel; large graphs are drawn like this.

The turns of a loop share a box, which says what a turn computes and how many there are. Where more
boxes are left than anyone can read, those of neighbouring ranks are joined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from reprlib import repr
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import count, whole_number
from ..engine import Value, reachable
from ..flat import Graph, KernelSummary, capture
from ..program import Fork, Paths, Program, Runner
from .diagram import Diagram, Kind
from .nodes import graph_items, node_diagram, titles, value_items

LIMIT = 300  # nodes; a larger graph is drawn as its plan
MANY_KERNELS = 30  # if there are more, those of a loop share a box
MOST_KERNELS = 80  # if there are still more, those of neighbouring ranks do
MOST_BANDS = 24  # boxes that kernels of neighbouring ranks share
LEAST_TURNS = 4  # of what is called a loop
LONGEST_TURN = 200  # kernels of a turn that are looked for
MOST_BESIDE = 12  # kernels before and after a loop that have a box each
TOLD = 6  # kernels of a box that are named
MOST_SETS = 12  # of leaves, told apart by the kernels that use them


def diagram_of(root: Any, around: Any, hops: int, limit: int, digits: int) -> Diagram:
    """The diagram for the arguments of `draw`, which are checked here."""
    hops, limit = whole_number("hops", hops), whole_number("limit", limit)
    digits = whole_number("digits", digits)
    if isinstance(root, Program):
        if around is not None:
            raise ValueError("around must be left out for a Program, which is drawn as its plan")
        if not root.runners:
            raise ValueError("a Program must have been called before it is drawn, to be recorded")
        paths = list(root.paths.values())[-1]
        return tree(paths) if paths.branch else overview(paths.runners[0])
    if isinstance(root, Graph):
        root.check()
        if around is None and len(root) > limit:
            return overview(Runner(root))
        return node_diagram(list(graph_items(root, digits)), around, hops, limit)
    roots = list(np.ravel(root)) if isinstance(root, list | tuple | np.ndarray) else [root]
    if not roots or not all(isinstance(x, Value) for x in roots):
        raise TypeError(
            "draw takes a Value or a list of them, a Graph or a Program "
            f"(got {repr(root)}, a {type(root).__name__}); vgrad.trace makes a Graph of a function"
        )
    values = reachable(*roots)[::-1]
    if around is None and len(values) > limit:
        return overview(Runner(capture(*roots)))
    return node_diagram(list(value_items(roots, digits, titles(values))), around, hops, limit)


def tree(paths: Paths) -> Diagram:
    """The questions where paths part, and the path that each answer leads to."""
    diagram = Diagram()
    boxes: dict[Fork, tuple[int, int]] = {}  # and their columns
    for fork in paths.forks():
        if fork not in boxes:
            boxes[fork] = diagram.add("question", 0, *fork.where), 0
        box, column = boxes[fork]
        for answer, child in fork.branches():
            edge = diagram.add("op", column + 1, answer)
            if child.question is not None:
                target = diagram.add("question", column + 2, *child.where)
            else:
                nodes = len(paths.runners[child.path].graph)
                target = diagram.add(
                    "result", column + 2, f"path {child.path}", _several(nodes, "node")
                )
            boxes[child] = target, column + 2
            diagram.edges += [(box, edge), (edge, target)]
    return diagram


class Part(NamedTuple):
    """Kernels that share a box, with what it says of them."""

    kernels: list[KernelSummary]
    title: str
    cells: tuple[str, ...] = ()

    @property
    def sources(self) -> int:
        """How many computed nodes of the graph are in it."""
        return sum(kernel.sources for kernel in self.kernels)

    @property
    def batched(self) -> bool:
        """Whether any of it differs between samples."""
        return any(kernel.result.batched for kernel in self.kernels)

    @property
    def nodes(self) -> NDArray[Any]:
        """The nodes that it computes."""
        return np.concatenate([kernel.nodes for kernel in self.kernels])

    @property
    def reads(self) -> NDArray[Any]:
        """The nodes that it reads, its own among them."""
        return np.concatenate([kernel.reads for kernel in self.kernels])


def overview(runner: Runner) -> Diagram:
    """The kernels of a runner from left to right, with its inputs and outputs.

    Parameters that the same kernels use share a box, and so do the inputs of an argument.
    """
    kernels, size, outputs, _ = runner.unrolled()
    parts = _parts(kernels, size)
    producer, ranks = _producers(parts, size)
    diagram = Diagram()
    mixed = len({part.batched for part in parts}) > 1
    results: dict[int, list[int]] = {}  # the outputs that each part computes; the others at -1
    for i, k in enumerate(producer[outputs].tolist()):
        results.setdefault(k, []).append(i)
    for k, (part, rank) in enumerate(zip(parts, ranks)):
        cells = [*part.cells, _several(part.sources, "node")]
        if mixed and not part.batched:
            cells.append("once per call")
        if k in results:
            cells.append(_outputs(results[k], len(outputs)))
        diagram.add("result" if k in results else "computed", rank + 1, part.title, *cells)
        before = np.unique(producer[part.reads])
        diagram.edges += [(a, k) for a in before.tolist() if a not in (-1, k)]
    for kind, text, users in _leaves(runner.graph, parts, producer):
        box = diagram.add(kind, min((ranks[k] for k in users), default=0), text)
        diagram.edges += [(box, k) for k in users]
    if -1 in results:
        diagram.add("result", 1, _outputs(results[-1], len(outputs)), "as given")
    return diagram


def _parts(kernels: list[KernelSummary], size: int) -> list[Part]:
    """The kernels in running order, joined where there are too many for a box each."""
    if len(kernels) <= MANY_KERNELS:
        return [_alone(kernel) for kernel in kernels]
    parts: list[Part] = []
    loops = _loops([kernel.title for kernel in kernels])
    longest = max((length * turns for _, length, turns in loops if turns > 1), default=0)
    is_loop = longest > len(kernels) / 2
    for start, length, turns in loops:
        inside = kernels[start : start + length * turns]
        if turns > 1:
            parts.append(Part(inside, f"{turns:,} turns of", _told(inside[:length])))
        elif is_loop and length > MOST_BESIDE:
            parts.append(Part(inside, _several(length, "kernel"), _told(inside)))
        else:
            parts += [_alone(kernel) for kernel in inside]
    return parts if len(parts) <= MOST_KERNELS else _bands(parts, size)


def _alone(kernel: KernelSummary) -> Part:
    """A kernel with its box: what it computes, and below that by what means."""
    return Part([kernel], kernel.title.replace(", ", "\n"))


def _told(kernels: list[KernelSummary]) -> tuple[str]:
    """What the first kernels compute, a line each, as in "16 × dot of 3"."""
    lines = [kernel.title.split(", ")[0] for kernel in kernels]
    if len(lines) > TOLD:
        lines[TOLD - 1 :] = [f"and {len(lines) - TOLD + 1} other kernels"]
    return ("\n".join(lines),)


def _loops(titles: list[str]) -> list[tuple[int, int, int]]:
    """(start, length, turns) of each loop; what is between loops has one turn.

    >>> _loops([*"x", *"abc" * 4, *"yz"])
    [(0, 1, 1), (1, 3, 4), (13, 2, 1)]
    """
    symbols = np.unique(titles, return_inverse=True)[1]
    found, waiting = [], [(0, len(symbols))]
    while waiting:
        first, last = waiting.pop()
        start, length, turns = _longest_loop(symbols[first:last])
        start += first
        stop = start + length * turns
        found.append((start, length, turns))
        waiting += [(a, b) for a, b in ((first, start), (stop, last)) if a < b]
    return sorted(found)


def _longest_loop(symbols: NDArray[np.intp]) -> tuple[int, int, int]:
    """(start, length, turns) of what covers most; all as one turn if there is no loop."""
    n, most, found = len(symbols), 0, (0, len(symbols), 1)
    for length in range(1, min(n // LEAST_TURNS, LONGEST_TURN) + 1):
        breaks = np.flatnonzero(symbols[length:] != symbols[:-length])
        ends = np.concatenate([[-1], breaks, [n - length]])
        k = int(np.diff(ends).argmax())
        covered = int(ends[k + 1] - ends[k]) - 1 + length
        if covered > most and covered >= LEAST_TURNS * length:
            most, found = covered, (int(ends[k]) + 1, length, covered // length)
    return found


def _outputs(which: list[int], total: int) -> str:
    if len(which) > 3:
        return f"{len(which):,} outputs"
    return "output" if total == 1 else f"output {', '.join(map(str, which))}"


def _several(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _producers(parts: list[Part], size: int) -> tuple[NDArray[np.intp], list[int]]:
    """The part that computes each node, or -1; and the longest path to each part, its rank."""
    producer = np.full(size, -1)
    rank = np.full(len(parts) + 1, -1)  # the last is that of the leaves
    for k, part in enumerate(parts):
        producer[part.nodes] = k
        before = producer[part.reads]
        rank[k] = 1 + rank[before[before != k]].max(initial=-1)
    return producer, rank[:-1].tolist()


def _bands(parts: list[Part], size: int) -> list[Part]:
    """Parts of neighbouring ranks joined, so that at most `MOST_BANDS` are left."""
    ranks = _producers(parts, size)[1]
    width = -(-(max(ranks) + 1) // MOST_BANDS)
    bands: dict[int, list[KernelSummary]] = {}
    for part, rank in zip(parts, ranks):
        bands.setdefault(rank // width, []).extend(part.kernels)
    return [Part(band, _several(len(band), "kernel")) for _, band in sorted(bands.items())]


def _leaves(
    graph: Graph, parts: list[Part], producer: NDArray[np.intp]
) -> Iterator[tuple[Kind, str, list[int]]]:
    """Kind, text and users of each set of leaves that shares a box."""
    users: dict[int, list[int]] = {}
    for k, part in enumerate(parts):
        for node in np.unique(part.reads[producer[part.reads] < 0]).tolist():
            users.setdefault(node, []).append(k)
    bounds = np.cumsum([count(shape) for shape in graph.input_shapes], dtype=int)
    for i, nodes in enumerate(np.split(graph.inputs, bounds)[:-1]):
        used = sorted({k for node in nodes.tolist() for k in users.get(node, ())})
        name = graph.labels.get(int(nodes[0]) if len(nodes) else -1, f"input {i}").split("[")[0]
        yield "input", f"{name}: {_several(len(nodes), 'input')}", used
    sets = Counter(tuple(users.get(node, ())) for node in graph.parameters.tolist())
    if len(sets) > MOST_SETS:
        sets = Counter({tuple(sorted(set().union(*sets))): sets.total()})
    for key, size in sets.items():
        yield "parameter", _several(size, "parameter"), list(key)
