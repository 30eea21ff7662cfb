"""`compile`: a function of single numbers becomes a program over batches of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import ops
from ..arguments import Array, Shape, as_theta, count, distinct_leaves
from ..elsewhere import Elsewhere
from ..engine import Value
from ..errors import ShapeError
from ..flat import Graph, Path, Tape, record
from ..optim import Optimiser
from . import checkpoint
from .arrays import as_batch, per_sample_shapes, split, structured
from .call import Call
from .explain import explain
from .replay import check_gradient, check_outputs, check_per_sample
from .runner import Runner


def compile(
    fn: Callable[..., Any] | Graph,
    parameters: Iterable[Value] | None = None,
    *,
    reduce: Literal["mean", "sum"] = "mean",
    fuse: bool = True,
    tile: int | None = None,
    executor: Executor | None = None,
    dtype: Any = np.float64,
    check_finite: bool = False,
) -> Program:
    """Make a function of one sample, or a graph, run over batches.

    `fn` takes one sample, a node or an array of nodes per argument, and returns the objective, or
    a tuple that begins with it. Nothing runs yet: the first call with arrays of a new per-sample
    shape records `fn`, later calls replay what was recorded. `parameters` are leaf `Value`s, in
    the order of theta; by default every trainable leaf that `fn` reaches, in order of first use.
    `reduce` says whether `value_and_grad` takes the mean or the sum over the batch.

    With `fuse`, sums of products run as matrix products where they can be. That adds them up in
    another order, so a sum may differ in its last bits, and one that is 0 in its sign; without,
    values are those of the scalar engine to the last bit.

    `tile` is how many samples run at a time, by default as many as 8 MB of buffers hold.
    `executor` is anything with the interface of `concurrent.futures.Executor`. It gets batches of
    more than two tiles, cut into tasks of two tiles each; the results are the same as without. A
    program must not be called from within a task of its own executor, which might wait for itself.

    `dtype` is that of all numbers inside and of the results; float32 takes half of the memory, and
    its rounding errors are 5e8 times those of float64. With `check_finite` a call raises
    NonFiniteError where a result, or the objective behind it, is infinite or nan; the error names
    the op where that began, its line and its sample. Recording takes twice as long for it.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x, y: (w * x - y) ** 2, parameters=[w])
    >>> program.value_and_grad(program.theta(), [1.0, 2.0], [2.0, 5.0])
    (1.0, array([3.]))

    Raises TypeError or ValueError for arguments of the wrong kind.
    """
    if reduce not in ("mean", "sum"):
        raise ValueError(f'reduce must be "mean" or "sum" (got {reduce!r})')
    if not isinstance(fuse, bool):
        raise TypeError(f"fuse must be True or False (got {fuse!r})")
    if tile is not None:
        if not ops.is_count(tile):
            raise ValueError(f"tile must be a number of samples, 1 or more (got {tile!r})")
        tile = int(tile)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor must have a method submit, as executors do (got {executor!r})")
    if not isinstance(check_finite, bool):
        raise TypeError(f"check_finite must be True or False (got {check_finite!r})")
    options = Options(reduce, fuse, tile, executor, _as_dtype(dtype), check_finite)
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


class Options(NamedTuple):
    """What `compile` was told besides the function and its parameters."""

    reduce: str
    fuse: bool
    tile: int | None
    executor: Executor | None
    dtype: np.dtype[Any]
    check_finite: bool


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    for known in (np.float64, np.float32):
        if dtype in (known, np.dtype(known), known.__name__):
            return np.dtype(known)
    raise ValueError(f"dtype must be np.float64 or np.float32 (got {dtype!r})")


class Program:
    """What `compile` returns: pure functions of theta (P,) and arrays.

    The first axis of every array is the batch, of size B. Arrays are anything NumPy takes as real
    numbers, and results are float64, or float32 if that is the program's dtype. Every call raises
    ShapeError or TypeError for arrays that are ragged, not numeric, empty or of different batch
    sizes and for a theta of the wrong length, TraceError where the function cannot be recorded,
    and OutOfMemoryError where it would need more than three quarters of the machine's memory.

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

    def __init__(
        self,
        fn: Callable[..., Any] | Graph | None,
        parameters: list[Value] | None,
        options: Options,
    ) -> None:
        self._fn = fn
        self._parameters = parameters  # None until the first trace finds them
        self._found = parameters is None  # whether it is for the traces to find them
        self._options = options
        self.runners: dict[tuple[Shape, ...], Runner] = {}
        self._recording = threading.RLock()
        self._numbers: Array | None = None  # theta, if there are no Values behind it
        if isinstance(fn, Graph):
            if not fn.leaves:
                self._numbers = fn.value[fn.parameters]
            self.runners[fn.input_shapes] = Runner(fn, options.fuse, options.tile, options.dtype)

    def __call__(self, theta: Any, *arrays: Any) -> Any:
        """Every output for every sample.

        (B,) for an output that is one number, (B, ...) for an array; a tuple where `fn` returns
        several.
        """
        call = self.prepared(theta, arrays)
        outputs = call.outputs()
        if self._options.check_finite:
            check_outputs(call, outputs)
        return structured(iter(outputs), call.runner.graph.output_shapes)

    def value_and_grad(self, theta: Any, *arrays: Any, aux: bool = False) -> Any:
        """The mean (or sum) of output 0 over the batch, a float, and its gradient, (P,).

        With `aux=True` the value is a pair: the value, and every output as a call would give it.
        """
        call = self.prepared(theta, arrays, scalar=True)
        divisor = call.batch if self._options.reduce == "mean" else 1
        value, gradient, outputs = call.gradient(divisor, aux)
        if self._options.check_finite:
            check_gradient(call, value, gradient, outputs)
        if outputs is not None:
            return (value, structured(iter(outputs), call.runner.graph.output_shapes)), gradient
        return value, gradient

    def input_grads(self, theta: Any, *arrays: Any) -> tuple[Array, ...]:
        """The gradient of output 0 to every input, per sample: an array per argument."""
        call = self.prepared(theta, arrays, scalar=True)
        graph = call.runner.graph
        objective, gradients = call.input_gradients()
        if self._options.check_finite:
            check_per_sample(call, objective, gradients, graph.inputs)
        return tuple(split(gradients, graph.input_shapes))

    def per_sample_grads(self, theta: Any, *arrays: Any) -> Array:
        """The gradient of output 0 to theta for every sample, (B, P)."""
        call = self.prepared(theta, arrays, scalar=True)
        objective, gradients = call.parameter_gradients()
        if self._options.check_finite:
            check_per_sample(call, objective, gradients, call.runner.graph.parameters)
        return gradients.T

    def hessian_vector_product(self, theta: Any, v: Any, *arrays: Any) -> Array:
        """The Hessian of what `value_and_grad` gives, to theta, times v (P,): an array (P,).

        It takes two to three gradients' time, and no Hessian is made. The Hessian itself is that of
        every unit vector. At an infinity or a singularity it may be nan where the second derivative
        of `Graph.gradient` is 0, as changes of 0 are kept, and not gradients of 0. Raises as a call
        does, also for a v of the wrong length.

        >>> import vgrad
        >>> w = vgrad.Value(3.0)
        >>> program = vgrad.compile(lambda x: (w * x) ** 2, parameters=[w])
        >>> program.hessian_vector_product([3.0], [1.0], [1.0, 2.0])
        array([5.])
        """
        call = self.prepared(theta, arrays, scalar=True)
        size = len(call.theta)
        v = as_theta(v, size, self._options.dtype, "v")
        # The gradient of the derivative along v: reverse over forward, as in Pearlmutter 1994.
        call = call._replace(runner=call.runner.along, theta=np.concatenate([call.theta, v]))
        divisor = call.batch if self._options.reduce == "mean" else 1
        value, gradient, _ = call.gradient(divisor)
        if self._options.check_finite:
            check_gradient(call, value, gradient, None)
        return gradient[:size]

    verify = Elsewhere("checks", "verify")

    def explain(self, *arrays: Any) -> str:
        """The plan of a call with these arrays, as a table.

        One line per kernel: its level, what it is, for how many nodes of the recorded graph it
        stands, the shapes of its result and operands, whether these are views or gathered, and
        the floating-point operations and bytes of a forward sweep over the batch, B. The last
        lines have the totals, the tiles, and the memory that a gradient takes beyond its arrays.
        Groups whose result has no B are shared: they run once per call, before the others.

        Raises as a call does.

        >>> import vgrad
        >>> w = [vgrad.Value(k) for k in range(8)]
        >>> program = vgrad.compile(lambda x: vgrad.tanh(w @ x), parameters=w)
        >>> print(program.explain(np.ones((100, 8))))
        level  kernel  nodes  result = operands           flops   bytes
            1  matmul     15  1 x B = view 8, view 8 x B  1.6 k  7.26 k
            2  tanh        1  1 x B = view 1 x B            100   1.6 k
        kernels: 2 for 16 computed nodes; forward: 1.7 k flops and 8.86 k bytes
        tiles: 1 of 100 samples; buffers: 19.3 k bytes
        """
        checked, batch = as_batch(arrays, self._options.dtype)
        with np.errstate(all="ignore"):
            return explain(self._runner(per_sample_shapes(checked)), batch)

    def theta(self, *arrays: Any) -> Array:
        """The parameters' present numbers, a new array (P,), read from the `Value`s.

        A program that finds its parameters itself needs `arrays` as for a call, once, to look.
        Raises ValueError if it has not had them.
        """
        if arrays:
            self._runner(per_sample_shapes(as_batch(arrays, self._options.dtype)[0]))
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

        The options go along, save the executor, and of the optimiser its steps and state. An old
        file of that name stays whole until the new one is. Raises TypeError if nothing is
        recorded yet, ValueError where sizes differ, and OSError where the file cannot be written.

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

        Like one from a pickle it has no `Values`, and takes arrays of the shapes that it had seen.
        An `optimiser` takes up the saved steps and state, and keeps its own rate and settings.

        Raises GraphFormatError if the file is damaged, of another version, or no program, and
        OSError where it cannot be read; ValueError, the optimiser left as it was, where the file
        has no state or one of another kind or size.
        """
        return checkpoint.load(path, compile, optimiser)

    def __getstate__(self) -> dict[str, Any]:
        """The graphs recorded so far; the function, its Values and the executor stay behind."""
        if not self.runners:
            raise TypeError(
                "a Program must have been called, or given arrays by program.theta(*arrays), "
                "before it is pickled or saved: only what it has recorded travels "
                "(got one that has not)"
            )
        numbers = None if self._parameters is None else self.theta()
        options = self._options._replace(executor=None)
        return {"runners": self.runners, "numbers": numbers, "options": options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(None, [], state["options"])  # type: ignore[misc]
        self.runners, self._numbers = state["runners"], state["numbers"]

    def __copy__(self) -> Program:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Program:
        # The function and its Values cannot be copied along, and the calls are pure anyway.
        return self

    def prepared(self, theta: Any, arrays: tuple[Any, ...], scalar: bool = False) -> Call:
        """The call for these arrays: their runner, and its arguments checked.

        `scalar` says that the objective must be one number per sample.
        """
        checked, batch = as_batch(arrays, self._options.dtype)
        shapes = per_sample_shapes(checked)
        runner = self.runners.get(shapes) or self._runner(shapes)
        if scalar and runner.objective_shape != ():
            raise ShapeError(
                f"output 0, the objective, must be one number per sample (got shape "
                f"{runner.objective_shape}); an array of shape (B, 1) gives the function arrays of "
                "shape (1,): pass (B,) instead"
            )
        theta = as_theta(theta, len(runner.graph.parameters), self._options.dtype)
        rows = [x if x.ndim < 3 else x.reshape(batch, count(x.shape[1:])) for x in checked]
        return Call(runner, theta, rows, batch, self._options.executor)

    def _runner(self, shapes: tuple[Shape, ...]) -> Runner:
        """The runner for arrays of these per-sample shapes, recorded when first met."""
        if shapes in self.runners:
            return self.runners[shapes]
        if self._fn is None:
            raise ShapeError(
                f"arrays must have per-sample shapes that this program had seen when it was "
                f"pickled or saved, {', '.join(map(str, self.runners))} (got {shapes})"
            )
        if isinstance(self._fn, Graph):
            raise ShapeError(
                f"arrays must have the graph's per-sample shapes {self._fn.input_shapes}, "
                f"after the batch axis (got {shapes})"
            )
        with self._recording:  # one thread's first trace decides which leaves are parameters
            if shapes not in self.runners:
                known = self._parameters is not None
                tape = Tape(
                    self._parameters, self._options.check_finite, complete=self._found and known
                )
                graph = record(self._fn, shapes, tape)
                if not known:
                    self._parameters = list(graph.leaves)
                options = self._options
                self.runners[shapes] = Runner(graph, options.fuse, options.tile, options.dtype)
        return self.runners[shapes]
