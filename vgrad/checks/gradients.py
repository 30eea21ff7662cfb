"""Gradients against central differences, on either engine; and which op's rule is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..arguments import Array, as_numbers
from ..engine import NO_GRADIENT, Value, reachable
from ..finite import listed
from ..flat import Graph, argument_names
from ..program import Program, Replay, compile, parameter_name, split
from .differences import EPSILON, Slope, slope

STEP, TOLERANCE = 1e-3, 1e-6
SCALES = 1.0, 1 / 32, 1 / 1024  # of the step, besides the size of x: what errs least counts
ROUGH, LEAST = 1e-3, 1e-3  # the error that differences may have, relative to their size or LEAST
REPLAYED = 16  # samples, at the most, in which the op is looked for whose rule is off


class Derivative(NamedTuple):
    """One derivative, as the engine has it and as differences have it."""

    name: str
    got: float
    want: float
    error: float  # how far the differences may be off
    kink: bool

    @property
    def judged(self) -> bool:
        """Whether the differences say enough: not at a kink, nor where they are far too rough."""
        return not self.kink and self.error <= ROUGH * max(abs(self.want), LEAST)

    def gap(self, tolerance: float) -> float:
        """Their distance as a share of what is allowed: over 1 is too much."""
        if not self.judged or self.got == self.want:
            return 0.0
        size = max(abs(self.got), abs(self.want))
        gap = abs(self.got - self.want) / (tolerance * size + self.error)
        return gap if gap == gap else np.inf


@dataclass(frozen=True, repr=False)
class Gradcheck:
    """What `gradcheck` found; true where nothing is wrong, and its text says it.

    It is not true either where differences could judge nothing.
    """

    derivatives: list[Derivative]
    tolerance: float
    step: float
    rules: list[str] = field(default_factory=list)  # of which ops are off, and where

    @property
    def wrong(self) -> list[Derivative]:
        """Those further from the differences than allowed, the worst first."""
        wrong = [x for x in self.derivatives if x.gap(self.tolerance) > 1]
        return sorted(wrong, key=lambda x: -x.gap(self.tolerance))

    @property
    def unsure(self) -> list[Derivative]:
        """Those that differences cannot judge: at kinks, or where they are far too rough."""
        return [x for x in self.derivatives if not x.judged]

    def __bool__(self) -> bool:
        nothing_judged = self.unsure and len(self.unsure) == len(self.derivatives)
        return not self.wrong and not nothing_judged

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
    step: float = STEP,
    tolerance: float = TOLERANCE,
) -> Gradcheck:
    """Compare gradients with central differences, and report the worst.

    A function is checked on the scalar engine, at the numbers and arrays `args`, as are the
    trainable `Value`s that it uses; it may return a tuple that begins with the objective. A
    `Program` or a `Graph` is checked on the vector engine, at theta (P,) and the arrays of a
    batch. A derivative is wrong if it is further from the differences than `tolerance` times its
    size, plus what these may themselves be off. Then every op behind the result is checked by
    itself, and those whose rule is off are named.

    >>> import vgrad
    >>> print(vgrad.gradcheck(lambda x, y: vgrad.exp(x) / y, 1.0, 2.0))
    2 of 2 derivatives agree with central differences (step 0.001, tolerance 1e-06)

    Raises what the function or program itself raises, and ValueError for a step or tolerance that
    is not positive.
    """
    for name, x in (("step", step), ("tolerance", tolerance)):
        if not ops.number(x) > 0:
            raise ValueError(f"{name} must be positive (got {x!r})")
    if not callable(fn) and not isinstance(fn, Graph):
        raise TypeError(f"gradcheck takes a function, a Program or a Graph (got {fn!r})")
    if isinstance(fn, Graph):
        fn = compile(fn)
    if isinstance(fn, Program):
        derivatives, nodes = _of_program(fn, *args, step=step)
    else:
        derivatives, nodes = _of_function(fn, args, step)
    report = Gradcheck(derivatives, tolerance, step)
    if report:
        return report
    return Gradcheck(derivatives, tolerance, step, list(_wrong_rules(nodes, step, tolerance)))


def _of_program(
    program: Program, theta: Any = None, *args: Any, step: float
) -> tuple[list[Derivative], list[Value]]:
    call = program.prepared(program.theta(*args) if theta is None else theta, args, scalar=True)
    runner, batch, graph = call.runner, call.batch, call.runner.graph
    epsilon = float(np.finfo(runner.dtype).eps)

    def mean(k: int, change: Array) -> float:
        theta = call.theta.copy()
        theta[k] += change
        return float(np.mean(call._replace(theta=theta).outputs()[0], dtype=np.float64))

    def objective(i: int, column: int, change: Array) -> Array:
        moved = call.arrays[i].copy()
        moved.reshape(batch, -1)[:, column] += change
        given = [*call.arrays[:i], moved, *call.arrays[i + 1 :]]
        outputs: Array = call._replace(arrays=given).outputs()[0]
        return outputs

    _, gradient, _ = call.gradient(batch)
    found: list[Derivative] = []
    for k, got in enumerate(gradient.tolist()):
        name = parameter_name(graph, k)
        found += _derivatives([name], partial(mean, k), call.theta[k], got, step, epsilon)
    _, by_input = call.input_gradients()
    wrong = np.zeros(batch)
    for i, gradients in enumerate(split(by_input, graph.input_shapes)):
        flat = call.arrays[i].reshape(batch, -1)
        for column, index in enumerate(np.ndindex(gradients.shape[1:])):
            name = f"input {i}{list(index) if index else ''}"
            names = [f"{name} of sample {b}" for b in range(batch)]
            got = gradients[(slice(None), *index)]
            f = partial(objective, i, column)
            of_column = list(_derivatives(names, f, flat[:, column], got, step, epsilon))
            wrong += [x.gap(TOLERANCE) > 1 for x in of_column]
            found += of_column
    telling = np.argsort(-wrong, kind="stable")[:REPLAYED].tolist()
    replays = (Replay(call, b).values for b in telling)
    return found, [node for values in replays for node in values]


def _of_function(
    fn: Callable[..., Any], args: tuple[Any, ...], step: float
) -> tuple[list[Derivative], list[Value]]:
    arrays = [as_numbers(x, f"argument {i}") for i, x in enumerate(args)]
    names = [
        f"{name}{list(index) if index else ''}"
        for name, array in zip(argument_names(fn, len(args)), arrays)
        for index in np.ndindex(array.shape)
    ]
    point = np.concatenate([np.empty(0), *(array.ravel() for array in arrays)])
    root, inputs = _called(fn, arrays, point)
    nodes = reachable(root)
    parameters = [x for x in nodes if x.trainable]

    def by_input(k: int, change: Array) -> float:
        moved = point.copy()
        moved[k] += change
        return _called(fn, arrays, moved)[0].data

    def by_parameter(p: Value, change: Array) -> float:
        before = p.data
        try:
            p.data = before + change
            return _called(fn, arrays, point)[0].data
        finally:
            p.data = before

    before = [p.grad for p in parameters]
    try:
        for p in parameters:
            p.grad = NO_GRADIENT
        root.backward()
        gradients = [x.grad for x in (*inputs, *parameters)]
    finally:
        for p, grad in zip(parameters, before):
            p.grad = grad
    names += [f"parameter {(p.label and repr(p.label)) or k}" for k, p in enumerate(parameters)]
    functions = [partial(by_input, k) for k in range(len(inputs))]
    functions += [partial(by_parameter, p) for p in parameters]
    numbers = [x.data for x in (*inputs, *parameters)]
    found: list[Derivative] = []
    for name, f, x, got in zip(names, functions, numbers, gradients):
        found += _derivatives([name], f, x, got, step)
    return found, nodes


def _called(fn: Callable[..., Any], arrays: list[Array], point: Array) -> tuple[Value, list[Value]]:
    """The objective of `fn` at a point that has all numbers of these arrays, and the inputs."""
    inputs = [Value(x, trainable=False) for x in point.tolist()]
    given, start = [], 0
    for array in arrays:
        part = np.empty(array.size, dtype=object)
        part[:] = inputs[start : start + array.size]
        given.append(part.reshape(array.shape)[()])
        start += array.size
    result = fn(*given)
    while isinstance(result, (tuple, list)) and result:
        result = result[0]
    if not isinstance(result, Value):
        raise TypeError(
            f"the function must return a Value, or a tuple that begins with one (got {result!r})"
        )
    return result, inputs


def _derivatives(
    names: list[str],
    f: Callable[[Any], Any],
    x: Any,
    got: Any,
    step: float,
    epsilon: float = EPSILON,
) -> Iterator[Derivative]:
    """`got` beside what differences of `f(change)` give, in steps of several sizes."""
    size = abs(np.asarray(x, np.float64))
    tried: list[Slope] = []
    agree: list[Any] = []
    for scale in (*SCALES, np.where(size == 0, 1.0, size)):
        found = slope(partial(_scaled, f, scale), step, epsilon)
        tried.append(Slope(found.value / scale, found.error / scale, found.kink))
        gap = abs(tried[-1].value - got) + tried[-1].error
        agree.append(gap <= TOLERANCE * np.maximum(abs(np.asarray(got)), LEAST))
        if np.any(agree, axis=0).all():
            break
    columns = np.broadcast_arrays(got, *_best(tried, agree))
    for name, *numbers in zip(names, *(np.ravel(column).tolist() for column in columns)):
        yield Derivative(name, *numbers)


def _best(tried: list[Slope], agree: list[Any]) -> Slope:
    """Each derivative from a step at which it agrees, else from the one that errs least.

    Then it may err by four times of what it differs from the next best: rounding inside of what is
    differentiated does not show in a single one.
    """
    errors = np.array([np.where(np.isnan(x.error), np.inf, x.error) for x in tried])
    order = np.argsort(np.where(agree, -1.0, errors), axis=0, kind="stable")
    value, error, kink = (np.take_along_axis(np.array(x), order, 0) for x in zip(*tried))
    if len(tried) > 1:
        apart = np.nan_to_num(4 * abs(value[0] - value[1]), nan=np.inf)
        error[0] = np.where(np.any(agree, axis=0), error[0], np.maximum(error[0], apart))
    return Slope(value[0], error[0], kink[0])


def _scaled(f: Callable[[Any], Any], scale: Any, change: float) -> Any:
    return f(scale * change)


def _wrong_rules(nodes: Iterable[Value], step: float, tolerance: float) -> Iterator[str]:
    """For each rule that is off somewhere, where that is worst."""
    worst: dict[tuple[ops.Op, int], tuple[Derivative, Value]] = {}
    for node in nodes:
        for k, rule in enumerate(node.op.vjp):
            if rule is not None:
                found = _of_rule(node, k, rule, step)
                before = worst.get((node.op, k))
                if found.gap(tolerance) > (before[0].gap(tolerance) if before else 1.0):
                    worst[node.op, k] = found, node
    for (op, k), (found, node) in worst.items():
        where = f" in {node.label!r}" if node.label else ""
        yield (
            f"the rule of {op.name} for operand {k} is off: {found.got:.9g} for {found.want:.9g}, "
            f"at {listed([x.data for x in node.parents])}{where}"
        )


def _of_rule(node: Value, k: int, rule: ops.Rule, step: float) -> Derivative:
    """What the rule for operand k gives, beside differences of the op itself."""
    xs = [x.data for x in node.parents]

    def moved(change: Any) -> float:
        return ops.evaluate(node.op.forward, *xs[:k], xs[k] + float(change), *xs[k + 1 :])

    (found,) = _derivatives([""], moved, xs[k], ops.evaluate(rule, 1.0, node.data, *xs), step)
    return found
