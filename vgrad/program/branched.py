"""A call of a function that branches: its samples, parted by the paths they take.

While samples keep their paths, each path's samples run as one call, whose last outputs tell that
they still belong there. Those that left are sorted: a path's questions are computed for all samples
that may take it; samples that answer otherwise move on to a path that has their answer, or to a new
one. Samples beyond the most paths are computed one by one on the scalar engine.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arguments import Array
from ..errors import PathsWarning, TraceError
from ..flat import LoneSample, Question
from ..lines import user_frame
from .arrays import like, taken
from .call import Call
from .paths import Groups, Paths, Samples
from .runner import Runner
from .work import Total

Mask = NDArray[np.bool_]


class Work(NamedTuple):
    """Samples to be sorted, and a path that shares their first `known` answers."""

    path: int
    samples: Samples
    answers: Array | None = None  # (Q, n) theirs to all of its questions, if these are known
    known: int = 0


Answer = tuple[Any, Array]  # what a call gives, and every output, (M + Q, n)


class BranchedCall:
    """Paths and the arguments of a call: it has the methods of `Call`.

    `theta` is None while parameters are still being found: then it is their present numbers. A list
    of doubts takes whatever is not sure to be finite.
    """

    def __init__(
        self,
        paths: Paths,
        theta: Array | None,
        arrays: Sequence[Array],
        batch: int,
        executor: Executor | None = None,
        doubts: list[Any] | None = None,
        shared: tuple[int, ...] = (),
    ) -> None:
        self.paths, self.given, self.arrays, self.batch = paths, theta, arrays, batch
        self.executor, self.doubts, self.shared = executor, doubts, shared
        self.lone: list[tuple[Samples, Question]] = []  # samples alone, and where they left
        self._groups: Groups | None = None  # once all samples are known to take their paths

    @property
    def runner(self) -> Runner:
        """The runner of path 0, whose arguments and options are those of all."""
        return self.paths.runners[0]

    @property
    def theta(self) -> Array:
        """(P,) the parameters."""
        return self._theta(self.runner)

    # --- what a call gives -----------------------------------------------------------------------

    def outputs(self) -> Array:
        """Every output for every sample, (M, B)."""
        return self._columns(self._outputs, Call.outputs, LoneSample.outputs)

    def gradient(self, divisor: float, aux: bool = False) -> Total:
        """The sum of output 0 over the batch, divided, and its gradient (P,).

        With `aux` also every output, (M, B).
        """
        value, gradient = 0.0, np.zeros(len(self.theta), self.runner.dtype)
        whole = self._empty(self._outputs) if aux else None
        for samples, stay, (more, part, outputs) in self._followed(partial(_total, divisor, aux)):
            value, gradient = value + more, gradient + part
            if whole is not None:
                whole[:, samples] = outputs[: len(whole), stay]
        for sample, lone in self._lone():
            objective, *part = lone.parameter_column()
            value += objective / divisor
            gradient += np.array(part, gradient.dtype) / divisor
            if whole is not None:
                whole[:, sample] = lone.outputs()
        return value, gradient, whole

    def input_gradients(self) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the inputs, per sample, (K, B)."""
        inputs = len(self.runner.graph.inputs)
        found = self._columns(1 + inputs, Call.input_columns, LoneSample.input_column)
        return found[0], found[1:]

    def parameter_gradients(self) -> tuple[Array, Array]:
        """Output 0, (B,), and its gradient to the parameters, per sample, (P, B)."""
        parameters = len(self.theta)
        found = self._columns(1 + parameters, Call.parameter_columns, LoneSample.parameter_column)
        return found[0], found[1:]

    def _columns(
        self,
        rows: int,
        of_call: Callable[[Call], Array],
        of_lone: Callable[[LoneSample], list[float]],
    ) -> Array:
        """Numbers of every sample, (rows, B): those of its path's call, or of the sample alone."""
        whole = self._empty(rows)
        for samples, stay, columns in self._followed(lambda call: (of_call(call),) * 2):
            whole[:, samples] = columns[:rows, stay]
        for sample, lone in self._lone():
            whole[:, sample] = of_lone(lone)
        return whole

    def sizes(self) -> dict[int, int]:
        """How many samples take each path."""
        self._calls()
        assert self._groups is not None
        return {path: len(samples) for path, samples in self._groups}

    def parts(self) -> Iterator[Call]:
        """A call for each path, of the samples that take it, and one for each sample alone."""
        yield from self._calls()
        for samples, _ in self.lone:
            for sample in samples.tolist():
                yield self._call(self._recorded(sample), np.array([sample]))

    def located(self, sample: int) -> tuple[Call, int]:
        """The part that a sample is in, and its number there."""
        part = next(x for x in self.parts() if (x.numbers == sample).any())
        return part, int((part.numbers == sample).argmax())

    def at(self, theta: Array, arrays: Sequence[Array]) -> BranchedCall:
        """The call of other numbers, none of them shared: arrays of all samples, (B, ...)."""
        theta, *rows = like([self.theta, *self.arrays], [theta, *arrays])
        return BranchedCall(self.paths, theta, rows, self.batch, self.executor, self.doubts)

    def some(self, samples: Samples) -> BranchedCall:
        """The call with these samples alone."""
        arrays = taken(self.arrays, samples, len(samples), self.shared)
        options = self.executor, self.doubts, self.shared
        return BranchedCall(self.paths, self.given, arrays, len(samples), *options)

    @property
    def _outputs(self) -> int:
        graph = self.runner.graph
        return len(graph.outputs) - len(graph.questions)

    def _empty(self, rows: int) -> Array:
        return np.empty((rows, self.batch), self.runner.dtype)

    def explore(self) -> None:
        """Find the paths of all samples, and the parameters on them."""
        self._sorted([Work(0, np.arange(self.batch))])
        deque(self._lone(), maxlen=0)

    # --- which path ------------------------------------------------------------------------------

    def _followed(self, run: Callable[[Call], Answer]) -> Iterator[tuple[Samples, Any, Any]]:
        """Run calls until every sample has been in that of its path.

        For each: the samples that take the path, which of the call's they are, and what it gave.
        """
        done: Groups = []
        are_sorted = False
        waiting, is_guess = self._start()
        while waiting:
            left: list[Work] = []
            for path, samples in waiting:
                call = self._call(self.paths.runners[path], samples)
                result, outputs = run(call)
                if call.doubts and self.doubts is not None:
                    self.doubts += call.doubts
                graph = call.runner.graph
                stay = graph.follows(outputs)  # (0, n) outputs say that all do
                if stay.all():
                    done.append((path, samples))
                    yield samples, slice(None), result
                else:
                    done.append((path, samples[stay]))
                    answers = outputs[len(outputs) - len(graph.questions) :, ~stay]
                    left.append(Work(path, samples[~stay], answers))
                    yield samples[stay], stay, result
            if are_sorted:
                self._require_none(left)
            is_guess = is_guess and not left
            waiting, are_sorted = self._sorted(left), True
        self._settle(done, is_guess)

    def _require_none(self, left: list[Work]) -> None:
        """Raise TraceError for samples that leave a path although they had its answers before."""
        for path, samples, _, _ in left:
            question = self.paths.runners[path].graph.questions[0]
            raise TraceError(
                "a sample must get the same answers whatever else is in its batch (got others for "
                f"sample {samples[0]}, on the path from {question.line} on); an op of your own "
                "must compute number by number"
            )

    def _calls(self) -> list[Call]:
        """A call for each path, of the samples that take it."""
        if self._groups is None:
            groups, _ = self._start()
            self._settle(self._sorted([Work(*group) for group in groups]), False)
        assert self._groups is not None
        return [self._call(self.paths.runners[path], samples) for path, samples in self._groups]

    def _start(self) -> tuple[Groups, bool]:
        """The path that each sample is to try, and whether all are where they were last."""
        self.lone.clear()
        guess = self.paths.guess(self.batch)
        if guess is None:
            return self._sorted([Work(0, np.arange(self.batch))]), False
        if sum(len(samples) for _, samples in guess) == self.batch:
            return list(guess), True
        alone = np.ones(self.batch, bool)
        for _, samples in guess:
            alone[samples] = False
        return [*guess, *self._sorted([Work(0, np.flatnonzero(alone))])], False

    def _settle(self, groups: Groups, is_guess: bool) -> None:
        """Note the path of each sample, for the next call too, and warn of those without."""
        if is_guess:  # all are where they were
            self._groups = groups
            return
        paths = sorted({path for path, samples in groups if len(samples)})
        together = {path: [x for other, x in groups if other == path] for path in paths}
        self._groups = [
            (path, parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts)))
            for path, parts in together.items()
        ]
        self.paths.remember(self.batch, self._groups)
        if self.lone:
            self._warn()
            if self.doubts is not None:  # nobody has looked at these
                self.doubts += [samples for samples, _ in self.lone]

    def _sorted(self, waiting: list[Work]) -> Groups:
        """The path of each sample: its answers on one path lead it to the next."""
        groups: Groups = []
        unknown: list[Work] = []  # samples that leave a path, with their answers until there
        while waiting or unknown:
            if not waiting:
                unknown.sort(key=self._comes_last)
                while unknown and not waiting:
                    waiting = self._found(unknown.pop())
                continue
            work = waiting.pop()
            path, samples, answers, known = work
            runner = self.paths.runners[path]
            if answers is None:
                answers = self._call(runner.asking, samples).outputs()
            same = answers == runner.graph.answers
            if (stay := same.all(axis=0)).any():
                groups.append((path, samples[stay]))
            for k, answer, some in _leaving(same, answers):
                if k < known:
                    self._require_none([work])
                child = self.paths.child(path, k, answer)
                if child is None:
                    told = answers[: k + 1, some[:1]].copy()
                    unknown.append(Work(path, samples[some], told, k + 1))
                else:
                    waiting.append(Work(child, samples[some], None, k + 1))
        return sorted(groups, key=lambda group: group[0])

    def _comes_last(self, work: Work) -> tuple[int, int]:
        """What to sort by, so that the path of the most samples is found next.

        While parameters are being found, in order of first use, that of the first sample.
        """
        samples = work.samples
        finding = self.paths.recorder is not None and self.paths.recorder.parameters is None
        return 0 if finding else len(samples), -int(samples[0])

    def _found(self, work: Work) -> list[Work]:
        """The path of samples that leave a known one, by the first of them, if there is one."""
        path, samples, told, known = work
        assert told is not None
        sample, answers = int(samples[0]), told[:, 0].tolist()
        found = self.paths.find(self.given, self.arrays, sample, path, answers)
        if found is not None:
            return [Work(found, samples, None, known)]
        self.lone.append((samples, self.paths.runners[path].graph.questions[known - 1]))
        return []

    def _call(self, runner: Runner, samples: Samples) -> Call:
        """The call of these samples alone."""
        arrays, batch = self.arrays, len(samples)
        doubts: list[Any] | None = None if self.doubts is None else []
        if batch < self.batch:
            arrays = taken(arrays, samples, batch, self.shared)
        options = self.executor, doubts, samples, self.shared
        return Call(runner, self._theta(runner), arrays, batch, *options)

    def _theta(self, runner: Runner) -> Array:
        if self.given is None:
            return np.array([leaf._number for leaf in runner.graph.leaves], runner.dtype)
        return self.given[: len(runner.graph.parameters)]

    # --- samples alone ---------------------------------------------------------------------------

    def _lone(self) -> Iterator[tuple[int, LoneSample]]:
        """The samples beyond the most paths, each on the scalar engine."""
        recorder = self.paths.recorder
        for samples, _ in self.lone:
            for sample in samples.tolist():
                assert recorder is not None  # without one there are no samples alone
                yield sample, recorder.alone(self.given, self.arrays, sample)

    def _recorded(self, sample: int) -> Runner:
        """A path for one sample that is not kept."""
        assert self.paths.recorder is not None
        graph = self.paths.recorder.unconfirmed(self.theta, self.arrays, sample)
        return replace(self.runner, graph=graph, fuse=False)

    def _instead(self, question: Question) -> str:
        """What to write where samples part."""
        if question.loops:  # with more ways through it than can be merged
            return f"use {question.instead}"
        own = getattr(getattr(self.paths.recorder, "fn", None), "__name__", "")
        if question.function.isidentifier() and question.function != own:
            merge = f"decorate {question.function} with @vgrad.merge_branches, if it is pure"
            return f"{merge}, or use {question.instead}"
        merge = "decide it in a function of its own, decorated with @vgrad.merge_branches"
        return f"use {question.instead}, or {merge}"

    def _warn(self) -> None:
        """Warn of samples alone: how many, where they parted, and what to write there."""
        places: Counter[Question] = Counter()
        for samples, question in self.lone:
            places[question._replace(answer=0.0, prefix="")] += len(samples)
        (question, _), alone = places.most_common(1)[0], places.total()
        frame = user_frame()
        # The text of the first warning, as Python's filters tell by it what has been said before.
        key = question.line, question.function, frame.f_code.co_filename, frame.f_lineno
        text = self.paths.warned.setdefault(
            key,
            f"{alone:,} of {self.batch:,} samples take other paths than the "
            f"{len(self.paths.runners)} that are recorded, and run one by one on the scalar "
            f"engine, which is slow; most of them leave at {question.line}, in "
            f"{question.function}: {self._instead(question)}, or compile with a larger paths=",
        )
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        warnings.warn_explicit(text, PathsWarning, *key[2:], registry=registry)


