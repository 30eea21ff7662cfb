"""Control flow on numbers: every sample takes the path that it takes on the scalar engine."""

from __future__ import annotations

import itertools
import math
import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any

import numpy as np
import pytest
from branching import BRANCHING, NUMBER, PAIR, THETAS, random_branching
from helpers import (
    assert_gradients_match,
    assert_values_match,
    backward_with_scale,
    error_scale,
    half,
    long,
    mostly_fused,
    same_bits,
)

import vgrad
from vgrad import PathsWarning, TraceError, Value
from vgrad.arrays import OperandArray

both_ways = pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])

# --- the scalar engine, sample by sample ---------------------------------------------------------


def as_values(array: Any) -> Any:
    """A number as a leaf, an array as an array of leaves."""
    array = np.asarray(array)
    values = np.empty(array.shape, dtype=object).view(OperandArray)
    for index in np.ndindex(array.shape):
        values[index] = Value(array[index], trainable=False)
    return values[()]


def flattened(outputs: Any) -> list[Value]:
    """The numbers of a structure of outputs, in order, as `Value`s."""
    if isinstance(outputs, (tuple, list, np.ndarray)):
        return [x for part in outputs for x in flattened(part)]
    return [outputs if isinstance(outputs, Value) else Value(outputs, trainable=False)]


def copied(x: Any) -> Any:
    """An argument for a function that may change its arrays."""
    return x.copy() if isinstance(x, np.ndarray) else x


def leaves_of(inputs: list[Any]) -> list[Value]:
    return [x for array in inputs for x in np.ravel(np.asarray(array, dtype=object))]


class Reference:
    """What the scalar engine makes of each sample: outputs, gradients, and their natural scales."""

    def __init__(self, make: Callable[[list[Any]], Any], theta: Any, arrays: list[Any]) -> None:
        self.theta, self.arrays = np.array(theta), [np.asarray(x) for x in arrays]
        self.parameters = [Value(x) for x in self.theta]
        self.inputs = [[as_values(x) for x in row] for row in zip(*self.arrays)]
        fn = make(self.parameters)
        self.roots = [flattened(fn(*map(copied, row))) for row in self.inputs]
        self.outputs = np.array([[root.data for root in roots] for roots in self.roots])

    def leaves(self, sample: int) -> list[Value]:
        return [*leaves_of(self.inputs[sample]), *self.parameters]

    @cached_property
    def gradients(self) -> np.ndarray:
        """(B, K + P): to the inputs, then to the parameters."""
        rows = []
        for sample, roots in enumerate(self.roots):
            leaves = self.leaves(sample)
            for leaf in self.parameters:
                leaf.grad = 0.0
            roots[0].backward()
            rows.append([leaf.grad for leaf in leaves])
        return np.array(rows)

    @cached_property
    def gradient_scales(self) -> np.ndarray:
        """(B, K + P): what the gradients would be if nothing cancelled."""
        samples = enumerate(self.roots)
        return np.array([backward_with_scale(x[0], self.leaves(k))[1] for k, x in samples])

    @cached_property
    def objective_scales(self) -> np.ndarray:
        return np.array([error_scale(roots[0]) for roots in self.roots])


def columns(outputs: Any) -> np.ndarray:
    """What a program returns for a batch, as (B, numbers)."""
    if isinstance(outputs, tuple):
        return np.concatenate([columns(x) for x in outputs], axis=1)
    return outputs.reshape(len(outputs), -1)


