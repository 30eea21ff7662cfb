"""`compile`: a function of single numbers becomes a program over batches of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

import numpy as np

from ..arguments import Array
from ..arrays import array_of
from ..elsewhere import Elsewhere
from ..flat import Graph, Path
from ..optim import Optimiser
from ..progress import Report
from ..trees import Tree, as_tree
from . import blocks, checkpoint
from .arrays import split, structured
from .derivatives import Derivatives
from .explain import explain
from .options import Options
from .parameters import Parametrised
from .recordings import AnyCall, Source
from .replay import check_gradient, check_outputs, check_per_sample, check_sums, is_doubtful
from .signature import Signature

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, Unpack

    from ..signatures import Nested
    from .options import Named

    P = ParamSpec("P", default=...)  # so that `Program` alone is one of any function
else:
    from typing import ParamSpec

    P = ParamSpec("P")


@overload
def compile(
    fn: Callable[P, Any] | Graph, parameters: Nested | None = None, **options: Unpack[Named]
) -> Program[P]: ...
@overload
def compile(
    *, parameters: Nested | None = None, **options: Unpack[Named]
) -> Callable[[Callable[P, Any]], Program[P]]: ...
def compile(
    fn: Source | None = None,
    parameters: Any = None,
    *,
    in_axes: int | Sequence[int | None] | None = 0,
    once: Callable[[], Any] | None = None,
    reduce: Literal["mean", "sum"] = "mean",
    fuse: bool = True,
    tile: int | None = None,
    executor: Any = None,
    dtype: Any = np.float64,
    check_finite: bool = False,
    paths: int = 64,
    progress: Report | None = None,
) -> Any:
    """Make a function of one sample, or a graph, run over batches: a `Program`.

    `fn` takes one sample, a node or an array of nodes per argument, and returns the objective, or
    a tuple that begins with it. Nothing runs yet: the first call with arrays of a new per-sample
    shape records `fn`, and later calls replay that, until `program.forget()`. What `fn` reads
    besides its arguments and parameters, a number of Python's or an array that it closes over, is
    recorded as it is then: make it an argument, or a parameter, if it is to change. Without `fn`
    it is a decorator: `@vgrad.compile(parameters=[w])`.

    `parameters` are leaf `Value`s in the order of theta: a list of them, a module, or any nesting
    of dicts, lists and arrays, as `{"W": W, "b": b}`. Those that are not `trainable` stay what they
    are, without a place in theta. By default every trainable leaf that `fn` reaches on the paths of
    the first batch, in order of first use. `reduce` says whether `value_and_grad` takes the mean or
    the sum over the batch; `once` is a function without arguments, a term of the parameters alone,
    as a prior or penalty, that it adds once.

    `in_axes` says which axis of each argument is the batch, as in `jax.vmap`: one for all, or a
    sequence with one for each; None for an array that all samples share, as a plain number is
    anyway. What all samples share is computed once.

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
    A new path costs about twice what recording and compiling take. What a path's questions depend
    on keeps its order of evaluation, so a matrix product there takes ten times as long. At most
    `paths` are recorded; further samples run one by one on the scalar engine, and PathsWarning says
    what to write so that they need not. With paths=1 a branch is a TraceError. A traced number is
    no `Value` to isinstance. A size of batch that is rare is filled up to a common one, with what
    weighs nothing; once it is regular, sums may differ in a last bit.

    `tile` is how many samples run at a time, by default as many as 8 MB of buffers hold, or more
    where calls would take too long. In a recurrence a few samples, `explain` says how many, run as
    Python on floats, unless a tile is given; last bits may differ from those of more samples. An
    `executor`, as of `concurrent.futures`, gets batches of more than two tiles, in tasks of as many
    shards, of two tiles each, as keep its workers busy; no task may call the program, and so wait
    for itself. Sums are added up in a tree that is the same for whoever runs them, so results are
    those without it, to the bit where matrix products use one thread, as they do in the processes
    of a pool. These map the arrays, which `place` can do once for many calls. The graph travels and
    not `fn`, so a lambda will do. A dask `Client` is an executor, too. Of dask arrays each block is
    computed where it lies, see `Program`.

    `dtype` is that of all numbers inside and of the results; float32 takes half the memory, with
    5e8 times the rounding errors. `progress`, such as `print`, is called with a text on how far
    recording and compiling are, where they take more than a second. With `check_finite` a call
    raises NonFiniteError if a result or the objective is infinite or nan, or a gradient would be
    but for the rule that 0 stays 0 (see `vgrad.finite`); it names the op, line and sample where
    that began. Recording is twice as long.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x, y: (w * x - y) ** 2, parameters=[w])
    >>> program.value_and_grad(program.theta(), [1.0, 2.0], [2.0, 5.0])
    (1.0, array([3.]))
    >>> vgrad.compile(lambda x: w * x if x > 0 else x, parameters=[w])([3.0], [1.0, -2.0])
    array([ 3., -2.])

    Raises TypeError or ValueError for arguments of the wrong kind.
    """
    options = Options(
        reduce,
        fuse,
        tile,
        executor,
        dtype,
        check_finite,
        paths,
        in_axes,  # type: ignore[arg-type]
        progress,
    ).checked()
    tree = None if parameters is None else as_tree(parameters)
    is_function = callable(once) and not isinstance(once, Graph) and Signature(once).takes(0)
    if once is not None and (tree is None or not is_function):
        raise TypeError(
            f"once must be a function without arguments, beside the parameters that it is a "
            f"function of, in parameters= (got {once!r}{', without parameters' * (tree is None)})"
        )
    if fn is None:
        return partial(_program, tree=tree, options=options, once=once)
    return _program(fn, tree, options, once)


def _program(
    fn: Source, tree: Tree | None, options: Options, once: Callable[[], Any] | None
) -> Program:
    """The program of a function or graph, its options checked."""
    if isinstance(fn, Graph):
        if tree is not None:
            raise ValueError("parameters must be left out for a graph, which has its own")
        fn.check()
        tree = Tree(array_of(fn.leaves, (len(fn.leaves),)), fn.leaves)
    elif not callable(fn):
        raise TypeError(f"compile takes a function or a Graph (got {fn!r}, a {type(fn).__name__})")
    return Program(fn, tree, options, once)


class Program(Derivatives, Parametrised, Generic[P]):
    """What `compile` returns: pure functions of theta (P,) and arrays.

    The first axis of every array is the batch, of size B. Arrays are anything NumPy takes as real
    numbers, and results have the program's dtype. Every call raises ShapeError or TypeError for
    arrays that are ragged, not numeric, empty or of different batch sizes and for a theta of the
    wrong length, TraceError if the function cannot be recorded, and OutOfMemoryError if it would
    need more than three quarters of the machine's memory.

    Dask arrays, in blocks along the batch, are taken by a call, `value_and_grad`, `input_grads` and
    `per_sample_grads`. The gradient is computed at once: the sums of blocks, each computed where it
    lies, are added up in a tree of tasks. What each sample has is a dask array again, of which
    nothing is computed yet. Other arrays beside them are cut at the same places.

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

    def __repr__(self) -> str:
        known = "parameters to be found"
        if self._tree is not None:
            size = len(self.theta())
            known = f"{size} parameter{'s' * (size != 1)}"
        times = len(self.paths)
        recorded = f"recorded for {times} shape{'s' * (times != 1)} of arguments"
        return f"Program({self._signature}, {known}, {recorded if times else 'not recorded yet'})"

    _repr_svg_ = Elsewhere("pictures", "notebook_svg")

    def __call__(self, theta: Any, *arrays: Any, **named: Any) -> Any:
        """Every output for every sample, (B,) or (B, ...); a tuple if there are several."""
        if blocks.are_blocks(arrays, named):
            return blocks.outputs(self, theta, arrays, named)
        call = self.prepared(theta, arrays, named)
        return structured(self._outputs(call), call.runner.output_shapes)

    @overload
    def value_and_grad(
        self, theta: Any, *arrays: Any, aux: Literal[False] = False, **named: Any
    ) -> tuple[float, Array]: ...
    @overload
    def value_and_grad(
        self, theta: Any, *arrays: Any, aux: bool, **named: Any
    ) -> tuple[Any, Array]: ...
    def value_and_grad(self, theta: Any, *arrays: Any, aux: bool = False, **named: Any) -> Any:
        """The mean (or sum) of output 0 over the batch, a float, and its gradient, (P,).

        With `aux=True` a pair takes the value's place: the value, and every output as from a call.
        """
        if not isinstance(aux, bool):
            raise TypeError(
                f"aux must be True or False (got {aux!r}); an array for an argument of this name "
                "must go by position"
            )
        if blocks.are_blocks(arrays, named):
            return blocks.value_and_grad(self, theta, arrays, named, aux)
        call = self.prepared(theta, arrays, named, scalar=True)
        value, gradient, outputs = self._gradient(call, aux, self._divisor(call))
        if self.once is not None:
            more, part = self.once.value_and_grad(call.theta)
            value, gradient = value + more, gradient + part
        if outputs is not None:
            return (value, structured(outputs, call.runner.output_shapes)), gradient
        return value, gradient

    def input_grads(self, theta: Any, *arrays: Any, **named: Any) -> tuple[Array, ...]:
        """The gradient of output 0 to every input, per sample: one array for each argument."""
        if blocks.are_blocks(arrays, named):
            return blocks.input_grads(self, theta, arrays, named)
        call = self.prepared(theta, arrays, named, scalar=True)
        graph = call.runner.graph
        gradients = self._per_sample(call, "input_gradients", "inputs")
        return tuple(split(gradients, graph.input_shapes))

    def per_sample_grads(self, theta: Any, *arrays: Any, **named: Any) -> Array:
        """The gradient of output 0 to theta for every sample, (B, P)."""
        if blocks.are_blocks(arrays, named):
            return blocks.per_sample_grads(self, theta, arrays, named)  # type: ignore[no-any-return]
        call = self.prepared(theta, arrays, named, scalar=True)
        return self._per_sample(call, "parameter_gradients", "parameters").T

    if TYPE_CHECKING:

        def verify(
            self, theta: Any, *arrays: Any, samples: int = 16, seed: int = 0, **named: Any
        ) -> Any: ...
    else:
        verify = Elsewhere("checks", "verify")

    def explain(self, *arrays: Any, theta: Any = None, **named: Any) -> str:
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
        theta = self.theta(*arrays, **named) if theta is None else theta
        call = self.prepared(theta, arrays, named)
        with np.errstate(all="ignore"):
            return explain(call)

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
        program: Program = checkpoint.load(path, compile, optimiser)
        return program

    def __getstate__(self) -> dict[str, Any]:
        """The graphs recorded so far; the function, its Values and the executor stay behind."""
        if not self.paths:
            raise TypeError(
                "a Program must have been called, or given arrays by program.theta(*arrays), "
                "before it is pickled or saved: only what it has recorded travels (got one without)"
            )
        if self.once is not None:
            self.once._met(())
        options = self._options.portable()
        runners = [runner for paths in self.paths.values() for runner in paths.runners]
        shapes = {key: runner.graph.input_shapes for key, runner in self.runners.items()}
        by_name = [key for key in shapes if key != shapes[key]]  # behind one that was left out
        if len({*shapes.values()}) < len(shapes) or (
            by_name and isinstance(self._options.in_axes, tuple)
        ):
            raise TypeError(
                "a Program that is pickled or saved must be recorded for arguments of different "
                f"shapes, and with in_axes none left out before others (got "
                f"{', '.join(map(str, shapes))})"
            )
        once = None if self.once is None else self.once.__getstate__()
        return {"runners": runners, "numbers": self.theta(), "options": options, "once": once}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(None, as_tree([]), state["options"])  # type: ignore[misc]
        for runner in state["runners"]:
            self._known(runner.graph.input_shapes).add(runner)
        self._numbers = state["numbers"]
        if state["once"] is not None:
            self.once = Program.__new__(Program)
            self.once.__setstate__(state["once"])

    def __deepcopy__(self, memo: Any = None) -> Program:
        # The function and its Values cannot be copied along, and the calls are pure anyway.
        return self

    __copy__ = __deepcopy__

    def _outputs(self, call: AnyCall) -> Array:
        outputs = call.outputs()
        if self._options.check_finite and not np.isfinite(outputs).all():
            for part in call.parts():
                check_outputs(part, part.outputs())
        return outputs

    def _gradient(
        self, call: AnyCall, aux: bool, divisor: int
    ) -> tuple[float, Array, Array | None]:
        total = call.gradient(divisor, aux)
        if self._options.check_finite and is_doubtful(call, *total):
            for part in call.parts():
                check_gradient(part, *(total if part is call else part.gradient(divisor, aux)))
            check_sums(call.runner.graph, *total[:2])
        return total

    def _per_sample(self, call: AnyCall, name: str, leaves: str) -> Array:
        """The gradient of output 0 to some leaves, (n, B), by the method of this name."""
        found = getattr(call, name)()
        if self._options.check_finite and is_doubtful(call, *found):
            for part in call.parts():
                numbers = found if part is call else getattr(part, name)()
                check_per_sample(part, name, getattr(part.runner.graph, leaves), *numbers)
        return found[1]  # type: ignore[no-any-return]
