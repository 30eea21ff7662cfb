"""The tape: nodes in place of numbers, and a record of the ops on them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import islice
from threading import get_ident
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Shape, Structure
from ..arrays import as_operands
from ..engine import Value, no_truth
from ..errors import TraceError
from ..lines import user_line
from ..operand import Operand, look
from ..progress import Progress
from .bulk import Bulk
from .graph import Graph
from .node import Node
from .parameters import Parameters
from .passes import canonical_order
from .questions import ANSWERS, OPS, Answers, LoneSample, Question, SampleAnswers
from .refusals import asked_here, refusal


class Tape:
    """The record so far: one entry per node in every list, in order of recording."""

    def __init__(
        self,
        parameters: Any = None,
        lines: bool = False,
        complete: bool = False,
        found: Sequence[Value] = (),
        answers: Answers | None = None,
    ) -> None:
        # These grow by one entry per node; NumPy reads them in place.
        self.op = bytearray()
        self.x, self.y = array("i"), array("i")  # parents; -1 for none
        self.z: dict[int, int] = {}  # the third parents, of which there are few
        self.level = array("i")
        self.value: dict[int, float] = {}  # of constants and parameters
        self.labels: dict[int, str] = {}
        self.lines: dict[int, str] | None = {} if lines else None
        self.index: dict[Value, int] = {}  # the place of each lifted Value
        self.leaves: dict[int, Value] = {}  # the leaves, by place, but for plain numbers
        self.inputs: list[int] = []
        self.parameters = Parameters(parameters, complete, found)
        self.answers = answers  # who answers questions about numbers; None refuses them
        self.questions: list[Question] = []
        self.branches = False  # whether a number has decided which way the function goes
        self.caught: Exception | None = None  # what a question raised, unless that went on
        self.answer_places: list[int] = []  # whose number is the answer, one for each question
        self.progress = Progress()
        self.closed = False
        self.thread = get_ident()
        # The thread that may just add a node; none if recording is more than that.
        self.writer = None if lines else self.thread
        self.refusal: TraceError | None = None  # the last one, if there was any
        if self.parameters.first:
            self._add_parameters(list(self.parameters.first))

    def record(self, code: int, x: int = -1, y: int = -1, z: int = -1) -> Node:
        """Add a node, and return it; `x`, `y` and `z` are the places of its parents. Hot path."""
        level = self.level
        place = len(level)
        if get_ident() != self.writer:
            self._record_special(range(place, place + 1))
        self.op.append(code)
        self.x.append(x)
        self.y.append(y)
        if z >= 0:
            self.z[place] = z
        if y < 0:
            level.append(level[x] + 1 if x >= 0 else 0)
        else:
            a, b = level[x], level[y]
            highest = a if a > b else b
            level.append((highest if z < 0 else max(highest, level[z])) + 1)
        node = _new(Node)
        node.tape = self
        node.place = place
        return node

    def extend(
        self,
        codes: bytes,
        level: NDArray[np.int32],
        x: NDArray[np.int32],
        y: NDArray[np.int32] | None = None,
        z: NDArray[np.int32] | None = None,
    ) -> int:
        """Add nodes, given their op codes, levels and parents' places; returns the first's place.

        All arrays have one shape, of any number of axes.
        """
        start, size = len(self.level), len(codes)
        if get_ident() != self.writer:
            self._record_special(range(start, start + size))
        self.progress.often(lambda: f"recorded {start:,} nodes")
        self.op += codes
        self.x.frombytes(x.tobytes())
        self.y.frombytes(_NONE.tobytes() * size if y is None else y.tobytes())
        self.level.frombytes(level.tobytes())
        if z is not None:
            self.z.update(zip(range(start, start + size), z.ravel().tolist()))
        return start

    def _record_special(self, places: range) -> None:
        if self.closed:
            raise TraceError(
                f"a traced value must not outlive the call that recorded it ({user_line()}); "
                "return it from the function instead"
            )
        if get_ident() != self.thread:
            self.refusal = TraceError(
                "a traced value must be used in the thread that records it (got another one, "
                f"{user_line()}); compute in the function itself, without threads"
            )
            raise self.refusal
        if self.lines is not None:
            self.lines.update(dict.fromkeys(places, user_line()))

    def close(self) -> None:
        """Take no more nodes."""
        self.closed, self.writer = True, None

    def again(self) -> Tape:
        """An empty tape with the same options."""
        parameters, answers = self.parameters, self.answers
        if isinstance(answers, SampleAnswers):
            answers = answers.again()
        options = self.lines is not None, parameters.complete, parameters.first, answers
        tape = Tape(parameters.given, *options)
        tape.progress = self.progress
        return tape

    def _add_parameters(self, values: list[Value]) -> None:
        """Add a leaf for each of these; it is `leaf` for all of them at once."""
        zeros, none = np.zeros(len(values), np.int32), np.full(len(values), -1, np.int32)
        start = self.extend(bytes([ops.parameter.code]) * len(values), zeros, none)
        leaves = dict(enumerate(values, start))
        self.index.update(zip(values, leaves))
        self.leaves.update(leaves)
        self.parameters.leaves.update(leaves)
        self.value.update((place, value._number) for place, value in leaves.items())
        known = self.parameters.labels
        labels = ((place, known.get(x) or x.label) for place, x in leaves.items())
        self.labels.update((place, label) for place, label in labels if label)

    def leaf(self, op: ops.Op, value: Value) -> int:
        """Add a leaf for `value`, as an input, a parameter or a constant."""
        place = self.index[value] = self.record(op.code).place
        if value.op is not ops.const:
            self.leaves[place] = value
        self.value[place] = value._number
        if label := self.parameters.labels.get(value) or value.label:
            self.labels[place] = label
        if op is ops.input:
            self.inputs.append(place)
        elif op is ops.parameter:
            self.parameters.leaves[place] = value
        else:
            look(value, "recorded")  # by a function that this one is recorded in
            if value.trainable:
                self.parameters.frozen[place] = value
        return place

    def argument(self, shape: Shape, name: str) -> Any:
        """The input nodes of one argument: a node for `()`, else an object array of that shape."""
        if not isinstance(shape, tuple):
            raise TypeError(f"a shape must be a tuple, such as () or (2,) (got {shape!r})")
        nodes = np.empty(shape, dtype=object)
        for index in np.ndindex(*shape):
            node = self.record(ops.input.code)
            node.label = f"{name}[{', '.join(map(str, index))}]" if index else name
            self.inputs.append(node.place)
            nodes[index] = node
        return as_operands(nodes)

    def lift(self, x: Any) -> int:
        """The place of a node, a number, or a `Value` with all that it was computed from."""
        if isinstance(x, Value):
            return self._lift_value(x)
        if not isinstance(x, Node):
            place = self.record(ops.const.code).place
            self.value[place] = ops.number(x)
            return place
        if x.tape is not self:
            raise TraceError(
                f"traced values must not leave the call that records them (got {x!r} of another "
                f"call, {user_line()}); return it there and pass it on here"
            )
        return x.place

    def _lift_value(self, root: Value) -> int:
        # In the order of evaluation: operands from left to right, then the op itself.
        index, stack = self.index, [root]
        while stack:
            value = stack[-1]
            parents = value.parents
            waiting = [p for p in parents if p.level and p not in index]
            if waiting:
                stack += reversed(waiting)
                continue
            stack.pop()
            for leaf in (value, *parents):
                if not leaf.level and leaf not in index:
                    self.leaf(self.parameters.op_of(leaf), leaf)
            if value not in index:
                operands = [index[x] for x in parents]
                place = index[value] = self.record(value.op.code, *operands).place
                if value.label:
                    self.labels[place] = value.label
                if self.lines is not None and hasattr(value, "line"):
                    self.lines[place] = value.line
        return index[root]

    def look(self, value: Value, means: str) -> Any:
        """What the function gets in place of a `Value`'s number; None for the number itself.

        If that depends on a parameter, whose number may change, the same as for a node. Setting any
        number is refused, since nodes recorded before would change with it. With "repr", whether
        the number is to be left out.
        """
        if means == "set":
            self.refuse(means)
        if not self.parameters.reach(value):
            return None
        if means == "repr":
            return True
        if means == "data":
            return Node(self, self.lift(value)).stop_gradient()
        if self.answers is None:
            self.refuse(means)
        place = self.lift(value)
        return self.truth(place) if means == "bool" else self.ask(place, means)

    def node(self, place: int) -> Node:
        """The node at a place."""
        return Node(self, place)

    @property
    def bulk(self) -> Bulk:
        """What records on this tape by the array."""
        return Bulk(self)

    def truth(self, place: int) -> bool:
        """The answer to the question whether the number at a place is not 0."""
        op, x, y = ops.OPS[self.op[place]], self.x[place], self.y[place]
        if (op is ops.eq or op is ops.ne) and self._are_distinct(x, y):
            self.branches = True
            return op is ops.ne
        truth = bool(self.ask(place, "bool"))
        leaf, sure = self.leaves.get(place), isinstance(self.answers, SampleAnswers)
        if leaf is not None and leaf.trainable and not truth and sure:
            raise no_truth(leaf)
        return truth

    def _are_distinct(self, x: int, y: int) -> bool:
        """Whether these are two leaves, one trainable and the other not a plain number."""
        inputs = {place for place in (x, y) if self.op[place] == ops.input.code}
        both = x != y and {x, y} <= inputs | self.leaves.keys()
        return both and any(self.leaves[k].trainable for k in {x, y} & self.leaves.keys())

    def ask(self, place: int, means: str) -> float:
        """The answer to a question about the number at a place, or TraceError."""
        if self.answers is None or means not in ANSWERS:
            self.refuse(means)
        return self.answers.ask(self, place, means)

    def note(self, place: int, means: str, answer: float, prefix: str) -> None:
        """Note a question and its answer, and record the node whose number that is."""
        line, function, instead = asked_here(means)
        self.questions.append(Question(means, answer, line, function, instead, prefix))
        self.answer_places.append(self.question(place, means))

    def question(self, place: int, means: str) -> int:
        """The place of the answer to a question about the number at another one."""
        if means in OPS:
            return self.record(OPS[means].code, place).place
        if means == "index" or ops.OPS[self.op[place]].is_condition:
            return place
        return self.record(ops.ne.code, place, self.lift(0.0)).place

    def refuse(self, means: str) -> NoReturn:
        """Raise TraceError, and keep it in case the function catches it as a TypeError."""
        self.refusal = refusal(means)
        raise self.refusal

    def graph(self, outputs: Any, input_shapes: Iterable[Shape], name: str) -> Graph:
        """The `Graph` of `outputs`: a node or `Value`, or a tuple, list or array of them."""
        if self.refusal is not None:
            raise self.refusal
        if self.caught is not None:
            raise TraceError(
                "a function that branches must not catch the error that a question about a number "
                f"raises ({self.caught}); ask whether the number will do before, as by x == x "
                "for nan"
            ) from self.caught
        places, output_shapes = self._flatten(outputs, name)
        self.progress(f"recorded {len(self.op):,} nodes, which get their order")
        if self.answer_places:
            places = [*places, *self.answer_places]
            output_shapes = [output_shapes, (len(self.answer_places),)]
        parents = np.full((len(self.op), 3), -1, np.int32)
        parents[:, 0], parents[:, 1] = self.x, self.y
        parents[list(self.z), 2] = list(self.z.values())
        level = np.frombuffer(self.level, np.int32)
        leaves = self.parameters.leaves
        some = len(leaves if self.parameters.given is not None else self.parameters.first)
        given = [*self.inputs, *islice(leaves, some)]
        order = canonical_order(places, given, parents, level)
        new = np.full(len(self.op) + 1, -1, np.int32)  # one more, for the parent -1
        new[order] = np.arange(len(order), dtype=np.int32)
        parents = parents[order]
        self.parameters.check(parents, places, name, may_use_none=bool(self.answer_places))
        value = np.zeros(len(order) + 1)  # one more, for what is left out
        value[new[list(self.value)]] = list(self.value.values())
        kept = [place for place, node in zip(leaves, new[list(leaves)].tolist()) if node >= 0]
        return Graph(
            op=np.frombuffer(self.op, np.uint8)[order],
            parents=new[parents],
            value=value[:-1],
            level=level[order],
            inputs=new[self.inputs],
            parameters=new[kept],
            outputs=new[places],
            input_shapes=tuple(input_shapes),
            output_shapes=output_shapes,
            labels=_moved(self.labels, new),
            lines=_moved(self.lines or {}, new),
            leaves=tuple(leaves[place] for place in kept),
            questions=tuple(self.questions),
        )

    def lone(self, outputs: Any, input_shapes: Iterable[Shape], name: str) -> LoneSample:
        """What a function returned for the one sample whose numbers the tape has, and gradients."""
        if self.refusal is not None or self.parameters.frozen:
            self.graph(outputs, input_shapes, name)  # which finds out what is wrong, if anything is
        places, output_shapes = self._flatten(outputs, name)
        assert isinstance(self.answers, SampleAnswers)
        return LoneSample(self, self.answers, places, output_shapes)

    def _flatten(self, outputs: Any, name: str) -> tuple[list[int], Structure]:
        if isinstance(outputs, Operand) or (self.branches and ops.is_number(outputs)):
            return [self.lift(outputs)], ()
        array = isinstance(outputs, np.ndarray) and outputs.size
        if not (array or (isinstance(outputs, (tuple, list)) and outputs)):
            raise TraceError(
                f"{name} must be a traced value or a Value, "
                f"or a tuple, list or array of them (got {outputs!r})"
            )
        parts = [self._flatten(x, name) for x in (outputs.flat if array else outputs)]
        places = [place for part, _ in parts for place in part]
        return places, outputs.shape if array else [shape for _, shape in parts]


def _moved(texts: dict[int, str], new: NDArray[np.int32]) -> dict[int, str]:
    """Texts by place, as texts by node of the new graph."""
    nodes = new[list(texts)].tolist()
    return {node: text for node, text in zip(nodes, texts.values()) if node >= 0}


_new = object.__new__
_NONE = np.int32(-1)  # no parent
