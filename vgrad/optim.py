"""Gradient descent, on a flat theta or on `Value`s: in a list, a module, or any nesting.

>>> import vgrad
>>> x = vgrad.Value(3.0)
>>> adam = vgrad.optim.Adam(rate=0.1)
>>> for _ in range(200):
...     x.zero_grad()
...     ((x - 1) ** 2).backward()
...     adam.step([x])
>>> round(x.data, 2)
1.0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import as_numbers
from .errors import NonFiniteError, ShapeError
from .ops import is_number, number
from .trees import Nesting, Tree, as_tree

__all__ = ["SGD", "Adam", "AdamW", "Optimiser", "clip_by_norm"]

Array = NDArray[np.float64]
# A number, or one per parameter: an array (P,), or a nesting like that of the parameters, in which
# a number stands for a whole array or branch; or a function of the step's number that returns one.
Setting = float | Nesting | Callable[[int], float | Nesting]


def clip_by_norm(grad: Any, max_norm: float) -> Array:
    """The gradient, an array of any shape, scaled down to a Euclidean norm of `max_norm` at most.

    Raises ValueError unless `max_norm` is above 0, and NonFiniteError for a gradient with an
    infinity or nan, of which PyTorch's `clip_grad_norm_` by default makes zeros and nans.

    >>> clip_by_norm([3.0, -4.0], 1.0), clip_by_norm([0.3, -0.4], 1.0)
    (array([ 0.6, -0.8]), array([ 0.3, -0.4]))

    Pascanu, Mikolov and Bengio 2013, algorithm 1.
    """
    grad, most = as_numbers(grad, "grad"), _number("the largest norm", max_norm)
    if not most > 0:
        raise ValueError(f"the largest norm must be above 0 (got {max_norm!r})")
    _require_finite(grad)
    largest = float(np.abs(grad).max(initial=0.0)) or 1.0
    unit: Array = grad / largest  # whose squares do not overflow
    length = float(np.sqrt(np.sum(unit * unit)))
    return unit * (most / length) if length * largest > most else grad.copy()


def _require_finite(grad: Array, tree: Tree | None = None) -> None:
    """Raise NonFiniteError, which names the first place, if a number is infinite or nan."""
    places = np.flatnonzero(~np.isfinite(grad))
    if not len(places):
        return
    first = int(places[0])
    label = tree.names[first] if tree else ""
    index = [int(k) for k in np.unravel_index(first, grad.shape)]
    got = float(grad.flat[first])
    error = NonFiniteError(
        f"grad must be finite, to be clipped by its norm (got {got} at {label or index}; "
        f"{len(places)} of {grad.size} numbers are not)"
    )
    error.got, error.label = got, label
    raise error


def _number(name: str, x: Any) -> float:
    """`x` as a float; raises TypeError, which names it, unless it is a real number."""
    try:
        return number(x)
    except TypeError as error:
        raise TypeError(f"{name} {error}") from None


class Optimiser:
    """Steps parameters downhill; a subclass supplies `_descent` and its own state.

    `rate`, the learning rate, is a number or one per parameter: an array (P,), or a nesting like
    that of the parameters, in which a number stands for a whole array or branch; or a function of
    the step's number, from 0, that returns one of these. So is `weight_decay`, which times theta is
    added to the gradient. A gradient whose norm is above `clip_norm` is first scaled down to it, by
    `clip_by_norm`.

    >>> from vgrad import Value
    >>> w, b = [Value(1.0), Value(2.0)], Value(3.0)
    >>> (w[0] * w[1] * b).backward()
    >>> sgd = SGD(rate={"w": 0.5, "b": 0.0}, weight_decay={"w": 0.1, "b": 0.0})
    >>> sgd.step({"w": w, "b": b})
    >>> [round(p.data, 6) for p in (*w, b)]
    [-2.05, 0.4, 3.0]
    """

    _arrays: int | None = None  # how many its state has after a step; None if that varies
    _is_decoupled = False  # whether weight decay goes past the state, to theta itself

    def __init__(
        self, rate: Setting, weight_decay: Setting = 0.0, clip_norm: float | None = None
    ) -> None:
        self.rate, self.weight_decay, self.clip_norm = rate, weight_decay, clip_norm
        self.steps = 0
        self._state: list[Array] = []  # of the same size as the parameters, made at the first step

    def step(self, parameters: Any, grad: Any = None) -> None:
        """Move `parameters` one step downhill, in place.

        They are either theta, a float64 array (P,), with its gradient `grad`, (P,), or `Value`s,
        which have gradients of their own, in a list, a module, or a nesting of dicts, lists and
        arrays; those with `trainable=False` stay as they are. Raises ShapeError if sizes differ
        from each other or from those of the first step, NonFiniteError for a gradient that cannot
        be clipped, and TypeError for anything else; then nothing has changed.
        """
        if isinstance(parameters, np.ndarray) and parameters.dtype != object:
            if grad is None:
                raise TypeError(
                    "grad must be given with theta, as an array of its shape (got none)"
                )
            self._step(parameters, as_numbers(grad, "grad"))
            return
        if grad is not None:
            raise TypeError("grad must be left out for Values, which have their own")
        try:
            tree = as_tree(parameters)
        except TypeError as error:
            raise TypeError(
                "parameters must be a float64 array or a list of Values, or a module or nesting "
                f"that holds Values (got {parameters!r:.200})"
            ) from error
        theta = np.array([p.data for p in tree.values], np.float64)
        self._step(theta, np.array([p.grad for p in tree.values], np.float64), tree)
        for value, data in zip(tree.values, theta.tolist()):
            value.data = data

    def state(self) -> dict[str, Any]:
        """What the steps so far have changed: their number, and copies of the arrays (P,).

        With them the name of the class; the rate and other settings are left out.

        >>> adam, theta = Adam(rate=0.5), np.array([1.0])
        >>> adam.step(theta, [4.0])
        >>> state = adam.state()
        >>> state["kind"], state["steps"], len(state["arrays"])
        ('Adam', 1, 2)
        >>> twin = Adam(rate=0.5)
        >>> twin.restore(state)  # and goes on as the other does
        """
        arrays = [array.copy() for array in self._state]
        return {"kind": type(self).__name__, "steps": self.steps, "arrays": arrays}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from the `state` of another optimiser, with the rate and settings of this one.

        Raises ValueError, and changes nothing, if the other is of another kind, or if its arrays
        differ from those here in number or length.
        """
        kind, got = type(self).__name__, state["kind"]
        if got != kind:
            raise ValueError(f"the state must be of the optimiser's kind, {kind} (got {got})")
        arrays = [as_numbers(array, "state").copy() for array in state["arrays"]]
        if self._arrays is not None and len(arrays) not in (0, self._arrays):
            raise ValueError(
                f"the state of {kind} must have {self._arrays} arrays, or none before the first "
                f"step (got {len(arrays)})"
            )
        shapes = {array.shape for array in (*self._state, *arrays)}
        if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
            raise ValueError(
                f"the state's arrays must have one shape (P,), that of the steps so far "
                f"(got {', '.join(map(str, sorted(shapes)))}); restore into a new optimiser"
            )
        self.steps, self._state = int(state["steps"]), arrays

    def _step(self, theta: Array, grad: Array, tree: Tree | None = None) -> None:
        if theta.dtype != np.float64 or theta.ndim != 1:
            raise TypeError(f"theta must be float64 (P,) (got {theta.dtype} {theta.shape})")
        if grad.shape != theta.shape:
            raise ShapeError(f"grad must have theta's shape {theta.shape} (got {grad.shape})")
        for shape in {array.shape for array in self._state} - {theta.shape}:
            raise ShapeError(
                f"theta must keep its shape {shape} from step to step (got {theta.shape})"
            )
        if not theta.flags.writeable:
            raise TypeError("theta must be writeable, to be changed in place")
        rate = self._setting("rate", len(theta), tree)
        decay = self._setting("weight_decay", len(theta), tree)
        if self.clip_norm is not None:
            _require_finite(grad, tree)  # here, where names are known
            grad = clip_by_norm(grad, self.clip_norm)
        with np.errstate(all="ignore"):
            decayed = decay * theta if isinstance(decay, np.ndarray) or decay else None
            if decayed is not None and not self._is_decoupled:
                grad = grad + decayed
            descent = self._descent(grad)
            if decayed is not None and self._is_decoupled:
                descent = descent + decayed
            theta -= rate * descent
        self.steps += 1

    def _setting(self, name: str, size: int, tree: Tree | None) -> float | Array:
        """The rate or the weight decay at this step: a number, or one per parameter, (P,)."""
        x = getattr(self, name)
        if callable(x):
            x = x(self.steps)
        if is_number(x) or not isinstance(x, dict | list | tuple | np.ndarray):
            return _number(name, x)
        if tree is None and isinstance(x, list) and all(map(is_number, x)):
            x = np.array(x, np.float64)
        if isinstance(x, np.ndarray) and x.shape == (size,):
            return as_numbers(x, name)
        if tree is None:
            kind = ShapeError if isinstance(x, np.ndarray) else TypeError
            raise kind(
                f"{name} must be a number or an array ({size},), one per number of theta, where "
                f"theta is flat (got {x!r:.200}); program.flatten(tree) makes one of a nesting"
            )
        try:
            return tree.flatten(x)
        except (ShapeError, TypeError) as error:
            raise type(error)(f"{name} must fit the parameters: {error}") from None

    def _descent(self, grad: Array) -> Array:
        raise NotImplementedError