class Check:
    """Holds a program to a reference, on some of its samples."""

    def __init__(self, reference: Reference, samples: Any = slice(None), exact: bool = False):
        self.reference, self.exact = reference, exact
        self.samples = np.arange(len(reference.roots))[samples].tolist()
        self.arrays = [x[self.samples] for x in reference.arrays]

    def outputs(self, outputs: Any) -> None:
        """To the bit if `exact`, else within 1e-12 of the natural scale."""
        got, want = columns(outputs), self.reference.outputs[self.samples]
        assert got.shape == want.shape
        for k in np.flatnonzero((got != want).any(axis=1)).tolist():  # and each nan
            sample = self.samples[k]
            if self.exact:
                assert same_bits(got[k], want[k]), f"sample {sample}: {got[k]} for {want[k]}"
            assert_values_match(got[k], self.reference.roots[sample], f"sample {sample}")
        if self.exact:
            assert same_bits(got, want)  # the signs of zeros too

    def gradients(self, by_leaf: np.ndarray, some: slice) -> None:
        want = self.reference.gradients[self.samples, some]
        assert by_leaf.shape == want.shape
        with np.errstate(all="ignore"):
            close = abs(by_leaf - want) <= 1e-12 * abs(want)
        if not close.all():
            scales = self.reference.gradient_scales[self.samples, some]
            for k in np.flatnonzero(~close.all(axis=1)).tolist():
                where = f"gradients of sample {self.samples[k]}"
                assert_gradients_match(by_leaf[k], want[k], scales[k], where)

    def mean(self, value: float, gradient: np.ndarray) -> None:
        with np.errstate(all="ignore"):
            want = self.reference.outputs[self.samples, 0].mean()
            by_leaf = self.reference.gradients[self.samples]
            means = by_leaf[:, by_leaf.shape[1] - len(gradient) :].mean(axis=0)
            close = abs(gradient - means) <= 1e-12 * abs(means)
            if not abs(value - want) <= 1e-12 * abs(want):
                scale = self.reference.objective_scales[self.samples].mean()
                assert_gradients_match(value, want, scale, "mean")
        if not close.all():
            scales = self.reference.gradient_scales[self.samples, -len(gradient) :]
            assert_gradients_match(gradient, means, scales.mean(axis=0), "mean gradient")

    def at_once(self, program: vgrad.Program) -> None:
        """The outputs, the mean and its gradient, by one call."""
        theta, arrays = self.reference.theta, self.arrays
        (value, outputs), gradient = program.value_and_grad(theta, *arrays, aux=True)
        self.outputs(outputs)
        self.mean(value, gradient)

    def every_call(self, program: vgrad.Program) -> None:
        theta, arrays = self.reference.theta, self.arrays
        inputs = self.reference.gradients.shape[1] - len(theta)
        self.outputs(program(theta, *arrays))
        self.mean(*program.value_and_grad(theta, *arrays))
        self.at_once(program)
        self.gradients(columns(program.input_grads(theta, *arrays)), slice(inputs))
        self.gradients(program.per_sample_grads(theta, *arrays), slice(inputs, None))


def compiled(
    make: Callable[[list[Any]], Any], theta: Any = THETAS[0], **options: Any
) -> vgrad.Program:
    w = [Value(x) for x in theta]
    return vgrad.compile(make(w), w, **options)


# --- the functions of branching.py ---------------------------------------------------------------


def reference(name: str, theta: int, samples: slice = slice(100)) -> Reference:
    case = BRANCHING[name]
    arrays = case.arrays(seed=len(name), batch=100)
    return Reference(case.make, THETAS[theta], [x[samples] for x in arrays])


@pytest.mark.parametrize("name", half(BRANCHING))
def test_every_sample_takes_its_own_path(name):
    """Samples change paths with theta, and the `Value`s stay as they were."""
    w = [Value(x) for x in THETAS[0]]
    plain, fused = (vgrad.compile(BRANCHING[name].make(w), w, fuse=x) for x in (False, True))
    for theta, samples in ((0, slice(1)), (3, slice(1, 3)), (1, slice(3, 9))):
        wanted = reference(name, theta, samples)
        Check(wanted, exact=True).every_call(plain)
        if theta:
            Check(wanted).at_once(fused)
    assert [(p.data, p.grad) for p in w] == [(x, 0.0) for x in THETAS[0]]


@long
@both_ways
@pytest.mark.parametrize("name", BRANCHING)
def test_every_call_of_batches_of_any_size(name, fuse):
    program = compiled(BRANCHING[name].make, fuse=fuse)
    for theta in range(4):
        wanted = reference(name, theta)
        for batch in (1, 2, 7, 100):
            start = 13 * theta % (101 - batch)
            Check(wanted, slice(start, start + batch), exact=not fuse).every_call(program)


# Logarithms, roots and exponentials that are nan or inf on a path that a sample does not take.
STRAYING = ["spline", "for_with_continue", "nan_in_a_condition", "by_divmod", "table_by_int"]


