"""All ways through a pure function at once: its branches become `where`."""

from __future__ import annotations

from collections.abc import Callable
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import ops
from ..errors import TraceError
from ..lines import user_line
from ..operand import Operand

if TYPE_CHECKING:
    from .tape import Tape

MOST = 16  # ways through one call
MISTAKES = (TypeError, NameError, AttributeError, ImportError)  # of whoever wrote the function


class EveryAnswer:
    """Answers "yes" where nothing else is told, and notes what was asked."""

    def __init__(self, told: list[float]) -> None:
        self.told = told
        self.places: list[int] = []
        self.known: dict[Any, float] = {}  # by what was asked

    def ask(self, tape: Tape, place: int, means: str) -> float:
        """The next answer."""
        if means != "bool":
            tape.refuse("merged")
        key = _key(tape, place)
        if key in self.known:  # as by `x > 0` a second time
            return self.known[key]
        if len(self.places) == MOST:  # each question is one way more, at least
            raise _too_many()
        self.places.append(tape.question(place, means))
        if len(self.told) < len(self.places):
            self.told.append(1.0)
        answer = self.known[key] = self.told[len(self.places) - 1]
        return answer


def _key(tape: Tape, place: int) -> Any:
    """The same for an op on the same nodes and numbers, wherever it is recorded."""
    parents = [parent for parent in (tape.x[place], tape.y[place]) if parent >= 0]
    if not parents or place in tape.z:
        return place
    is_number = ops.const.code
    return (
        tape.op[place],
        *[(tape.value[x],) if tape.op[x] == is_number else x for x in parents],
    )


class Way(NamedTuple):
    """One way through a function: what it asked, was told, and returned or raised."""

    places: list[int]
    told: list[float]
    result: Any


def merged(
    tape: Tape, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    """What a call returns, run through all answers to its questions."""

    def call() -> Any:  # with arguments that no other way has changed
        return function(*map(_fresh, args), **{name: _fresh(x) for name, x in named.items()})

    ways: list[Way] = []
    told: list[float] | None = []
    while told is not None:
        if len(ways) == MOST:
            raise _too_many()
        ways.append(_way(tape, call, told))
        told = _next(ways[-1].told)
    if all(isinstance(way.result, Exception) for way in ways):
        raise ways[0].result
    return _joined(tape, ways, 0)


def _fresh(x: Any) -> Any:
    return x.copy() if isinstance(x, np.ndarray | list) else x


def _too_many() -> TraceError:
    return TraceError(
        f"a function whose branches are merged must have at most {MOST} ways through it "
        f"({user_line()}); decorate a smaller function, such as one turn of a loop, or none, and "
        "vgrad.compile follows each sample"
    )


def _way(tape: Tape, call: Callable[[], Any], told: list[float]) -> Way:
    outer, answers = tape.answers, EveryAnswer(list(told))
    tape.answers = answers
    try:
        result = call()
    except MISTAKES:  # TraceError is one
        raise
    except Exception as error:  # which counts only if no way is without
        result = error
    finally:
        tape.answers = outer
    return Way(answers.places, answers.told, result)


def _next(told: list[float]) -> list[float] | None:
    """The answers of the next way: the last "yes" becomes a "no"; None if there is none."""
    yes = [k for k, answer in enumerate(told) if answer]
    return [*told[: yes[-1]], 0.0] if yes else None


def _joined(tape: Tape, ways: list[Way], k: int) -> Any:
    """The results of ways that part at question k or later, as one."""
    if len(ways) == 1:
        return ways[0].result
    parts = [[way for way in ways if way.told[k] == answer] for answer in (1.0, 0.0)]
    yes, no = (_joined(tape, part, k + 1) for part in parts)
    return _either(tape.node(ways[0].places[k]), yes, no)


def _either(condition: Any, yes: Any, no: Any) -> Any:
    """where(condition, yes, no), number by number."""
    failed = [isinstance(x, Exception) for x in (yes, no)]
    if all(failed):
        return yes
    if any(failed):
        return _either(condition, _nans(yes, no), _nans(no, yes))
    if yes is no:
        return yes
    if all(isinstance(x, Operand) or ops.is_number(x) for x in (yes, no)):
        return ops.where(condition, yes, no)
    if isinstance(yes, list | tuple) and type(yes) is type(no) and len(yes) == len(no):
        return type(yes)([_either(condition, *pair) for pair in zip(yes, no)])
    if isinstance(yes, np.ndarray) and np.shape(yes) == np.shape(no):
        return ops.where(condition, yes, no)
    raise TraceError(
        "a function whose branches are merged must return numbers, or lists or arrays of one "
        f"length, on every way (got {type(yes).__name__} and {type(no).__name__}, {user_line()})"
    )


def _nans(result: Any, like: Any) -> Any:
    """The result; of a way that raised, nan for each number of another's."""
    if not isinstance(result, Exception):
        return result
    if isinstance(like, list | tuple):
        return type(like)([_nans(result, x) for x in like])
    return np.full(np.shape(like), nan) if isinstance(like, np.ndarray) else nan
