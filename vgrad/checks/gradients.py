"""Gradients of either engine against central differences; and which op's rule is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array, as_numbers
from ..arrays import OperandArray
from ..engine import Value, reachable
from ..finite import listed
from ..flat import Graph, argument_names
from ..program import Program, Replay, compile, parameter_name, split
from .differences import TOLERANCE, Claims, Derivative, compare

REPLAYED = 16  # samples, at most, that are searched for a wrong rule

Suspects = Callable[[list[Derivative]], Iterable[Value]]  # the nodes whose rules may be wrong


@dataclass(frozen=True, repr=False)
class Gradcheck:
    """The report of `gradcheck`: true if nothing is wrong and something could be judged.

    Its text says what is wrong.

    >>> import vgrad
    >>> report = vgrad.gradcheck(abs, 0.0)  # at its kink
    >>> bool(report), report.wrong, [x.name for x in report.unsure]
    (False, [], ['x'])
    """

    derivatives: list[Derivative]
    tolerance: float
    step: float
    rules: list[str] = field(default_factory=list)  # which ops' rules are wrong, and where

    @property
    def wrong(self) -> list[Derivative]:
        """The derivatives further from the differences than allowed, the worst first."""
        wrong = [x for x in self.derivatives if x.gap(self.tolerance) > 1]
        return sorted(wrong, key=lambda x: -x.gap(self.tolerance))

    @property
    def unsure(self) -> list[Derivative]:
        """Those that differences cannot judge: at kinks, or where they are too rough."""
        return [x for x in self.derivatives if not x.judged]

    def __bool__(self) -> bool:
        some_judged = not self.unsure or len(self.unsure) < len(self.derivatives)
        return some_judged and not self.wrong

    def __str__(self) -> str:
        how = f"central differences (step {self.step:g}, tolerance {self.tolerance:g})"
        total, unsure = len(self.derivatives), len(self.unsure)
        text = f"{total - unsure} of {total} derivatives agree with {how}"
        if unsure:
            text += f"; {unsure} cannot be judged, at kinks or where differences are too rough"
        if self.wrong:
            worst = self.wrong[0]
            text = (
                f"{len(self.wrong)} of {total} derivatives disagree with {how}; the worst is that "
                f"to {worst.name}: {worst.got:.9g}, where differences give {worst.want:.9g}"
            )
        return "; ".join([text, *self.rules])

    __repr__ = __str__


def gradcheck(
    fn: Callable[..., Any] | Program | Graph,
    *args: Any,
    step: float = 1e-3,
    tolerance: float = TOLERANCE,
) -> Gradcheck:
    """Compare gradients with central differences, and report the worst.

    A function is checked on the scalar engine, at the numbers and arrays `args` and the trainable
    `Value`s it uses; it may return a tuple that begins with the objective. A `Program` or a `Graph`
    is checked on the vector engine, at theta (P,) and the arrays of a batch. A derivative is wrong
    if its distance from the differences exceeds `tolerance` times its size plus the differences'
    own error. If one is, every op of the graph is checked by itself, and wrong rules are named.

    >>> import vgrad
    >>> print(vgrad.gradcheck(lambda x, y: vgrad.exp(x) / y, 1.0, 2.0))
    2 of 2 derivatives agree with central differences (step 0.001, tolerance 1e-06)

    Raises what the function or program itself raises, ValueError for a step or tolerance that is
    not positive, and TypeError if `fn` is none of the three.
    """
    for name, x in (("step", step), ("tolerance", tolerance)):
        if not ops.number(x) > 0:
            raise ValueError(f"{name} must be positive (got {x!r})")
    if isinstance(fn, Graph):
        fn = compile(fn)
    if isinstance(fn, Program):
        claims, suspects = _of_program(fn, *args)
    elif callable(fn):
        claims, suspects = _of_function(fn, *args)
    else:
        raise TypeError(f"gradcheck takes a function, a Program or a Graph (got {fn!r})")
    found = compare(claims, step)
    report = Gradcheck(found, tolerance, step)
    return report or replace(report, rules=_wrong_rules(suspects(found), step, tolerance))


# --- what is claimed: by a program, a function, the rules of a single op ------------------------


def _of_program(program: Program, theta: Any = None, *args: Any) -> tuple[Claims, Suspects]:
    """The mean gradient to each parameter, and the gradient to each input in every sample."""
    call = program.prepared(program.theta(*args) if theta is None else theta, args, scalar=True)
    graph, batch, count = call.runner.graph, call.batch, len(call.theta)
    names: list[Any] = [parameter_name(graph, k) for k in range(count)]
    for i, shape in enumerate(graph.input_shapes):
        inputs = [f"input {i}{list(index) or ''}" for index in np.ndindex(shape)]
        names += [[f"{name} of sample {b}" for b in range(batch)] for name in inputs]

    def objective(point: list[Any]) -> Any:
        arrays = split(np.reshape(point[count:], (-1, batch)), graph.input_shapes)
        theta = np.array(point[:count])
        found = call.at(theta, list(arrays)).outputs()[0]
        return found if program.once is None else found + program.once(theta)

    def suspects(found: list[Derivative]) -> Iterator[Value]:
        """The nodes of the samples in which most of the gradients to inputs are wrong."""
        wrong = np.reshape([x.gap(TOLERANCE) > 1 for x in found[count:]], (-1, batch)).sum(axis=0)
        for sample in np.argsort(-wrong, kind="stable")[:REPLAYED].tolist():
            yield from Replay(*call.located(sample)).values

    _, gradient, _ = call.gradient(divisor=batch)
    if program.once is not None:
        gradient = gradient + program.once.value_and_grad(call.theta)[1]
    _, by_input = call.input_gradients()
    point = [*call.theta, *(column for x in call.arrays for column in x.reshape(batch, -1).T)]
    epsilon = float(np.finfo(call.runner.dtype).eps)
    return Claims(names, objective, point, [*gradient.tolist(), *by_input], epsilon), suspects


def _of_function(fn: Callable[..., Any], *args: Any) -> tuple[Claims, Suspects]:
    """The gradient to each number of `args`, and to each trainable `Value` that `fn` uses."""
    given = [
        _as_values(as_numbers(x, f"argument {i}"), name)
        for i, (x, name) in enumerate(zip(args, argument_names(fn, len(args))))
    ]
    inputs = [x for values in given for x in values.flat]
    nodes = reachable(_objective(fn, given))
    parameters = [x for x in nodes if x.trainable]
    names = [x.label for x in inputs]
    names += [f"parameter {(p.label and repr(p.label)) or k}" for k, p in enumerate(parameters)]
    leaves = [*inputs, *parameters]

    def objective(point: list[Any]) -> float:
        with _restored(leaves):
            for leaf, data in zip(leaves, point):
                leaf.data = data
            return _objective(fn, given).data

    with _restored(nodes):
        nodes[0].zero_grad()
        nodes[0].backward()
        gradient = [x.grad for x in leaves]
    return Claims(names, objective, [x.data for x in leaves], gradient), lambda _: nodes


def _as_values(array: Array, name: str) -> Any:
    values = np.empty(array.shape, dtype=object).view(OperandArray)
    for index in np.ndindex(array.shape):
        values[index] = Value(array[index].item(), f"{name}{list(index) or ''}", trainable=False)
    return values


@contextmanager
def _restored(values: list[Value]) -> Iterator[None]:
    """Give these their numbers and gradients back after the `with` block."""
    before = [(x, x.data, x.grad) for x in values]
    try:
        yield
    finally:
        for x, data, grad in before:
            x.data, x.grad = data, grad


def _objective(fn: Callable[..., Any], given: list[Any]) -> Value:
    """The first thing that `fn` returns, given copies of the arrays, as it may change them."""
    result = fn(*(values.copy()[()] for values in given))
    while isinstance(result, (tuple, list)) and result:
        result = result[0]
    if not isinstance(result, Value):
        raise TypeError(
            f"the function must return a Value, or a tuple that begins with one (got {result!r})"
        )
    return result


def _of_op(node: Value) -> Claims:
    """The derivatives of a node's op to its operands, as its rules have them."""
    op, point = node.op, [x.data for x in node.parents]
    names = [f"the rule of {op.name} for operand {k}" for k in range(op.arity)]
    gradient = [vjp and ops.evaluate(vjp, 1.0, node.data, *point) for vjp in op.vjp]
    return Claims(names, lambda xs: ops.evaluate(op.forward, *map(float, xs)), point, gradient)


def _wrong_rules(nodes: Iterable[Value], step: float, tolerance: float) -> list[str]:
    """For each rule that is wrong somewhere, where it is worst."""
    worst: dict[str, tuple[float, str]] = {}
    for node in nodes:
        for found in compare(_of_op(node), step):
            gap = found.gap(tolerance)
            if gap > worst.get(found.name, (1.0,))[0]:
                at = listed([x.data for x in node.parents]) + (node.label and f" in {node.label!r}")
                text = f"{found.name} is off: {found.got:.9g} for {found.want:.9g}, at {at}"
                worst[found.name] = gap, text
    return [text for _, text in worst.values()]
