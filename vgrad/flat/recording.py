"""Recording: a function called once on nodes, or a DAG of `Value`s, becomes a `Graph`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from .. import ops
from ..arguments import Shape, as_list, distinct_leaves
from ..engine import Value
from ..lines import source_line
from ..operand import boxed, on_look
from .graph import Graph
from .tape import Tape

T = TypeVar("T")


def trace(
    fn: Callable[..., Any],
    *shapes: Shape,
    parameters: Iterable[Value] | None = None,
    lines: bool = False,
) -> Graph:
    """Call `fn` once on nodes in place of numbers, and return what it computed as a `Graph`.

    One argument per shape: a node for `()`, an object ndarray of nodes for any other. `fn` returns
    a node, or a tuple, list or array of them. `parameters` are leaf `Value`s, in the order of
    theta; by default every trainable leaf that `fn` reaches, in order of first use. Every other
    leaf is a constant. `lines=True` notes the source line of every node.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> vgrad.trace(lambda x: (w * x).sum(), (2,))
    Graph(6 nodes, 2 levels, 2 inputs, 1 parameter, 1 output)

    Raises TraceError if `fn` does something that cannot be recorded faithfully, and TypeError or
    ValueError for parameters that are not distinct leaf `Value`s.
    """
    return record(fn, shapes, Tape(parameters, lines))


def record(fn: Callable[..., Any], shapes: Sequence[Shape], tape: Tape) -> Graph:
    """Call `fn` once on nodes of `tape`, and return what it computed."""
    if not callable(fn):
        raise TypeError(f"must be a function (got {fn!r}, a {type(fn).__name__})")
    names = argument_names(fn, len(shapes))
    arguments = [tape.argument(shape, name) for shape, name in zip(shapes, names)]
    try:
        # in a context of its own, which ends even at an interrupt
        outputs = copy_context().run(_watched, fn, arguments, tape)
        return tape.graph(outputs, shapes, f"what {_describe(fn)} returns")
    except Exception as error:
        if tape.refusal is not None and error is not tape.refusal:
            raise tape.refusal from error  # which NumPy, perhaps, has put in other words
        raise
    finally:
        tape.close()


def _watched(fn: Callable[..., Any], arguments: list[Any], tape: Tape) -> Any:
    outer = on_look.get()  # the listener of a function that calls this one, if one is recorded

    def listen(value: Any, means: str) -> None:
        tape.refuse_look(value, means)
        if outer is not None:
            outer(value, means)

    on_look.set(listen)
    return fn(*arguments)


def capture(
    *roots: Any, parameters: Iterable[Value] | None = None, inputs: Sequence[Any] = ()
) -> Graph:
    """Turn the `Value`s that `roots` were computed from into a `Graph` that can be replayed.

    The first root is the objective. Each of `inputs` is a leaf `Value`, or a list or array of
    them, and becomes one argument of the graph; `parameters` are as for `trace`, and first use is
    counted in the order of evaluation, operands from left to right.

    >>> import vgrad
    >>> x, w = vgrad.Value(2.0), vgrad.Value(3.0)
    >>> vgrad.capture(w * x + 1, inputs=(x,))
    Graph(5 nodes, 2 levels, 1 input, 1 parameter, 1 output)

    Raises TraceError if a root is not a `Value`, and TypeError or ValueError for inputs and
    parameters that are not distinct leaf `Value`s.
    """
    arrays = [np.array(boxed(x), dtype=object) for x in as_list("inputs", inputs)]
    tape = Tape(parameters)
    for value in distinct_leaves("inputs", [x for array in arrays for x in array.flat]):
        if value in tape.index:
            raise ValueError(f"{value} must be an input or a parameter, not both")
        tape.leaf(ops.input, value)
    if any(hasattr(root, "line") for root in roots):
        tape.lines = {}
    outputs = roots[0] if len(roots) == 1 else roots
    return tape.graph(outputs, [array.shape for array in arrays], "each root of capture")


def argument_names(fn: Callable[..., Any], count: int) -> list[str]:
    """What `fn` calls its first `count` positional arguments, or input0, input1 and so on."""
    known: list[str] = []
    with suppress(TypeError, ValueError):
        parameters = inspect.signature(fn).parameters.values()
        known = [p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
    return [*known[:count], *(f"input{i}" for i in range(len(known), count))]


def _describe(fn: Callable[..., Any]) -> str:
    """The name of `fn` and the line that defines it, for error messages."""
    name = getattr(fn, "__name__", type(fn).__name__)
    code = getattr(fn, "__code__", None)
    return f"{name} ({source_line(code.co_filename, code.co_firstlineno)})" if code else name


@lru_cache(maxsize=4096)  # some 9 MB: there is no end of numbers
def recorded(op: ops.Op, rule: ops.Rule, number: float | None, leading: int = 0) -> Graph:
    """A rule of the op's row as a graph over its arguments.

    `number` is the value of the op's static operand, if that is known: the graph has it as a
    constant. `leading` counts the arguments before the operands, 2 for a vjp: the gradient and
    the result.
    """
    static = None if number is None or op.static is None else leading + op.static

    def call(*nodes: Any) -> Any:
        result = rule(*(number if k == static else node for k, node in enumerate(nodes)))
        return result if hasattr(result, "_apply") else Value(result, trainable=False)

    return trace(call, *[()] * (leading + op.arity), parameters=[])


def interpret(
    rule: Graph,
    inputs: Sequence[T],
    constant: Callable[[float], T],
    apply: Callable[[ops.Op, list[T], float | None, bool], T],
) -> T:
    """Walk once through a recorded rule, and return what its output becomes.

    A constant becomes `constant(value)`, any other node `apply(op, operands, number, is_last)`,
    where `number` is the value of the op's static operand, or None if that is not a constant.

    >>> rule = recorded(ops.tanh, ops.tanh.vjp[0], None, leading=2)
    >>> interpret(rule, ["g", "out", "x"], str, lambda op, xs, *_: f"({f' {op.symbol} '.join(xs)})")
    '(g * (1.0 - (out * out)))'
    """
    results: dict[int, T] = dict(zip(rule.inputs.tolist(), inputs))
    known: dict[int, float] = {}
    last = int(rule.outputs[0])
    for node, code in enumerate(rule.op.tolist()):
        op = ops.OPS[code]
        if op is ops.const:
            known[node] = float(rule.value[node])
            results[node] = constant(known[node])
        elif op.arity:
            parents = rule.parents[node, : op.arity].tolist()
            number = None if op.static is None else known.get(parents[op.static])
            results[node] = apply(op, [results[x] for x in parents], number, node == last)
    return results[last]