@pytest.mark.parametrize("name", [*STRAYING, *(pytest.param(x, marks=long) for x in BRANCHING)])
def test_batches_of_one_size_whose_samples_take_other_paths_each_time(name):
    """As in training: what is remembered of the last batch is wrong for this one."""
    case, programs = BRANCHING[name], {}
    for k in range(4):
        arrays = case.arrays(k, 12)
        wanted = Reference(case.make, THETAS[k // 2], arrays)
        inputs = wanted.gradients.shape[1] - 4
        for fuse in (False, True):
            program = programs.setdefault(fuse, compiled(case.make, fuse=fuse))
            check = Check(wanted, exact=not fuse)
            if k % 2:
                check.mean(*program.value_and_grad(wanted.theta, *arrays))
            else:
                by_sample = program.per_sample_grads(wanted.theta, *arrays)
                check.gradients(by_sample, slice(inputs, None))
            check.outputs(program(wanted.theta, *arrays))


LARGE = ["nested_ifs", "sorted_numbers", "newton_until_converged", "penalty_of_some_parameters"]


@mostly_fused
@pytest.mark.parametrize("name", [*LARGE, *(pytest.param(x, marks=long) for x in BRANCHING)])
def test_ten_thousand_samples(name, fuse):
    """Some against the scalar engine; their mean against all of them."""
    case = BRANCHING[name]
    arrays = case.arrays(1, 10_000)
    some = np.random.default_rng(0).choice(10_000, 50, replace=False)
    check = Check(Reference(case.make, THETAS[1], [x[some] for x in arrays]), exact=not fuse)
    program = compiled(case.make, fuse=fuse)
    (value, outputs), gradient = program.value_and_grad(THETAS[1], *arrays, aux=True)
    check.outputs(columns(outputs)[some])
    by_sample = program.per_sample_grads(THETAS[1], *arrays)
    inputs = check.reference.gradients.shape[1] - len(THETAS[1])
    check.gradients(by_sample[some], slice(inputs, None))
    by_input = columns(program.input_grads(THETAS[1], *arrays))
    check.gradients(by_input[some], slice(inputs))
    objective = columns(outputs)[:, 0]
    np.testing.assert_allclose(value, objective.mean(), atol=1e-12 * abs(objective).mean())
    close = {"rtol": 0, "atol": 1e-12 * abs(by_sample).mean()}
    np.testing.assert_allclose(gradient, by_sample.mean(axis=0), **close)


SMOOTH = [name for name, case in BRANCHING.items() if case.smooth]


@pytest.mark.parametrize("name", half(SMOOTH))
def test_gradients_are_derivatives(name):
    """By central differences, which know nothing of vgrad, wherever those can judge."""
    case = BRANCHING[name]
    rng = np.random.default_rng(5)
    arrays = [x + rng.uniform(0.01, 0.02, x.shape) for x in case.arrays(7, 2)]
    report = vgrad.gradcheck(compiled(case.make, fuse=False), THETAS[3], *arrays)
    assert not report.wrong, report
    assert len(report.unsure) < len(report.derivatives), report


def test_a_check_of_branches_can_fail():
    """Another function, a path taken by mistake, a derivative that is off."""
    leaky = BRANCHING["leaky"].make
    arrays = BRANCHING["leaky"].arrays(0, 20)
    check = Check(Reference(leaky, THETAS[0], arrays))

    def planted(wrong: Callable[..., Any]) -> vgrad.Program:
        return compiled(lambda w: lambda x, y: wrong(w, x, y))

    for program in (
        planted(lambda w, x, y: x * y + w[0]),
        planted(lambda w, x, y: vgrad.where(x > -1, x, 0.1 * x) * y + w[0]),
        planted(lambda w, x, y: vgrad.where(x > 0, x, 0.1 * x) * y + w[0] * (1 + 1e-9)),
        planted(lambda w, x, y: vgrad.where(x > 0, x, 0.1 * x) * y + vgrad.stop_gradient(w[0])),
    ):
        with pytest.raises(AssertionError):
            check.every_call(program)
    check.every_call(planted(lambda w, x, y: vgrad.where(x > 0, x, 0.1 * x) * y + w[0]))


# --- random functions ----------------------------------------------------------------------------


def check_random(seed: int, thetas: int, batch: int, fuse: bool) -> bool:
    """Returns whether a gradient was not just 0 or 1."""
    one, telling = random_branching(seed), False
    arrays = one.arrays(batch)
    program = compiled(one.make, one.theta(0), fuse=fuse, paths=999)
    for k in range(thetas):
        wanted = Reference(one.make, one.theta(k), [np.roll(x, k) for x in arrays])
        try:
            check = Check(wanted, exact=not fuse)
            (check.every_call if k else check.at_once)(program)
        except Exception as error:
            raise AssertionError(f"seed {seed}, theta {k}\n{one.source}") from error
        telling |= bool(np.isin(wanted.gradients, [0.0, 1.0, -1.0], invert=True).any())
    return telling


def test_random_functions():
    """Values and gradients of seeded functions with ifs and loops, at ties more often than not."""
    telling = [check_random(seed, 2, batch=3, fuse=seed % 3 == 0) for seed in range(18)]
    assert sum(telling) > 9


@long
@both_ways
@pytest.mark.parametrize("block", range(100))
def test_many_random_functions(block, fuse):
    for seed in range(10 * block, 10 * (block + 1)):
        check_random(seed, thetas=4, batch=40, fuse=fuse)


def test_random_functions_branch():
    """They have ifs, loops and early returns, so that the test above is of what it says."""
    sources = [random_branching(seed).source for seed in range(60)]
    for word, least in ((" if ", 50), ("while", 15), ("range", 15), ("    return", 30)):
        assert sum(word in x.rsplit("\n", 1)[0] for x in sources) >= least, word


# --- the most paths that are recorded ------------------------------------------------------------


def ten_ifs(w: list[Any]) -> Callable[..., Any]:
    def fn(x: Any) -> Any:
        total = 0.0
        for k in range(10):
            total = total + w[k % 4] * x[k] if x[k] > 0 else total * 0.5 - x[k] * x[k]
        return total

    return fn


def signs(count: int, batch: int, seed: int = 0) -> np.ndarray:
    """(batch, count) of numbers of random sizes whose signs differ from sample to sample."""
    rng = np.random.default_rng(seed)
    patterns = rng.permutation(2**count)[np.arange(batch) % 2**count]
    positive = patterns[:, None] >> np.arange(count) & 1
    return np.where(positive, 1.0, -1.0) * rng.uniform(0.1, 1, (batch, count))


@mostly_fused
@pytest.mark.parametrize("paths", [64, pytest.param(8, marks=long), 2])
def test_samples_beyond_the_most_paths_run_one_by_one(paths, fuse):
    x = signs(10, 300)
    check = Check(Reference(ten_ifs, THETAS[0], [x]), exact=not fuse)
    program = compiled(ten_ifs, fuse=fuse, paths=paths)
    with pytest.warns(PathsWarning, match=f"{300 - paths} of 300 samples"):
        (value, outputs), gradient = program.value_and_grad(THETAS[0], x, aux=True)
    check.outputs(outputs)
    check.mean(value, gradient)
    again = Check(Reference(ten_ifs, THETAS[1], [x[::20]]), exact=not fuse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PathsWarning)
        again.every_call(program)


@mostly_fused
def test_a_hundred_samples_on_a_hundred_paths(fuse):
    """Without a warning, which would be an error here; then the same paths at other numbers."""
    x = signs(10, 100)
    program = compiled(ten_ifs, fuse=fuse, paths=100)
    Check(Reference(ten_ifs, THETAS[0], [x]), exact=not fuse).at_once(program)
    Check(Reference(ten_ifs, THETAS[2], [0.5 * x]), exact=not fuse).at_once(program)


def close_bisection(w: list[Any]) -> Callable[..., Any]:
    def fn(x: Any) -> Any:
        low, high = 0.0 * x, 0.0 * x + 2
        while high - low > 1e-3:
            middle = 0.5 * (low + high)
            if middle**3 + w[0] * middle > x:
                high = middle
            else:
                low = middle
        return (low + high) * w[1]

    return fn


@mostly_fused
@pytest.mark.parametrize("batch", [15, pytest.param(90, marks=long)])
def test_bisection_takes_a_path_for_every_sample(batch, fuse):
    x = np.linspace(0.1, 8, batch)
    wanted = Reference(close_bisection, THETAS[0], [x])
    assert len(set(wanted.outputs[:, 0])) == batch
    check = Check(wanted, exact=not fuse)
    check.every_call(compiled(close_bisection, fuse=fuse, paths=batch))
    few = compiled(close_bisection, fuse=fuse, paths=batch // 3)
    with pytest.warns(PathsWarning):
        check.outputs(few(THETAS[0], x))


def test_a_hundred_thousand_samples_on_64_paths():
    """Against the same function written without branches."""

    def branching(w: list[Any]) -> Callable[..., Any]:
        def fn(x: Any) -> Any:
            total = w[0] * x.sum()
            for k in range(6):
                total = total + w[k % 4] * x[k] if x[k] > 0 else 0.5 * total - x[k] * x[k]
            return total

        return fn

    def straight(w: list[Any]) -> Callable[..., Any]:
        def fn(x: Any) -> Any:
            total = w[0] * x.sum()
            for k in range(6):
                up, down = total + w[k % 4] * x[k], 0.5 * total - x[k] * x[k]
                total = vgrad.where(x[k] > 0, up, down)
            return total

        return fn

    x = np.random.default_rng(0).normal(size=(100_000, 6))
    program, without = compiled(branching), compiled(straight)
    (value, outputs), gradient = program.value_and_grad(THETAS[0], x, aux=True)
    (want, wanted), by_parameter = without.value_and_grad(THETAS[0], x, aux=True)
    assert value == pytest.approx(want, rel=1e-11)
    np.testing.assert_allclose(gradient, by_parameter, rtol=1e-11)
    np.testing.assert_allclose(outputs, wanted, rtol=0, atol=1e-11)


@both_ways
def test_tiles_and_executors_change_nothing(fuse):
    name = "nested_ifs"
    check = Check(reference(name, 0), exact=not fuse)
    with ThreadPoolExecutor(2) as pool:
        for options in ({"tile": 3}, {"tile": 8, "executor": pool}):
            check.every_call(compiled(BRANCHING[name].make, fuse=fuse, **options))


# --- threads -------------------------------------------------------------------------------------


@mostly_fused
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nested_ifs", marks=long),
        "sorted_numbers",
        pytest.param("on_parameters_only", marks=long),
    ],
)
def test_threads_that_meet_new_paths_at_once(name, fuse):
    """Eight call a fresh program, each with samples and a theta of its own; the `Value`s stay."""
    w = [Value(x) for x in THETAS[0]]
    program = vgrad.compile(BRANCHING[name].make(w), w, fuse=fuse)
    wanted = [reference(name, k % 4, slice(k, None, 8)) for k in range(8)]
    start = threading.Barrier(8)

    def work(wanted: Reference) -> None:
        start.wait(10)
        for _ in range(2):
            Check(wanted, exact=not fuse).every_call(program)

    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(work, x) for x in wanted]
        while wait(futures, timeout=0.002).not_done:
            assert [p.data for p in w] == THETAS[0]
        for future in futures:
            future.result()


