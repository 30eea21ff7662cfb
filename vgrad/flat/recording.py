"""Recording: a function called once on nodes, or a DAG of `Value`s, becomes a `Graph`."""

from __future__ import annotations

import inspect
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from threading import get_ident
from typing import Any, TypeVar
from weakref import ref

import numpy as np

from .. import ops
from ..arguments import Shape, as_list, distinct_leaves
from ..arrays import boxed, wants_floats
from ..engine import Value
from ..errors import TraceError
from ..lines import defining_line, error_line, outermost_frame
from ..operand import Watch, look, watches
from ..progress import Progress, Report
from .graph import Graph
from .questions import LoneSample
from .refusals import refusal, wants_numbers
from .tape import Tape
from .ways import merged

T = TypeVar("T")

# Of recording, where other threads may have had a part in it. Between two of them there is time for
# work to begin that is about to, as of a pool whose tasks all wait for the same recording.
ATTEMPTS = 4
PAUSE = 0.01  # seconds, four times as long after each attempt


def trace(
    fn: Callable[..., Any],
    *shapes: Shape,
    parameters: Any = None,
    lines: bool = False,
    progress: Report | None = None,
) -> Graph:
    """Call `fn` once on nodes in place of numbers, and return what it computed as a `Graph`.

    One argument per shape: a node for `()`, an object ndarray of nodes for any other. `fn` returns
    a node, or a tuple, list or array of them. `parameters` are leaf `Value`s, in the order of
    theta; by default every trainable leaf that `fn` reaches, in order of first use. Every other
    leaf is a constant. `lines=True` notes the source line of every node. `progress`, such as
    `print`, is called with a text on how far it is, where that takes more than a second.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> vgrad.trace(lambda x: (w * x).sum(), (2,))
    Graph(6 nodes, 2 levels, 2 inputs, 1 parameter, 1 output)

    Raises TraceError if `fn` does something that cannot be recorded faithfully, and TypeError or
    ValueError for parameters that are not distinct leaf `Value`s.
    """
    tape = Tape(parameters, lines)
    tape.progress = Progress(progress)
    return _published(record(fn, shapes, tape))


def record(fn: Callable[..., Any], shapes: Sequence[Shape], tape: Tape) -> Graph:
    """Call `fn` once on nodes of `tape`, and return what it computed as a graph."""
    return _called(fn, shapes, tape, Tape.graph)


def run_alone(fn: Callable[..., Any], shapes: Sequence[Shape], tape: Tape) -> LoneSample:
    """Call `fn` for the one sample whose numbers the tape has, and return what it computed."""
    return _called(fn, shapes, tape, Tape.lone)


# How a tape gives what a function returned on it: by (tape, outputs, shapes, name).
Read = Callable[[Tape, Any, Sequence[Shape], str], T]


def _called(
    fn: Callable[..., Any],
    shapes: Sequence[Shape],
    tape: Tape,
    read: Read[T],
    attempts: int = ATTEMPTS,
) -> T:
    """What `fn` returns on nodes, read from the tape.

    It is called again, on a new tape, if another thread may have looked at a number on its behalf.
    """
    if not callable(fn):
        raise TypeError(f"must be a function (got {fn!r}, a {type(fn).__name__})")
    watch = TapeWatch(tape)
    result = _attempt(fn, shapes, tape, watch, read)
    if watch.doubt is None:
        return result
    if attempts == 1:
        raise watch.doubt
    time.sleep(PAUSE * 4 ** (ATTEMPTS - attempts))
    return _called(fn, shapes, tape.again(), read, attempts - 1)


def _attempt(
    fn: Callable[..., Any], shapes: Sequence[Shape], tape: Tape, watch: TapeWatch, read: Read[T]
) -> T:
    names = argument_names(fn, len(shapes))
    arguments = [tape.argument(shape, name) for shape, name in zip(shapes, names)]
    try:
        watches.add(ref(watch, watches.discard))
        outputs = fn(*arguments)
        return read(tape, outputs, shapes, f"what {_describe(fn)} returns")
    except Exception as error:
        if tape.refusal is not None and error is not tape.refusal:
            raise tape.refusal from error  # which NumPy, perhaps, has put in other words
        text = wants_floats(error) or wants_numbers(error)
        if text:
            raise TraceError(f"{text} ({error_line(error)})") from error
        raise
    finally:
        tape.close()
        watches.discard(ref(watch))


class TapeWatch(Watch):
    """Sees who looks at a number while `tape` records a function, and refuses what would freeze it.

    What the tape's own thread does meanwhile is the function's doing, in any context. Other threads
    do not say who started them. One whose work had begun before is left alone, so that models can
    be trained while others are recorded. Work that begins meanwhile may be the function's, or
    somebody else's: it gets its number, and the recording is in doubt. The next attempt finds
    somebody else's at work already, but starts the function's own once more. What this cannot find
    is a thread with a loop of its own, running before, that takes an order from the function.
    """

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape
        self.doubt: TraceError | None = None  # what to raise if it does not vanish
        threads = sys._current_frames()
        threads.pop(tape.thread)
        self._before = set(map(outermost_frame, threads.values()))

    def merged(self, function: Callable[..., Any], args: Any, named: dict[str, Any]) -> Any:
        return merged(self.tape, function, args, named)

    def __call__(self, value: Any, means: str) -> Any:
        if self._process != os.getpid():
            return None
        if get_ident() == self.tape.thread:
            return self.tape.look(value, means)
        before = outermost_frame(sys._getframe()) in self._before
        if before or not self.tape.parameters.reach(value):
            return None
        if means == "repr":
            return True
        self.doubt = self.doubt or refusal(means, elsewhere=True)
        return None


def _published(graph: Graph) -> Graph:
    """The graph, which shows its parameters' numbers: a function being recorded must not see it."""
    for leaf in graph.leaves:
        look(leaf, "recorded")
    return graph


def capture(*roots: Any, parameters: Any = None, inputs: Sequence[Any] = ()) -> Graph:
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
    shapes = [array.shape for array in arrays]
    return _published(tape.graph(outputs, shapes, "each root of capture"))


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
    return f"{name} ({defining_line(fn)})" if hasattr(fn, "__code__") else name


def recorded(
    op: ops.Op, rule: ops.Rule, number: float | None, leading: int = 0, known: int | None = None
) -> Graph:
    """A rule of the op's row as a graph over its arguments.

    `number` is the value of the op's static operand, or of the one that is `known`, if there is
    one: the graph has it as a constant. `leading` counts the arguments before the operands, 2 for a
    vjp: the gradient and the result.
    """
    sign = 0.0 if number is None else math.copysign(1.0, number)  # as 0.0 == -0.0
    return _recorded(op, rule, number, sign, leading, op.static if known is None else known)


@lru_cache(maxsize=4096)  # some 9 MB: there is no end of numbers
def _recorded(
    op: ops.Op,
    rule: ops.Rule,
    number: float | None,
    sign: float,
    leading: int,
    known: int | None,
) -> Graph:
    place = None if number is None or known is None else leading + known

    def call(*nodes: Any) -> Any:
        result = rule(*(number if k == place else node for k, node in enumerate(nodes)))
        return result if hasattr(result, "_apply") else Value(result, trainable=False)

    return trace(call, *[()] * (leading + op.arity), parameters=[])


recorded.cache_clear = _recorded.cache_clear  # type: ignore[attr-defined]


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
