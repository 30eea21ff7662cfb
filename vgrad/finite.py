"""Where a number that is not finite comes from: the op that made it from finite operands.

An infinity that does not reach a result, as in a branch that `where` did not take, is ignored.

A gradient of 0 propagates as 0, through inf and nan too. So a branch that was not taken adds
nothing, whatever its derivative is:

>>> import vgrad
>>> from vgrad import Value, exp, log, sqrt, where
>>> x = Value(0.0)
>>> where(x > 0, log(x), 2 * x).backward()  # 1 / x is inf
>>> x.grad
2.0

Where it is arithmetic that brings 0 and an infinite derivative together, 0 is a choice: IEEE 754
has nan, and the limit may be another number. Both engines choose 0. With `check_finite` they raise,
as for a gradient that is infinite, and name the place:

>>> x = Value(0.0)
>>> (sqrt(x) ** 2).backward()  # which is x, so the derivative is 1
>>> x.grad
0.0
>>> (sqrt(x) ** 2).backward(check_finite=True)  # doctest: +ELLIPSIS
Traceback (most recent call last):
...
vgrad.errors.NonFiniteError: sqrt of 0.0 has the derivative inf, which met a gradient of 0, ...

So the Hessian of the square of a norm is 0 at 0, and Newton's method meets a singular matrix. The
log density of a logistic has a slope of the wrong sign where `exp` overflows:

>>> graph = vgrad.trace(lambda x, y: sqrt(x * x + y * y) ** 2, (), ())
>>> slope = graph.gradient(graph.inputs)
>>> vgrad.compile(slope.gradient(slope.inputs, of=1))([], [0.0], [0.0])[-1]  # by calculus [[2, 0]]
array([[0., 0.]])
>>> x = Value(-710.0)
>>> y = -x - 2 * log(1 + exp(-x))
>>> y.backward()
>>> y.data, x.grad  # by calculus -710 and 1
(-inf, -1.0)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import isfinite, nan
from typing import Any, NamedTuple

from . import ops
from .errors import NonFiniteError
from .operand import Operand

Node = Any  # a Value; `engine` imports this file
Fits = Callable[[float], bool]

CHOICE = (
    "that gives 0, but the limit may be another; keep the operand off this point with where, or "
    "add a small number to it"
)


class Cause(NamedTuple):
    """Where a number that is not finite began."""

    node: Node
    got: float
    sweep: str
    # The gradient it was made from; None for a sum of several. If 0, `got` is the derivative.
    arrived: float | None = None


def check_finite(*values: Any) -> None:
    """Raise NonFiniteError if a `Value` is infinite or nan, and name the op where that began.

    Raises TypeError if one is no `Value`.

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
    return Cause(before, before._number, "forward")


def _to_blame(node: Node, fits: Fits) -> Iterator[Node]:
    """The operands that do not fit, first those that alone spoil the result."""
    finite = [x._number if fits(x._number) else 1.0 for x in node.parents]
    wrong = [k for k, x in enumerate(node.parents) if not fits(x._number)]
    for k in wrong:
        numbers = [*finite[:k], node.parents[k]._number, *finite[k + 1 :]]
        if not fits(ops.evaluate(node.op.forward, *numbers)):
            yield node.parents[k]
    yield from (node.parents[k] for k in wrong)


def backward_cause(
    nodes: list[Node], leaves: Iterable[Node], fits: Fits = isfinite
) -> Cause | None:
    """Where the first leaf's unfit gradient would begin, if `nodes[0]` were the root; or None.

    The walk goes as `backpropagate` does, but a gradient of 0 is not kept from inf or nan, unless
    it is that of a branch not taken: there rules give 0, whatever arrives.
    """
    gradients = {nodes[0]: 1.0 + _before(nodes[0])}
    parts: dict[Node, tuple[Node, float]] = {}  # the first unfit part for each node
    for node in nodes:
        g, parents = gradients.get(node), node.parents
        if g is None:
            continue
        numbers = (node._number, *[x._number for x in parents])
        for x, vjp in zip(parents, node.op.vjp):
            if vjp is not None and x.op is not ops.const:
                part = ops.evaluate(vjp, g, *numbers)
                if part or ops.evaluate(vjp, nan, *numbers):
                    gradients[x] = gradients.get(x, _before(x)) + part
                if not fits(part):
                    parts.setdefault(x, (node, part if g else ops.evaluate(vjp, 1.0, *numbers)))
    node = next((x for x in leaves if not fits(gradients.get(x, 0.0))), None)
    if node is None:
        return None
    while node in parts:
        node, got = parts[node]
        if fits(gradients[node]):
            return Cause(node, got, "backward", gradients[node])
    return Cause(node, gradients[node], "backward")


def _before(node: Node) -> float:
    """The gradient that a pass adds to: a leaf's own."""
    return 0.0 if node.level else node.grad


def check_backward(nodes: list[Node]) -> None:
    """Raise NonFiniteError if the gradients of `nodes[0]` to the leaves would not be finite."""
    check_finite(nodes[0])
    watched = [x for x in nodes if not x.level and isfinite(x.grad)]  # not since an older pass
    cause = backward_cause(nodes, watched)
    if cause is not None:
        raise error(cause)


def error(
    cause: Cause,
    line: str = "",
    node: int | None = None,
    sample: int | None = None,
    inputs: dict[str, Any] | None = None,
    path: str = "",
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
    if path:
        message += f"; on the path where {path}"
    if cause.arrived == 0:
        message += f"; {CHOICE}"
    result = NonFiniteError(message)
    result.op, result.got, result.sweep = cause.node.op.name, cause.got, cause.sweep
    result.operands = tuple(x._number for x in cause.node.parents)
    result.label, result.line, result.node = label, line, node
    result.sample, result.inputs = sample, inputs or {}
    return result


def _sentence(cause: Cause) -> str:
    op, got, operands = cause.node.op.name, cause.got, cause.node.parents
    if cause.sweep == "backward" and cause.arrived is None:
        return f"the gradients that meet at the {op} add up to {got}"
    if not operands:
        return f"the {op} was {got}"
    of = listed([x._number for x in operands])
    if cause.sweep == "forward":
        return f"{op} of {of} gave {got}"
    if cause.arrived == 0:
        return f"{op} of {of} has the derivative {got}, which met a gradient of 0"
    return f"{op} of {of} made {got} of a gradient of {cause.arrived}"


def listed(numbers: list[float]) -> str:
    """1.0, 2.0 and 3.0."""
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}" if most else last
