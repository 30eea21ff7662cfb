"""The flat graph: every node of a computation in a few arrays, plain data and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from . import ops
from .errors import GraphFormatError, ShapeError
from .value import Value

Array = NDArray[np.float64]
Shape = tuple[int, ...]
Structure = Any  # the shape of one output, or a list of Structures

MAX_ARITY = 3
FLOAT64 = np.dtype(np.float64)

SHARED, BATCHED = 0, 1  # the two buffers of a sweep: one number per node, or one per sample too
FROM_INPUTS, FROM_PARAMETERS = 1, 2  # bits that say what a node is computed from
# The bit of what comes from inputs is also the number of the buffer: origin & FROM_INPUTS.
assert FROM_INPUTS == BATCHED


@dataclass(frozen=True, eq=False)
class Graph:
    """The nodes of a computation in topological order, n in all; `vgrad.trace` makes one.

    >>> import vgrad
    >>> graph = vgrad.trace(lambda x, y: x * y + 1, (), ())
    >>> [vgrad.ops.OPS[code].name for code in graph.op]
    ['input', 'input', 'const', 'mul', 'add']
    >>> graph.parents[-1], graph.level
    (array([ 3,  2, -1], dtype=int32), array([0, 0, 0, 1, 2], dtype=int32))
    """

    op: NDArray[np.uint8]  # (n,) op codes
    parents: NDArray[np.int32]  # (n, 3) parent indices, -1 where there is none
    value: NDArray[np.float64]  # (n,) a constant's value, a parameter's when it was recorded
    level: NDArray[np.int32]  # (n,) 0 for leaves, else 1 + the highest parent's level
    inputs: NDArray[np.int32]  # the inputs' nodes, argument after argument
    parameters: NDArray[np.int32]  # the parameters' nodes, in the order of theta
    outputs: NDArray[np.int32]  # the outputs' nodes; the first is the objective
    input_shapes: tuple[Shape, ...]  # one per argument, without the batch axis
    output_shapes: Structure  # () for one node, a longer shape for an array, a list for several
    labels: dict[int, str] = field(default_factory=dict)  # node -> name, where it has one
    lines: dict[int, str] = field(default_factory=dict)  # node -> "file:line", where recorded
    leaves: tuple[Value, ...] = ()  # the Values behind the parameters, where there are any

    # Given by source.py, which stands above this file.
    to_numpy_source: ClassVar[Callable[..., str]]

    def __len__(self) -> int:
        return len(self.op)

    def __repr__(self) -> str:
        counts = [
            (len(self), "node"),
            (int(self.level.max(initial=0)), "level"),
            (len(self.inputs), "input"),
            (len(self.parameters), "parameter"),
            (len(self.outputs), "output"),
        ]
        return f"Graph({', '.join(f'{n} {name}' + 's' * (n != 1) for n, name in counts)})"

    def check(self) -> None:
        """Raise GraphFormatError where the arrays break an invariant of this class."""
        for problem in _problems(self):
            raise GraphFormatError(problem)

    def to_values(
        self, theta: Sequence[float] | None = None, sample: Sequence[Any] = ()
    ) -> list[Value]:
        """Rebuild the graph as scalar `Value`s for one sample, one `Value` per node.

        `theta` is (P,), by default the recorded values; `sample` has one array per argument, of
        its per-sample shape. Raises ShapeError where one does not fit.

        >>> import vgrad
        >>> graph = vgrad.trace(lambda x, y: x * y + 1, (), ())
        >>> graph.to_values(sample=(2.0, 3.0))[graph.outputs[0]]
        Value(data=7.0, grad=0.0)
        """
        numbers = self.value.copy()
        if theta is not None:
            numbers[self.parameters] = as_theta(theta, len(self.parameters))
        arrays = [as_numbers(x, f"sample[{i}]") for i, x in enumerate(sample)]
        shapes = tuple(array.shape for array in arrays)
        if shapes != self.input_shapes:
            raise ShapeError(f"the sample must have shapes {self.input_shapes} (got {shapes})")
        numbers[self.inputs] = [x for array in arrays for x in array.flat]
        values: list[Value] = []
        for i, (code, number) in enumerate(zip(self.op.tolist(), numbers.tolist())):
            op = ops.OPS[code]
            if op.arity:
                parents = self.parents[i, : op.arity].tolist()
                value = op(*[values[p] for p in parents])
            else:
                value = Value(number, trainable=op is ops.parameter)
                value.op = ops.const if op is ops.const else ops.parameter
            value.label = self.labels.get(i, "")
            values.append(value)
        return values


def as_theta(theta: Any, size: int) -> NDArray[np.float64]:
    """`theta` as a float64 array (size,); raises ShapeError or TypeError where it is none."""
    array = as_numbers(theta, "theta")
    if array.shape != (size,):
        raise ShapeError(
            f"theta must have shape ({size},), one number per parameter (got {array.shape})"
        )
    return array


def as_numbers(x: Any, name: str) -> NDArray[np.float64]:
    """`x` as a float64 array; raises ShapeError where it is ragged, TypeError where no number."""
    if type(x) is np.ndarray and x.dtype is FLOAT64:
        return x
    try:
        array = np.asarray(x)
    except ValueError:
        raise ShapeError(
            f"{name} must be an array, its rows of one length (got a ragged list)"
        ) from None
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must be an array without a mask; fill or drop what is masked")
    if array.dtype == object and all(map(ops.is_number, array.flat)):  # integers of any size
        array = np.reshape([ops.number(x) for x in array.flat], array.shape)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers (got an array of {array.dtype})")
    with np.errstate(all="ignore"):
        return array.astype(np.float64, copy=False)


def _problems(graph: Graph) -> Iterator[str]:
    n = len(graph)
    arity = np.array([op.arity for op in ops.OPS])
    for name, dtype, shape in (
        ("op", np.uint8, (n,)),
        ("parents", np.int32, (n, MAX_ARITY)),
        ("value", np.float64, (n,)),
        ("level", np.int32, (n,)),
        ("inputs", np.int32, (graph.inputs.size,)),
        ("parameters", np.int32, (graph.parameters.size,)),
        ("outputs", np.int32, (graph.outputs.size,)),
    ):
        array = getattr(graph, name)
        if array.dtype != dtype or array.shape != shape:
            yield f"{name} must be {np.dtype(dtype)} {shape} (got {array.dtype} {array.shape})"
    if (graph.op >= len(arity)).any():
        yield f"op codes must be below {len(arity)} (got {graph.op.max()})"
    has_parent = np.arange(MAX_ARITY) < arity[graph.op][:, None]
    if ((graph.parents == -1) == has_parent).any():
        yield "a node must have as many parents as its op takes, and -1 in the other places"
    if (graph.parents[has_parent] < 0).any() or (graph.parents >= np.arange(n)[:, None]).any():
        yield "every parent must come before its child"
    above = np.where(has_parent, graph.level[graph.parents], -1).max(axis=1, initial=-1) + 1
    if (graph.level != above).any():
        yield "a node's level must be 0 for a leaf, else one more than its highest parent's"
    for name, op in (("inputs", ops.input), ("parameters", ops.parameter)):
        nodes = getattr(graph, name)
        if not np.array_equal(np.sort(nodes), np.flatnonzero(graph.op == op.code)):
            yield f"{name} must name every {op.name} node once, and no other"
    if not graph.outputs.size or ((graph.outputs < 0) | (graph.outputs >= n)).any():
        yield f"outputs must be one or more nodes, 0 to {n - 1}"
    if any(not 0 <= i < n for i in (*graph.labels, *graph.lines)):
        yield f"labels and lines must be of nodes, 0 to {n - 1}"
    if graph.leaves and len(graph.leaves) != len(graph.parameters):
        yield f"leaves must be one Value per parameter, or none (got {len(graph.leaves)})"
    if count(list(graph.input_shapes)) != len(graph.inputs):
        yield f"input_shapes {graph.input_shapes} must hold {len(graph.inputs)} numbers"
    if count(graph.output_shapes) != len(graph.outputs):
        yield f"output_shapes {graph.output_shapes} must hold {len(graph.outputs)} numbers"


def count(structure: Structure) -> int:
    """How many numbers a shape, or a list of them, holds."""
    if isinstance(structure, list):
        return sum(map(count, structure))
    return int(np.prod(structure))
