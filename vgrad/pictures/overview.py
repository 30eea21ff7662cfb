"""A diagram of a plan, one box per kernel; large graphs are drawn like this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from reprlib import repr
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import count, whole_number
from ..engine import Value, reachable
from ..flat import Graph, KernelSummary, capture
from ..program import Fork, Paths, Program, Runner
from .diagram import Diagram, Kind
from .nodes import graph_items, node_diagram, titles, value_items

LIMIT = 300  # nodes; a larger graph is drawn as its plan
MOST_KERNELS = 80  # if there are more, those of neighbouring ranks share a box
MOST_BANDS = 24  # boxes that several kernels share
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


def overview(runner: Runner) -> Diagram:
    """The kernels of a runner from left to right, with its inputs and outputs.

    Parameters that the same kernels use share a box, and so do the inputs of an argument.
    """
    kernels, size, outputs, _ = runner.unrolled()
    producer, ranks = _producers(kernels, size)
    if len(kernels) > MOST_KERNELS:
        kernels = _bands(kernels, ranks)
        producer, ranks = _producers(kernels, size)
    diagram = Diagram()
    mixed = len({kernel.result.batched for kernel in kernels}) > 1
    results: dict[int, list[int]] = {}  # the outputs that each kernel computes; the others at -1
    for i, k in enumerate(producer[outputs].tolist()):
        results.setdefault(k, []).append(i)
    for k, (kernel, rank) in enumerate(zip(kernels, ranks)):
        cells = [_several(kernel.sources, "node")]
        if mixed and not kernel.result.batched:
            cells.append("once per call")
        if k in results:
            cells.append(_outputs(results[k], len(outputs)))
        diagram.add("result" if k in results else "computed", rank + 1, kernel.title, *cells)
        before = np.unique(producer[kernel.reads])
        diagram.edges += [(a, k) for a in before.tolist() if a not in (-1, k)]
    for kind, text, users in _leaves(runner.graph, kernels, producer):
        box = diagram.add(kind, min((ranks[k] for k in users), default=0), text)
        diagram.edges += [(box, k) for k in users]
    if -1 in results:
        diagram.add("result", 1, _outputs(results[-1], len(outputs)), "as given")
    return diagram


def _outputs(which: list[int], total: int) -> str:
    if len(which) > 3:
        return f"{len(which):,} outputs"
    return "output" if total == 1 else f"output {', '.join(map(str, which))}"


def _several(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _producers(kernels: list[KernelSummary], size: int) -> tuple[NDArray[np.intp], list[int]]:
    """The kernel that computes each node, or -1; and the longest path to each kernel, its rank."""
    producer = np.full(size, -1)
    rank = np.full(len(kernels) + 1, -1)  # the last is that of the leaves
    for k, kernel in enumerate(kernels):
        producer[kernel.nodes] = k
        rank[k] = 1 + rank[producer[kernel.reads]].max()
    return producer, rank[:-1].tolist()


def _bands(kernels: list[KernelSummary], ranks: list[int]) -> list[KernelSummary]:
    """Kernels of neighbouring ranks joined, so that at most `MOST_BANDS` are left."""
    width = -(-(max(ranks) + 1) // MOST_BANDS)
    bands: dict[int, list[KernelSummary]] = {}
    for kernel, rank in zip(kernels, ranks):
        bands.setdefault(rank // width, []).append(kernel)
    return [
        max(band, key=lambda kernel: kernel.result.batched)._replace(
            title=_several(len(band), "kernel"),
            sources=sum(kernel.sources for kernel in band),
            nodes=np.concatenate([kernel.nodes for kernel in band]),
            reads=np.concatenate([kernel.reads for kernel in band]),
        )
        for _, band in sorted(bands.items())
    ]


def _leaves(
    graph: Graph, kernels: list[KernelSummary], producer: NDArray[np.intp]
) -> Iterator[tuple[Kind, str, list[int]]]:
    """Kind, text and users of each set of leaves that shares a box."""
    users: dict[int, list[int]] = {}
    for k, kernel in enumerate(kernels):
        for node in np.unique(kernel.reads[producer[kernel.reads] < 0]).tolist():
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
