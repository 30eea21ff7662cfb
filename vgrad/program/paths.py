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

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array
from ..errors import ShapeError, TraceError
from ..flat import Graph, Question, path_of, with_parameters
from .recorder import ProcessLock, Recorder, not_the_same
from .runner import Runner

Samples = NDArray[np.intp]  # their numbers in the batch
Groups = list[tuple[int, Samples]]  # a path and the samples that take it

KEPT_GUESSES = 8  # batch sizes whose groups are remembered
TRUSTED = 0.75  # of the samples; if fewer are still on their path, they are sorted first


class UnknownPathError(ShapeError):
    """A sample takes a path that is not recorded, where there is no function to record it."""

    def __init__(self, sample: int, line: str) -> None:
        super().__init__(
            "samples must take one of the paths that this program had seen when it was pickled or "
            f"saved (got sample {sample}, which leaves them at {line})"
        )
        self.sample, self.line = sample, line

    def __reduce__(self) -> Any:
        return type(self), (self.sample, self.line)


@dataclass(eq=False)
class Fork:
    """A place in the tree: what is asked there, and where each answer leads; or a path's end."""

    path: int  # the first that comes by
    question: Question | None  # None at the end of a path
    children: dict[float, Fork] = field(default_factory=dict)

    @property
    def where(self) -> tuple[str, str]:
        """Where its question is asked: the line, and in which function."""
        assert self.question is not None
        return self.question.line, f"in {self.question.function}"

    def branches(self) -> list[tuple[str, Fork]]:
        """Each answer, in words, and where it leads: to the next parting of paths, or an end."""
        assert self.question is not None
        children = [*self.children.items()]  # to which other threads may add
        return [(self.question.in_words(answer), child.parting()) for answer, child in children]

    def parting(self) -> Fork:
        """The first fork from here on where paths part, or the end of the only path."""
        fork, children = self, [*self.children.values()]
        while len(children) == 1:
            fork = children[0]
            children = [*fork.children.values()]
        return fork


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
        self.recorder, self.new_runner, self._lock = recorder, new_runner, lock
        self.branch = False  # whether the function asks anything
        self.runners: list[Runner] = []
        self._forks: list[list[Fork]] = []  # of each path: where its questions are asked, its end
        self._guesses: dict[int, Guess] = {}  # by batch size
        self.warned: dict[tuple[str, str, str, int], str] = {}  # of samples alone, by the place

    def forks_of(self, path: int) -> list[Fork]:
        """The forks that a path comes by, and its end."""
        return self._forks[path]

    def forks(self) -> list[Fork]:
        """Where paths part, the first questions first; a fork before those that it leads to."""
        found, waiting = [], deque([self._forks[0][0].parting()])
        while waiting:
            fork = waiting.popleft()
            if fork.children:
                found.append(fork)
                waiting += [child for _, child in fork.branches()]
        return found

    def add(self, runner: Runner) -> int:
        """Add a path; returns its number. Raises TraceError if it does not fit the others."""
        graph, path = runner.graph, len(self.runners)
        self._require_structure(graph)
        asked = [*graph.questions, None]
        fork = self._forks[0][0] if path else Fork(path, asked[0])
        forks = [fork]
        for before, question in zip(graph.questions, asked[1:]):
            fork = fork.children.get(before.answer) or Fork(path, question)
            forks.append(fork)
        for fork, question in zip(forks, asked):
            if not _are_same(fork.question, question):
                raise not_the_same(question or fork.question or graph.questions[-1])
        self.branch = bool(graph.questions)
        self._forks.append(forks)
        self.runners.append(runner)
        # Only now does anything lead there, as other threads may be looking.
        for fork, question, child in zip(forks, graph.questions, forks[1:]):
            if question.prefix:
                fork.question = question
            fork.children.setdefault(question.answer, child)
        return path

    def _require_structure(self, graph: Graph) -> None:
        shapes = [graph.output_shapes, *(x.graph.output_shapes for x in self.runners[:1])]
        new, old = shapes[0], shapes[-1]
        if graph.questions and new[0] != old[0]:
            raise TraceError(
                f"a function must return the same structure on every path (got shapes {new[0]} "
                f"where {path_of(graph.questions)}, and {old[0]} before)"
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
                raise UnknownPathError(sample, question.line)
            if len(self.runners) >= self.recorder.most:
                return None
            graph = self.recorder.graph(theta, arrays, sample, told)
            self.recorder.require_same(self.runners[path].graph, arrays, sample)
            return self.add(self.new_runner(graph))

    def settled(self) -> Paths:
        """The same paths once all parameters are known: each takes all of them."""
        assert self.recorder is not None
        self.recorder.settle()
        paths = Paths(self.recorder, self.new_runner, self._lock)
        for runner in self.runners:
            graph = with_parameters(runner.graph, self.recorder.found)
            paths.add(runner if graph is runner.graph else self.new_runner(graph))
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
    """Whether two paths ask the same at a fork, or both end; prefixes may be unknown."""
    if known is None or question is None:
        return known is question
    prefixes = {known.prefix, question.prefix} - {""}
    alike = (known.means, known.line) == (question.means, question.line)
    return alike and len(prefixes) <= 1
