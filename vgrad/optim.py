"""Gradient descent, on a flat theta or on a list of `Value`s."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import as_numbers
from .engine import Value
from .errors import ShapeError
from .ops import number

__all__ = ["SGD", "Adam", "Optimiser"]

Array = NDArray[np.float64]
Rate = float | Callable[[int], float]


class Optimiser:
    """Steps parameters downhill; a subclass supplies `_descent` and its own state.

    `rate`, the learning rate, is a number, or a function of the step's number, from 0.
    """

    _arrays: int | None = None  # how many its state has after a step; None if that varies

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.steps = 0
        self._state: list[Array] = []  # of the same size as the parameters, made at the first step

    def step(self, parameters: Array | Iterable[Value], grad: Any = None) -> None:
        """Move `parameters` one step downhill, in place.

        They are either theta, a float64 array (P,), with its gradient `grad`, (P,), or `Value`s,
        which have gradients of their own; those with `trainable=False` stay as they are. Raises
        ShapeError if sizes differ from each other or from those of the first step, and TypeError
        for anything else.
        """
        if isinstance(parameters, np.ndarray):
            self._step(parameters, as_numbers(grad, "grad"))
            return
        parameters = list(parameters)
        if not all(isinstance(p, Value) for p in parameters):
            kinds = "a float64 array or a list of Values"
            raise TypeError(f"parameters must be {kinds} (got {parameters!r})")
        if grad is not None:
            raise TypeError("grad must be left out for Values, which have their own")
        values = [p for p in parameters if p.trainable]
        theta = np.array([p.data for p in values], np.float64)
        self._step(theta, np.array([p.grad for p in values], np.float64))
        for value, data in zip(values, theta.tolist()):
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

    def _step(self, theta: Array, grad: Array) -> None:
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
        rate = number(self.rate(self.steps) if callable(self.rate) else self.rate)
        with np.errstate(all="ignore"):
            theta -= rate * self._descent(grad)
        self.steps += 1

    def _descent(self, grad: Array) -> Array:
        raise NotImplementedError


class SGD(Optimiser):
    """Gradient descent, with momentum: v = momentum · v + grad, theta -= rate · v.

    >>> theta = np.array([1.0, 2.0])
    >>> SGD(rate=0.5).step(theta, [1.0, -1.0])
    >>> theta
    array([0.5, 2.5])

    The form of momentum is that of Sutskever et al. 2013 as PyTorch has it.
    """

    _arrays = 1

    def __init__(self, rate: Rate, momentum: float = 0.0) -> None:
        super().__init__(rate)
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

    >>> theta = np.array([1.0, 2.0])
    >>> Adam(rate=0.5).step(theta, [4.0, -9.0])
    >>> theta.round(6)
    array([0.5, 2.5])
    """

    _arrays = 2

    def __init__(
        self, rate: Rate = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(rate)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def _descent(self, grad: Array) -> Array:
        self._state = self._state or [np.zeros_like(grad), np.zeros_like(grad)]
        mean, square = self._state
        mean += (1 - self.beta1) * (grad - mean)
        square += (1 - self.beta2) * (grad * grad - square)
        t = self.steps + 1
        corrected = square / (1 - self.beta2**t)
        return mean / (1 - self.beta1**t) / (np.sqrt(corrected) + self.eps)


def __dir__() -> list[str]:
    return __all__