# --- exceptions ----------------------------------------------------------------------------------


class Refused(Exception):
    """One of the user's own."""


def refusing(x: Any) -> Any:
    if x > 2:
        raise Refused("too large")
    return x if x > 0 else 0.5 * x


def notes(error: pytest.ExceptionInfo[Any]) -> str:
    return "\n".join(getattr(error.value, "__notes__", []))


@both_ways
def test_an_exception_of_the_function_names_its_sample(fuse):
    program = vgrad.compile(refusing, [], fuse=fuse)
    good = np.array([1.0, -1.0, 2.0, 0.0])
    for call in (program, program.value_and_grad, program.input_grads, program.per_sample_grads):
        with pytest.raises(Refused, match="too large") as error:
            call([], [1.0, -1.0, 0.5, 3.0, 0.25])
        assert "sample 3" in notes(error)
        assert same_bits(program([], good), [1.0, -0.5, 2.0, 0.0])  # which works as before
    with pytest.raises(Refused) as error:
        program([], np.where(np.arange(50) >= 41, 9.0, good[0]))
    assert any(f"sample {k}" in notes(error) for k in range(41, 50))
    assert same_bits(program.input_grads([], good)[0], [1.0, 0.5, 1.0, 0.5])


def test_an_exception_before_any_question_reaches_the_caller():
    def fn(x: Any) -> Any:
        raise Refused("at once")

    with pytest.raises(Refused, match="at once"):
        vgrad.compile(fn, [])([], [1.0, 2.0])


