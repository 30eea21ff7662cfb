"""The paths of a function: found when a sample first takes them, kept in a tree.

A *path* is the list of answers that a function gets to its questions about numbers. It is recorded
as a graph of its own, whose last outputs are a sample's own answers. The tree forks where paths do:

    def f(x):                                     x > 0
        if x > 0:                              1 /     \\ 0
            return x if x < 1 else 1.0       x < 1    path 2
        return 0.1 * x                     1 /   \\ 0
                                        path 0   path 1
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..arguments import Array, Shape, as_theta
from ..engine import Value
from ..errors import ShapeError, TraceError
from ..flat import Graph, Lone, Question, Sample, Tape, record, run_alone, with_parameters
from .runner import Runner

Samples = NDArray[np.intp]  # their numbers in the batch
Groups = list[tuple[int, Samples]]  # a path and the samples that take it

KEPT_GUESSES = 8  # batch sizes whose groups are remembered
TRUSTED = 0.75  # of the samples; if fewer are still on their path, they are sorted first


class ProcessLock:
    """A lock for each process: one from before a fork may be held by a thread that is not here."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def here(self) -> threading.RLock:
        """This process's lock."""
        return self._locks.setdefault(os.getpid(), threading.RLock())


class Recorder:
    """Calls a function to record the path of one sample, or to compute that sample alone."""

    def __init__(
        self,
        fn: Callable[..., Any],
        shapes: tuple[Shape, ...],
        parameters: Sequence[Value] | None,
        finds: bool,
        lines: bool = False,
        most: int = 1,
    ) -> None:
        self.fn, self.shapes, self.lines, self.most = fn, shapes, lines, most
        self.parameters = parameters  # None while they are being found
        self.found: Sequence[Value] = ()  # so far
        self.complete = finds and parameters is not None

    def graph(
        self, theta: Array | None, arrays: Sequence[Array], sample: int, told: Sequence[float] = ()
    ) -> Graph:
        """The path of one sample of a batch; its first answers may be told.

        Raises TraceError if the function asks or computes something else when it is called again.
        """
        answers = self._sample(theta, arrays, sample, told) if self.most > 1 else None
        with naming(sample, answers):
            graph = record(self.fn, self.shapes, self._tape(answers))
            if graph.questions:
                assert answers is not None
                again = record(self.fn, self.shapes, self._tape(answers.again()))
                _require_same(graph, again)
        if self.parameters is None:
            self.found = graph.leaves
            # Where parameters are recorded depends on those found before, and so do marks.
            unmarked = tuple(question._replace(mark="") for question in graph.questions)
            graph = replace(graph, questions=unmarked)
            if graph.questions and theta is not None:
                as_theta(theta[: len(self.found)], len(self.found), theta.dtype)
        return graph

    def lone(self, theta: Array, arrays: Sequence[Array], sample: int) -> Lone:
        """One sample of a batch by itself, on the scalar engine."""
        answers = self._sample(theta, arrays, sample, alone=True)
        with naming(sample, answers):
            return run_alone(self.fn, self.shapes, self._tape(answers))

    def settle(self) -> None:
        """Take the parameters found so far for all that there are."""
        if self.parameters is None:
            self.parameters, self.complete = list(self.found), True

    def _sample(
        self,
        theta: Array | None,
        arrays: Sequence[Array],
        sample: int,
        told: Sequence[float] = (),
        alone: bool = False,
    ) -> Sample:
        inputs = [float(x) for array in arrays for x in np.ravel(array[sample])]
        return Sample(None if theta is None else theta.tolist(), inputs, told, alone)

    def _tape(self, answers: Sample | None) -> Tape:
        return Tape(self.parameters, self.lines, self.complete, self.found, answers)


def _require_same(graph: Graph, again: Graph) -> None:
    """Raise TraceError unless both recordings asked and computed the same."""
    for k, question in enumerate(graph.questions):
        if again.questions[k : k + 1] != (question,):
            raise _not_the_same(question)
    if len(again.questions) > len(graph.questions):
        raise _not_the_same(again.questions[len(graph.questions)])
    pairs = [(getattr(graph, x), getattr(again, x)) for x in ("op", "parents", "outputs")]
    pairs += [tuple(x.value[x.op == ops.const.code].view(np.int64) for x in (graph, again))]
    if not all(np.array_equal(*pair) for pair in pairs):
        raise _not_the_same(graph.questions[-1])


def _not_the_same(question: Question) -> TraceError:
    return TraceError(
        "a function that branches must ask and compute the same whenever it is called with the "
        f"same numbers (got something else in a second call, at or before {question.line}); pass "
        "random numbers and what changes as arguments, and go through lists in place of sets"
    )


@dataclass(eq=False)
class Fork:
    """A place in the tree: what is asked there, and where each answer leads."""

    path: int  # the first that comes by
    question: Question | None  # None at the end of a path
    children: dict[float, Fork] = field(default_factory=dict)

    def parting(self) -> Fork:
        """The first fork from here on where paths part, or the end of the only path."""
        fork = self
        while len(fork.children) == 1:
            (fork,) = fork.children.values()
        return fork

    def ways(self) -> list[tuple[float, Fork]]:
        """Where each answer leads: to the next fork where paths part, or to the end of one."""
        return [(answer, child.parting()) for answer, child in [*self.children.items()]]


