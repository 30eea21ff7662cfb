"""Layers of neurons, as in micrograd: they work on floats, `Value`s and traced nodes alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from . import ops
from .engine import NO_GRADIENT, Value
from .errors import ShapeError
from .merging import merge_branches

__all__ = ["MLP", "Layer", "Module", "Neuron"]

Activation = Literal["relu", "tanh"] | Callable[[Any], Any]
ACTIVATIONS = {"relu": ops.relu, "tanh": ops.tanh}
Source = random.Random | None  # of the weights; None is the `random` module


class Module:
    """Anything with parameters: a neuron, a layer, a model."""

    def parameters(self) -> list[Value]:
        """The trainable `Value`s, in a fixed order."""
        return []

    def zero_grad(self) -> None:
        """Set every parameter's gradient to 0."""
        for p in self.parameters():
            p.grad = NO_GRADIENT


class Neuron(Module):
    """The activation of w · x + b; linear with `nonlin=False`.

    The activation is "relu", "tanh", or a function of one number that depends on nothing else; its
    branches are merged, by `vgrad.merge_branches`. Weights are drawn uniformly from [-1, 1], one
    after the other; the bias is 0.

    >>> leaky = lambda x: x if x > 0 else 0.1 * x
    >>> Neuron(2, activation=leaky, rng=random.Random(1))([1.0, 1.0])
    Value(data=-0.003640403790073221, grad=0.0)
    """

    def __init__(
        self, nin: int, nonlin: bool = True, activation: Activation = "relu", rng: Source = None
    ) -> None:
        if not callable(activation) and activation not in ACTIVATIONS:
            known = sorted(ACTIVATIONS)
            raise ValueError(
                f"activation must be one of {known}, or a function (got {activation!r})"
            )
        draw = (rng or random).uniform
        self.w = [Value(draw(-1, 1)) for _ in range(nin)]
        self.b = Value(0.0)
        self.nonlin = nonlin
        self.activation = activation

    def __call__(self, x: Any) -> Any:
        x = _numbers(x)
        if len(x) != len(self.w):
            raise ShapeError(f"a {self} takes {len(self.w)} numbers (got {len(x)})")
        act = sum((wi * xi for wi, xi in zip(self.w, x)), self.b)
        if not self.nonlin:
            return act
        if callable(self.activation):
            return merge_branches(self.activation)(act)
        return ACTIVATIONS[self.activation](act)

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]

    def __repr__(self) -> str:
        return f"{self._kind()}Neuron({len(self.w)})"

    def _kind(self) -> str:
        if not self.nonlin:
            return "Linear"
        if callable(self.activation):
            return getattr(self.activation, "__name__", type(self.activation).__name__)
        return {"relu": "ReLU", "tanh": "Tanh"}[self.activation]


def _numbers(x: Any) -> Any:
    """`x` as a sequence: the items of any iterable, or a single number in a list."""
    if isinstance(x, Sequence | np.ndarray):
        return x
    return list(x) if isinstance(x, Iterable) else [x]


class Layer(Module):
    """`nout` neurons on the same `nin` numbers; a single neuron returns a number, not a list."""

    def __init__(
        self,
        nin: int,
        nout: int,
        nonlin: bool = True,
        activation: Activation = "relu",
        rng: Source = None,
    ) -> None:
        self.neurons = [Neuron(nin, nonlin, activation, rng) for _ in range(nout)]

    def __call__(self, x: Any) -> Any:
        x = _numbers(x)
        out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]

    def __repr__(self) -> str:
        return f"Layer of [{', '.join(map(str, self.neurons))}]"


class MLP(Module):
    """A multi-layer perceptron: `nin` numbers through layers of `nouts` neurons.

    Hidden layers have the `activation`, the last one has `last`. `rng` is a `random.Random`, by
    default the `random` module itself, so that `random.seed(1337)` gives micrograd's weights.

    >>> import random
    >>> model = MLP(2, [16, 16, 1], rng=random.Random(1337))
    >>> len(model.parameters()), model([1.0, -2.0])
    (337, Value(data=-1.3324313779586294, grad=0.0))

    Raises ValueError for an unknown activation, ShapeError for an input of the wrong length.
    """

    def __init__(
        self,
        nin: int,
        nouts: Sequence[int],
        activation: Activation = "relu",
        last: Literal["linear"] | Activation = "linear",
        rng: Source = None,
    ) -> None:
        if not isinstance(nouts, Iterable):
            raise TypeError(f"nouts must be the layers' sizes, such as [16, 1] (got {nouts!r})")
        sizes = [nin, *nouts]
        kinds = [activation] * (len(nouts) - 1) + [last]
        self.layers = [
            Layer(a, b, kind != "linear", activation if kind == "linear" else kind, rng)
            for a, b, kind in zip(sizes, sizes[1:], kinds)
        ]

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]

    def __repr__(self) -> str:
        return f"MLP of [{', '.join(map(str, self.layers))}]"


def __dir__() -> list[str]:
    return __all__
