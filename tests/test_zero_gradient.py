"""A gradient of 0 stays 0 through inf and nan: both engines, every call, and numbers by hand."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers import half
from traps import NUMBERS, TRAPS, Case

import vgrad
from vgrad import Value

# Logarithms, roots and powers round: 1e-14 is some 50 roundings. What is 0 must be 0.
approx = {"rel": 1e-14, "abs": 0, "nan_ok": True}


def padded(by_weight: tuple[float, ...]) -> list[float]:
    return [*by_weight, *[0.0] * (len(NUMBERS) - len(by_weight))]


def programs(name: str) -> Iterator[tuple[vgrad.Program, bool]]:
    """Fused and plain; whole, in tiles, and on threads; and whether it is whole."""
    fn = TRAPS[name].fn
    w = [Value(x) for x in NUMBERS]

    def objective(x: Any, y: Any) -> Any:
        return fn(x, y, w), w[0]  # the second so that a parameter is used

    with ThreadPoolExecutor(2) as pool:
        for fuse in (True, False):
            for tile, executor in ((None, None), (1, None), (2, pool)):
                options = {"fuse": fuse, "tile": tile, "executor": executor}
                yield vgrad.compile(objective, w, reduce="sum", **options), tile is None


@pytest.mark.parametrize("name", TRAPS)
def test_the_scalar_engine(name):
    fn, cases = TRAPS[name]
    for (x, y), value, by_input, by_weight in cases:
        leaves = [Value(x), Value(y), *map(Value, NUMBERS)]
        out = fn(*leaves[:2], leaves[2:])
        out.backward()
        assert out.data == pytest.approx(value, **approx), (x, y)
        grads = [leaf.grad for leaf in leaves]
        assert grads == pytest.approx([*by_input, *padded(by_weight)], **approx), (x, y)


@pytest.mark.parametrize("name", half(TRAPS))
def test_compiled(name):
    """Each case alone, where tiles and threads change nothing; then all thrice in one batch."""
    cases = TRAPS[name].cases
    for program, whole in programs(name):
        for batch in (*([case] for case in cases if whole), 3 * cases):
            check(program, batch)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", TRAPS)
def test_compiled_with_parameters_for_inputs(name, fuse):
    """So that all of it is shared by the samples."""
    fn, cases = TRAPS[name]
    for point, value, by_input, by_weight in cases:
        x, y, *w = leaves = [*map(Value, [*point, *NUMBERS])]
        program = vgrad.compile(lambda z, x=x, y=y, w=w: (fn(x, y, w), x + y), leaves, fuse=fuse)
        mean, grad = program.value_and_grad(program.theta(), np.ones(3))
        assert mean == pytest.approx(value, **approx), point
        assert grad == pytest.approx([*by_input, *padded(by_weight)], **approx), point


MEETS = {"a constant of 0", "a shared root that nothing needs", "nothing times a logarithm"}


@pytest.mark.parametrize("name", half(TRAPS))
def test_branches_that_are_not_taken_pass_check_finite(name):
    """All cases of finite numbers; where 0 met an infinity by arithmetic, it raises."""
    fn, cases = TRAPS[name]
    w = [Value(x) for x in NUMBERS]
    for (x, y), value, *_ in cases:
        program = vgrad.compile(lambda x, y: (fn(x, y, w), w[0]), w, check_finite=True)
        calls = program.value_and_grad, program.input_grads, program.per_sample_grads
        if np.isfinite(value) and name not in MEETS:
            for call in calls:
                call(NUMBERS, [x], [y])
            fn(Value(x), Value(y), w).backward(check_finite=True)
        elif name in MEETS:
            with pytest.raises(vgrad.NonFiniteError):
                program.value_and_grad(NUMBERS, [x], [y])


def check(program: vgrad.Program, batch: list[Case]) -> None:
    points, values, by_input, by_weight = zip(*batch)
    by_weight = [padded(row) for row in by_weight]
    arrays = np.array(points).T
    with np.errstate(invalid="ignore"):  # inf - inf
        total, gradient = np.sum(values), np.sum(by_weight, axis=0)
    (value, (outputs, _)), grad = program.value_and_grad(NUMBERS, *arrays, aux=True)
    assert outputs == pytest.approx(values, **approx), batch
    assert value == pytest.approx(total, **approx), batch
    assert grad == pytest.approx(gradient, **approx), batch
    value, grad = program.value_and_grad(NUMBERS, *arrays)
    assert value == pytest.approx(total, **approx), batch
    assert grad == pytest.approx(gradient, **approx), batch
    assert program(NUMBERS, *arrays)[0] == pytest.approx(values, **approx), batch
    got = np.transpose(program.input_grads(NUMBERS, *arrays))
    assert got == pytest.approx(np.array(by_input), **approx), batch
    got = program.per_sample_grads(NUMBERS, *arrays)
    assert got == pytest.approx(np.array(by_weight), **approx), batch
