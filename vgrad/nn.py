"""Layers of neurons, as in micrograd: they work on floats, `Value`s and traced nodes alike.

>>> import random, vgrad
>>> model = vgrad.nn.MLP(3, [4, 1], rng=random.Random(1337))
>>> model([2.0, 3.0, -1.0]).backward()
>>> len(model.parameters())
21
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Any

import numpy as np

from . import ops
from .engine import NO_GRADIENT, Value
from .errors import ShapeError
from .functions import as_sequence, dot, in_pairs, take
from .merging import merge_branches
from .operand import Operand
from .trees import leaves

__all__ = ["MLP", "Layer", "Module", "Neuron", "cross_entropy"]

Activation = str | Callable[[Any], Any]
Source = random.Random | None  # of the weights; None is the `random` module


def _is_activation(op: ops.Op) -> bool:
    """Whether it takes one number, or has defaults for the others, and passes a gradient on."""
    if op.definition is None or op.vjp[0] is None:
        return False
    _, *others = signature(op.definition).parameters.values()
    return all(p.default is not p.empty for p in others)


ACTIVATIONS = {op.name: op for op in ops.OPS if _is_activation(op)}


class Module:
    """Anything with parameters: a neuron, a layer, a model.

    A subclass keeps them in attributes, by themselves or in lists, dicts, arrays and other modules.

    >>> class Line(Module):
    ...     def __init__(self):
    ...         self.slope, self.start = Value(2.0), Value(1.0)
    ...     def __call__(self, x):
    ...         return self.slope * x + self.start
    >>> Line().parameters()
    [Value(data=2.0, grad=0.0), Value(data=1.0, grad=0.0)]
    """

    def parameters(self) -> list[Value]:
        """The trainable `Value`s in the attributes, each once, in a fixed order."""
        # A module that has its own order is asked for it, but not this one, which may ask here.
        found = leaves(vars(self), _finds_its_parameters, (self,))
        return list(dict.fromkeys(p for p in found if isinstance(p, Value) and p.trainable))

    def zero_grad(self) -> None:
        """Set every parameter's gradient to 0.

        >>> neuron = Neuron(1, nonlin=False)
        >>> neuron([2.0]).backward()
        >>> neuron.zero_grad()
        >>> [p.grad for p in neuron.parameters()]
        [0.0, 0.0]
        """
        for p in self.parameters():
            p.grad = NO_GRADIENT

    def __repr__(self) -> str:
        many = len(self.parameters())
        return f"{type(self).__name__}{self._made_of()}: {many} parameter{'s' * (many != 1)}"

    def _made_of(self) -> str:
        """What `__repr__` tells beside the class and the number of parameters."""
        return ""


def _finds_its_parameters(module: Any) -> bool:
    """Whether it has the method of `Module`, and none of its own."""
    return isinstance(module, Module) and type(module).parameters is Module.parameters


class Neuron(Module):
    """The activation of w · x + b; linear with `nonlin=False`.

    The activation is the name of an op of one number that has a derivative, such as "tanh", "gelu"
    or "sin", or such an op, or a function of one number that depends on nothing else; its branches
    are merged, by `vgrad.merge_branches`. Weights are drawn uniformly from [-1, 1], one after the
    other; the bias is 0. They have the labels w[0], w[1], ... and b; in a `Layer` w[neuron, k].

    >>> leaky = lambda x: x if x > 0 else 0.1 * x
    >>> Neuron(2, activation=leaky, rng=random.Random(1))([1.0, 1.0])
    Value(data=-0.003640403790073221, grad=0.0)
    """

    def __init__(
        self, nin: int, nonlin: bool = True, activation: Activation = "relu", rng: Source = None
    ) -> None:
        _activate(activation)
        draw = (rng or random).uniform
        self.w = [Value(draw(-1, 1), f"w[{k}]") for k in range(nin)]
        self.b = Value(0.0, "b")
        self.nonlin = nonlin
        self.activation = activation

    def __call__(self, x: Any) -> Any:
        x = _numbers(x)
        if len(x) != len(self.w):
            kind = f"a {type(self).__name__}{self._made_of()}"
            hint = ", perhaps of one sample: the first axis of an array is the batch"
            raise ShapeError(
                f"{kind} takes {len(self.w)} numbers (got {len(x)}{hint * (len(x) == 1)})"
            )
        return self._activated(dot(self.w, x, self.b))

    def _activated(self, act: Any) -> Any:
        return _activate(self.activation)(act) if self.nonlin else act

    def parameters(self) -> list[Value]:
        return [*self.w, self.b]

    def _made_of(self) -> str:
        return f"({len(self.w)}, {_kind(self.activation if self.nonlin else 'linear')})"


def _activate(activation: Activation) -> Callable[[Any], Any]:
    """The function itself; raises ValueError for a name that no activation has."""
    if isinstance(activation, ops.Op):
        return activation
    if callable(activation):
        return merge_branches(activation)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(f"activation must be one of {known}, or a function (got {activation!r})")
    return ACTIVATIONS[activation]


def _kind(activation: Activation) -> str:
    """What an activation is called."""
    if isinstance(activation, str):
        return activation
    return getattr(activation, "__name__", type(activation).__name__)


def _numbers(x: Any) -> Any:
    """`x` as a sequence: the items of any iterable, or a single number in a list."""
    if isinstance(x, Sequence | np.ndarray):
        return x
    return list(x) if isinstance(x, Iterable) else [x]


class Layer(Module):
    """`nout` neurons on the same `nin` numbers; a single neuron returns a number, not a list.

    >>> layer = Layer(2, 3, activation="tanh")
    >>> layer, len(layer([1.0, -2.0])), len(layer.named()["w"])
    (Layer(2, 3, tanh): 9 parameters, 3, 3)
    """

    def __init__(
        self,
        nin: int,
        nout: int,
        nonlin: bool = True,
        activation: Activation = "relu",
        rng: Source = None,
    ) -> None:
        self.nin, self.kind = nin, _kind(activation if nonlin else "linear")
        self.neurons = [Neuron(nin, nonlin, activation, rng) for _ in range(nout)]
        for i, neuron in enumerate(self.neurons):
            for k, weight in enumerate(neuron.w):
                weight.label = f"w[{i}, {k}]"
            neuron.b.label = f"b[{i}]"

    def __call__(self, x: Any) -> Any:
        x = _numbers(x)
        if len(x) == self.nin and {*map(type, self.neurons)} == {Neuron}:  # all sums in one go
            acts = dot([n.w for n in self.neurons], x, [n.b for n in self.neurons])
            out = [neuron._activated(act) for neuron, act in zip(self.neurons, acts)]
        else:
            out = [neuron(x) for neuron in self.neurons]
        return out[0] if len(out) == 1 else out

    def parameters(self) -> list[Value]:
        return [p for neuron in self.neurons for p in neuron.parameters()]

    def named(self) -> dict[str, Any]:
        """The parameters by name: `w`, neuron by weight, and `b`, one per neuron."""
        return {"w": [n.w for n in self.neurons], "b": [n.b for n in self.neurons]}

    def _made_of(self) -> str:
        return f"({self.nin}, {len(self.neurons)}, {self.kind})"


class MLP(Module):
    """A multi-layer perceptron: `nin` numbers through layers of `nouts` neurons.

    Hidden layers have the `activation`, the last one has `last`. `rng` is a `random.Random`, by
    default the `random` module itself, so that `random.seed(1337)` gives micrograd's weights.

    >>> import random
    >>> model = MLP(2, [16, 16, 1], rng=random.Random(1337))
    >>> model, model([1.0, -2.0])
    (MLP(2, [16, 16, 1], relu): 337 parameters, Value(data=-1.3324313779586294, grad=0.0))

    Parameters have labels, such as layers[0].w[2, 1] for weight 1 of neuron 2, or layers[0].b[2].
    Raises ValueError for an unknown activation, TypeError unless `nouts` is a sequence, and a call
    ShapeError for an input of the wrong length.
    """

    def __init__(
        self,
        nin: int,
        nouts: Sequence[int],
        activation: Activation = "relu",
        last: Activation = "linear",
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
        self.sizes, self.kinds = sizes, [_kind(activation), _kind(last)]
        for i, layer in enumerate(self.layers):
            for p in layer.parameters():
                p.label = f"layers[{i}].{p.label}"

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def parameters(self) -> list[Value]:
        return [p for layer in self.layers for p in layer.parameters()]

    def _made_of(self) -> str:
        nin, *nouts = self.sizes
        hidden, last = self.kinds
        return f"({nin}, {nouts}, {hidden}{f', last={last}' * (last != 'linear')})"


@np.errstate(all="ignore")
def cross_entropy(logits: Iterable[Any], target: Any) -> Any:
    """The negative logarithm of the probability that the softmax of `logits` gives a class.

    The target is the class, 0 to n - 1, as a number, `Value` or traced number; or n probabilities
    that sum to 1, such as a one-hot vector, which weight the classes. The highest logit is
    subtracted first, so that nothing overflows, and large logits cost no digits.

    >>> round(cross_entropy([1.0, 2.0, 4.0], 2), 6), cross_entropy([0.0, 1000.0], [1.0, 0.0])
    (0.169846, 1000.0)

    Raises ShapeError unless logits are a sequence of numbers, and probabilities as many, and
    IndexError for a plain number that is no class; of a traced one the result is nan, and so is its
    gradient.
    """
    numbers = as_sequence("cross_entropy", logits)
    highest = ops.stop_gradient(in_pairs(ops.maximum, numbers))
    shifted = numbers - highest
    whole = ops.log(np.add.reduce(ops.exp(shifted)))
    if not isinstance(target, Sequence | np.ndarray) or not np.ndim(target):
        found = take(shifted, target)
        # where a traced number is no class, the gradient is to be nan as well
        known = ops.where(found == found, 1.0, math.nan) if isinstance(target, Operand) else 1.0
        return known * (whole - found)
    if len(target) != len(numbers):
        raise ShapeError(
            f"target must be a class, or {len(numbers)} probabilities, one per logit "
            f"(got {len(target)})"
        )
    return np.add.reduce(as_sequence("cross_entropy", target) * (whole - shifted))


def __dir__() -> list[str]:
    return __all__
