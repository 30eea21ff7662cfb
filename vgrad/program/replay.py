"""Single samples on the scalar engine, to find the first number that is not finite."""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Array
from ..engine import Value, reachable
from ..errors import NonFiniteError
from ..finite import Cause, backward_cause, error, forward_cause
from ..flat import Graph, path_of
from .call import Call, is_finite

PART = 1024  # samples; gradients of all at once may be too many


class Replay:
    """One sample of a call, as `Value`s."""

    def __init__(self, call: Call, sample: int) -> None:
        self.graph, self.number = call.runner.graph, call.number(sample)
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
        """Whether a number is finite in the dtype of the call."""
        return abs(x) <= self.largest

    def error(self, cause: Cause) -> NonFiniteError:
        """The error for a number that was the first not to be finite."""
        node = next(i for i, value in enumerate(self.values) if value is cause.node)
        cause.node.op = ops.OPS[int(self.graph.op[node])]  # which tells inputs from parameters
        line = self.graph.lines.get(node, "")
        return error(cause, line, node, self.number, self.inputs(), path_of(self.graph.questions))

    def inputs(self) -> dict[str, Any]:
        """The sample, by the names of the function's arguments."""
        return dict(zip(self.graph.argument_names, map(_shortened, self.sample)))


def check_outputs(call: Call, outputs: Array) -> None:
    """Raise NonFiniteError if any output, (M, B), is not finite."""
    wrong = ~np.isfinite(outputs)
    if not wrong.any():
        return
    sample = int(wrong.any(axis=0).argmax())
    output = int(wrong[:, sample].argmax())
    replay = Replay(call, sample)
    if replay.fits(replay.root(output)._number):
        raise _only_here(replay, f"output {output}", outputs[output, sample])
    raise replay.error(forward_cause(replay.root(output), replay.fits))


def check_gradient(call: Call, value: float, gradient: Array, outputs: Array | None) -> None:
    """Raise NonFiniteError if the value, its gradient (P,) or an output is not finite.

    Also if the gradient is finite only since 0 is kept from inf and nan, by arithmetic.
    """
    if outputs is not None:
        check_outputs(call, outputs)
    with np.errstate(all="ignore"):
        if is_finite(value, gradient):
            if call.doubts and not np.isfinite(call.strict_gradient()).all():
                _check_samples(call, strict=True)
            return
    objective = call.outputs()[:1]
    check_outputs(call, objective)
    _check_samples(call, strict=False)
    check_sums(call.runner.graph, value, gradient)


def check_sums(graph: Graph, value: float, gradient: Array) -> None:
    """Raise NonFiniteError if a sum over samples, each of them finite, is not."""
    if not isfinite(value):
        raise _only_together(f"output 0 over the batch is {value}")
    if not np.isfinite(gradient).all():
        k = int(np.isfinite(gradient).argmin())
        name = parameter_name(graph, k)
        raise _only_together(f"the gradients to {name} over the batch is {gradient[k]}")


def is_doubtful(call: Any, *found: Any) -> bool:
    """Whether numbers that a call found are not finite, or may be so only by a choice."""
    return bool(call.doubts) or not all(np.isfinite(x).all() for x in found if x is not None)


def _check_samples(call: Call, strict: bool) -> None:
    """Raise NonFiniteError if a sample's gradient to theta is not finite."""
    for first in range(0, call.batch, PART):
        samples = slice(first, first + PART)
        _, gradients = call.some(samples).parameter_gradients(strict)
        _check_columns(call, gradients, call.runner.graph.parameters, samples, strict)


def check_per_sample(
    call: Call, name: str, nodes: NDArray[np.int32], objective: Array, gradients: Array
) -> None:
    """Raise NonFiniteError if output 0, (B,), or its gradient to some nodes, (n, B), is not finite.

    Also if the gradient is finite only since 0 is kept from inf and nan, by arithmetic. A call gets
    such gradients by its method of this name.
    """
    if not np.isfinite(objective).all():
        check_outputs(call, call.outputs()[:1])
    _check_columns(call, gradients, nodes, slice(None), strict=False)
    for samples in call.doubts or ():
        _, gradients = getattr(call.some(samples), name)(strict=True)
        _check_columns(call, gradients, nodes, samples, strict=True)


def _check_columns(
    call: Call, gradients: Array, nodes: NDArray[np.int32], samples: Any, strict: bool
) -> None:
    """Raise NonFiniteError if the gradients, (n, b), of some of the samples are not finite."""
    wrong = ~np.isfinite(gradients)
    if not wrong.any():
        return
    column = int(wrong.any(axis=0).argmax())
    replay = Replay(call, int(np.arange(call.batch)[samples][column]))
    root = replay.root()
    if not replay.fits(root._number):
        raise replay.error(forward_cause(root, replay.fits))
    cause = backward_cause(reachable(root), replay.leaves(nodes), replay.fits)
    if cause is None:
        what = "a gradient" + ", if 0 times inf were not 0," * strict
        raise _only_here(replay, what, gradients[wrong[:, column], column][0])
    raise replay.error(cause)


def _only_here(replay: Replay, what: str, got: float) -> NonFiniteError:
    """The error for a number that the scalar engine finds finite."""
    error = NonFiniteError(
        f"{what} is {got} at sample {replay.number}, but finite when it is computed one number at "
        "a time in float64; scale numbers that are so large or small, or compile with "
        "dtype=np.float64 and fuse=False"
    )
    error.sample, error.inputs, error.got = replay.number, replay.inputs(), float(got)
    return error


def _only_together(what: str) -> NonFiniteError:
    """The error for a sum whose terms are finite."""
    return NonFiniteError(
        f"the sum of {what}, though every sample's part is finite; scale the objective, or call "
        "with fewer samples at a time"
    )


def parameter_name(graph: Graph, k: int) -> str:
    """The name of a parameter in messages: its number, and its label if it has one."""
    label = graph.labels.get(int(graph.parameters[k]), "")
    return f"parameter {k} {label and repr(label)}".rstrip()


def _shortened(array: Array) -> Any:
    """An array as a list of at most eight numbers."""
    if array.size <= 8:
        return array.tolist()
    return f"[{', '.join(map(str, array.ravel()[:8].tolist()))}, ... {array.size} numbers]"
