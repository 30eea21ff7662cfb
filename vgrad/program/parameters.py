"""A program's parameters: theta, flat, and the `Value`s in the nesting that people keep them in."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arguments import Array, as_numbers, as_theta
from ..engine import Value
from ..errors import ShapeError
from ..flat import Graph
from ..trees import Nesting, Tree, as_tree, holds_parameters
from .recordings import Recordings


class Parametrised(Recordings):
    """What a program knows of its parameters."""

    def theta(self, *arrays: Any, **named: Any) -> Array:
        """The parameters' present numbers, a new array (P,), read from the `Value`s.

        Those of another model of the same structure are `program.theta(model)`: a module, or a
        nesting of `Value`s. A program that finds its parameters itself needs the `arrays` of a
        call, once, to record its function; raises ValueError if it has not had them, and ShapeError
        if the model differs.

        >>> import vgrad
        >>> w, other = {"w": vgrad.Value(3.0)}, {"w": vgrad.Value(4.0)}
        >>> program = vgrad.compile(lambda x: w["w"] * x, parameters=w)
        >>> program.theta(), program.theta(other)
        (array([3.]), array([4.]))
        """
        if len(arrays) == 1 and _is_model(arrays[0]):
            values = self._values_of(arrays[0])
            return np.array([p.data for p in values], np.float64)
        if arrays or named:
            self._met(arrays, named)
        if self._numbers is not None:
            return self._numbers.copy()
        return np.array([p.data for p in self._known_tree.values], np.float64)

    def assign(self, theta: Any, model: Any = None) -> None:
        """Write theta (P,) back into the `Value`s, or into those of another model like it.

        Raises ValueError if there are none, and ShapeError if theta or the model does not fit.

        >>> import vgrad
        >>> w = vgrad.Value(3.0)
        >>> vgrad.compile(lambda x: w * x, parameters=[w]).assign([5.0])
        >>> w.data
        5.0
        """
        if model is not None:
            values = self._values_of(model)
        else:
            values = list(self._known_tree.values)
            if not values and len(self.theta()):
                raise ValueError(
                    "a program must have Values to assign to (got one of a graph or pickle "
                    "without); give assign a model, as program.assign(theta, model)"
                )
        for parameter, number in zip(values, as_theta(theta, len(values)).tolist()):
            parameter.data = number

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of theta is called, (P,), by its place in the nesting of `parameters`.

        >>> import vgrad
        >>> w = {"w": [vgrad.Value(3.0), vgrad.Value(4.0)], "b": vgrad.Value(0.0)}
        >>> vgrad.compile(lambda x: w["w"][0] * x + w["b"], parameters=w).names
        ('w[0]', 'w[1]', 'b')
        """
        if self._numbers is None and not isinstance(self._fn, Graph):
            return self._known_tree.names
        graph = next(iter(self.paths.values())).runners[0].graph
        labels = [graph.labels.get(node, "") for node in graph.parameters.tolist()]
        return tuple(label or f"theta[{k}]" for k, label in enumerate(labels))

    def unflatten(self, theta: Any, frozen: float | None = None) -> Nesting:
        """The nesting of `parameters` with the numbers of theta (P,) in place of the `Value`s.

        From an array (..., P), such as gradients per sample, the nesting of arrays (..., *shape).
        What is not trainable has its own number, or what is given for `frozen`, as 0.0 among
        gradients. Of a program without `Value`s the result is the array.
        Raises ShapeError if the last axis is not P.

        >>> import vgrad
        >>> w = {"w": [vgrad.Value(3.0), vgrad.Value(4.0)], "b": vgrad.Value(0.0)}
        >>> program = vgrad.compile(lambda x: w["w"][0] * x + w["b"], parameters=w)
        >>> program.unflatten([1.0, 2.0, 3.0])
        {'w': array([1., 2.]), 'b': 3.0}
        >>> program.flatten({"w": [1.0, 2.0], "b": 3.0})
        array([1., 2., 3.])
        """
        if self._numbers is not None:
            return as_numbers(theta, "theta")
        return self._known_tree.unflatten(theta, frozen)

    def flatten(self, tree: Any) -> Array:
        """Theta (P,) from a nesting of numbers like that of `parameters`.

        A single number stands for a whole array or branch, as of rates: `{"w": 0.1, "b": 0.01}`.
        Raises ShapeError or TypeError, which names the place, if the nesting differs.
        """
        if self._numbers is not None:
            if isinstance(tree, dict):
                raise TypeError(
                    "the tree must be an array of numbers, as a program of a file, pickle or graph "
                    "has a flat theta without a nesting (got a dict)"
                )
            numbers = as_numbers(tree, "the tree")
            return as_theta(
                np.broadcast_to(numbers, self._numbers.shape).copy(), len(self._numbers)
            )
        return self._known_tree.flatten(tree)

    def _values_of(self, model: Any) -> list[Value]:
        """The `Value`s of another model, in the order of theta."""
        if self._numbers is None:
            return self._known_tree.of(model)
        other, names = as_tree(model), self.names  # all that a file or graph knows
        nameless = tuple(f"theta[{k}]" for k in range(len(names)))
        alike = names in (other.names, nameless) or other.names == nameless
        if len(other.values) != len(names) or not alike:
            raise ShapeError(
                f"the model must have the program's {len(names)} parameters, by the same names, "
                f"{', '.join(names[:3])}, ... (got {len(other.values)}: "
                f"{', '.join(other.names[:3])}, ...)"
            )
        return list(other.values)

    @property
    def _known_tree(self) -> Tree:
        if self._tree is None:
            raise ValueError(
                "parameters must be known before theta is read: give them to compile, "
                "or give this call the arrays that the program is to run on"
            )
        return self._tree


def _is_model(x: Any) -> bool:
    """Whether it is a module or a nesting of `Value`s, and no array of numbers."""
    if isinstance(x, Value):
        return False
    while isinstance(x, dict | list | tuple) and x:
        x = next(iter(x.values())) if isinstance(x, dict) else x[0]
    if isinstance(x, np.ndarray):
        return x.dtype == object and x.size > 0 and isinstance(x.flat[0], Value)
    return isinstance(x, Value | dict) or holds_parameters(x)
