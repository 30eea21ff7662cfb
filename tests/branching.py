"""Functions that branch, as people write them, each with the shapes of its arguments.

`BRANCHING[name].make(w)` is the function over four parameters, a list of `Value`s. The arguments
are drawn with many ties, whole numbers and halves, so that conditions at equality are common.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
import operator
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

import vgrad

Shape = tuple[int, ...]
Draw = Callable[[np.random.Generator, Shape], np.ndarray]

TIES = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, 1.5])

# The parameters, moved from call to call so that samples change paths; the last stays above 0.
THETAS = [
    [0.7, -1.3, 0.4, 2.0],
    [-0.5, 1.0, 0.0, 1.5],
    [1.0, -1.0, 2.5, 0.5],
    [-2.25, 0.3, -0.4, 1.125],
]


def mixed(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Half of them ties, the others anything of that size."""
    return np.where(rng.random(shape) < 0.5, rng.choice(TIES, shape), rng.normal(0, 1.5, shape))


def whole(low: int, high: int) -> Draw:
    """Whole numbers, from low up to and without high."""
    return lambda rng, shape: rng.integers(low, high, shape).astype(float)


def between(low: float, high: float) -> Draw:
    """Anything from low to high, some of it whole or half."""

    def draw(rng: np.random.Generator, shape: Shape) -> np.ndarray:
        x = rng.uniform(low, high, shape)
        halves = np.round(2 * x) / 2
        tie = (rng.random(shape) < 0.4) & (low <= halves) & (halves < high)
        return np.where(tie, halves, x)

    return draw


@dataclass(frozen=True)
class Branching:
    """A function with branches, and what it is called with."""

    make: Callable[[list[Any]], Callable[..., Any]]
    shapes: tuple[Shape, ...]
    draw: Draw
    smooth: bool  # whether its gradient is its derivative, away from the edges of its branches

    def arrays(self, seed: int, batch: int) -> list[np.ndarray]:
        """A batch of arguments."""
        rng = np.random.default_rng(seed)
        return [self.draw(rng, (batch, *shape)) for shape in self.shapes]


BRANCHING: dict[str, Branching] = {}
NUMBER, PAIR = ((),), ((), ())