class SGD(Optimiser):
    """Gradient descent, with momentum: v = momentum · v + grad, theta -= rate · v.

    `Optimiser` says what `rate`, `weight_decay` and `clip_norm` may be.

    >>> theta = np.array([1.0, 2.0])
    >>> SGD(rate=0.5).step(theta, [1.0, -1.0])
    >>> theta
    array([0.5, 2.5])

    The form of momentum is that of Sutskever et al. 2013 as PyTorch has it.
    """

    _arrays = 1

    def __init__(
        self,
        rate: Setting,
        momentum: float = 0.0,
        weight_decay: Setting = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(rate, weight_decay, clip_norm)
        self.momentum = momentum

    def _descent(self, grad: Array) -> Array:
        if not self.momentum:
            return grad
        self._state = self._state or [np.zeros_like(grad)]
        (velocity,) = self._state
        velocity *= self.momentum
        velocity += grad
        return velocity


class Adam(Optimiser):
    """Adam, of Kingma and Ba 2015, algorithm 1.

    `Optimiser` says what `rate`, `weight_decay` and `clip_norm` may be.

    >>> theta = np.array([1.0, 2.0])
    >>> Adam(rate=0.5).step(theta, [4.0, -9.0])
    >>> theta.round(6)
    array([0.5, 2.5])
    """

    _arrays = 2

    def __init__(
        self,
        rate: Setting = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: Setting = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(rate, weight_decay, clip_norm)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def _descent(self, grad: Array) -> Array:
        self._state = self._state or [np.zeros_like(grad), np.zeros_like(grad)]
        mean, square = self._state
        mean += (1 - self.beta1) * (grad - mean)
        square += (1 - self.beta2) * (grad * grad - square)
        t = self.steps + 1
        corrected = square / (1 - self.beta2**t)
        return mean / (1 - self.beta1**t) / (np.sqrt(corrected) + self.eps)


class AdamW(Adam):
    """Adam with decoupled weight decay: theta -= rate · (Adam's descent + weight_decay · theta).

    The decay does not go through Adam's means, so that all weights decay alike, however large their
    gradients are. It is often left out for biases, as by weight_decay={"w": 0.01, "b": 0.0}.

    >>> theta = np.array([1.0, 2.0])
    >>> AdamW(rate=0.5, weight_decay=0.1).step(theta, [4.0, -9.0])
    >>> theta.round(6)
    array([0.45, 2.4 ])

    Loshchilov and Hutter 2019, algorithm 2, with the rate times the decay, as PyTorch has it.
    """

    _is_decoupled = True

    def __init__(
        self,
        rate: Setting = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: Setting = 0.01,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(rate, beta1, beta2, eps, weight_decay, clip_norm)


def __dir__() -> list[str]:
    return __all__