def test_exceptions_of_python_reach_the_caller():
    """An assertion that fails, an index beyond the end, a nan that is to be a whole number."""

    def asserting(x: Any) -> Any:
        assert x >= 0, "must be positive"
        return x

    def indexing(x: Any) -> Any:
        return [1.0, 2.0][int(x)] * x

    def of_nan(x: Any) -> Any:
        return x * round(vgrad.log(x))

    def of_half(x: Any) -> Any:
        return [1.0, 2.0, 3.0][x] * x

    for fn, arrays, kind, message in (
        (asserting, [1.0, 0.0, -1.0], AssertionError, "must be positive"),
        (indexing, [1.0, 0.0, 2.0], IndexError, "range"),
        (of_nan, [1.0, 2.0, -1.0], ValueError, "NaN"),
        (of_half, [1.0, 2.0, 0.5], TypeError, "whole number"),
    ):
        with pytest.raises(kind, match=message) as error:
            vgrad.compile(fn, [])([], arrays)
        assert type(error.value) is kind and "sample 2" in notes(error)
        vgrad.compile(fn, [])([], arrays[:2])


# --- functions that do not ask the same again ----------------------------------------------------


def test_random_numbers_in_conditions_are_an_error():
    def fn(x: Any) -> Any:
        return sum(x if x > random.random() else -x for _ in range(12))

    with pytest.raises(TraceError):
        vgrad.compile(fn, [])([], np.linspace(0.01, 0.99, 200))


