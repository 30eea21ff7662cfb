"""What several tests share: random programs, a reference, central differences, comparisons."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgrad import Value
from vgrad.checks.parity import error_scales
from vgrad.engine import reachable
from vgrad.ops import OPS, Op, evaluate

DEMOS = Path(__file__).parents[1] / "demos"
MOONS, BENCHMARK = DEMOS / "moons.py", DEMOS / "benchmark.py"

long = pytest.mark.long  # what `python -m pytest -m long` runs, and the plain call leaves out

EVERY = [op for op in OPS if op.arity]  # every op but the leaves
# Those that a function may use. Plans drop guards: operands that no gradient has do not allow it.
COMPUTED = [op for op in EVERY if op.name != "guard"]

EDGES = [
    *(0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 1e-3, -7.25, 710.0, -750.0, 1e200, -1e308),
    *(5e-324, -5e-324, 2.2250738585072014e-308, float("inf"), float("-inf"), float("nan")),
]


def sweep(count: int, slice_: int) -> list[Any]:
    """The seeds of a test, to parametrize it: the first few always, the others in the long run."""
    return [k if k < slice_ else pytest.param(k, marks=long) for k in range(count)]


def half(cases: Iterable[Any]) -> list[Any]:
    """Cases to parametrize a test: every second one always, the others in the long run."""
    return [case if k % 2 else pytest.param(case, marks=long) for k, case in enumerate(cases)]


mostly_fused = pytest.mark.parametrize(
    "fuse", [True, pytest.param(False, marks=long)], ids=["fused", "plain"]
)
mostly_double = pytest.mark.parametrize(
    "dtype", [np.float64, pytest.param(np.float32, marks=long)], ids=["float64", "float32"]
)


def same_bits(a: Any, b: Any) -> bool:
    """Equal to the last bit, the sign of zero included; any nan equals any other.

    The sign and payload of a nan are left out: IEEE 754 does not fix them, and the processor's
    choice depends on the order in which a compiler passes the operands.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    equal = (a.view(np.int64) == b.view(np.int64)) | (np.isnan(a) & np.isnan(b))
    return a.shape == b.shape and bool(equal.all())


def central_difference(f: Callable[..., float], x: list[float], k: int, step: float) -> float:
    """df/dx[k] by central differences, whose error is O(step**2) + O(rounding / step)."""
    up, down = list(x), list(x)
    up[k] += step
    down[k] -= step
    return (f(*up) - f(*down)) / (up[k] - down[k])


# --- random programs -----------------------------------------------------------------------------


@dataclass
class RandomProgram:
    """Straight-line code over a list of numbers: inputs, parameters, then one result per line."""

    inputs: int
    parameters: list[Value]
    lines: list[tuple[Op, list[int | float]]]  # operands: an index into the list, or a constant
    outputs: list[int]

    def run(self, numbers: list[Any]) -> list[Any]:
        numbers = list(numbers)
        for op, operands in self.lines:
            numbers.append(op(*[numbers[x] if isinstance(x, int) else x for x in operands]))
        return numbers

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        numbers = self.run([*inputs, *self.parameters])
        return tuple(numbers[k] for k in self.outputs)

    def emit(self, op: Op, operands: list[int | float]) -> int:
        """Add a line; returns the index of its result."""
        self.lines.append((op, operands))
        return self.inputs + len(self.parameters) + len(self.lines) - 1

    def is_shared(self) -> list[bool]:
        """For every number, whether no input reaches it."""
        shared = [False] * self.inputs + [True] * len(self.parameters)
        for _, operands in self.lines:
            shared.append(all(shared[x] for x in operands if isinstance(x, int)))
        return shared


