"""Choices, whole numbers and Python's operators, of plain numbers and arrays.

Rows of `ops` add the derivatives.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from .numbers import by_numpy, select

if TYPE_CHECKING:
    from .signatures import Numbers

# Names are the op's own, so one or two hide a built-in; nothing in this file needs the built-in.


def maximum(x: Numbers, y: Numbers) -> Any:
    """The larger of two numbers; nan if either is.

    All of the gradient goes to the larger one, half of it to each if they are equal.

    >>> import vgrad
    >>> vgrad.maximum(1, 2)
    2.0
    """
    return select((x > y) | (x != x), x, y)


def minimum(x: Numbers, y: Numbers) -> Any:
    """The smaller of two numbers; nan if either is.

    All of the gradient goes to the smaller one, half of it to each if they are equal.

    >>> import vgrad
    >>> vgrad.minimum(1, 2)
    1.0
    """
    return select((x < y) | (x != x), x, y)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition is true, y where it is false.

    A condition is a comparison, or any number: all but 0 are true, nan too. Both x and y are
    computed for every sample; the one that is not taken gets a gradient of 0, even where its
    derivative is inf or nan, and the condition gets none. Conditions combine by & | ~.

    >>> import vgrad
    >>> x = vgrad.Value(-2.0)
    >>> y = vgrad.where(x > 0, vgrad.sqrt(x), 0.5 * x)
    >>> y.backward()
    >>> y.data, x.grad
    (-1.0, 0.5)
    """
    return select(condition, x, y)


def stop_gradient(x: Any) -> Any:
    """The same number, but no gradient goes through it.

    >>> import vgrad
    >>> x = vgrad.Value(3.0)
    >>> (x * vgrad.stop_gradient(x)).backward()
    >>> x.grad
    3.0
    """
    return x * 1.0


def abs(x: Any) -> Any:
    """The absolute value; its derivative at 0 is 0.

    >>> import vgrad
    >>> vgrad.abs(-2)
    2.0
    """
    return operator.abs(x)


@by_numpy(np.sign)
def sign(x: Any) -> Any:
    """1.0 for a positive number, -1.0 for a negative one, 0.0 for 0; its derivative is 0, at 0 too.

    >>> import vgrad
    >>> vgrad.sign(-3.5)
    -1.0
    """


@by_numpy(np.floor)
def floor(x: Any) -> Any:
    """The largest whole number not above x; its derivative is 0, at its jumps too.

    >>> import vgrad
    >>> vgrad.floor(-1.5)
    -2.0
    """


@by_numpy(np.ceil)
def ceil(x: Any) -> Any:
    """The smallest whole number not below x; its derivative is 0, at its jumps too.

    >>> import vgrad
    >>> vgrad.ceil(-1.5)
    -1.0
    """


@by_numpy(np.trunc)
def trunc(x: Any) -> Any:
    """x with its fractional part dropped; its derivative is 0, at its jumps too.

    >>> import vgrad
    >>> vgrad.trunc(-1.5)
    -1.0
    """


@by_numpy(np.rint)
def rint(x: Any) -> Any:
    """The nearest whole number, ties to the even one; its derivative is 0, at its jumps too.

    >>> import vgrad
    >>> vgrad.rint(0.5), vgrad.rint(1.5)
    (0.0, 2.0)
    """


@by_numpy(np.remainder)
def remainder(x: Numbers, y: Numbers) -> Any:
    """The remainder of x / y, as x % y in Python: x - floor(x / y) * y, with the sign of y.

    nan if y is 0 or x infinite. Its derivatives are 1 and -floor(x / y), at its jumps too.

    >>> import vgrad
    >>> vgrad.remainder(7, 3), vgrad.remainder(-7, 3)
    (1.0, 2.0)
    """


@by_numpy(np.fmod)
def fmod(x: Numbers, y: Numbers) -> Any:
    """The remainder of x / y, as in C: x - trunc(x / y) * y, with the sign of x.

    nan if y is 0 or x infinite. Its derivatives are 1 and -trunc(x / y), at its jumps too.

    >>> import vgrad
    >>> vgrad.fmod(7, 3), vgrad.fmod(-7, 3)
    (1.0, -1.0)
    """


@by_numpy(np.floor_divide)
def floor_divide(x: Numbers, y: Numbers) -> Any:
    """x // y, the largest whole number not above x / y; no gradient goes through it.

    >>> import vgrad
    >>> vgrad.floor_divide(7, 2), vgrad.floor_divide(-7, 2)
    (3.0, -4.0)
    """


# --- what has an operator of Python's, or no public name -----------------------------------------


def add(x: Any, y: Any) -> Any:
    """x + y."""
    return x + y


def sub(x: Any, y: Any) -> Any:
    """x - y."""
    return x - y


def mul(x: Any, y: Any) -> Any:
    """x * y; 0 * inf is nan."""
    return x * y


def div(x: Any, y: Any) -> Any:
    """x / y; 1 / 0 is inf, and 0 / 0 is nan."""
    return x / y


def neg(x: Any) -> Any:
    """-x."""
    return -x


def gt(x: Any, y: Any) -> Any:
    """1.0 where x > y, else 0.0."""
    return (x > y) * 1.0


def lt(x: Any, y: Any) -> Any:
    """1.0 where x < y, else 0.0."""
    return (x < y) * 1.0


def ge(x: Any, y: Any) -> Any:
    """1.0 where x >= y, else 0.0."""
    return (x >= y) * 1.0


def le(x: Any, y: Any) -> Any:
    """1.0 where x <= y, else 0.0."""
    return (x <= y) * 1.0


def eq(x: Any, y: Any) -> Any:
    """1.0 where x == y, else 0.0."""
    return (x == y) * 1.0


def ne(x: Any, y: Any) -> Any:
    """1.0 where x != y, else 0.0."""
    return (x != y) * 1.0


def guard(x: Any, y: Any, z: Any) -> Any:
    """z, but 0 where y is nan and x, a gradient, is 0; graphs of gradients need it.

    There y is what x becomes by a rule, and z is that too, or a gradient of it.

    >>> nan = float("nan")
    >>> guard(0.0, nan, nan), guard(1.0, nan, nan), guard(0.0, 2.0, 3.0)
    (0.0, nan, 3.0)
    """
    return select((x == 0) & (y != y), 0.0, z)