def test_questions_at_random_are_an_error():
    turns = itertools.cycle([True, False])

    def fn(x: Any, y: Any) -> Any:
        if next(turns):
            return x if x > 0 else -x
        if y > 1:
            return y
        return -y if y < -1 else x * y

    with pytest.raises(TraceError):
        vgrad.compile(fn, [])([], [1.0, -1.0, 2.0], [0.5, 2.0, -2.0])


def test_an_order_that_changes_is_an_error():
    bounds = [0.0, 1.0]

    def fn(x: Any) -> Any:
        bounds.reverse()
        for bound in bounds:
            if x > bound:
                return x - bound
        return 0.0 * x

    with pytest.raises(TraceError):
        vgrad.compile(fn, [])([], [0.5, 0.25, 0.75])


def test_a_global_that_changes_the_questions_is_an_error():
    settings = {"strict": False}

    def fn(x: Any) -> Any:
        if settings["strict"]:
            return x if x > 1 else x * x if x > 0.5 else -x
        if x > 0:
            return x
        return x - 1 if x > -1 else -x

    program = vgrad.compile(fn, [])
    assert same_bits(program([], [2.0, -0.5]), [2.0, -1.5])
    settings["strict"] = True
    with pytest.raises(TraceError):
        program([], [2.0, -3.0, -0.5])


# --- what stays refused --------------------------------------------------------------------------


