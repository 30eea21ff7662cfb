"""What a program has recorded: its function for arguments of these shapes, path by path."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from ..arguments import Array, Shape, as_numbers, as_theta
from ..cached import cached_property
from ..errors import ShapeError
from ..flat import Graph
from ..trees import Tree
from .arrays import Axes, Batch, as_batch
from .branched import BranchedCall, first_paths
from .call import Call
from .options import Options, as_executor
from .paths import Paths
from .placed import Placed, placed_in
from .recorder import ProcessLock, Recorder
from .runner import Runner
from .signature import Names, Signature, calling_by_name, of_program
from .workers import placed_rows

Source = Callable[..., Any] | Graph
AnyCall = Call | BranchedCall


class Recordings:
    """A function or graph, the parameters, and what was recorded so far; makes calls of it."""

    def __init__(
        self,
        fn: Source | None,
        tree: Tree | None,
        options: Options,
        once: Callable[[], Any] | None = None,
        is_once: bool = False,
    ) -> None:
        self._fn = fn
        self._tree = tree  # None until the first trace finds the parameters
        self._finds_parameters = tree is None
        self._options = options
        # a term of the parameters alone, which is a program by itself
        alone = None if once is None else type(self)(once, tree, options.of_once(), is_once=True)
        self.once: Any = alone
        self._is_once = is_once
        self.paths: dict[Any, Paths] = {}  # by shapes; never changed, but replaced by another
        self._recording = ProcessLock()
        self._new_runner = partial(
            Runner,
            fuse=options.fuse,
            tile=options.tile,
            dtype=options.dtype,
            progress=options.progress,
        )
        self._numbers: Array | None = None  # theta, if there are no Values behind it
        if isinstance(fn, Graph):
            self._known(fn.input_shapes).add(self._new_runner(fn))
            if not fn.leaves:
                self._numbers = fn.value[fn.parameters]
        elif fn is not None:
            update_wrapper(self, fn, updated=())  # type: ignore[arg-type]
            if (signature := of_program(fn)) is not None:
                self.__signature__ = signature

    def forget(self) -> None:
        """Forget what was recorded: the next call records the function anew.

        What it closes over is then read again, and so are parameters that it finds by itself.
        Raises ValueError for a program without a function, of a graph or from a file.

        >>> import vgrad
        >>> factor = 2.0
        >>> program = vgrad.compile(lambda x: factor * x, parameters=[])
        >>> before, factor = program([], [1.0]), 3.0
        >>> program([], [1.0])  # still the 2.0 that was recorded
        array([2.])
        >>> program.forget()
        >>> program([], [1.0])
        array([3.])
        """
        if self._fn is None or isinstance(self._fn, Graph):
            raise ValueError(
                "a program must have a function to record it anew (got one of a graph, or from a "
                "file or pickle)"
            )
        self.paths, self._tree = {}, None if self._finds_parameters else self._tree
        if self.once is not None:
            self.once.forget()

    @property
    def runners(self) -> dict[Any, Runner]:
        """The runner of path 0 for each shape of a sample.

        >>> import vgrad
        >>> program = vgrad.compile(lambda x: x + 1, parameters=[])
        >>> program([], [1.0, 2.0])
        array([2., 3.])
        >>> [runner.graph for runner in program.runners.values()]
        [Graph(3 nodes, 1 level, 1 input, 0 parameters, 1 output)]
        """
        return {shapes: paths.runners[0] for shapes, paths in self.paths.items()}

    @cached_property
    def _signature(self) -> Signature:
        graphs = [runner.graph for runner in self.runners.values()]
        return Signature(graphs if self._fn is None else self._fn)

    def prepared(self, theta: Any, arrays: Any, named: Any = None, scalar: bool = False) -> AnyCall:
        """The call for these arrays, checked; if `scalar`, the objective must be one number.

        >>> import vgrad
        >>> vgrad.compile(lambda x: x + 1, parameters=[]).prepared([], [[1.0, 2.0]]).batch
        2
        """
        batch, names, executor = self._located(arrays, named)
        return self._call(theta, batch, names, scalar, executor)

    def _call(
        self, theta: Any, batch: Batch, names: Names, scalar: bool, executor: Any = None
    ) -> AnyCall:
        """The call for a checked batch, by the tasks of an executor if there is one."""
        key = (batch.shapes, names) if names else batch.shapes
        paths = self.paths.get(key) or self._paths(theta, batch, names)
        runner = paths.runners[0]
        if scalar and (shape := runner.objective_shape) != ():
            raise ShapeError(
                f"output 0, the objective, must be one number per sample (got shape {shape}); an "
                f"argument of shape (B, {', '.join(map(str, shape))}) gives the function an array "
                f"of shape {shape}: pass (B,) if it takes numbers, and return a sum if it has "
                "several results"
            )
        theta = as_theta(theta, len(runner.graph.parameters), self._options.dtype)
        doubts: list[Any] | None = [] if self._options.check_finite else None
        rows, size, _, shared = batch
        if paths.branch:
            return BranchedCall(paths, theta, rows, size, executor, doubts, shared)
        return Call(runner, theta, rows, size, executor, doubts, shared=shared)

    def _located(self, arrays: Any, named: Any) -> tuple[Batch, Names, Any]:
        """The arguments of a call, checked, the names of those that go by name, and the executor.

        That is the program's, or the one with which the data has been placed.
        """
        options = self._options
        if (placed := placed_in(arrays, named)) is not None:
            return *placed.batch(options.in_axes, options.dtype), placed.executor
        return *self._batch(arrays, named), options.executor

    def _batch(self, arrays: Any, named: Any) -> tuple[Batch, Names]:
        """Arrays as the arguments of a call, checked, and the names of those that go by name."""
        arrays, names, axes = self._arguments(arrays, named)
        return as_batch(arrays, self._options.dtype, axes), names

    def _arguments(self, arrays: Any, named: Any) -> tuple[Any, Names, Axes | int | None]:
        """All arguments of a call in order, the names of those that go by name, and their axes."""
        names: Names = ()
        if named:
            arrays, names = self._signature.bound(arrays, named)
        axes = self._options.in_axes
        if isinstance(axes, tuple):
            axes = self._signature.axes(axes, len(arrays), names)
        return arrays, names, axes

    def place(self, *arrays: Any, executor: Any = None, **named: Any) -> Placed:
        """Put the arrays of calls where an executor's workers find them, once for many calls.

        Calls take the result in place of the arrays, and run there. The executor is the program's
        by default. With processes of this machine the arrays lie in shared memory, with a dask
        `Client` in parts that its workers keep; threads share them anyway. Memory is given back
        when nobody holds the result, by its `close()`, or at the end of a `with` block. What is
        placed is as it was then: changes to the arrays may show or not. Raises as a call does, and
        TypeError for what is no executor.

        >>> import vgrad
        >>> program = vgrad.compile(lambda x, y: x * y, parameters=[])
        >>> data = program.place([1.0, 2.0], [3.0, 4.0])
        >>> data
        Placed((2,), (2,), float64, in this process)
        >>> program([], data)
        array([3., 8.])
        """
        executor = self._options.executor if executor is None else as_executor(executor)
        batch, names, _ = self._located(arrays, named)
        rows, where, close = placed_rows(executor, batch.rows)
        options = self._options.in_axes, self._options.dtype
        return Placed(batch._replace(rows=rows), names, *options, where, close, executor)

    def _met(self, arrays: Any, named: Any = None) -> None:
        batch, names, _ = self._located(arrays, named)
        self._paths(None, batch, names)

    def _paths(self, theta: Any, batch: Batch, names: Names) -> Paths:
        """The paths for arguments of these shapes, the first recorded when first met.

        If the parameters are not known yet, they are those of all paths that this batch takes.
        """
        rows, size, shapes, shared = batch
        key = (shapes, names) if names else shapes
        if key in self.paths:
            return self.paths[key]
        if self._fn is None:
            if shapes in self.paths:
                return self.paths[shapes]
            raise ShapeError(
                f"arrays must have per-sample shapes that this program had seen when it was "
                f"pickled or saved, {', '.join(map(str, self.paths))} (got {shapes})"
            )
        if isinstance(self._fn, Graph):
            raise ShapeError(
                f"arrays must have the graph's per-sample shapes {self._fn.input_shapes}, "
                f"after the batch axis (got {shapes})"
            )
        self._signature.require(len(shapes), names)
        fn = calling_by_name(self._fn, len(shapes), names)
        with self._recording.here():  # one thread's first trace decides which leaves are parameters
            if key not in self.paths:
                recorder = Recorder(fn, shapes, self._tree, self._finds_parameters, self._options)
                if theta is not None:  # of any length as yet
                    numbers = as_numbers(theta, "theta", self._options.dtype)
                    theta = as_theta(numbers, numbers.size, self._options.dtype)
                paths = Paths(recorder, self._new_runner, self._recording)
                paths = first_paths(paths, theta, rows, size, shared)
                if self._is_once and paths.runners[0].output_shapes != ():
                    raise ShapeError(
                        f"once must return one number (got {self._signature}, which returns "
                        f"{paths.runners[0].output_shapes})"
                    )
                if self._tree is None:  # before there are paths: who sees some finds these
                    self._tree = recorder.parameters
                self.paths = {**self.paths, key: paths}
        return self.paths[key]

    def _known(self, shapes: tuple[Shape, ...]) -> Paths:
        """The paths for arrays of these shapes, of a program without a function to find more."""
        if shapes not in self.paths:
            self.paths = {**self.paths, shapes: Paths(None, self._new_runner, self._recording)}
        return self.paths[shapes]

    def _divisor(self, call: AnyCall) -> int:
        return call.batch if self._options.reduce == "mean" else 1
