"""Calls with dask arrays: each block is computed where it lies.

    arrays     cut at the same places along the batch; arrays in memory are cut like them
    block      one task for each: the program's own call with its samples
    gradients  the sums of blocks are added up two by two, in a tree of tasks; theta goes to the
               blocks, and one gradient comes back
    others     what each sample has is a dask array as well, and nothing is computed yet

Recording needs the shapes of a sample alone, and where the function asks about numbers, those of
the first sample. Paths that a block meets in a process without the function are recorded here, and
the blocks computed again. dask is imported when somebody has given one of its arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from ..arguments import Array, Shape, Structure, arranged
from ..errors import ShapeError, WorkerError
from .arrays import Batch, as_batch, split
from .cluster import client_of
from .paths import UnknownPathError
from .recordings import AnyCall


def are_blocks(arrays: Sequence[Any], named: dict[str, Any]) -> bool:
    """Whether some of a call's arrays are dask's. Hot path."""
    for x in arrays:  # several times as quick as any()
        if type(x) is not np.ndarray and _is_dask(x):
            return True
    return bool(named) and any(map(_is_dask, named.values()))


def _shapes_of(structure: Structure) -> list[Shape]:
    """The shape of each output."""
    shapes: list[Shape] = []
    arranged(structure, lambda own, shape: shapes.append(shape))
    return shapes


def _is_dask(x: Any) -> bool:
    return hasattr(x, "__dask_graph__")


def value_and_grad(program: Any, theta: Any, arrays: Any, named: Any, aux: bool) -> Any:
    """The mean (or sum) of output 0 and its gradient; with `aux` also outputs, lazily."""
    blocks = Blocks(program, theta, arrays, named, scalar=True)
    total = blocks.total()
    divisor = total.size if program._options.reduce == "mean" else 1
    value, gradient = total.value / divisor, total.gradient / divisor
    if program.once is not None:
        more, part = program.once.value_and_grad(blocks.theta)
        value, gradient = value + more, gradient + part
    return ((value, _outputs(blocks)), gradient) if aux else (value, gradient)


def outputs(program: Any, theta: Any, arrays: Any, named: Any) -> Any:
    """Every output for every sample, lazily."""
    return _outputs(Blocks(program, theta, arrays, named))


def _outputs(blocks: Blocks) -> Any:
    structure = blocks.runner.output_shapes
    found = iter(blocks.arrays("outputs", _shapes_of(structure)))
    return arranged(structure, lambda own, shape: next(found))


def input_grads(program: Any, theta: Any, arrays: Any, named: Any) -> tuple[Any, ...]:
    """The gradient of output 0 to every input, per sample, lazily."""
    blocks = Blocks(program, theta, arrays, named, scalar=True)
    return tuple(blocks.arrays("input_grads", list(blocks.runner.graph.input_shapes)))


def per_sample_grads(program: Any, theta: Any, arrays: Any, named: Any) -> Any:
    """The gradient of output 0 to theta for every sample, (B, P), lazily."""
    blocks = Blocks(program, theta, arrays, named, scalar=True)
    return blocks.arrays("per_sample_grads", [(len(blocks.theta),)])[0]


class Part(NamedTuple):
    """What a block adds: the sum of its values, their gradient (P,), and how many samples.

    If the block has a sample that takes a path which is not recorded, `unmet` has its numbers.
    """

    value: float
    gradient: Array
    size: int
    unmet: tuple[list[Array], ...] = ()


class Blocks:
    """A call's arguments, each (B, ...), cut into blocks at the same places; and its paths."""

    def __init__(
        self, program: Any, theta: Any, arrays: Any, named: Any, scalar: bool = False
    ) -> None:
        arrays, self.names, axes = program._arguments(arrays, named)
        each = axes if isinstance(axes, tuple) else (axes,) * len(arrays)
        for i, x in enumerate(arrays):
            if _is_dask(x) and type(x).__name__ != "Array":
                raise TypeError(
                    f"array {i} must be a dask array (got a {type(x).__name__}); a frame or series "
                    "has .to_dask_array()"
                )
        shared = tuple(i for i, x in enumerate(arrays) if each[i] is None or not np.ndim(x))
        self.program, self.scalar = program, scalar
        self.axes = tuple(None if i in shared else 0 for i in range(len(arrays)))
        moved = [_moved(x, i, each[i]) for i, x in enumerate(arrays)]
        self.sizes, self.rows = _cut_alike(moved, shared)
        first: list[Any] = [
            np.ravel(x)[None] if i in shared else Lazy(x) for i, x in enumerate(moved)
        ]
        if program._tree is None:  # parameters are to be found, perhaps on paths
            first = [np.asarray(x[0])[None] for x in first]
        shapes = tuple([tuple(x.shape[i not in shared :]) for i, x in enumerate(moved)])
        call = program._call(theta, Batch(first, 1, shapes, shared), self.names, scalar)
        self.runner, self.theta = call.runner, call.theta

    def results(self, method: str, shapes: list[Shape]) -> list[Any]:
        """Tasks, one for each block: what its samples give by one of METHODS."""
        delayed = import_module("dask").delayed
        common = self.program, self.theta, self.names, self.axes, self.scalar
        shared = delayed(common, pure=False, traverse=False)
        run = delayed(_of_block, pure=False)
        return [run(shared, method, shapes, *block) for block in zip(*self.rows)]

    def total(self) -> Part:
        """The sum of all blocks, computed now, in a tree; unknown paths are recorded here."""
        delayed = import_module("dask").delayed
        add = delayed(_added, pure=False)
        while True:
            parts = self.results("gradient", [])
            while len(parts) > 1:
                pairs = [add(*parts[k : k + 2]) for k in range(0, len(parts) - 1, 2)]
                parts = pairs + parts[len(parts) - len(parts) % 2 :]
            found: Part = _computed(parts[0], self.program._options.executor)
            if not found.unmet:
                break
            self._meet(found.unmet)
        if not found.size:
            raise ShapeError("the batch must have at least one sample (got none)")
        return found

    def _meet(self, samples: tuple[list[Array], ...]) -> None:
        """Record the paths of samples that met none in a worker, where the function is not."""
        for own in samples:
            rows = [x if axis is None else x[None] for x, axis in zip(own, self.axes)]
            batch = as_batch(rows, self.program._options.dtype, self.axes)
            call = self.program._call(self.theta, batch, self.names, self.scalar)
            call.outputs()
            if getattr(call, "lone", ()):
                raise ShapeError(
                    "samples in blocks must take a path that is recorded (got one that takes "
                    f"another, beyond the {self.program._options.paths} of paths=): compile with a "
                    "larger paths="
                )

    def arrays(self, method: str, shapes: list[Shape]) -> list[Any]:
        """Dask arrays (B, *shape), one for each shape, of which nothing is computed yet."""
        da = import_module("dask.array")
        results, dtype = self.results(method, shapes), self.program._options.dtype

        def whole(k: int, shape: Shape) -> Any:
            sized = [(x[k], (size, *shape), dtype) for x, size in zip(results, self.sizes)]
            parts = [da.from_delayed(*own) for own in sized]
            return da.concatenate(parts, allow_unknown_chunksizes=True)

        return [whole(k, shape) for k, shape in enumerate(shapes)]


