"""Where a number that is not finite comes from: the op that made it from finite operands.

An infinity that does not reach a result, as in a branch that `where` did not take, is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, NamedTuple

from . import ops
from .errors import NonFiniteError
from .operand import Operand

Node = Any  # a Value; `engine` imports this file
Fits = Callable[[float], bool]
Backpropagate = Callable[[Node, Callable[[Node, Node, float], None]], None]


class Cause(NamedTuple):
    """Where a number that is not finite began."""

    node: Node
    got: float
    sweep: str
    arrived: float | None = None  # the gradient it was made from; None for a sum of several


def check_finite(*values: Any) -> None:
    """Raise NonFiniteError if a `Value` is infinite or nan, and name the op where that began.

    >>> from vgrad import Value, check_finite, log
    >>> x = Value(0.0, label="x")
    >>> check_finite(3 * log(x) + 1)
    Traceback (most recent call last):
    ...
    vgrad.errors.NonFiniteError: log of 0.0 gave -inf, forward sweep
    """
    for value in values:
        if not isinstance(value, Operand):
            raise TypeError(f"check_finite takes Values (got {value!r}, a {type(value).__name__})")
    for value in values:
        if not isfinite(value.data):
            raise error(forward_cause(value))


def forward_cause(root: Node, fits: Fits = isfinite) -> Cause:
    """Where the number of `root` began to be what it is: not finite, or else not fit."""
    node, before = root, root
    while node is not None:
        node, before = next(_to_blame(node, fits), None), node
    return Cause(before, before._data, "forward")


def _to_blame(node: Node, fits: Fits) -> Iterator[Node]:
    """The operands that do not fit, first those that alone spoil the result."""
    finite = [x._data if fits(x._data) else 1.0 for x in node.parents]
    wrong = [k for k, x in enumerate(node.parents) if not fits(x._data)]
    for k in wrong:
        numbers = [*finite[:k], node.parents[k]._data, *finite[k + 1 :]]
        if not fits(ops.evaluate(node.op.forward, *numbers)):
            yield node.parents[k]
    yield from (node.parents[k] for k in wrong)


def backward_cause(
    root: Node, leaves: Iterable[Node], backpropagate: Backpropagate, fits: Fits = isfinite
) -> Cause | None:
    """Run `backpropagate(root)`, and say where the first leaf's unfit gradient began, if any is."""
    parts: dict[Node, tuple[Node, float]] = {}  # the first unfit part for each node

    def watch(node: Node, x: Node, part: float) -> None:
        if not fits(part):
            parts.setdefault(x, (node, part))

    backpropagate(root, watch)
    node = next((x for x in leaves if not fits(x.grad)), None)
    if node is None:
        return None
    while node in parts:
        node, part = parts[node]
        if fits(node.grad):
            return Cause(node, part, "backward", node.grad)
    return Cause(node, node.grad, "backward")


def check_backward(root: Node, leaves: list[Node], backpropagate: Backpropagate) -> None:
    """Run `backpropagate(root)`; raise NonFiniteError, and undo it, if the result is not finite."""
    check_finite(root)
    before = [x.grad for x in leaves]
    watched = [x for x in leaves if isfinite(x.grad)]  # not since an older pass
    cause = backward_cause(root, watched, backpropagate)
    if cause is not None:
        for x, grad in zip(leaves, before):
            x.grad = grad
        raise error(cause)


def error(
    cause: Cause,
    line: str = "",
    node: int | None = None,
    sample: int | None = None,
    inputs: dict[str, Any] | None = None,
) -> NonFiniteError:
    """The error for a cause, at a place of which more may be known."""
    label, line = cause.node.label, line or getattr(cause.node, "line", "")
    name = [f"node {node}"] * (node is not None) + [repr(label)] * bool(label)
    if line:
        name = [*(name or ["a node"]), f"({line})"]
    at = "" if sample is None else f" at sample {sample}"
    parts = [_sentence(cause) + at, " ".join(name), f"{cause.sweep} sweep"]
    message = ", ".join(filter(None, parts))
    if inputs:
        message += "; inputs there: " + ", ".join(f"{name} = {x}" for name, x in inputs.items())
    result = NonFiniteError(message)
    result.op, result.got, result.sweep = cause.node.op.name, cause.got, cause.sweep
    result.operands = tuple(x._data for x in cause.node.parents)
    result.label, result.line, result.node = label, line, node
    result.sample, result.inputs = sample, inputs or {}
    return result


def _sentence(cause: Cause) -> str:
    op, got, operands = cause.node.op.name, cause.got, cause.node.parents
    if cause.sweep == "backward" and cause.arrived is None:
        return f"the gradients that meet at the {op} add up to {got}"
    if not operands:
        return f"the {op} was {got}"
    of = listed([x._data for x in operands])
    if cause.sweep == "forward":
        return f"{op} of {of} gave {got}"
    return f"{op} of {of} made {got} of a gradient of {cause.arrived}"


def listed(numbers: list[float]) -> str:
    """1.0, 2.0 and 3.0."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