def random_program(seed: int, edges: bool = False, size: int | None = None) -> RandomProgram:
    """A program with reuse, diamonds, `a + a`, dead code, constants on either side, many outputs.

    With `edges` the constants are zeros, infinities, nan, subnormals and domain edges, and ops get
    whatever comes; without, ops with a limited domain get operands squeezed into it.
    """
    rng = random.Random(seed)
    weights = [6 if any(op.vjp) else 1 for op in COMPUTED]  # most ops let gradients through
    inputs, parameters = rng.randint(0, 4), rng.randint(0, 4)
    if inputs + parameters == 0:
        inputs = 1
    program = RandomProgram(inputs, [Value(rng.uniform(-2, 2)) for _ in range(parameters)], [], [])
    count, emit = inputs + parameters, program.emit

    for _ in range(size or rng.randint(1, 40)):
        (op,) = rng.choices(COMPUTED, weights)
        total = count + len(program.lines)
        recent = range(max(0, total - 6), total)
        picks: list[int | float] = [
            rng.choice(recent) if rng.random() < 0.6 else rng.randrange(total)
            for _ in range(op.arity)
        ]
        if op.arity == 2 and rng.random() < 0.15:
            picks[1] = picks[0]
        elif op.arity > 1 and rng.random() < 0.3:
            k = rng.randrange(op.arity)  # a constant on either side
            picks[k] = rng.choice(EDGES) if edges else rng.uniform(0.5, 2.0)
        if not edges:
            picks = tame(program, op, picks, total - 1, rng)
        if all(isinstance(x, float) for x in picks):
            picks[0] = rng.randrange(total)
        emit(op, picks)
    # The objective is a sum to which every leaf and some lines contribute, so that gradients flow.
    total = count + len(program.lines)
    objective = total - 1
    for leaf in [*range(count), *range(count)]:
        line = emit(BY_NAME["tanh"], [rng.randrange(count, total)])
        objective = emit(BY_NAME["add"], [objective, emit(BY_NAME["mul"], [leaf, line])])
    program.outputs = [objective, *(rng.randrange(total) for _ in range(rng.randint(0, 2)))]
    return program


BY_NAME = {op.name: op for op in OPS}


def tame(
    program: RandomProgram, op: Op, picks: list[int | float], last: int, rng: random.Random
) -> list[int | float]:
    """The same operands, or lines that squeeze them into the op's domain."""
    picks = [squeeze(program, x, limits) for x, limits in zip(picks, op.domain)]
    if op.name == "pow":  # keeps towers of powers from overflowing
        picks[1] = rng.choice([-1.0, 0.5, 2.0, 3.0, program.emit(BY_NAME["tanh"], [last])])
    if op.name in TOWERING:
        picks[0] = program.emit(BY_NAME["tanh"], [last])
    return picks


TOWERING = {"exp", "exp2", "expm1", "sinh", "cosh", "erfcx", "log_ndtr"}


def squeeze(program: RandomProgram, x: int | float, limits: tuple[float, float]) -> int | float:
    """Lines that map any number into a domain, smoothly; constants are left as they are."""
    low, high = limits
    if low == high:
        return low
    if limits == (-2.0, 2.0) or (isinstance(x, float) and low <= x <= high):
        return x
    if isinstance(x, float):
        return (low + high) / 2
    share = program.emit(BY_NAME["sigmoid"], [x])
    if limits != (0.2, 3.0):
        share = program.emit(BY_NAME["mul"], [share, 0.8 * (high - low)])
        return program.emit(BY_NAME["add"], [share, low + 0.1 * (high - low)])
    return program.emit(BY_NAME["add"], [share, 0.5])


def deep_program(seed: int, steps: int) -> RandomProgram:
    """A sum that grows by a small bounded term at each step, some computed from the sum so far.

    So its depth is `steps` or more, with some five lines a step; every line reaches the objective,
    the first output, and numbers and gradients stay of a size that tells something.
    """
    rng = random.Random(seed)
    inputs, parameters = rng.randint(1, 4), rng.randint(1, 4)
    program = RandomProgram(inputs, [Value(rng.uniform(-2, 2)) for _ in range(parameters)], [], [])
    weights = [6 if any(op.vjp) else 1 for op in COMPUTED]
    pool = [*range(inputs + parameters)]  # of numbers from -2 to 2
    total, from_total = pool[-1], rng.choice([0.0, 0.1, 0.5])
    for _ in range(steps):
        (op,) = rng.choices(COMPUTED, weights)
        picks: list[int | float] = [
            total if rng.random() < from_total else rng.choice(pool) for _ in range(op.arity)
        ]
        result = program.emit(op, tame(program, op, picks, pool[-1], rng))
        pool.append(program.emit(BY_NAME["tanh"], [result]))
        term = program.emit(BY_NAME["mul"], [pool[-1], 0.02])
        total = program.emit(BY_NAME["add"], [total, term])
    program.outputs = [total, rng.choice(pool)]
    return program


