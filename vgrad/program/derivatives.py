"""A program's derivatives by name: graphs made of its graph, and calls of these.

    jacobian         one call of a graph with all derivatives; of a large one a call per output
    hessian          a Hessian-vector product per parameter
    jvp, vjp         one call of a graph with one argument more: a direction, or weights

Of a function that branches, all of it for each path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..arguments import Array, Shape, Structure, arranged, as_numbers, as_theta, count, cut
from ..compiler import RolledPlan
from ..errors import ShapeError
from ..flat import Leaves, hessian, jacobian, slope, tangent, weighted
from .arrays import structured
from .call import Call
from .recordings import AnyCall, Recordings
from .replay import check_gradient, check_outputs, check_per_sample, is_doubtful

LARGE = 200_000  # nodes that a graph of derivatives may have, about; more take calls one by one


class Derivatives(Recordings):
    """The calls of a program that give derivatives other than those of training."""

    def jacobian(self, theta: Any, *arrays: Any, **named: Any) -> tuple[Any, Any]:
        """Every output, (B, *out), and its derivatives to theta, (B, *out, P), per sample.

        If there are several outputs, both are tuples. They are computed in one sweep, forward where
        theta has fewer numbers than the outputs, else backward; of large or deep programs output by
        output.

        >>> import vgrad
        >>> a, b = vgrad.Value(2.0), vgrad.Value(1.0)
        >>> fit = vgrad.compile(lambda x: [a * x + b], parameters=[a, b])
        >>> (residuals,), (jacobian,) = fit.jacobian([2.0, 1.0], [3.0, 4.0])
        >>> residuals, jacobian
        (array([7., 9.]), array([[3., 1.],
               [4., 1.]]))
        """
        call = self.prepared(theta, arrays, named)
        outputs, rows = self._jacobian(call, "parameters")
        shapes = call.runner.output_shapes
        return structured(outputs, shapes), _placed(rows, shapes)

    def input_jacobian(self, theta: Any, *arrays: Any, **named: Any) -> tuple[Any, Any]:
        """Every output, (B, *out), and its derivatives to each argument, per sample.

        There is one array (B, *out, *in) for each argument; if there are several outputs, a tuple
        of such for each.

        >>> import vgrad
        >>> program = vgrad.compile(lambda x, y: vgrad.array([x * y, x + y]), parameters=[])
        >>> _, (by_x, by_y) = program.input_jacobian([], [3.0], [4.0])
        >>> by_x, by_y
        (array([[4., 1.]]), array([[3., 1.]]))
        """
        call = self.prepared(theta, arrays, named)
        outputs, rows = self._jacobian(call, "inputs")
        shapes, inputs = call.runner.output_shapes, call.runner.graph.input_shapes
        parts = _by_argument(rows, shapes, inputs)
        return structured(outputs, shapes), parts

    def _jacobian(self, call: AnyCall, leaves: Leaves) -> tuple[Array, Array]:
        """Every output, (M, B), and its derivatives to n leaves, (n, M, B)."""
        graph, numbers = call.runner.graph, count(call.runner.output_shapes)
        n = len(getattr(graph, leaves))
        found = self._of_parts(call, numbers * (1 + n), lambda part: _columns(part, leaves))
        return found[:numbers], found[numbers:].reshape(n, numbers, call.batch)

    def _of_parts(self, call: AnyCall, rows: int, find: Any) -> Array:
        """Numbers of every sample, (rows, B), found for each path's samples."""
        whole: Array | None = None
        for part in call.parts():
            found = find(part)
            if part.numbers is None:
                return found  # type: ignore[no-any-return]
            if whole is None:
                whole = np.empty((rows, call.batch), found.dtype)
            whole[:, part.numbers] = found
        assert whole is not None
        return whole

    def hessian(self, theta: Any, *arrays: Any, **named: Any) -> Array:
        """The second derivatives of what `value_and_grad` gives, to theta, (P, P).

        It takes a Hessian-vector product for each parameter.

        >>> import vgrad
        >>> a, b = vgrad.Value(2.0), vgrad.Value(1.0)
        >>> program = vgrad.compile(lambda x: a * a * b * x, parameters=[a, b])
        >>> program.hessian([2.0, 1.0], [1.0, 3.0])
        array([[4., 8.],
               [8., 0.]])
        """
        call = self.prepared(theta, arrays, named, scalar=True)
        size, parts, divisor = len(call.theta), [*call.parts()], self._divisor(call)
        directions = np.eye(size, dtype=call.runner.dtype)
        rows = [self._product(parts, v, divisor) for v in directions]
        total = np.array(rows).reshape(size, size)
        return total if self.once is None else total + self.once.hessian(call.theta)

    def hessian_vector_product(self, theta: Any, v: Any, *arrays: Any, **named: Any) -> Array:
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
        call = self.prepared(theta, arrays, named, scalar=True)
        v = as_theta(v, len(call.theta), self._options.dtype, "v")
        total = self._product(call.parts(), v, self._divisor(call))
        if self.once is None:
            return total
        alone: Array = self.once.hessian_vector_product(call.theta, v)
        return total + alone

    def _product(self, parts: Iterable[Call], v: Array, divisor: int) -> Array:
        """The Hessian of the samples of all parts, times v, (P,)."""
        products = (self._along(part, v, divisor) for part in parts)
        return sum(products, np.zeros(len(v), self._options.dtype))

    def _along(self, call: Call, v: Array, divisor: int) -> Array:
        # The gradient of the derivative along v: reverse over forward, as in Pearlmutter 1994.
        theta = np.concatenate([call.theta, v])
        along = call._replace(runner=call.runner.derived(slope, "parameters"), theta=theta)
        total = along.gradient(divisor)
        if not np.isfinite(total[1]).all():
            # Forward a change met inf; backward it may be a gradient of 0, which stays 0.
            if self._options.check_finite:
                check_gradient(call, *call.gradient(divisor))
            along = along._replace(runner=call.runner.derived(slope, "parameters", True))
            total = along.gradient(divisor)
        if self._options.check_finite:
            check_gradient(along, *total)
        return total[1][: len(call.theta)]

    def input_hessian(self, theta: Any, *arrays: Any, **named: Any) -> Array:
        """The second derivatives of output 0 to the inputs, (B, K, K), per sample.

        K counts the numbers of all arguments, one argument after the other.

        >>> import vgrad
        >>> program = vgrad.compile(lambda x, y: x**2 * y, parameters=[])
        >>> program.input_hessian([], [3.0], [4.0])
        array([[[8., 6.],
                [6., 0.]]])
        """
        call = self.prepared(theta, arrays, named, scalar=True)
        size = len(call.runner.graph.inputs)
        found = self._of_parts(call, size * size, _second)
        return found.reshape(size, size, call.batch).transpose(2, 0, 1)

    def jvp(self, theta: Any, tangent: Any, *arrays: Any, **named: Any) -> tuple[Any, Any]:
        """Every output, and its derivative along a direction of theta, `tangent` (P,), per sample.

        Both are like what a call gives. It takes about two calls, however large theta is. The name
        and meaning are those of `jax.jvp`.

        >>> import vgrad
        >>> a, b = vgrad.Value(2.0), vgrad.Value(1.0)
        >>> program = vgrad.compile(lambda x: a * x + b, parameters=[a, b])
        >>> program.jvp([2.0, 1.0], [1.0, 10.0], [3.0, 4.0])
        (array([7., 9.]), array([13., 14.]))
        """
        call = self.prepared(theta, arrays, named)
        v = as_theta(tangent, len(call.theta), self._options.dtype, "tangent")
        numbers = count(call.runner.output_shapes)
        found = self._of_parts(call, 2 * numbers, lambda part: _moved(part, v))
        shapes = call.runner.output_shapes
        changes, outputs = found[:numbers], found[numbers:]
        return structured(outputs, shapes), structured(changes, shapes)

    def vjp(self, theta: Any, cotangent: Any, *arrays: Any, **named: Any) -> tuple[Any, Array]:
        """Every output, and the gradient to theta, (P,), of all outputs weighted by `cotangent`.

        The cotangent is like what a call gives: (B, *out), or a tuple of such. The name and meaning
        are those of `jax.vjp`.

        >>> import vgrad
        >>> a, b = vgrad.Value(2.0), vgrad.Value(1.0)
        >>> program = vgrad.compile(lambda x: a * x + b, parameters=[a, b])
        >>> program.vjp([2.0, 1.0], [1.0, 10.0], [3.0, 4.0])
        (array([7., 9.]), array([43., 11.]))

        Raises ShapeError if the cotangent is not like the outputs.
        """
        call = self.prepared(theta, arrays, named)
        dtype, shapes = self._options.dtype, call.runner.output_shapes
        rows = [*_weights(cotangent, shapes, call.batch, dtype, "cotangent")]
        weights = np.concatenate(rows, axis=1)
        outputs = np.empty((count(shapes), call.batch), dtype)
        gradient = np.zeros(len(call.theta), dtype)
        for part in call.parts():
            chosen = slice(None) if part.numbers is None else part.numbers
            runner = part.runner.derived(weighted)
            along = part._replace(runner=runner, arrays=[*part.arrays, weights[chosen]])
            total = along.gradient(1, aux=True)
            if self._options.check_finite:
                check_gradient(along, *total)
            assert total[2] is not None
            outputs[:, chosen] = total[2][1:]
            gradient += total[1]
        return structured(outputs, shapes), gradient


