"""Questions that a function asks about numbers while it is recorded, and who answers them.

A question is the truth of a number, or a whole number made of one. The list of answers is the
*path* that the function takes. `SampleAnswers` answers with the numbers of one sample, so that a
recording follows that sample's path; `EveryAnswer`, in `ways`, lets a function be run through all
answers to its questions. Without either a question is refused.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from ctypes import c_float
from hashlib import blake2b
from itertools import count, islice
from typing import Any, NamedTuple, Protocol

from .. import ops
from ..arguments import Structure
from ..errors import ShapeError
from ..operand import whole

Tape = Any  # `tape` imports this file
STEPS = "as many steps as it may take"  # what to write instead of a loop that asks


class Question(NamedTuple):
    """What a function asked about a number while it was recorded, and what it was told."""

    means: str  # how it asked: one of `ANSWERS`
    answer: float  # a truth as 1.0 or 0.0, or a whole number
    line: str  # "file:line" that asked
    function: str  # the name of the function there
    instead: str = ""  # what to write there, so that it is no question
    prefix: str = ""  # a hash of what had been recorded until then

    @property
    def loops(self) -> bool:
        """Whether it decides how often a loop turns."""
        return self.instead.startswith(STEPS)

    def in_words(self, answer: float) -> str:
        """An answer, as messages have it."""
        return ("false", "true")[answer != 0] if self.means == "bool" else f"{answer:g}"


MOST_NAMED = 4  # answers, the last of a path


def path_of(questions: Sequence[Question]) -> str:
    """A path in words: its last answers.

    >>> path_of([Question("bool", 1.0, "model.py:3", "f"), Question("int", 2.0, "model.py:5", "f")])
    'model.py:3 is true, model.py:5 is 2'
    """
    texts = [f"{x.line} is {x.in_words(x.answer)}" for x in questions[-MOST_NAMED:]]
    return ", ".join(["..."] * (len(questions) > MOST_NAMED) + texts)


# How to answer by a number; and the op whose result is the answer, of a truth None.
ANSWERS: dict[str, Callable[[float], float]] = {
    "bool": lambda x: float(x != 0.0),
    "int": lambda x: float(int(x)),
    "floor": lambda x: float(math.floor(x)),
    "ceil": lambda x: float(math.ceil(x)),
    "round": lambda x: float(round(x)),
    "index": lambda x: float(whole(x)),
}
OPS = {"int": ops.trunc, "floor": ops.floor, "ceil": ops.ceil, "round": ops.rint}


class Answers(Protocol):
    """Who answers questions about numbers."""

    def ask(self, tape: Tape, place: int, means: str) -> float: ...


class SampleAnswers:
    """Answers with the numbers of one sample, computed as the scalar engine does.

    `theta` is (P,), or None for the parameters' present numbers; `inputs` are the sample's numbers,
    argument after argument. The first answers may be given: those that the function is `told`. If
    numbers are `single`, they are rounded to float32 after every op. For a sample `alone` no path
    is noted.
    """

    def __init__(
        self,
        theta: Sequence[float] | None,
        inputs: Sequence[float],
        told: Sequence[float] = (),
        single: bool = False,
        alone: bool = False,
    ) -> None:
        self.theta, self.inputs, self.told = theta, inputs, told
        self.single, self.alone = single, alone
        self._numbers: list[float] = []  # of the nodes so far
        self._input, self._parameter = iter(inputs), count()
        self._prefix = _Prefix()
        self.was_asked = False  # whether there was any question

    def again(self) -> SampleAnswers:
        """The same for a new recording."""
        return SampleAnswers(self.theta, self.inputs, self.told, self.single, self.alone)

    def ask(self, tape: Tape, place: int, means: str) -> float:
        """The answer to a question about the number at a place, which is noted."""
        self.was_asked = tape.branches = True
        known = len(tape.questions) < len(self.told)
        number = self.told[len(tape.questions)] if known else self.numbers(tape, place)[place]
        try:
            answer = ANSWERS[means](number)
        except (ValueError, OverflowError, TypeError) as error:
            tape.caught = error  # unless the function lets it go on
            raise
        if not self.alone:
            tape.note(place, means, answer, self._prefix.of(tape))
        return answer

    def numbers(self, tape: Tape, place: int) -> list[float]:
        """The numbers of all nodes up to a place. Hot path for samples alone."""
        numbers, codes, x, y, z = self._numbers, tape.op, tape.x, tape.y, tape.z
        for i in range(len(numbers), place + 1):
            op, a, b = ops.OPS[codes[i]], x[i], y[i]
            if a < 0:
                number = self._leaf(tape, i, op)
            elif b < 0:
                number = ops.evaluate(op.forward, numbers[a])
            elif i in z:
                number = ops.evaluate(op.forward, numbers[a], numbers[b], numbers[z[i]])
            else:
                try:
                    number = op.forward(numbers[a], numbers[b])
                except ArithmeticError:
                    number = ops.evaluate(op.forward, numbers[a], numbers[b])
            numbers.append(c_float(number).value if self.single else number)
        return numbers

    def _leaf(self, tape: Tape, place: int, op: ops.Op) -> float:
        """The number of a leaf; inputs and parameters come in the order of their places."""
        if op is ops.input:
            return next(self._input)
        if op is ops.const or self.theta is None:
            return float(tape.value[place])
        k = next(self._parameter)
        if k >= len(self.theta):
            raise ShapeError(
                f"theta must have one number for each parameter (got {len(self.theta)}, but the "
                f"function asks about parameter {k})"
            )
        return self.theta[k]

    def gradients(self, tape: Tape, root: int) -> list[float]:
        """The gradient of the number at `root` to that of every node, as `backward` computes it."""
        numbers, found = self.numbers(tape, len(tape.op) - 1), [0.0] * len(tape.op)
        found[root] = 1.0
        for i in range(root, -1, -1):
            g = found[i]
            if g and tape.x[i] >= 0:
                vjps = ops.OPS[tape.op[i]].vjp
                parents = (tape.x[i], tape.y[i], tape.z.get(i, -1))[: len(vjps)]
                arguments = (g, numbers[i], *[numbers[parent] for parent in parents])
                for parent, vjp in zip(parents, vjps):
                    if vjp is not None:
                        found[parent] += ops.evaluate(vjp, *arguments)
        return found


class LoneSample(NamedTuple):
    """What a function gives for one sample, on the scalar engine."""

    tape: Tape
    answers: SampleAnswers
    places: list[int]  # of the outputs
    output_shapes: Structure

    def outputs(self) -> list[float]:
        """The outputs' numbers."""
        numbers = self.answers.numbers(self.tape, len(self.tape.op) - 1)
        return [numbers[place] for place in self.places]

    def parameter_column(self) -> list[float]:
        """Output 0, and its gradient to the parameters, (1 + P,)."""
        return self._column([*self.tape.parameters.leaves])

    def input_column(self) -> list[float]:
        """Output 0, and its gradient to the inputs, (1 + K,)."""
        return self._column(self.tape.inputs)

    def _column(self, places: list[int]) -> list[float]:
        root = self.places[0]
        found = self.answers.gradients(self.tape, root)
        return [self.answers.numbers(self.tape, root)[root], *(found[place] for place in places)]


class _Prefix:
    """A hash of all that a tape has recorded so far, but for the parameters' numbers."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=8)
        self._nodes = self._thirds = self._values = 0

    def of(self, tape: Tape) -> str:
        """The hash as of now."""
        start, self._nodes = self._nodes, len(tape.op)
        for column in (tape.op, tape.x, tape.y):
            self._hash.update(column[start : self._nodes])
        thirds, self._thirds = _last(tape.z, self._thirds)
        values, self._values = _last(tape.value, self._values)
        numbers = [number for place, number in values if tape.op[place] == ops.const.code]
        self._hash.update(array("q", [x for pair in thirds for x in pair]).tobytes())
        self._hash.update(array("d", numbers).tobytes())
        return self._hash.hexdigest()


def _last(items: dict[int, Any], known: int) -> tuple[list[tuple[int, Any]], int]:
    """The items that came after so many, the last first, and how many there are now."""
    return list(islice(reversed(items.items()), len(items) - known)), len(items)