class Lazy:
    """The first sample of an array, computed when its numbers are asked for."""

    def __init__(self, x: Any) -> None:
        self.x = x

    def __getitem__(self, sample: int) -> Array:
        if not _is_dask(self.x):
            return self.x[0]  # type: ignore[no-any-return]
        for block in self.x.to_delayed().ravel() if isnan(len_of(self.x)) else [self.x[:1]]:
            if len(found := block.compute()):
                return found[0]  # type: ignore[no-any-return]
        raise ShapeError("the batch must have at least one sample (got none)")


def len_of(x: Any) -> float:
    """The size of the batch, nan if that is unknown."""
    return x.shape[0]  # type: ignore[no-any-return]


def _moved(x: Any, i: int, axis: int | None) -> Any:
    """An argument with its batch in front, in blocks along that alone."""
    if axis is None or not np.ndim(x):
        if _is_dask(x):
            raise TypeError(
                f"array {i}, which all samples share, must be in memory (got a dask array): give "
                "its .compute()"
            )
        return np.asarray(x)
    if not _is_dask(x):
        return np.moveaxis(np.asanyarray(x), axis, 0) if axis else np.asanyarray(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"array {i} must hold real numbers (got an array of {x.dtype})")
    if axis:
        x = import_module("dask.array").moveaxis(x, axis, 0)
    whole = dict.fromkeys(range(1, x.ndim), -1)
    return x if all(n == 1 for n in x.numblocks[1:]) else x.rechunk(whole)