def with_dead_lines(program: RandomProgram, seed: int) -> RandomProgram:
    """The same, with lines in between whose results nothing uses, unless it is dead too."""
    rng = random.Random(seed)
    longer = RandomProgram(program.inputs, program.parameters, [], [])
    moved = [*range(program.inputs + len(program.parameters))]  # where each number is now
    count = len(moved)
    for op, operands in program.lines:
        for _ in range(rng.choice([0, 0, 1, 2])):
            dead = rng.choice(COMPUTED)
            longer.emit(dead, [rng.randrange(count + len(longer.lines)) for _ in dead.vjp])
        here = [moved[x] if isinstance(x, int) else x for x in operands]
        moved.append(longer.emit(op, here))
    longer.outputs = [moved[k] for k in program.outputs]
    return longer


# --- comparisons ---------------------------------------------------------------------------------


def backward_with_scale(root: Value, leaves: list[Value]) -> tuple[list[float], list[float]]:
    """The leaves' gradients by `root.backward()`, and for each the sum of |contributions|.

    The second is what a gradient would be if nothing cancelled. Rounding errors are relative to
    it, so a tolerance for sums in another order must be too.
    """
    for leaf in leaves:
        leaf.grad = 0.0
    root.backward()
    scale = {root: 1.0}
    for node in reachable(root):
        g = scale.get(node, 0.0)
        if g and node.grad:
            data = [x.data for x in node.parents]
            for x, vjp in zip(node.parents, node.op.vjp):
                if vjp is not None:
                    part = evaluate(vjp, g, node.data, *data)
                    scale[x] = scale.get(x, 0.0) + abs(part)
    return [leaf.grad for leaf in leaves], [scale.get(leaf, 0.0) for leaf in leaves]


def assert_values_match(got: Any, roots: list[Value], context: str) -> None:
    """Within 1e-12 of the first-order bound on rounding errors, and nan and inf in the same places.

    That bound takes each node's own size as an error and carries it on by the ops' derivatives, so
    it is what the value would be if nothing cancelled; 1e-12 of it is about 4,500 roundings.
    """
    for k, (value, root) in enumerate(zip(got, roots)):
        where = f"{context}, output {k}: got {value}, want {root.data}"
        if not np.isfinite(root.data):
            assert same_bits(value, root.data), where
        elif value != root.data:
            assert abs(value - root.data) <= 1e-12 * error_scale(root) + 1e-320, where


def error_scale(root: Value) -> float:
    """What the rounding errors of a value are relative to, to first order."""
    return error_scales(reachable(root)[::-1])[-1]


def assert_gradients_match(got: Any, want: Any, scale: Any, context: str) -> None:
    """Within 1e-12 of the scale, and nan and inf in the same places.

    1e-12 is about 4,500 roundings of 2**-52 apart: the engines use the same rules on the same
    numbers and differ only in the order in which contributions to a node are added. Among the
    subnormals a rounding is absolute, 5e-324; 1e-320 is 2,000 of those.
    """
    got, want, scale = (np.asarray(x, np.float64) for x in (got, want, scale))
    finite = np.isfinite(want)
    assert same_bits(got[~finite], want[~finite]), f"{context}: got {got}, want {want}"
    with np.errstate(all="ignore"):
        gap = np.abs(got[finite] - want[finite])
        size = np.nan_to_num(np.maximum(scale[finite], np.abs(want[finite])), posinf=1e308)
        bound = 1e-12 * size + 1e-320
    assert (gap <= bound).all(), f"{context}: got {got}, want {want}, gap {gap}"