def _columns(call: Call, leaves: Leaves) -> Array:
    """Every output and its derivatives to n leaves, (M + n M, B)."""
    graph, numbers = call.runner.graph, count(call.runner.output_shapes)
    n = len(getattr(graph, leaves))
    if not n:
        return call.outputs()[:numbers]
    if numbers == 1:  # which sweeps have a way of their own for
        return _of_output_0(call, leaves)
    if min(numbers, n) * len(graph) <= LARGE and not _is_deep(call):
        return _derived(call, jacobian, leaves)
    # one output at a time: that of its weight 1, where the others have 0
    twin, rows = call._replace(runner=call.runner.derived(weighted)), []
    for weights in np.eye(numbers, dtype=call.runner.dtype):
        everywhere = np.broadcast_to(weights, (call.batch, numbers))
        one = twin._replace(arrays=[*call.arrays, everywhere])
        rows.append(_of_output_0(one, leaves)[1 : 1 + n])
    by_leaf = np.stack(rows, axis=1).reshape(-1, call.batch)
    return np.concatenate([call.outputs()[:numbers], by_leaf])


def _of_output_0(call: Call, leaves: Leaves) -> Array:
    """Output 0, and its derivatives to n leaves, (1 + n, B)."""
    nodes = getattr(call.runner.graph, leaves)
    by_input = leaves == "inputs"
    rows = call.input_columns() if by_input else call.parameter_columns()
    found = rows[: 1 + len(nodes)]
    if call.doubts is not None and is_doubtful(call, found):
        name = "input_gradients" if by_input else "parameter_gradients"
        check_per_sample(call, name, nodes, found[0], found[1:])
    return found


