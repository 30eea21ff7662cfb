"""`compile`: a function of single numbers becomes a program over batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from functools import partial
from typing import Any, Literal

import numpy as np

from ..arguments import Array, Shape, as_numbers, as_theta, distinct_leaves
from ..elsewhere import Elsewhere
from ..engine import Value
from ..errors import ShapeError
from ..flat import Graph, Path
from ..optim import Optimiser
from . import checkpoint
from .arrays import as_batch, split, structured
from .branched import BranchedCall, first_paths
from .call import Call
from .explain import explain
from .options import Options
from .paths import Paths
from .recorder import ProcessLock, Recorder
from .replay import check_gradient, check_outputs, check_per_sample, check_sums, is_doubtful
from .runner import Runner

Source = Callable[..., Any] | Graph
AnyCall = Call | BranchedCall


def compile(
    fn: Source,
    parameters: Iterable[Value] | None = None,
    *,
    reduce: Literal["mean", "sum"] = "mean",
    fuse: bool = True,
    tile: int | None = None,
    executor: Executor | None = None,
    dtype: Any = np.float64,
    check_finite: bool = False,
    paths: int = 64,
) -> Program:
    """Make a function of one sample, or a graph, run over batches.

    `fn` takes one sample, a node or an array of nodes per argument, and returns the objective, or
    a tuple that begins with it. Nothing runs yet: the first call with arrays of a new per-sample
    shape records `fn`, and later calls replay that, which is kept as long as the program.
    `parameters` are leaf `Value`s, in the order of theta; by default every trainable leaf that `fn`
    reaches on the paths of the first batch, in order of first use. `reduce` says whether
    `value_and_grad` takes the mean or the sum over the batch.

    With `fuse`, sums run as matrix products where they can. A sum is added up as it is written, to
    the bit, where its terms may have been made to cancel: where no number in it is rounded, where
    it both adds and subtracts a number or a factor, or where its products share all their factors.
    Other sums may differ in their last bits, and a zero in its sign. So a fused value is within
    1e-12 of the scalar engine's wherever that is as accurate, but for accuracy by chance: where
    equal products cancel, a matrix product may leave 1e-17 in place of 0. The parts of a gradient
    are added in any order. Without `fuse`, values are those of the scalar engine to the last bit.

    Where `fn` branches on numbers, by `if`, `while`, `int(x)` and the like, each sample takes its
    own path, as on the scalar engine. `fn` is recorded once for every path, when a sample first
    takes it, and must be repeatable: it is called again to see that it asks and computes the same.
    What a path's questions depend on keeps its order of evaluation. At most `paths` are recorded;
    further samples run one by one on the scalar engine, and PathsWarning says what to write so that
    they need not. With paths=1 a branch is a TraceError. A size of batch that is rare is filled up
    to a common one, with what weighs nothing; once it is regular, sums may differ in a last bit.

    `tile` is how many samples run at a time, by default as many as 8 MB of buffers hold, or more
    where calls would take too long. In a recurrence a few samples, `explain` says how many, run as
    Python on floats, unless a tile is given; last bits may differ from those of more samples. An
    `executor`, as of `concurrent.futures`, gets batches of more than two tiles, in tasks of two,
    with the same results as without; no task may call the program, and so wait for itself.

    `dtype` is that of all numbers inside and of the results; float32 takes half the memory, with
    5e8 times the rounding errors. With `check_finite` a call raises NonFiniteError if a result or
    the objective is infinite or nan, or a gradient would be but for the rule that 0 stays 0 (see
    `vgrad.finite`); it names the op, line and sample where that began. Recording is twice as long.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x, y: (w * x - y) ** 2, parameters=[w])
    >>> program.value_and_grad(program.theta(), [1.0, 2.0], [2.0, 5.0])
    (1.0, array([3.]))
    >>> vgrad.compile(lambda x: w * x if x > 0 else x, parameters=[w])([3.0], [1.0, -2.0])
    array([ 3., -2.])

    Raises TypeError or ValueError for arguments of the wrong kind.
    """
    options = Options(reduce, fuse, tile, executor, dtype, check_finite, paths).checked()
    if isinstance(fn, Graph):
        if parameters is not None:
            raise ValueError("parameters must be left out for a graph, which has its own")
        fn.check()
        return Program(fn, list(fn.leaves), options)
    if not callable(fn):
        raise TypeError(f"compile takes a function or a Graph (got {fn!r}, a {type(fn).__name__})")
    if parameters is not None:
        parameters = distinct_leaves("parameters", parameters)
    return Program(fn, parameters, options)


class Program:
    """What `compile` returns: pure functions of theta (P,) and arrays.

    The first axis of every array is the batch, of size B. Arrays are anything NumPy takes as real
    numbers, and results have the program's dtype. Every call raises ShapeError or TypeError for
    arrays that are ragged, not numeric, empty or of different batch sizes and for a theta of the
    wrong length, TraceError if the function cannot be recorded, and OutOfMemoryError if it would
    need more than three quarters of the machine's memory.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x: (w * x, x + 1), parameters=[w])
    >>> program([3.0], [1.0, 2.0])
    (array([3., 6.]), array([2., 3.]))
    >>> program.value_and_grad([3.0], [1.0, 2.0])
    (4.5, array([1.5]))
    >>> program.input_grads([3.0], [1.0, 2.0])
    (array([3., 3.]),)
    >>> program.per_sample_grads([3.0], [1.0, 2.0])
    array([[1.],
           [2.]])
    """

    def __init__(self, fn: Source | None, parameters: list[Value] | None, options: Options) -> None:
        self._fn = fn
        self._parameters = parameters  # None until the first trace finds them
        self._finds_parameters = parameters is None
        self._options = options
        self.paths: dict[tuple[Shape, ...], Paths] = {}  # never changed, but replaced by another
        self._recording = ProcessLock()
        self._new_runner = partial(
            Runner, fuse=options.fuse, tile=options.tile, dtype=options.dtype
        )
        self._numbers: Array | None = None  # theta, if there are no Values behind it
        if isinstance(fn, Graph):
            self._known(fn.input_shapes).add(self._new_runner(fn))
            if not fn.leaves:
                self._numbers = fn.value[fn.parameters]

    def __call__(self, theta: Any, *arrays: Any) -> Any:
        """Every output for every sample, (B,) or (B, ...); a tuple if there are several."""
        call = self.prepared(theta, arrays)
        outputs = call.outputs()
        if self._options.check_finite and not np.isfinite(outputs).all():
            for part in call.parts():
                check_outputs(part, part.outputs())
        return structured(iter(outputs), call.runner.output_shapes)

    def value_and_grad(self, theta: Any, *arrays: Any, aux: bool = False) -> Any:
        """The mean (or sum) of output 0 over the batch, a float, and its gradient, (P,).

        With `aux=True` a pair takes the value's place: the value, and every output as from a call.
        """
        call = self.prepared(theta, arrays, scalar=True)
        value, gradient, outputs = self._gradient(call, aux)
        if outputs is not None:
            return (value, structured(iter(outputs), call.runner.output_shapes)), gradient
        return value, gradient

    def input_grads(self, theta: Any, *arrays: Any) -> tuple[Array, ...]:
        """The gradient of output 0 to every input, per sample: one array for each argument."""
        call = self.prepared(theta, arrays, scalar=True)
        graph = call.runner.graph
        gradients = self._per_sample(call, "input_gradients", "inputs")
        return tuple(split(gradients, graph.input_shapes))

    def per_sample_grads(self, theta: Any, *arrays: Any) -> Array:
        """The gradient of output 0 to theta for every sample, (B, P)."""
        call = self.prepared(theta, arrays, scalar=True)
        return self._per_sample(call, "parameter_gradients", "parameters").T

    def hessian_vector_product(self, theta: Any, v: Any, *arrays: Any) -> Array:
        """The Hessian of what `value_and_grad` gives, to theta, times v (P,): an array (P,).

        It takes as long as two or three gradients, and no Hessian is made. It is the derivative of
        that gradient as `Graph.gradient` gives it, also where a gradient of 0 meets inf; there it
        takes longer. Raises as a call does, also for a v of the wrong length.

        >>> import vgrad
        >>> w = vgrad.Value(3.0)
        >>> program = vgrad.compile(lambda x: (w * x) ** 2, parameters=[w])
        >>> program.hessian_vector_product([3.0], [1.0], [1.0, 2.0])
        array([5.])
        """
        call = self.prepared(theta, arrays, scalar=True)
        size, divisor = len(call.theta), self._divisor(call)
        both = np.concatenate([call.theta, as_theta(v, size, self._options.dtype, "v")])
        products = (self._along(part, both, divisor) for part in call.parts())
        return sum(products, np.zeros(size, self._options.dtype))

    def _along(self, call: Call, both: Array, divisor: int) -> Array:
        """A Hessian-vector product; `both` is theta and then the vector, (2 P,)."""
        # The gradient of the derivative along v: reverse over forward, as in Pearlmutter 1994.
        along = call._replace(runner=call.runner.along, theta=both)
        total = along.gradient(divisor)
        if not np.isfinite(total[1]).all():
            # Forward a change met inf; backward it may be a gradient of 0, which stays 0.
            if self._options.check_finite:
                check_gradient(call, *call.gradient(divisor))
            along = call._replace(runner=call.runner.along_carefully, theta=both)
            total = along.gradient(divisor)
        if self._options.check_finite:
            check_gradient(along, *total)
        return total[1][: len(call.theta)]

    verify = Elsewhere("checks", "verify")

    def explain(self, *arrays: Any, theta: Any = None) -> str:
        """The plan of a call with these arrays, as a table.

        One line per kernel: its level and kind, how many nodes of the recorded graph it computes,
        the shapes of its result and operands, whether these are views or gathered, and flops and
        bytes of a forward sweep over the batch, B. The last lines have the totals, the tiles, the
        most memory that a gradient takes at a time, beyond its arrays, and its estimated time.
        Kernels whose result has no B run once per call, those with × n run n times. So few samples
        that floats are quicker have a table of ops instead. If the function branches, the questions
        that part the samples come first, each with its line and how many samples got which answer
        at theta (P,), by default the present one; then the plan of each path. Raises as calls do.

        >>> import vgrad
        >>> w = [vgrad.Value(k) for k in range(8)]
        >>> program = vgrad.compile(lambda x: vgrad.tanh(w @ x), parameters=w)
        >>> print(program.explain(np.ones((100, 8))))
        level  kernel  nodes  result = operands           flops   bytes
            1  matmul     15  1 x B = view 8, view 8 x B  1.6 k  7.26 k
            2  tanh        1  1 x B = view 1 x B            100   1.6 k
        kernels: 2 for 16 computed nodes; forward: 1.7 k flops and 8.86 k bytes
        tiles: 1 of 100 samples; peak: 11.3 k bytes; a sample: 48 ns of calls, 13.2 ns of numbers
        """
        call = self.prepared(self.theta(*arrays) if theta is None else theta, arrays)
        with np.errstate(all="ignore"):
            return explain(call)

    def theta(self, *arrays: Any) -> Array:
        """The parameters' present numbers, a new array (P,), read from the `Value`s.

        A program that finds its parameters itself needs the `arrays` of a call, once, to record
        its function; raises ValueError if it has not had them.
        """
        if arrays:
            rows, batch, shapes = as_batch(arrays, self._options.dtype)
            self._paths(None, rows, batch, shapes)
        if self._parameters is None:
            raise ValueError(
                "parameters must be known before theta is read: give them to compile, "
                "or give this call the arrays that the program is to run on"
            )
        if self._numbers is not None:
            return self._numbers.copy()
        return np.array([p.data for p in self._parameters], np.float64)

    def assign(self, theta: Any) -> None:
        """Write theta (P,) back into the `Value`s; raises ValueError if there are none."""
        if not self._parameters and len(self.theta()):
            raise ValueError(
                "a program must have Values to assign to (got one of a graph or pickle without)"
            )
        values = self._parameters or []
        for parameter, number in zip(values, as_theta(theta, len(values)).tolist()):
            parameter.data = number

    def save(self, path: Path, theta: Any = None, optimiser: Optimiser | None = None) -> None:
        """Write the graphs recorded so far to a file, with theta (P,), by default the present one.

        The options go along, except the executor, and so do the optimiser's steps and state. An old
        file of that name stays whole until the new one is. Raises TypeError if nothing is recorded
        yet, ValueError if sizes differ, and OSError if the file cannot be written.

        >>> import tempfile, vgrad
        >>> w, adam = vgrad.Value(3.0), vgrad.optim.Adam()
        >>> program = vgrad.compile(lambda x: w * x, parameters=[w])
        >>> theta = program.theta([1.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     program.save(f"{folder}/program.npz", theta, adam)
        ...     twin = vgrad.Program.load(f"{folder}/program.npz", vgrad.optim.Adam())
        >>> twin(twin.theta(), [1.0, 2.0])
        array([3., 6.])
        """
        checkpoint.save(path, self.__getstate__(), theta, optimiser)

    @staticmethod
    def load(path: Path, optimiser: Optimiser | None = None) -> Program:
        """Read a program that `save` wrote, without trust in the file; `theta()` is the saved one.

        Like one from a pickle it has no `Value`s, and takes arrays of the shapes it had seen. An
        `optimiser` takes over the saved steps and state, and keeps its own rate and settings.

        Raises GraphFormatError if the file is damaged, of another version, or no program, OSError
        if it cannot be read, and ValueError, which leaves the optimiser as it was, if the file has
        no state or one of another kind or size.
        """
        return checkpoint.load(path, compile, optimiser)

    def __getstate__(self) -> dict[str, Any]:
        """The graphs recorded so far; the function, its Values and the executor stay behind."""
        if not self.paths:
            raise TypeError(
                "a Program must have been called, or given arrays by program.theta(*arrays), "
                "before it is pickled or saved: only what it has recorded travels (got one without)"
            )
        options = self._options._replace(executor=None)
        runners = [runner for paths in self.paths.values() for runner in paths.runners]
        return {"runners": runners, "numbers": self.theta(), "options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(None, [], state["options"])  # type: ignore[misc]
        for runner in state["runners"]:
            self._known(runner.graph.input_shapes).add(runner)
        self._numbers = state["numbers"]

    @property
    def runners(self) -> dict[tuple[Shape, ...], Runner]:
        """The runner of path 0 for each shape of a sample."""
        return {shapes: paths.runners[0] for shapes, paths in self.paths.items()}

    def __deepcopy__(self, memo: Any = None) -> Program:
        # The function and its Values cannot be copied along, and the calls are pure anyway.
        return self

    __copy__ = __deepcopy__

    def prepared(self, theta: Any, arrays: tuple[Any, ...], scalar: bool = False) -> AnyCall:
        """The call for these arrays, checked; if `scalar`, the objective must be one number."""
        rows, batch, shapes = as_batch(arrays, self._options.dtype)
        paths = self.paths.get(shapes) or self._paths(theta, rows, batch, shapes)
        runner = paths.runners[0]
        if scalar and runner.objective_shape != ():
            raise ShapeError(
                f"output 0, the objective, must be one number per sample (got shape "
                f"{runner.objective_shape}); an array of shape (B, 1) gives the function arrays of "
                "shape (1,): pass (B,) instead"
            )
        theta = as_theta(theta, len(runner.graph.parameters), self._options.dtype)
        doubts: list[Any] | None = [] if self._options.check_finite else None
        if paths.branch:
            return BranchedCall(paths, theta, rows, batch, self._options.executor, doubts)
        return Call(runner, theta, rows, batch, self._options.executor, doubts)

    def _paths(
        self, theta: Any, arrays: list[Array], batch: int, shapes: tuple[Shape, ...]
    ) -> Paths:
        """The paths for arrays of these per-sample shapes, the first recorded when first met.

        If the parameters are not known yet, they are those of all paths that this batch takes.
        """
        if shapes in self.paths:
            return self.paths[shapes]
        if self._fn is None:
            raise ShapeError(
                f"arrays must have per-sample shapes that this program had seen when it was "
                f"pickled or saved, {', '.join(map(str, self.paths))} (got {shapes})"
            )
        if isinstance(self._fn, Graph):
            raise ShapeError(
                f"arrays must have the graph's per-sample shapes {self._fn.input_shapes}, "
                f"after the batch axis (got {shapes})"
            )
        with self._recording.here():  # one thread's first trace decides which leaves are parameters
            if shapes not in self.paths:
                known = self._parameters, self._finds_parameters
                recorder = Recorder(self._fn, shapes, *known, self._options)
                if theta is not None:  # of any length as yet
                    numbers = as_numbers(theta, "theta", self._options.dtype)
                    theta = as_theta(numbers, numbers.size, self._options.dtype)
                paths = Paths(recorder, self._new_runner, self._recording)
                paths = first_paths(paths, theta, arrays, batch)
                if self._parameters is None:  # before there are paths: who sees some finds these
                    self._parameters = list(recorder.parameters or ())
                self.paths = {**self.paths, shapes: paths}
        return self.paths[shapes]

    def _known(self, shapes: tuple[Shape, ...]) -> Paths:
        """The paths for arrays of these shapes, of a program without a function to find more."""
        if shapes not in self.paths:
            self.paths = {**self.paths, shapes: Paths(None, self._new_runner, self._recording)}
        return self.paths[shapes]

    def _gradient(self, call: AnyCall, aux: bool) -> tuple[float, Array, Array | None]:
        divisor = self._divisor(call)
        total = call.gradient(divisor, aux)
        if self._options.check_finite and is_doubtful(call, *total):
            for part in call.parts():
                check_gradient(part, *(total if part is call else part.gradient(divisor, aux)))
            check_sums(call.runner.graph, *total[:2])
        return total

    def _divisor(self, call: AnyCall) -> int:
        return call.batch if self._options.reduce == "mean" else 1

    def _per_sample(self, call: AnyCall, name: str, leaves: str) -> Array:
        """The gradient of output 0 to some leaves, (n, B), by the method of this name."""
        found = getattr(call, name)()
        if self._options.check_finite and is_doubtful(call, *found):
            for part in call.parts():
                numbers = found if part is call else getattr(part, name)()
                check_per_sample(part, name, getattr(part.runner.graph, leaves), *numbers)
        return found[1]  # type: ignore[no-any-return]