class Paths:
    """The paths known so far for arrays of some shapes; path 0 is the first sample's.

    `recorder` is None if the function is not here, as after a load. Paths are only ever added,
    each by one thread at a time.
    """

    def __init__(
        self,
        recorder: Recorder | None,
        new_runner: Callable[[Graph], Runner],
        lock: ProcessLock,
    ) -> None:
        self.recorder, self._new_runner, self._lock = recorder, new_runner, lock
        self.branch = False  # whether the function asks anything
        self.runners: list[Runner] = []
        self._forks: list[list[Fork]] = []  # of each path: where its questions are asked, its end
        self._guesses: dict[int, Guess] = {}  # by batch size

    def passed(self, path: int) -> list[Fork]:
        """The forks that a path comes by, and its end."""
        return self._forks[path]

    def forks(self) -> list[Fork]:
        """Where paths part, the first questions first; a fork before those that it leads to."""
        found, waiting = [], deque([self._forks[0][0].parting()])
        while waiting:
            fork = waiting.popleft()
            if fork.children:
                found.append(fork)
                waiting += [child for _, child in fork.ways()]
        return found

    def add(self, runner: Runner) -> int:
        """Add a path; returns its number. Raises TraceError if it does not fit the others."""
        graph, path = runner.graph, len(self.runners)
        self._require_structure(graph)
        forks, before = [], None
        for k in range(len(graph.questions) + 1):
            question = graph.questions[k] if k < len(graph.questions) else None
            if before is None:
                fork = self._forks[0][0] if path else Fork(path, question)
            else:
                last = graph.questions[k - 1]
                fork = before.children.get(last.answer) or Fork(path, question)
            if not _are_same(fork.question, question):
                raise _not_the_same(question or fork.question or graph.questions[-1])
            if question is not None and question.mark:
                fork.question = question
            forks.append(fork)
            before = fork
        for question, fork, child in zip(graph.questions, forks, forks[1:]):
            fork.children.setdefault(question.answer, child)
        self._forks.append(forks)
        self.branch = bool(graph.questions)
        self.runners.append(runner)  # last, as other threads look here first
        return path

    def _require_structure(self, graph: Graph) -> None:
        shapes = [graph.output_shapes, *(x.graph.output_shapes for x in self.runners[:1])]
        new, old = shapes[0], shapes[-1]
        if graph.questions and new[0] != old[0]:
            raise TraceError(
                f"a function must return the same structure on every path (got {new[0]}, where it "
                f"returned {old[0]} before, as shapes)"
            )

    def child(self, path: int, k: int, answer: float) -> int | None:
        """A path that goes with `path` up to its question k, where it gets this answer."""
        fork = self._forks[path][k].children.get(answer)
        return None if fork is None else fork.path

    def find(
        self,
        theta: Array | None,
        arrays: Sequence[Array],
        sample: int,
        path: int,
        told: Sequence[float],
    ) -> int | None:
        """The path that leaves `path` after it is `told` these answers, perhaps a new one.

        None if no more may be recorded.
        """
        with self._lock.here():
            known = self.child(path, len(told) - 1, told[-1])
            if known is not None:
                return known
            if self.recorder is None:
                question = self.runners[path].graph.questions[len(told) - 1]
                raise ShapeError(
                    "samples must take one of the paths that this program had seen when it was "
                    f"pickled or saved (got sample {sample}, which leaves them at {question.line})"
                )
            if len(self.runners) >= self.recorder.most:
                return None
            graph = self.recorder.graph(theta, arrays, sample, told)
            return self.add(self._new_runner(graph))

    def settled(self) -> Paths:
        """The same paths once all parameters are known: each takes all of them."""
        assert self.recorder is not None
        self.recorder.settle()
        paths = Paths(self.recorder, self._new_runner, self._lock)
        for runner in self.runners:
            graph = with_parameters(runner.graph, self.recorder.found)
            paths.add(runner if graph is runner.graph else self._new_runner(graph))
        return paths

    def guess(self, batch: int) -> Groups | None:
        """Where the samples of a batch of this size were last, if it is worth a try."""
        guess = self._guesses.get(batch)
        return guess.groups if guess is not None and guess.trusted else None

    def remember(self, batch: int, groups: Groups) -> None:
        """Note where the samples of a batch were; a guess is worth a try if most stay."""
        taken = np.full(batch, -1, np.int32)
        for path, samples in groups:
            taken[samples] = path
        before = self._guesses.get(batch)
        trusted = before is None or bool(np.mean(before.taken == taken) >= TRUSTED)
        guesses = {k: x for k, x in self._guesses.items() if k != batch}
        kept = dict(list(guesses.items())[-KEPT_GUESSES + 1 :])
        self._guesses = {**kept, batch: Guess(groups, taken, trusted)}


class Guess(NamedTuple):
    """Where the samples of a batch were last."""

    groups: Groups
    taken: NDArray[np.int32]  # (B,) the path of each; -1 for none
    trusted: bool


def _are_same(known: Question | None, question: Question | None) -> bool:
    """Whether two paths ask the same at a fork, or both end; a mark may be unknown."""
    if known is None or question is None:
        return known is question
    marks = {known.mark, question.mark} - {""}
    alike = (known.means, known.line) == (question.means, question.line)
    return alike and len(marks) <= 1


class naming:
    """Adds to an exception that leaves a `with` block which sample it was raised for.

    It does so if the function's way depends on the sample: if it asked for answers.
    """

    def __init__(self, sample: int, answers: Sample | None) -> None:
        self.sample, self.answers = sample, answers

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and self.answers is not None and self.answers.asked:
            notes = [*getattr(error, "__notes__", ()), f"at sample {self.sample} of the batch"]
            error.__notes__ = notes  # as add_note does since Python 3.11