REFUSED = {
    "float": lambda z: float(z),
    "math.exp": lambda z: math.exp(z),
    "array of floats": lambda z: np.array([z], float)[0],
    "format": lambda z: len(f"{z:.2f}"),
    "float in a condition": lambda z: z if float(z) > 0 else -z,
    "math.exp on a path": lambda z: math.exp(z) if z > 0 else z,
    "digits": lambda z: round(z, 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_lose_a_gradient_or_print_no_number_stays_refused(name):
    """Of an input, and of a parameter, also where the function takes the error for its own."""
    fn, w = REFUSED[name], Value(2.0)

    def caught(x: Any) -> Any:
        try:
            return x * fn(x)
        except TypeError:
            return x

    for wrong in (lambda x: x * fn(x), lambda x: x * fn(w), lambda x: x * fn(w + 1), caught):
        with pytest.raises(TraceError):
            vgrad.compile(wrong, [w])([2.0], [1.0, -1.0])


def test_outputs_must_have_the_same_structure_on_every_path():
    for other in (lambda x: (x, x), lambda x: [[x]], lambda x: None, lambda x: "x"):
        program = vgrad.compile(lambda x: x if x > 0 else other(x), [])  # noqa: B023
        with pytest.raises(TraceError):
            program([], [1.0, -1.0])
        assert program([], [3.0]) == [3.0]


def test_one_path_refuses_branches():
    for name in ("leaky", "on_a_parameter", "table_by_int", "while_it_is_large"):
        case = BRANCHING[name]
        with pytest.raises(TraceError):
            compiled(case.make, paths=1)(THETAS[0], *case.arrays(0, 5))
    straight = compiled(lambda w: lambda x, y: w[0] * x + y, paths=1)
    assert straight(THETAS[0], [2.0], [1.0]) == [2.4]


def test_a_trace_refuses_branches_and_names_compile():
    for fn in (lambda x: x if x > 0 else -x, lambda x: sum(x for _ in range(int(x)))):
        with pytest.raises(TraceError, match="compile"):
            vgrad.trace(fn, ())


# --- meanings ------------------------------------------------------------------------------------


def test_equality_of_a_parameter_with_an_input_goes_by_identity():
    """As on the scalar engine, where the truth of `==` between two leaves does."""

    def make(w: list[Any]) -> Callable[..., Any]:
        def fn(x: Any, y: Any) -> Any:
            differ = w[1] != y
            if x == w[0] or not differ:
                return w[2] * x
            return y if w[0] == w[1] or x in w or w[3] not in w else x + y

        return fn

    arrays = [np.array([0.7, 1.0, -1.3, 2.0]), np.array([-1.3, 0.7, 2.0, 0.4])]
    for fuse in (False, True):
        program = compiled(make, fuse=fuse)
        for theta in THETAS:
            Check(Reference(make, theta, arrays), exact=not fuse).every_call(program)


def test_the_truth_of_a_parameter_that_is_0_is_an_error_as_on_the_scalar_engine():
    program = compiled(lambda w: lambda x: x if w[0] else -x, [1.0])
    assert program([2.0], [3.0]) == [3.0]
    with pytest.raises(TypeError, match="truth of a parameter"):
        program([0.0], [3.0])
    assert program([-1.0], [3.0]) == [3.0]


def test_parameters_are_found_on_the_paths_of_the_first_call():
    a, b = Value(2.0), Value(3.0)
    program = vgrad.compile(lambda x: a * x if x > 0 else b * x * a)
    theta = program.theta([1.0, -1.0])
    assert sorted(theta) == [2.0, 3.0]
    value, gradient = program.value_and_grad(theta, [1.0, -1.0])
    assert value == (2.0 - 6.0) / 2 and sorted(gradient) == [-1.0, -1.0]


@pytest.mark.parametrize("shapes", [NUMBER, PAIR])
def test_data_is_the_number_without_a_gradient(shapes):
    def make(w: list[Any]) -> Callable[..., Any]:
        return lambda *x: w[0].data * x[0] + x[-1].data * w[1] + x[0].data

    arrays = [np.array([1.5, -2.0])] * len(shapes)
    for fuse in (False, True):
        program = compiled(make, fuse=fuse)
        for theta in THETAS:
            Check(Reference(make, theta, arrays), exact=not fuse).every_call(program)


@pytest.mark.parametrize("call", ["__call__", "value_and_grad", "input_grads", "per_sample_grads"])
def test_any_call_may_be_the_first_that_meets_a_path(call):
    case = BRANCHING["nested_ifs"]
    arrays = case.arrays(2, 30)
    warm, cold = compiled(case.make), compiled(case.make)
    warm(THETAS[0], *arrays)
    got, want = (getattr(x, call)(THETAS[0], *arrays) for x in (cold, warm))
    for a, b in zip(np.atleast_1d(got[-1]), np.atleast_1d(want[-1])):
        assert same_bits(a, b)