def first_paths(
    paths: Paths,
    theta: Array | None,
    arrays: Sequence[Array],
    batch: int,
    shared: tuple[int, ...],
) -> Paths:
    """Find the path of sample 0, and if parameters are to be found as well, those of all samples.

    Returns the same paths, which then all take every parameter.
    """
    recorder = paths.recorder
    assert recorder is not None
    paths.add(paths.new_runner(recorder.graph(theta, arrays, 0)))
    if recorder.parameters is None and paths.branch:
        BranchedCall(paths, theta, arrays, batch, shared=shared).explore()
    return paths.settled()


def _total(divisor: float, aux: bool, call: Call) -> Answer:
    total = call.gradient(divisor, aux)
    assert total[2] is not None
    return total, total[2]


def _leaving(same: Mask, answers: Array) -> Iterator[tuple[int, float, NDArray[np.intp]]]:
    """Where samples leave a path, with which answer, and which of them do."""
    left = np.flatnonzero(~same.all(axis=0))
    at = same[:, left].argmin(axis=0)
    for k in np.unique(at).tolist():
        here = left[at == k]
        here = here[np.argsort(answers[k, here], kind="stable")]
        given = answers[k, here]
        ends = np.flatnonzero(given[1:] != given[:-1]) + 1  # nan, which is like no other, by itself
        for some in np.split(here, ends):
            yield k, float(answers[k, some[0]]), some