def _cut_alike(
    arrays: list[Any], shared: tuple[int, ...]
) -> tuple[tuple[float, ...], list[list[Any]]]:
    """The sizes of the blocks, nan if unknown, and those of each array."""
    own = [x for i, x in enumerate(arrays) if i not in shared]
    chunks = [x.chunks[0] for x in own if _is_dask(x)]
    if any(isnan(size) for sizes in chunks for size in sizes):
        if len({len(sizes) for sizes in chunks}) > 1 or len(chunks) < len(own):
            raise ShapeError(
                "arrays must all be dask arrays with as many blocks where their sizes are unknown "
                f"(got {', '.join(str(len(x)) for x in chunks)} blocks, and {len(own)} arrays); "
                "x.compute_chunk_sizes() finds them"
            )
        sizes = tuple(float("nan") for _ in chunks[0])
    else:
        lengths = {len(x) for x in own}
        if len(lengths) > 1:
            raise ShapeError(
                "arrays must have one batch size, their first axis (got "
                f"{', '.join(str(len(x)) for x in own)})"
            )
        ends = sorted({0, *(int(end) for c in chunks for end in np.cumsum(c))})
        sizes = tuple(b - a for a, b in itertools.pairwise(ends)) or (0,)
    return sizes, [_blocks_of(x, sizes, i in shared) for i, x in enumerate(arrays)]


def _blocks_of(x: Any, sizes: tuple[float, ...], is_shared: bool) -> list[Any]:
    if is_shared:
        return [x] * len(sizes)
    if _is_dask(x):
        if not isnan(sum(sizes)) and x.chunks[0] != sizes:
            x = x.rechunk({0: sizes})
        return x.to_delayed().ravel().tolist()  # type: ignore[no-any-return]
    return np.split(x, np.cumsum(sizes[:-1]).astype(int))


# --- in a task -----------------------------------------------------------------------------------


def _of_block(common: Any, method: str, shapes: list[Shape], *arrays: Array) -> Any:
    """What a block's samples give, by one of METHODS."""
    program, theta, names, axes, scalar = common
    sizes = [len(x) for x, axis in zip(arrays, axes) if axis == 0]
    if len(set(sizes)) > 1:
        raise ShapeError(
            f"arrays must have one batch size in each block (got {', '.join(map(str, sizes))})"
        )
    dtype = program._options.dtype
    if not sizes[0] and method == "gradient":
        return Part(0.0, np.zeros(len(theta), dtype), 0)
    if not sizes[0]:
        return [np.empty((0, *shape), dtype) for shape in shapes]
    batch = as_batch(arrays, dtype, axes)
    call = program._call(theta, batch, names, scalar)
    try:
        return METHODS[method](program, call)
    except UnknownPathError as error:
        if method != "gradient":
            raise
        own = [x if axis is None else x[error.sample] for x, axis in zip(arrays, axes)]
        return Part(0.0, np.zeros(len(theta), dtype), 0, (own,))


def _gradient(program: Any, call: AnyCall) -> Part:
    value, gradient, _ = program._gradient(call, False, 1)
    return Part(value, gradient, call.batch)


def _every_output(program: Any, call: AnyCall) -> list[Array]:
    found, parts = program._outputs(call), list[Array]()
    arranged(
        call.runner.output_shapes,
        lambda own, shape: parts.append(found[own].T.reshape(-1, *shape)),
    )
    return parts


def _by_input(program: Any, call: AnyCall) -> list[Array]:
    gradients = program._per_sample(call, "input_gradients", "inputs")
    return [*split(gradients, call.runner.graph.input_shapes)]


def _by_parameter(program: Any, call: AnyCall) -> list[Array]:
    return [program._per_sample(call, "parameter_gradients", "parameters").T]


METHODS: dict[str, Callable[[Any, AnyCall], Any]] = {
    "gradient": _gradient,
    "outputs": _every_output,
    "input_grads": _by_input,
    "per_sample_grads": _by_parameter,
}


def _added(left: Part, right: Part) -> Part:
    value, gradient = left.value + right.value, left.gradient + right.gradient
    return Part(value, gradient, left.size + right.size, left.unmet + right.unmet)


def _computed(task: Any, executor: Any) -> Any:
    """The result of a task, by the program's executor if dask can use it, or by dask's default."""
    client = client_of(executor)
    try:
        if client is not None:
            return client.compute(task, sync=True)
        threads = {"scheduler": "threads", "pool": executor}
        options = threads if isinstance(executor, ThreadPoolExecutor) else {}
        (found,) = import_module("dask").compute(task, **options)
        return found
    except Exception as error:
        if not type(error).__module__.startswith("distributed"):
            raise
        raise WorkerError(
            f"the workers of a dask cluster must live until the call returns (got {error!r}); "
            "nothing has changed: call again"
        ) from error