def _second(call: Call) -> Array:
    """The second derivatives of output 0 to K inputs, (K K, B)."""
    graph = call.runner.graph
    size = len(graph.inputs)
    if not size:
        return np.empty((0, call.batch), call.runner.dtype)
    # second derivatives take some four times the nodes of first ones
    if size * len(graph) <= LARGE // 4 and not _is_deep(call):
        return _derived(call, hessian, "inputs")
    found = []  # one input at a time: that along which the direction is 1
    for v in np.eye(size, dtype=call.runner.dtype):
        everywhere = np.broadcast_to(v, (call.batch, size))
        along = call._replace(arrays=[*call.arrays, everywhere])
        quick = along._replace(runner=call.runner.derived(slope, "inputs"), doubts=None)
        row = quick.input_columns()
        if not np.isfinite(row).all():
            guarded = along._replace(runner=call.runner.derived(slope, "inputs", True))
            row = _of_output_0(guarded, "inputs")
        found.append(row[1 : 1 + size])
    return np.concatenate(found)


def _moved(call: Call, v: Array) -> Array:
    """The change of every output along v, and the outputs, (2 M, B)."""
    return _derived(call._replace(theta=np.concatenate([call.theta, v])), tangent, "parameters")


def _derived(call: Call, make: Any, leaves: Leaves) -> Array:
    """The outputs of a graph of derivatives; where one is not finite, of the guarded graph."""
    doubts: list[Any] = []
    quick = call._replace(runner=call.runner.derived(make, leaves), doubts=doubts)
    found = quick.outputs()
    looked = call.runner.fuse and not doubts  # and all were finite
    if not looked and len(wrong := np.flatnonzero(~np.isfinite(found).all(axis=0))):
        guarded = call.some(wrong)._replace(runner=call.runner.derived(make, leaves, True))
        found[:, wrong] = guarded.outputs()
    if call.doubts is not None:
        check_outputs(quick, found)
    return found


def _is_deep(call: Call) -> bool:
    """Whether its plan has loops, which one for a graph of its derivatives would not have."""
    runner = call.runner
    return runner.fuse and isinstance(runner.plan, RolledPlan)


def _placed(rows: Array, structure: Structure) -> Any:
    """Rows (n, M, B) as a view (B, *out, n) for each output, without a copy."""
    return arranged(
        structure, lambda own, shape: rows[:, own].T.reshape(rows.shape[-1], *shape, len(rows))
    )


def _by_argument(rows: Array, structure: Structure, shapes: Sequence[Shape]) -> Any:
    """The same, as a tuple of one view (B, *out, *in) for each argument."""
    parts = cut(rows, shapes)

    def make(own: slice, shape: Shape) -> Any:
        return tuple(
            part[:, own].T.reshape(rows.shape[-1], *shape, *inner)
            for part, inner in zip(parts, shapes)
        )

    return arranged(structure, make)


def _weights(
    given: Any, structure: Structure, batch: int, dtype: np.dtype[Any], name: str
) -> Iterator[Array]:
    """A cotangent, which is like the outputs, as arrays (B, numbers)."""
    if isinstance(structure, list):
        if not isinstance(given, list | tuple) or len(given) != len(structure):
            got = len(given) if isinstance(given, list | tuple) else type(given).__name__
            raise ShapeError(
                f"{name} must be a tuple of {len(structure)}, one per output (got {got})"
            )
        for i, (x, part) in enumerate(zip(given, structure)):
            yield from _weights(x, part, batch, dtype, f"{name}[{i}]")
        return
    array = as_numbers(given, name, dtype)
    if array.shape != (batch, *structure):
        raise ShapeError(
            f"{name} must have the output's shape {(batch, *structure)} (got {array.shape})"
        )
    yield array.reshape(batch, -1)
