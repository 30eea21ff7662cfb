"""Recording a function's paths, and running single samples of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array, Shape, as_theta
from ..engine import Value
from ..errors import TraceError
from ..flat import Graph, LoneSample, Question, SampleAnswers, Tape, record, run_alone
from ..progress import Progress
from ..trees import Tree, as_tree
from .options import Options


class ProcessLock:
    """A lock for each process: one from before a fork may be held by a thread that is not here."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def here(self) -> threading.RLock:
        """This process's lock."""
        return self._locks.setdefault(os.getpid(), threading.RLock())


class Recorder:
    """Calls a function to record the path of one sample, or to compute that sample alone.

    If `most` paths are one, questions are refused. Parameters are those given, or None while they
    are being found.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        shapes: tuple[Shape, ...],
        parameters: Tree | None,
        finds: bool,
        options: Options,
    ) -> None:
        self.fn, self.shapes, self.most = fn, shapes, options.paths
        self.lines, self.single = options.check_finite, options.dtype == np.float32
        self._report = options.progress
        self.parameters = parameters
        self.found: Sequence[Value] = ()  # so far
        self.complete = finds and parameters is not None

    def graph(
        self, theta: Array | None, arrays: Sequence[Array], sample: int, told: Sequence[float] = ()
    ) -> Graph:
        """The path of one sample of a batch; its first answers may be told.

        Raises TraceError if the function asks or computes something else when it is called again.
        """
        answers = self._answers(theta, arrays, sample, told) if self.most > 1 else None
        with _naming_sample(sample, answers):
            graph = record(self.fn, self.shapes, self._tape(answers))
            if graph.questions:
                assert answers is not None
                again = record(self.fn, self.shapes, self._tape(answers.again()))
                _require_same(graph, again)
        if self.parameters is None:
            self.found = graph.leaves
            # Where parameters are recorded depends on those found before, and so do prefixes.
            unmarked = tuple(question._replace(prefix="") for question in graph.questions)
            graph = replace(graph, questions=unmarked)
            if graph.questions and theta is not None:
                as_theta(theta[: len(self.found)], len(self.found), theta.dtype)
        return graph

    def unconfirmed(self, theta: Array, arrays: Sequence[Array], sample: int) -> Graph:
        """The path of one sample, recorded once, as it is used once."""
        answers = self._answers(theta, arrays, sample)
        with _naming_sample(sample, answers):
            return record(self.fn, self.shapes, self._tape(answers))

    def require_same(self, known: Graph, arrays: Sequence[Array], sample: int) -> None:
        """Raise TraceError unless a path is still what it was when it was recorded."""
        if self.parameters is not None and known.questions[0].prefix != "":
            told = known.answers.ravel().tolist()
            tape = self._tape(self._answers(None, arrays, sample, told))
            _require_same(known, record(self.fn, self.shapes, tape))

    def alone(self, theta: Array | None, arrays: Sequence[Array], sample: int) -> LoneSample:
        """One sample of a batch by itself, number by number."""
        answers = self._answers(theta, arrays, sample, alone=True)
        with _naming_sample(sample, answers):
            lone = run_alone(self.fn, self.shapes, self._tape(answers))
        if self.parameters is None:
            self.found = list(lone.tape.parameters.leaves.values())
        return lone

    def settle(self) -> None:
        """Take the parameters found so far for all that there are."""
        if self.parameters is None:
            self.parameters, self.complete = as_tree(list(self.found)), True

    def _answers(
        self,
        theta: Array | None,
        arrays: Sequence[Array],
        sample: int,
        told: Sequence[float] = (),
        alone: bool = False,
    ) -> SampleAnswers:
        inputs: Any = _Sample(arrays, sample)
        numbers = None if theta is None else theta.tolist()
        return SampleAnswers(numbers, inputs, told, self.single, alone)

    def _tape(self, answers: SampleAnswers | None) -> Tape:
        tape = Tape(self.parameters, self.lines, self.complete, self.found, answers)
        tape.progress = Progress(self._report)
        return tape


class _Sample:
    """The numbers of one sample, read when the first of them is asked for."""

    def __init__(self, arrays: Sequence[Array], sample: int) -> None:
        self.arrays, self.sample = arrays, sample

    def __iter__(self) -> Iterator[float]:
        numbers = [float(x) for array in self.arrays for x in np.ravel(array[self.sample])]
        yield from numbers


def _require_same(graph: Graph, again: Graph) -> None:
    """Raise TraceError unless both recordings asked and computed the same."""
    for k, question in enumerate(graph.questions):
        if again.questions[k : k + 1] != (question,):
            raise not_the_same(question)
    if len(again.questions) > len(graph.questions):
        raise not_the_same(again.questions[len(graph.questions)])
    pairs = [(getattr(graph, x), getattr(again, x)) for x in ("op", "parents", "outputs")]
    pairs += [tuple(x.value[x.op == ops.const.code].view(np.int64) for x in (graph, again))]
    alike = graph.output_shapes == again.output_shapes
    if not (alike and all(np.array_equal(*pair) for pair in pairs)):
        raise not_the_same(graph.questions[-1])


def not_the_same(question: Question) -> TraceError:
    """The error for a function that is not repeatable, by the question where that shows."""
    return TraceError(
        "a function that branches must ask and compute the same whenever it is called with the "
        f"same numbers (got something else in a later call, around {question.line}); pass random "
        "numbers and what changes as arguments, and go through lists in place of sets"
    )


@contextmanager
def _naming_sample(sample: int, answers: SampleAnswers | None) -> Iterator[None]:
    """Add to an exception for which sample it was raised, if the function asked about numbers."""
    try:
        yield
    except BaseException as error:
        if answers is not None and answers.was_asked:
            note, notes = f"at sample {sample} of the batch", getattr(error, "__notes__", [])
            if note not in notes:
                error.__notes__ = [*notes, note]  # as add_note does since Python 3.11
        raise
