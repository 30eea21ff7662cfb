"""Replays of single samples on the scalar engine, to find where a number stopped being finite."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Array, count
from ..engine import Value, backpropagate
from ..errors import NonFiniteError
from ..finite import Cause, backward_cause, error, forward_cause
from ..flat import Graph
from .call import Call, is_finite


class Replay:
    """One sample of a call, as `Value`s."""

    def __init__(self, call: Call, sample: int) -> None:
        self.graph, self.number = call.runner.graph, sample
        shapes = self.graph.input_shapes
        self.sample = [x[sample].reshape(shape) for x, shape in zip(call.arrays, shapes)]
        self.largest = float(np.finfo(call.runner.dtype).max)
        self.values = self.graph.to_values(call.theta.tolist(), self.sample)

    def root(self, output: int = 0) -> Value:
        """The `Value` of an output."""
        return self.values[int(self.graph.outputs[output])]

    def leaves(self, nodes: NDArray[np.int32]) -> list[Value]:
        """The `Value`s of inputs or parameters."""
        return [self.values[i] for i in nodes.tolist()]

    def fits(self, x: float) -> bool:
        """Whether a number is finite, also in the dtype of the call."""
        return abs(x) <= self.largest

    def error(self, cause: Cause) -> NonFiniteError:
        """The error for a number that began to be not finite there."""
        node = next(i for i, value in enumerate(self.values) if value is cause.node)
        cause.node.op = ops.OPS[int(self.graph.op[node])]  # which tells inputs from parameters
        line = self.graph.lines.get(node, "")
        return error(cause, line, node, self.number, self.inputs())

    def inputs(self) -> dict[str, Any]:
        """The sample, by the names of its arguments."""
        return dict(zip(_names(self.graph), map(_shortened, self.sample)))


def check_outputs(call: Call, outputs: Array) -> None:
    """Raise NonFiniteError if one of the outputs, (M, B), is not finite."""
    if np.isfinite(outputs).all():
        return
    sample = int(np.flatnonzero(~np.isfinite(outputs).all(axis=0))[0])
    output = int(np.flatnonzero(~np.isfinite(outputs[:, sample]))[0])
    replay = Replay(call, sample)
    if replay.fits(replay.root(output)._data):
        raise _only_here(replay, f"output {output}", outputs[output, sample])
    raise replay.error(forward_cause(replay.root(output), replay.fits))


def check_gradient(call: Call, value: float, gradient: Array, outputs: Array | None) -> None:
    """Raise NonFiniteError if the value, its gradient (P,) or an output is not finite."""
    if outputs is not None:
        check_outputs(call, outputs)
    with np.errstate(all="ignore"):
        if is_finite(value, gradient):
            return
    _check_objective(call)
    for part, first in _parts(call):
        _, gradients = part.parameter_gradients()
        _check_each(call, gradients, call.runner.graph.parameters, first)
    if not isfinite(value):
        raise _only_together(f"output 0 over the batch is {value}")
    k = int(np.flatnonzero(~np.isfinite(gradient))[0])
    name = parameter_name(call.runner.graph, k)
    raise _only_together(f"the gradients to {name} over the batch is {gradient[k]}")


def check_per_sample(
    call: Call, objective: Array, gradients: Array, nodes: NDArray[np.int32]
) -> None:
    """Raise NonFiniteError if a gradient to these nodes, (n, B), is not finite.

    Or where output 0, (B,), is not.
    """
    if not np.isfinite(objective).all():
        _check_objective(call)
    _check_each(call, gradients, nodes, 0)


def _check_objective(call: Call) -> None:
    check_outputs(call, call.outputs()[:1])


def _check_each(call: Call, gradients: Array, nodes: NDArray[np.int32], first: int) -> None:
    """The same for gradients of the samples from `first` on."""
    if np.isfinite(gradients).all():
        return
    column = int(np.flatnonzero(~np.isfinite(gradients).all(axis=0))[0])
    replay = Replay(call, first + column)
    if not replay.fits(replay.root()._data):
        raise replay.error(forward_cause(replay.root(), replay.fits))
    cause = backward_cause(replay.root(), replay.leaves(nodes), backpropagate, replay.fits)
    if cause is None:
        wrong = gradients[:, column][~np.isfinite(gradients[:, column])][0]
        raise _only_here(replay, "a gradient", wrong)
    raise replay.error(cause)


def _parts(call: Call, size: int = 1024) -> Iterator[tuple[Call, int]]:
    """The call in parts, as gradients of all samples at once may be too many."""
    for a in range(0, call.batch, size):
        yield call.some(slice(a, a + size)), a


def _only_here(replay: Replay, what: str, got: float) -> NonFiniteError:
    """Where float64 does not come to it, one number at a time."""
    error = NonFiniteError(
        f"{what} is {got} at sample {replay.number}, but finite when it is computed one number at "
        "a time in float64; scale numbers that are so large or small, or compile with "
        "dtype=np.float64 and fuse=False"
    )
    error.sample, error.inputs, error.got = replay.number, replay.inputs(), float(got)
    return error


def _only_together(what: str) -> NonFiniteError:
    return NonFiniteError(
        f"the sum of {what}, though every sample's part is finite; scale the objective, or call "
        "with fewer samples at a time"
    )


def parameter_name(graph: Graph, k: int) -> str:
    """The name of a parameter in messages: its number, and its label if it has one."""
    label = graph.labels.get(int(graph.parameters[k]), "")
    return f"parameter {k} {label and repr(label)}".rstrip()


def _names(graph: Graph) -> list[str]:
    """What the function calls its arguments."""
    names, start = [], 0
    for i, shape in enumerate(graph.input_shapes):
        size = count(shape)
        label = graph.labels.get(int(graph.inputs[start]), "") if size else ""
        names.append(label.split("[")[0] or f"input{i}")
        start += size
    return names


def _shortened(array: Array) -> Any:
    """An array as a list of at most eight numbers."""
    numbers = array.tolist()
    if array.size <= 8:
        return numbers
    return f"[{', '.join(map(str, array.ravel()[:8].tolist()))}, ... {array.size} numbers]"