def branching(
    shapes: tuple[Shape, ...] = PAIR, draw: Draw = mixed, smooth: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a function of the parameters and one sample into the dictionary, by its name."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        make = partial(partial, function)
        BRANCHING[function.__name__] = Branching(make, shapes, draw, smooth)
        return function

    return add


# --- if, conditional expressions, early returns --------------------------------------------------


@branching()
def leaky(w, x, y):
    return (x if x > 0 else 0.1 * x) * y + w[0]


@branching()
def if_elif_else(w, x, y):
    if x > 1:
        out = w[0] * x
    elif x > -1:
        out = w[1] * y * y
    elif y > 0:
        out = vgrad.tanh(w[2] * x)
    else:
        out = w[3] - x
    return out


@branching()
def nested_ifs(w, x, y):
    if x > 0:
        if y > 0:
            if x > y:
                return w[0] * x * y
            return w[1] * x - y
        return vgrad.exp(-x) * w[2]
    if y < x:
        return w[3] * vgrad.sin(y)
    return x + y


@branching()
def early_constant(w, x, y):
    if x <= 0:
        return 0.0
    if y == 0:
        return 1
    return w[0] * x / y


@branching()
def a_constant_or_a_parameter(w, x, y):
    if x == 0:
        return w[1]
    return 2.5 if x > y else x


@branching()
def none_taken(w, x, y):
    if x > 1e9:
        return w[0] / x
    return w[1] * x + w[2] * y


@branching()
def all_taken(w, x, y):
    if x > -1e9:
        return w[1] * x + w[2] * y
    return w[0] / x


@branching()
def ternaries_in_a_sum(w, x, y):
    return w[0] * (x if x > y else y) + (1.0 if x > 0 else -1.0) - (w[1] if y >= 1 else w[2]) * x


@branching()
def on_the_result_of_another_branch(w, x, y):
    a = w[0] * x if x > y else w[1] * y
    b = a - 1 if a > 0.5 else a + w[2]
    return vgrad.tanh(a * b) if b * a < 1 else vgrad.log(1 + b * b)


@branching()
def both_pass_through_shared_code(w, x, y):
    h = vgrad.tanh(w[0] * x + w[1] * y)
    z = h if h > 0 else w[2] * h
    return w[3] * z + z * z


@branching()
def parameters_in_some_branches(w, x, y):
    if x > 1:
        return w[0] * w[1]
    if x > 0:
        return x * y
    if x > -1:
        return w[2] * x
    return w[3]


# --- and, or, not, chains ------------------------------------------------------------------------


@branching()
def and_or_not(w, x, y):
    if (x > 0 and y > 0) or (not x > -1 and y < w[0]):
        return w[1] * x * y
    return x - w[2] * y if not (x == y or x == 0) else w[3]


@branching()
def operands_of_and_and_or(w, x, y):
    """Which pass on one of the two numbers, and so its gradient."""
    return (x or y) * w[0] + (x and y) * w[1] + ((x > y) or w[2])


@branching()
def chained(w, x, y):
    if -1 < x <= 1 != y:
        return w[0] * x
    return w[1] * y if y < x < 2 else w[2] * y


@branching()
def held_assertion(w, x, y):
    z = x * x + w[0] * w[0]
    assert z >= 0, "a square"
    assert x == x and not z < 0
    return vgrad.sqrt(z + 1) * y


@branching()
def truth_of_a_number(w, x, y):
    return w[0] / x if x else (w[1] if y else w[2])


@branching()
def truth_of_a_bool(w, x, y):
    positive = bool(x > 0)
    return {True: w[0] * x, False: w[1] * y}[positive]


# --- match ---------------------------------------------------------------------------------------


@branching()
def match_with_guards(w, x, y):
    match (x, y):
        case (a, b) if a > b:
            return w[0] * a
        case (a, b) if a == b:
            return w[1] * a * b
        case (_, b):
            return vgrad.sin(b)


@branching(draw=between(-2, 4))
def match_on_a_whole_number(w, x, y):
    match int(x):
        case 0:
            return w[0] * y
        case 1 | 2:
            return w[1] * x
        case n if n < 0:
            return w[2] * x * n
        case n:
            return y / n


@branching()
def match_on_values(w, x, y):
    match x:
        case 0.0:
            return w[0] * y
        case 1.0 | -1.0:
            return w[1] * x
    return w[2] * x * y


# --- loops ---------------------------------------------------------------------------------------


@branching()
def while_it_is_large(w, x, y):
    z = abs(x) + abs(y)
    while z > 0.5:
        z = z * 0.5 - 0.1
    return z * w[0]


@branching()
def while_with_break(w, x, y):
    z, steps = x, 0
    while True:
        if z > 2 or steps == 4:
            break
        z = z + 0.5 * abs(y) + 0.125
        steps += 1
    return w[0] * z + steps


@branching(((5,),))
def for_with_continue(w, x):
    total = w[0] * 1
    for xi in x[:4]:
        if xi <= 0:
            continue
        total = total + w[1] * vgrad.log(1 + xi)
    return total


@branching(((4,),))
def for_with_else(w, x):
    for k in range(4):
        if x[k] > w[0]:
            break
    else:
        return w[1] * x.sum()
    return x[k] * w[2] + k


@branching(((3,), ()))
def walrus(w, x, y):
    steps = 0
    while (z := x[steps % 3] * w[0] + steps) < y and steps < 5:
        steps += 1
    return z * z


@branching(((4,),))
def running_maximum(w, x):
    best, where = x[0], 0
    for k in range(1, 4):
        if x[k] > best:
            best, where = x[k], k
    return w[where] * best


@branching(draw=whole(1, 13), shapes=NUMBER, smooth=False)  # as it ends for whole numbers
def collatz(w, x):
    n, total = x, 0.0
    while n > 1:
        n = n / 2 if n % 2 == 0 else 3 * n + 1
        total = total + w[0] / n
    return total + w[1] * x


@branching(draw=whole(0, 10))
def gcd_by_remainder(w, x, y):
    a, b = x, y
    while b > 0.5:
        a, b = b, a % b
    return a * w[0]


@branching(draw=between(0, 3), shapes=NUMBER)
def series_until_small(w, x):
    total, term, k = 1.0, w[3] * 0.5, 1
    while abs(term) > 1e-3 and k < 20:
        total, term, k = total + term, term * x / k, k + 1
    return total


@branching(draw=between(0.2, 9), shapes=NUMBER)
def newton_until_converged(w, x):
    root = x
    while abs(root * root - x) > 1e-9:
        root = 0.5 * (root + x / root)
    return w[0] * root


@branching(draw=between(-2, 2))
def bisection(w, x, y):
    low, high = x * 0 - 2, x * 0 + 2
    for _ in range(4):
        middle = 0.5 * (low + high)
        if middle**3 + w[0] * middle > x:
            high = middle
        else:
            low = middle
    return (low + high) * w[1] + y


# --- Python's own functions that compare ---------------------------------------------------------


@branching(((3,),))
def python_max_and_min(w, x):
    return w[0] * max(x) + w[1] * min(x[0], x[1], w[2] * x[2]) + max(0.0, x[0]) - min(x[1], 0)


@branching(((3,),))
def max_with_a_key(w, x):
    return max(x, key=lambda xi: abs(xi - w[0])) * w[1] + min([0, 1, 2], key=lambda k: x[k])


@branching(((3,),))
def sorted_numbers(w, x):
    return sum(wi * xi for wi, xi in zip(w, sorted(x)))


@branching(((3,),))
def sorted_by_a_key(w, x):
    nearest = sorted(x, key=lambda xi: (xi - w[0]) ** 2)
    order = sorted(range(3), key=lambda k: x[k], reverse=True)
    return w[1] * nearest[0] + w[2] * nearest[1] * x[order[0]] + order[2]


@branching(((3,),))
def list_sorted_in_place(w, x):
    xs = [xi * wi for xi, wi in zip(x, w)]
    xs.sort(reverse=True)
    return xs[0] - 2 * xs[1] + xs[2] * xs[0]


@branching(((4,),))
def any_and_all(w, x):
    if all(xi > 0 for xi in x):
        return w[0] * x.sum()
    return w[1] * x[0] if any(xi > w[2] for xi in x) else w[3] * x[1]


@branching()
def in_a_list(w, x, y):
    if x in [0.0, 1.0, 2.0]:
        return w[0] * x + [0.0, 1.0, 2.0].index(x)
    return w[1] * y if y not in (-1.0, 0.5) else w[2] * [x, y, 0.5].count(0.5)


@branching()
def tuples_compared(w, x, y):
    return w[0] * x if (x, 1) < (y, 0) else w[1] * y + ((x, y) == (1.0, 1.0))


@branching(((4,),))
def bisect_into_a_sorted_list(w, x):
    kept: list[Any] = []
    for xi in x[:3]:
        bisect.insort(kept, xi)
    return kept[0] * w[0] + kept[1] * w[1] + bisect.bisect([-1.0, 0.0, 1.0], x[3]) * kept[2]


@branching(((4,),))
def heap(w, x):
    low, next_ = heapq.nsmallest(2, x)
    return w[0] * low + w[1] * next_ * next_


@branching(((4,),))
def iterators(w, x):
    rising = itertools.takewhile(lambda xi: xi > w[0], x)
    negative = filter(lambda xi: xi < 0, x)
    return sum(rising) + w[1] * next(negative, 0.25) + w[2]


@branching(((4,),))
def reduced(w, x):
    return reduce(lambda a, b: a + b if b > 0 else a * w[0], x, w[1])


@branching(((3,),))
def numpy_all_and_any(w, x):
    if np.all(x > 0):
        return w[0] * x.sum()
    return w[1] * x[0] if np.any(x == 0.5) else x @ np.array(w[:3])


# --- generators, comprehensions, recursion -------------------------------------------------------


@branching()
def generator(w, x, y):
    def shrinking(z: Any) -> Iterator[Any]:
        while z > 0.5:
            yield z
            z = z * 0.5

    return sum(w[0] * z * z for z in shrinking(x)) + y


@branching(((3,),))
def comprehension(w, x):
    positive = [xi for xi in x if xi > 0]
    total = sum(w[1] * xi if xi < 1 else w[2] for xi in positive)
    return total + w[0] * len(positive) if positive else x[0]


@branching()
def tree_of_calls(w, x, y):
    def grow(z: Any, depth: int) -> Any:
        if depth == 0 or abs(z) > 2:
            return w[0] * z
        return grow(z + y, depth - 1) + grow(z - 1, depth - 1) if z > 0 else z * w[1]

    return grow(x, 3)


@branching(draw=between(-3, 3))
def recursive_folding(w, x, y):
    def fold(z: Any) -> Any:
        if z > 1:
            return fold(z - 1)
        return -fold(-z) if z < 0 else z * w[0]

    return fold(x) * y


@branching()
def local_state(w, x, y):
    calls = 0

    def gate(z: Any) -> Any:
        nonlocal calls
        if z > 0:
            calls += 1
            return z * w[calls]
        return z

    return gate(x) + gate(y) + gate(x - y) * calls


@branching(((5,),), draw=between(-1, 1))
def state_machine(w, x):
    state, total = "idle", 0.0
    for xi in x[:4]:
        if state == "idle":
            state = "rising" if xi > 0.3 else "idle"
        elif xi < -0.2:
            state = "idle"
        total = total + (w[0] * xi if state == "rising" else w[1])
    return total


@branching()
def chosen_function(w, x, y):
    functions = [lambda z: w[0] * z, vgrad.tanh, lambda z: z * z]
    return functions[int(x > 0) + int(y > x)](y) + (w[1], w[2])[x > y]


# --- sorting and searching by hand ---------------------------------------------------------------


@branching(((4,),))
def bubble_sort(w, x):
    xs = list(x[:3])
    for last in (2, 1):
        for k in range(last):
            if xs[k] > xs[k + 1]:
                xs[k], xs[k + 1] = xs[k + 1], xs[k]
    return sum(wi * xi for wi, xi in zip(w, xs)) * x[3]


@branching(((3,),))
def sorting_network(w, x):
    a, b, c = x
    for _ in range(2):
        (a, b) = (b, a) if b < a else (a, b)
        (b, c) = sorted((b, c))
    return w[0] * a + w[1] * b * b + w[2] * c


@branching(((3,), ()))
def insertion(w, x, y):
    kept: list[Any] = []
    for xi in x:
        place = len(kept)
        while place and kept[place - 1] > xi:
            place -= 1
        kept.insert(place, xi)
    return kept[1] * w[0] + (kept[2] if y > kept[0] else w[1] * y)


@branching(draw=between(-1.5, 1.5))
def decision_tree(w, x, y):
    if x < w[0]:
        if y < 0.25:
            return w[1] * x
        return w[2] if x < -0.5 else w[3] * y
    if y < w[1]:
        return x * y
    return w[0] + w[1]


# --- whole numbers -------------------------------------------------------------------------------


@branching(draw=between(0, 4))
def table_by_int(w, x, y):
    return w[int(x)] * y + [1.0, 0.5, 0.25, 0.125][int(y)] * x


@branching(draw=whole(0, 4), smooth=False)  # as no number but a whole one is an index
def table_by_index(w, x, y):
    return w[x] * y + np.array([0.5, 1.5, -2.5, 3.5])[y]


@branching(draw=whole(0, 4))
def dict_by_int(w, x, y):
    return {0: w[0] * y, 1: y * y, 2: 0.5}.get(int(x), w[1])


@branching(draw=between(-2, 2))
def rounded(w, x, y):
    return w[round(x) % 4] * x + round(y) * w[0]


@branching(draw=between(-2, 2))
def floors(w, x, y):
    return w[0] * math.floor(x) + math.ceil(y) * x + math.trunc(x - y) * w[1]


@branching(draw=between(-3, 3))
def by_divmod(w, x, y):
    quotient, rest = divmod(x, 2)
    if quotient > 0:
        return w[0] * rest * y
    return w[1] * quotient + rest if rest > 1 else x % w[3]


@branching(draw=between(0, 4))
def range_of_int(w, x, y):
    z = y
    for k in range(int(x)):
        z = w[0] * z + k
    return z


@branching(draw=between(-2, 2))
def range_of_round(w, x, y):
    return sum((w[k] * y for k in range(round(abs(x)))), x)


@branching(((4,), ()), draw=between(0, 3))
def index_of_an_array(w, x, y):
    k = int(y)
    return x[k] * w[0] + x[:k].sum() + (x[-k] if k else w[1])


@branching(draw=between(-1, 3))
def int_of_a_parameter(w, x, y):
    steps = int(w[3] * 2)
    return sum(x**k for k in range(steps)) + y * w[int(w[3])]


@branching(draw=between(0, 2.5))
def grid_of_cells(w, x, y):
    i, j = int(x), math.floor(y)
    u, v = x - i, y - j
    corners = [w[(i + 2 * j) % 4], w[(i + 1 + 2 * j) % 4]]
    return corners[0] * (1 - u) * (1 - v) + corners[1] * u * v


# --- parameters in conditions --------------------------------------------------------------------


@branching()
def on_a_parameter(w, x, y):
    if w[0] > 0:
        return w[0] * x
    return w[1] * y


@branching()
def on_parameters_only(w, x, y):
    """Each number that is asked about is made of one that was."""
    a = abs(w[0]) + abs(w[1])
    while a > 1:
        a = a * 0.5
    b = w[0] + 1
    scale = b if -1 < b <= 1.6 else w[1]
    return a * x + y * scale if w[2] != 0 and a <= w[3] else a * y


@branching()
def penalty_of_some_parameters(w, x, y):
    error = (w[0] * x + w[1] - y) ** 2
    return error + 0.1 * sum(p * p for p in w if abs(p) > 0.45)


@branching()
def parameters_sorted(w, x, y):
    low, *_, high = sorted(w)
    return low * x + high * y + max(w[:2])


@branching()
def input_against_parameter(w, x, y):
    if x > w[0]:
        return (x - w[0]) * w[1]
    return y if x + w[2] >= y * w[3] else w[0] * y


# --- the number itself ---------------------------------------------------------------------------


@branching()
def data_in_a_condition(w, x, y):
    if x.data > 0 and y.data * x.data < w[3].data:
        return w[0] * x
    return w[1] * y if abs(y.data) >= 1 else w[2] * x


@branching(smooth=False)
def data_in_arithmetic(w, x, y):
    return x.data * y * w[0] + (w[1].data * x if x > w[1].data else w[2] * y.data)


@branching(smooth=False, draw=between(-2, 2))
def straight_through(w, x, y):
    step = 1.0 if x > 0 else 0.0
    soft = vgrad.sigmoid(w[0] * x)
    return soft + (step - soft).data + w[1] * y if y > 0 else soft


# --- ties, nan, zeros that cancel ----------------------------------------------------------------


@branching()
def exact_ties(w, x, y):
    if x == 0:
        return w[0] * y
    if x >= 1:
        return w[1] * x if x <= 1 else w[2] * x
    return w[3] * x if x != -0.5 else y


@branching()
def zeros_and_their_signs(w, x, y):
    if x == 0:
        return w[0] if 1 / x > 0 else w[1] * y
    return w[2] if -x * 0.0 == 0 else x


@branching()
def nan_in_a_condition(w, x, y):
    root = vgrad.sqrt(x)
    if root > 1:
        return w[0] * root
    if root <= 1:
        return w[1] * y + root * root
    return w[2] * x if root != root else y


@branching()
def truth_of_nan(w, x, y):
    z = vgrad.log(x)
    return w[0] * y if z else w[1] * x


@branching()
def inf_in_a_condition(w, x, y):
    z = w[0] / x
    if z > 1e300 or z < -1e300:
        return y
    return vgrad.tanh(z) if z * 0 == 0 else w[1]


@branching()
def sum_that_cancels(w, x, y):
    rest = (x + 0.1) - x - 0.1
    if rest == 0:
        return w[0] * y
    return w[1] * x if rest > 0 else w[2] * y


@branching()
def products_that_cancel(w, x, y):
    rest = w[0] * x + w[1] * y - w[0] * x - w[1] * y
    if rest == 0:
        return w[2] * y
    return w[3] * x if rest > 0 else x * y


@branching(((3,), (3,)))
def rows_that_cancel(w, x, y):
    a = w[0] * x[0] + w[1] * x[1] + w[2] * x[2]
    b = w[0] * y[0] + w[1] * y[1] + w[2] * y[2]
    if a - b == 0:
        return a
    return a * b if a > b else b - a


@branching()
def sum_compared_at_the_last_bit(w, x, y):
    """Nothing but the scalar engine's own order of additions tells these two apart."""
    forth, back = x + y + 0.1 + w[0], w[0] + (0.1 + (y + x))
    if forth == back:
        return forth * w[1]
    return w[2] * x if forth > back else w[3] * y


# --- exceptions ----------------------------------------------------------------------------------


class OutOfRange(Exception):
    """What a function raises and catches itself."""


@branching()
def own_exception(w, x, y):
    def checked(z: Any) -> Any:
        if not -1 <= z <= 1:
            raise OutOfRange("too large", z > 0)
        return w[0] * z

    try:
        return checked(x) + checked(y)
    except OutOfRange as error:
        return w[1] * x if error.args[1] else w[2] * y
    finally:
        x = y = None


@branching(((3,), ()), draw=between(0, 5))
def index_error(w, x, y):
    try:
        return x[int(y)] * w[0]
    except IndexError:
        return w[1] * y


# --- several outputs -----------------------------------------------------------------------------


@branching()
def several_outputs(w, x, y):
    z = w[0] * x if x > y else w[1] * y
    return z * z, z, x if y > 0 else w[2]


@branching()
def outputs_that_are_plain_on_some_paths(w, x, y):
    if x > 1:
        return 0.0, 1.0, x
    return w[0] * x, (-1 if y > 0 else y), 2


@branching(((2,), ()))
def structured_outputs(w, x, y):
    if y > 0:
        return w[0] * y, [x * w[1], (x[0], y)]
    return x.sum(), [x * x, (w[2], x[1] * y)]


# --- small models --------------------------------------------------------------------------------


@branching(draw=between(-1, 4))
def spline(w, x, y):
    knots = [0.0, 1.0, 2.0, 3.0]
    for k in range(3):
        if knots[k] <= x < knots[k + 1]:
            t = x - knots[k]
            return w[k] * (1 - t) + w[k + 1] * t + y * t * (1 - t)
    return w[0] + (x - knots[0]) * y if x < knots[0] else w[3]


@branching()
def huber(w, x, y):
    error = abs(w[0] * x + w[1] - y)
    return 0.5 * error**2 if error <= w[3] else w[3] * (error - 0.5 * w[3])


@branching()
def clipped(w, x, y):
    z = w[0] * x + y
    if z > 1:
        z = 1.0
    if z < -1:
        z = -1.0
    return z * w[1] + x


@branching(((5,),), draw=between(-1, 1))
def barrier_option(w, x):
    price = 1.0 + 0.0 * x[0]
    for step in x:
        price = price * vgrad.exp(0.3 * step + 0.01 * w[0])
        if price > 1.6:
            return 0.0
    return price - 1 if price > 1 else 0.0


@branching(draw=between(0.1, 2))
def bouncing_ball(w, x, y):
    height, speed, bounces = x, y * 0.0, 0
    for _ in range(6):
        speed = speed - 0.5
        height = height + 0.5 * speed
        if height < 0:
            height, speed, bounces = -height, -0.8 * speed, bounces + 1
    return height * w[0] + speed * w[1] + bounces * y


@branching(draw=between(-2, 2))
def implicit_euler(w, x, y):
    z = x
    for _ in range(2):
        new = z
        for _ in range(8):
            gap = new + 0.5 * new**3 - z - 0.1 * y
            if abs(gap) < 1e-8:
                break
            new = new - gap / (1 + 1.5 * new**2)
        z = new
    return z * w[0]


@branching(draw=between(0, 2))
def until_an_event(w, x, y):
    t, z = 0.0, x
    while t < 1 and z < 2:
        z, t = z + 0.25 * (y + 0.5 * z), t + 0.25
    return z * w[0] - t


@branching(((2,), ()))
def perceptron(w, x, y):
    score = np.array(w[:2]) @ x + w[2]
    label = 1.0 if y > 0 else -1.0
    return 0.0 if label * score > 1 else (1 - label * score) ** 2


@branching()
def quantile(w, x, y):
    error = y - w[0] * x
    return vgrad.where(error > 0, 0.9 * error, -0.1 * error) + (w[1] if x > y else 0.0)


def _of_a_closure(w: list[Any]) -> Callable[..., Any]:
    limits, scale, on = (np.float32(0.5), 1, np.int64(-1)), np.array([2.0, 0.25]), True
    steps = {"low": 0, "high": 0.5}

    def fn(x: Any, y: Any) -> Any:
        if on and limits[2] < x < limits[0]:
            return scale[0] * w[0] * x
        return scale[1] * y + steps["high" if y > limits[1] else "low"] * w[1]

    return fn


def _of_a_class(w: list[Any]) -> Callable[..., Any]:
    class Relu:
        def __init__(self, slope: Any) -> None:
            self.slope = slope

        def __call__(self, x: Any) -> Any:
            return x if x > 0 else self.slope * x

    class Network:
        layers = (Relu(w[2]), Relu(0.5))

        def __call__(self, x: Any, y: Any) -> Any:
            z = w[0] * x + w[1] * y
            for layer in self.layers:
                z = layer(z - 0.25)
            return operator.mul(z, w[3])

    return Network()


BRANCHING["of_a_closure"] = Branching(_of_a_closure, PAIR, mixed, True)
BRANCHING["of_a_class"] = Branching(_of_a_class, PAIR, mixed, True)


# --- random programs -----------------------------------------------------------------------------


class Writer:
    """Writes one random function as source text: ifs within loops within ifs.

    Numbers stay small, and many are whole or halves, so that conditions at equality are common.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.inputs = self.rng.randint(1, 3)
        self.parameters = self.rng.randint(1, 3)
        self.lines: list[str] = []
        self.indent = 1
        self.loops = 0
        self.asks = 0  # how many statements ask something

    def source(self) -> str:
        arguments = [f"x{k}" for k in range(self.inputs)]
        self.emit("a, b = {}, {}", self.expression(), self.expression())
        for _ in range(self.rng.randint(3, 5)):
            self.statement(depth=0)
        weights = [f"w[{k}]" for k in range(self.parameters)]
        terms = [f"{w} * {x}" for w, x in zip(weights, itertools.cycle(["a", "b", *arguments]))]
        self.emit("return a + 0.5 * b + vgrad.tanh({}), b", " + ".join(terms))
        return "\n".join([f"def fn({', '.join(arguments)}):", *self.lines])

    def emit(self, template: str, *parts: str) -> None:
        self.lines.append("    " * self.indent + template.format(*parts))

    def atom(self) -> str:
        names = [f"x{k}" for k in range(self.inputs)] + [f"w[{k}]" for k in range(self.parameters)]
        if self.lines:
            names += ["a", "b"] * 2
        constants = ["0.5", "1", "-1.0", "2"]
        return self.rng.choice(names if self.rng.random() < 0.8 else constants)

    def expression(self) -> str:
        x, y = self.atom(), self.atom()
        templates = [
            *("{x} + {y}", "{x} - {y}", "({x} * {y}) % 4", "vgrad.tanh({x} * {y})", "abs({x})"),
            *("0.5 * {x} - {y}", "vgrad.maximum({x}, {y}) % 3", "({x} if {c} else {y})"),
            *("max({x}, {y})", "min({x}, {y}, 1.0)", "[{x}, {y}, 0.5][int({x} % 3)]"),
            "sorted([{x}, {y}, 0.5])[1]",
        ]
        (template,) = self.rng.choices(templates, [6] * 6 + [2] * (len(templates) - 6))
        condition = self.condition() if "{c}" in template else ""
        return template.format(x=x, y=y, c=condition)

    def condition(self) -> str:
        # A sum, as the truth of a parameter that is 0 is an error, and leaves compare by identity.
        leaf = self.rng.choice(["x0", "x0", "w[0]"])
        x, y, z = f"({self.atom()} + {leaf})", self.atom(), self.atom()
        compare = self.rng.choice(["<", "<=", ">", ">=", "==", "!="])
        templates = [
            *("{x} {o} {y}", "{x} {o} 1", "0 {o} {x}", "not {x} {o} {y}", "{x} - {y} {o} 0"),
            *("-1 < {x} <= {y}", "{x} {o} {y} and {z} + 0 < 1", "{x} {o} {y} or 0.5 == {z} + 0"),
            *("int({x} % 3) == 1", "round({x}) {o} {y}", "{x}", "math.floor({x}) in (0, 1)"),
            "({x} {o} {y}).data",
        ]
        (template,) = self.rng.choices(templates, [6] * 5 + [2] * (len(templates) - 5))
        return template.format(x=x, y=y, z=z, o=compare)

    def block(self, depth: int) -> None:
        self.indent += 1
        for _ in range(self.rng.randint(1, 2)):
            self.statement(depth + 1)
        self.indent -= 1

    def statement(self, depth: int) -> None:
        kinds = [self.assign] * 3
        if depth < 3 and self.asks < 9:
            kinds += [self.branch] * 4 + [self.loop, self.count] * (depth < 2) + [self.leave]
        self.rng.choice(kinds)(depth)

    def assign(self, depth: int) -> None:
        self.emit("{} = {}", self.rng.choice("ab"), self.expression())

    def branch(self, depth: int) -> None:
        self.asks += 1
        self.emit("if {}:", self.condition())
        self.block(depth)
        if self.rng.random() < 0.3:
            self.emit("elif {}:", self.condition())
            self.block(depth)
        if self.rng.random() < 0.6:
            self.emit("else:")
            self.block(depth)

    def loop(self, depth: int) -> None:
        self.asks += 1
        steps = f"n{self.loops}"
        self.loops += 1
        self.emit("{} = 0", steps)
        self.emit("while {} < 3 and ({}):", steps, self.condition())
        self.emit("    {} += 1", steps)
        if self.rng.random() < 0.4:
            self.emit("    if {}:", self.condition())
            self.emit("        {}", self.rng.choice(["break", "continue"]))
        self.block(depth)

    def count(self, depth: int) -> None:
        self.asks += 1
        self.emit("for k in range(int({} % 3)):", f"({self.expression()})")
        self.emit("    a = a + 0.25 * k")
        self.block(depth)

    def leave(self, depth: int) -> None:
        self.asks += 1
        self.emit("if {}:", self.condition())
        value = self.rng.choice(["0.0", "a", "w[0] * b", "1"])
        self.emit("    return {}, {}", value, self.rng.choice(["b", "a", "2.0"]))


@dataclass(frozen=True)
class RandomBranching:
    """A function's text, and how many arguments and parameters it has."""

    seed: int
    source: str
    inputs: int
    parameters: int

    def make(self, w: list[Any]) -> Callable[..., Any]:
        names = {"vgrad": vgrad, "math": math, "w": w}
        exec(compile(self.source, f"<seed {self.seed}>", "exec"), names)
        return names["fn"]

    def arrays(self, batch: int) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return [mixed(rng, (batch,)) for _ in range(self.inputs)]

    def theta(self, k: int) -> list[float]:
        rng = np.random.default_rng([self.seed, k])
        return (mixed(rng, (self.parameters,)) + 0.0).tolist()


def random_branching(seed: int) -> RandomBranching:
    """The function of this seed; `print(random_branching(seed).source)` shows it."""
    writer = Writer(seed)
    return RandomBranching(seed, writer.source(), writer.inputs, writer.parameters)
