"""The flat graph: every node of a computation in a few arrays, plain data and nothing else."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Shape, Structure, as_numbers, as_theta, count
from ..cached import cached_property
from ..elsewhere import Elsewhere
from ..engine import Value
from ..errors import GraphFormatError, ShapeError
from ..operand import Operand, look
from . import files
from .questions import ANSWERS, Question

MAX_AXES = 63  # of a sample; NumPy has 64, and the batch takes one
MAX_NESTING = 100  # lists within lists of outputs

SHARED, BATCHED = 0, 1  # the two buffers of a sweep: one number per node, or one per sample too
FROM_INPUTS, FROM_PARAMETERS = 1, 2  # bits that say what a node is computed from
# The bit of what comes from inputs is also the number of the buffer: origin & FROM_INPUTS.
assert FROM_INPUTS == BATCHED

# fmt: off
STORED = {  # the arrays of a graph, which its file has too
    "op": np.uint8, "parents": np.int32, "value": np.float64, "level": np.int32,
    "inputs": np.int32, "parameters": np.int32, "outputs": np.int32,
}
# fmt: on


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of a computation in topological order, n in all; `vgrad.trace` makes one.

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x, y: x * y + 1, (), ())
    >>> [vgrad.ops.OPS[code].name for code in graph.op]
    ['input', 'input', 'const', 'mul', 'add']
    >>> graph.parents[-1], graph.level
    (array([ 3,  2, -1], dtype=int32), array([0, 0, 0, 1, 2], dtype=int32))
    >>> graph.check(), graph.argument_names, graph.computed_from({0: 2.0, 1: 3.0, 2: 1.0})
    (None, ['x', 'y'], [2.0, 3.0, 1.0, 6.0, 7.0])

    `compile` records paths, whose last outputs are a sample's answers to what was asked on it.

    >>> program = vgrad.compile(lambda x: x + 1 if x > 0 else x, parameters=[])
    >>> program([], [1.0, -2.0])
    array([ 2., -2.])
    >>> graph = program.runners[((),)].graph
    >>> graph.answers, graph.follows(np.array([[2.0, -1.0], [1.0, 0.0]]))  # outputs, answers
    (array([[1.]]), array([ True, False]))
    >>> graph.side_by_side([np.zeros((0, 1)), np.array([[1.0, 0.0]])])
    array([[1., 1., 0.]])
    """

    op: NDArray[np.uint8]  # (n,) op codes
    parents: NDArray[np.int32]  # (n, 3) parent indices; -1 for none
    value: NDArray[np.float64]  # (n,) a constant's value, or a parameter's at recording
    level: NDArray[np.int32]  # (n,) 0 for leaves, else 1 + the highest parent's level
    inputs: NDArray[np.int32]  # the inputs' nodes, argument after argument
    parameters: NDArray[np.int32]  # the parameters' nodes, in the order of theta
    outputs: NDArray[np.int32]  # the outputs' nodes; the first is the objective
    input_shapes: tuple[Shape, ...]  # one per argument, without the batch axis
    output_shapes: Structure  # () for one node, a longer shape for an array, a list for several
    labels: dict[int, str] = field(default_factory=dict)  # node -> name
    lines: dict[int, str] = field(default_factory=dict)  # node -> "file:line", if recorded
    leaves: tuple[Value, ...] = ()  # the Values behind the parameters, if any
    # Of a path: what was asked on it. The last outputs, one for each, have a sample's own answers.
    questions: tuple[Question, ...] = ()

    if TYPE_CHECKING:  # as these functions take a graph, too, that would be a circle

        def gradient(self, wrt: Any = None, of: Any = 0) -> Graph: ...
        def __call__(self, *arguments: Any, theta: Any = None) -> Any: ...
        def to_numpy_source(self, name: str = "f") -> str: ...
    else:
        gradient = Elsewhere("flat", "gradient_graph")
        __call__ = Elsewhere("flat", "inlined")
        to_numpy_source = Elsewhere("export", "to_numpy_source")
    _repr_svg_ = Elsewhere("pictures", "notebook_svg")

    def __len__(self) -> int:
        return len(self.op)

    def __repr__(self) -> str:
        counts = {"node": len(self), "level": int(self.level.max(initial=0))}
        counts |= {
            name: len(getattr(self, f"{name}s")) for name in ("input", "parameter", "output")
        }
        return f"Graph({', '.join(f'{n} {name}' + 's' * (n != 1) for name, n in counts.items())})"

    @cached_property
    def answers(self) -> NDArray[np.float64]:
        """(Q, 1) what the questions were answered with."""
        return np.array([[question.answer] for question in self.questions]).reshape(-1, 1)

    @cached_property
    def argument_names(self) -> list[str]:
        """What the arguments are called, by the labels of their inputs; else input0 and so on."""
        sizes = [count(shape) for shape in self.input_shapes]
        firsts = np.append(self.inputs, -1)[np.cumsum([0, *sizes])[:-1]].tolist()
        labels = [self.labels.get(node, "") if size else "" for node, size in zip(firsts, sizes)]
        return [label.split("[")[0] or f"input{i}" for i, label in enumerate(labels)]

    def follows(self, outputs: NDArray[Any]) -> NDArray[np.bool_]:
        """(B,) which samples follow this path, given every output for each, (M, B), or answers.

        Outputs of (0, B) say that all do.
        """
        if not len(outputs):
            return np.ones(outputs.shape[1], bool)
        same = outputs[len(outputs) - len(self.questions) :] == self.answers
        everywhere: NDArray[np.bool_] = np.logical_and.reduce(same)
        return everywhere

    def side_by_side(self, columns: list[NDArray[Any]]) -> NDArray[Any]:
        """The outputs of parts of a batch, or answers, as those of all of it, (rows, B).

        Parts of (0, n), where all follow this path, have its answers if others have any.
        """
        rows = max(map(len, columns))
        full = [
            x if len(x) == rows else np.broadcast_to(self.answers, (rows, x.shape[1]))
            for x in columns
        ]
        return np.concatenate(full, axis=1)

    def __getstate__(self) -> dict[str, Any]:
        # names as in a file, since codes mean nothing elsewhere
        return {**self.__dict__, "ops": [op.reference for op in ops.OPS]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = state.pop("ops", None)
        self.__dict__.update(state, op=_as_known(state["op"], names, ops.imported))

    def check(self) -> None:
        """Raise GraphFormatError if the arrays break an invariant of this class."""
        for problem in _problems(self):
            raise GraphFormatError(problem)

    def save(self, path: files.Path) -> None:
        """Write the graph to a file that `Graph.load` reads, in one step if it replaces another.

        The file is an uncompressed .npz, whatever its name, without the parameters' `Value`s.
        Raises OSError if it cannot be written, GraphFormatError if the graph breaks an invariant.

        >>> import tempfile, vgrad
        >>> graph = vgrad.trace(lambda x, y: x * y + 1, (), ())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     graph.save(f"{folder}/graph.npz")
        ...     vgrad.Graph.load(f"{folder}/graph.npz")
        Graph(5 nodes, 2 levels, 2 inputs, 0 parameters, 1 output)
        """
        files.save_arrays(path, "vgrad.Graph", *to_stored(self))

    @staticmethod
    def load(path: files.Path) -> Graph:
        """Read a graph that `save` wrote; nothing in the file is run, and its size bounds memory.

        Raises GraphFormatError if it is damaged, of another version or not a graph, OSError if it
        cannot be read.
        """
        with files.loading_arrays(path, "vgrad.Graph") as (about, arrays):
            return from_stored(about, arrays)

    def to_values(
        self, theta: Sequence[float] | None = None, sample: Sequence[Any] = ()
    ) -> list[Value]:
        """Rebuild the graph as scalar `Value`s for one sample, one `Value` per node.

        `theta` is (P,), by default the recorded values; `sample` has one array per argument, of
        its per-sample shape. Raises ShapeError if one does not fit.

        >>> import vgrad
        >>> graph = vgrad.trace(lambda x, y: x * y + 1, (), ())
        >>> graph.to_values(sample=(2.0, 3.0))[graph.outputs[0]]
        Value(data=7.0, grad=0.0)
        """
        numbers = self.value.copy()
        if theta is None:
            for leaf in self.leaves:
                look(leaf, "recorded")
        else:
            numbers[self.parameters] = as_theta(theta, len(self.parameters))
        arrays = [as_numbers(x, f"sample[{i}]") for i, x in enumerate(sample)]
        shapes = tuple(array.shape for array in arrays)
        if shapes != self.input_shapes:
            raise ShapeError(f"the sample must have shapes {self.input_shapes} (got {shapes})")
        numbers[self.inputs] = [x for array in arrays for x in array.flat]
        leaves = {}
        for i, number in enumerate(numbers.tolist()):
            op = ops.OPS[self.op[i]]
            if not op.arity:
                leaves[i] = value = Value(number, trainable=op is ops.parameter)
                value.op = ops.const if op is ops.const else ops.parameter
                value.label = self.labels.get(i, "")
        return self.computed_from(leaves)

    def computed_from(self, leaves: dict[int, Any]) -> list[Any]:
        """Every node, computed from operands or numbers in place of the leaves."""
        results: list[Any] = []
        for i, (code, parents) in enumerate(zip(self.op.tolist(), self.parents.tolist())):
            op = ops.OPS[code]
            result = op(*[results[p] for p in parents[: op.arity]]) if op.arity else leaves[i]
            if op.arity and i in self.labels and isinstance(result, Operand):
                setattr(result, "label", self.labels[i])  # noqa: B010  # which operands have
            results.append(result)
        return results


def _problems(graph: Graph) -> Iterator[str]:
    """Problems of a graph; each may be asked for only if there was none before it."""
    yield from _array_problems(graph)
    yield from _node_problems(graph)
    n = len(graph)
    for name, op in (("inputs", ops.input), ("parameters", ops.parameter)):
        nodes = getattr(graph, name)
        if not np.array_equal(np.sort(nodes), np.flatnonzero(graph.op == op.code)):
            yield f"{name} must name every {op.name} node once, and no other"
    if not graph.outputs.size or ((graph.outputs < 0) | (graph.outputs >= n)).any():
        yield f"outputs must be one or more nodes, 0 to {n - 1}"
    for i in (*graph.labels, *graph.lines):
        if not _is_whole(i) or not 0 <= i < n:
            yield f"labels and lines must be of nodes, 0 to {n - 1} (got {i!r})"
    if graph.leaves and len(graph.leaves) != len(graph.parameters):
        yield f"leaves must be one Value per parameter, or none (got {len(graph.leaves)})"
    yield from _shape_problems(graph)
    yield from _question_problems(graph)


def _array_problems(graph: Graph) -> Iterator[str]:
    n = getattr(graph.op, "size", 0)
    shapes = {"op": (n,), "parents": (n, ops.MAX_ARITY), "value": (n,), "level": (n,)}
    for name, dtype in STORED.items():
        array = getattr(graph, name)
        if not isinstance(array, np.ndarray):
            yield f"{name} must be an array (got {type(array).__name__})"
        wanted = shapes.get(name, (array.size,))
        if array.dtype != dtype or array.shape != wanted:
            yield f"{name} must be {np.dtype(dtype)} {wanted} (got {array.dtype} {array.shape})"


def _node_problems(graph: Graph) -> Iterator[str]:
    arity = np.array([op.arity for op in ops.OPS])
    if (graph.op >= len(arity)).any():
        yield f"op codes must be below {len(arity)} (got {graph.op.max()})"
    has_parent = np.arange(ops.MAX_ARITY) < arity[graph.op][:, None]
    if ((graph.parents == -1) == has_parent).any():
        yield "a node must have as many parents as its op takes, and -1 in the other places"
    before = np.arange(len(graph))[:, None]
    if (graph.parents[has_parent] < 0).any() or (graph.parents >= before).any():
        yield "every parent must come before its child"
    above = np.where(has_parent, graph.level[graph.parents], -1).max(axis=1, initial=-1) + 1
    if (graph.level != above).any():
        yield "a node's level must be 0 for a leaf, else one more than its highest parent's"


def _shape_problems(graph: Graph) -> Iterator[str]:
    shapes, numbers = graph.input_shapes, len(graph.inputs)
    if not isinstance(shapes, tuple) or not all(map(_is_shape, shapes)):
        got = reprlib.repr(shapes)
        yield f"input_shapes must be tuples of at most {MAX_AXES} sizes (got {got})"
    if sum(map(count, shapes)) != numbers:
        yield f"input_shapes {shapes} must hold {numbers} numbers"
    if not _holds(graph.output_shapes, len(graph.outputs)):
        yield (
            f"output_shapes must hold {len(graph.outputs)} numbers, as a shape or a list of such, "
            f"no list empty or nested {MAX_NESTING} deep (got {reprlib.repr(graph.output_shapes)})"
        )


def _question_problems(graph: Graph) -> Iterator[str]:
    for means, answer, *texts in graph.questions:
        if means not in ANSWERS or not all(isinstance(text, str) for text in texts):
            yield f"a question must be of {', '.join(ANSWERS)}, with texts for its place"
        whole = ops.is_number(answer) and float(answer).is_integer()
        if not whole or (means == "bool" and answer not in (0, 1)):
            yield f"an answer must be a whole number, of a truth 0 or 1 (got {answer!r:.50})"
    shapes, count = graph.output_shapes, len(graph.questions)
    if count and not (isinstance(shapes, list) and len(shapes) == 2 and shapes[1] == (count,)):
        yield f"outputs must be those of a function and {count} answers (got {shapes!r:.50})"


def _is_whole(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and len(x) <= MAX_AXES and all(_is_whole(n) and n >= 0 for n in x)


def _holds(structure: Structure, numbers: int) -> bool:
    """Whether a structure holds this many numbers, and at least one in every shape.

    It looks at no more parts than that, so it ends whatever the structure is.
    """
    waiting = [(structure, 0)]
    while waiting and numbers >= 0:
        part, depth = waiting.pop()
        if isinstance(part, list):
            if not part or depth == MAX_NESTING:
                return False
            waiting += [(inner, depth + 1) for inner in part]
        elif not _is_shape(part) or 0 in part:
            return False
        else:
            numbers -= count(part)
    return numbers == 0


def to_stored(graph: Graph) -> tuple[files.Header, files.Arrays]:
    """A graph as a header for JSON, and arrays; raises GraphFormatError if it is broken.

    The names of all ops go with the codes, which another process may use for other ops.
    """
    graph.check()
    for code in np.unique(graph.op).tolist():
        name, replaced, _ = ops.OPS[code].name.partition(ops.REPLACED)
        if replaced:
            raise GraphFormatError(
                f"op {name!r} must not have been defined anew since it was recorded, as the file "
                "could only name the new one; record the graph again"
            )
    about = {
        "ops": [op.reference for op in ops.OPS],
        "input_shapes": graph.input_shapes,
        "output_shapes": graph.output_shapes,
        "labels": [(i, str(x)) for i, x in graph.labels.items() if x is not None],
        "lines": [(i, str(x)) for i, x in graph.lines.items()],
    }
    if graph.questions:
        about["questions"] = [question[:4] for question in graph.questions]
    return about, {name: getattr(graph, name) for name in STORED}


def from_stored(about: Any, arrays: files.Arrays) -> Graph:
    """The graph that `to_stored` took apart; raises an error if they do not fit together."""
    fields = ["ops", "input_shapes", "output_shapes", "labels", "lines"]
    fields += ["questions"] if isinstance(about, dict) and "questions" in about else []
    files.expect("its header", about, fields)
    files.expect("its arrays", arrays, STORED)
    graph = Graph(
        op=_as_known(arrays["op"], about["ops"]),
        **{name: array for name, array in arrays.items() if name != "op"},  # type: ignore[arg-type]
        input_shapes=tuple(map(tuple, about["input_shapes"])),
        output_shapes=_structure(about["output_shapes"]),
        labels=_texts("labels", about["labels"]),
        lines=_texts("lines", about["lines"]),
        questions=tuple(Question(*question) for question in about.get("questions", ())),
    )
    graph.check()
    return graph


def _structure(sizes: Any) -> Structure:
    """Output shapes from JSON, where tuples are lists: one that holds no lists is a shape."""
    if not isinstance(sizes, list):
        return sizes  # which is for `check` to refuse
    return list(map(_structure, sizes)) if any(type(x) is list for x in sizes) else tuple(sizes)


def _as_known(
    codes: NDArray[Any], names: Any, own: Callable[..., ops.Op] = ops.named
) -> NDArray[np.uint8]:
    """Op codes by the table of this process, from those by a table of names.

    For an op of one's own there is more than the name, which all goes to `own`.
    """
    if codes.dtype != np.uint8 or not isinstance(names, list):
        raise GraphFormatError(f"op must be uint8, with a list of ops (got {codes.dtype})")
    known = np.zeros(256, np.uint8)
    for code in np.unique(codes).tolist():
        if code >= len(names):
            raise GraphFormatError(f"op codes must be below {len(names)} (got {code})")
        name = names[code]
        is_own = isinstance(name, list | tuple) and len(name) == 4
        known[code] = (own(*name) if is_own else ops.named(name)).code
    return np.take(known, codes)


def _texts(name: str, pairs: Any) -> dict[int, str]:
    texts = {node: text for node, text in pairs}
    if not all(isinstance(text, str) for text in texts.values()):
        raise GraphFormatError(f"{name} must be texts, each with its node")
    return texts
