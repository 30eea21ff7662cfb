"""Functions of neural networks, of plain numbers and arrays; rows of `ops` add the derivatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .elementary import expm1
from .numbers import quietly, select
from .special import ndtr

if TYPE_CHECKING:
    from .signatures import Numbers


@quietly
def sigmoid(x: Any) -> Any:
    """The logistic function, 1 / (1 + exp(-x)).

    Its derivative is sigmoid(x) * (1 - sigmoid(x)).

    >>> import vgrad
    >>> vgrad.sigmoid(0)
    0.5
    """
    return 1.0 / (1.0 + np.exp(-x))


def relu(x: Any) -> Any:
    """x where it is positive, else 0; its derivative at 0 is 0.

    >>> import vgrad
    >>> vgrad.relu(-1), vgrad.relu(2)
    (0.0, 2.0)
    """
    return select((x > 0) | (x != x), x, 0.0)


def leaky_relu(x: Numbers, slope: Numbers = 0.01) -> Any:
    """x where it is positive, else slope * x.

    Its derivative to x is 1, else the slope, at 0 too; to the slope it is 0, else x.

    >>> import vgrad
    >>> vgrad.leaky_relu(-1.0), vgrad.leaky_relu(-1.0, 0.2)
    (-0.01, -0.2)
    """
    return select(x > 0, x, slope * x)


def elu(x: Numbers, alpha: Numbers = 1.0) -> Any:
    """x where it is positive, else alpha * (exp(x) - 1).

    Its derivative to x is 1, else alpha * exp(x), at 0 too; to alpha it is 0, else exp(x) - 1.

    >>> import vgrad
    >>> vgrad.elu(1), vgrad.elu(-1000)
    (1.0, -1.0)
    """
    return select(x > 0, x, alpha * expm1(x))


@quietly
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow.

    Its derivative is sigmoid(x).

    >>> import vgrad
    >>> vgrad.softplus(1000)
    1000.0
    """
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))  # quicker than logaddexp


@quietly
def silu(x: Any) -> Any:
    """x * sigmoid(x), also known as swish; nan at -inf, as in PyTorch.

    Its derivative is sigmoid(x) * (1 + x * (1 - sigmoid(x))), nan at inf and -inf.

    >>> import vgrad
    >>> vgrad.silu(0), vgrad.silu(1000)
    (0.0, 1000.0)
    """
    return x / (1.0 + np.exp(-x))


def gelu(x: Any) -> Any:
    """x * ndtr(x), by the normal distribution itself, as PyTorch has it; nan at -inf.

    Its derivative is ndtr(x) + x * exp(-x**2 / 2) / sqrt(2 * pi), nan at inf and -inf.

    >>> import vgrad
    >>> vgrad.gelu(0), vgrad.gelu(1000)
    (0.0, 1000.0)
    """
    return x * ndtr(x)
