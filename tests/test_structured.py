"""Structured programs give the same numbers whichever way they run; `-m long` tries 10,000.

Each is run by the scalar engine, plain, fused, captured, saved, pickled, in tiles and on threads,
in float32 and as derivatives of derivatives; the judge is an engine of the tests' own, which says
what each number is and what its rounding errors are relative to, and PyTorch where it is installed.
"""

from __future__ import annotations

import pickle
import random
import re
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import same_bits, sweep
from reference import ZERO, Extended, Pair, Rough, Run
from structured import BLOCKS, Structured, filled, program, shrunk

import vgrad
from vgrad import Value, ops
from vgrad.compiler import compile_plan
from vgrad.engine import backpropagate

try:
    import torch
except ImportError:
    torch = None

# How far results may be from the judge's, relative to the size of their errors. That counts every
# operation once, and a sum in another order may round somewhat larger parts of it: 45 roundings.
# So whatever the size is less than 100 times as large as keeps 1e-12 of itself. The worst numbers
# of 150 programs were half a rounding off; a wrong term, sign or factor is 1e10 off or so.
BOUND = 45 * 2.0**-52
BOUND_32 = 45 * 2.0**-23
STEP = 1e-5  # of central differences, whose error is its square times the third derivative,
SLOPE_BOUND = 1e-8  # and roundings divided by it
SECOND = 400  # nodes; second derivatives of larger programs take too long


@dataclass
class Results:
    """What the calls of a program return, flat: (M, B), (K, B), (B, P), a number, and (P,)."""

    outputs: Any
    by_input: Any
    by_parameter: Any
    value: Any
    grad: Any


NAMES = [*Results.__annotations__]


def flat(results: Any) -> list[Any]:
    """Outputs in any structure, as a list of numbers."""
    if isinstance(results, tuple | list | np.ndarray):
        return [x for result in results for x in flat(result)]
    return [results]


def columns(arrays: Any) -> np.ndarray:
    """Arrays (B, ...) as rows (K, B)."""
    arrays = arrays if isinstance(arrays, tuple) else (arrays,)
    return np.concatenate([x.reshape(len(x), -1).T for x in arrays])


def run(compiled: vgrad.Program, theta: Any, arrays: list[np.ndarray]) -> Results:
    value, grad = compiled.value_and_grad(theta, *arrays)
    outputs, by_input = compiled(theta, *arrays), compiled.input_grads(theta, *arrays)
    by_parameter = compiled.per_sample_grads(theta, *arrays)
    return Results(columns(outputs), columns(by_input), by_parameter, value, grad)


def arguments(arrays: list[np.ndarray], i: int, make: Any) -> list[Any]:
    """Sample i, each number made into what the function is to run on."""
    return [filled([make(x) for x in a[i].reshape(-1).tolist()], a[i].shape) for a in arrays]


# --- the judge -----------------------------------------------------------------------------------


@dataclass
class Truth:
    """Results of pairs, and how close decisions were."""

    values: Results
    sizes: Results
    margin: float

    @classmethod
    def of(cls, case: Structured, arrays: list[np.ndarray]) -> Truth:
        samples = [judged(case, case.theta(), arrays, i) for i in range(len(arrays[0]))]
        values, sizes = (
            [
                np.array([[getattr(pair, name) for pair in sample[k]] for sample in samples])
                for k in range(3)
            ]
            for name in ("value", "size")
        )
        by_value = Results(values[0].T, values[1].T, values[2], *means(values))
        added = [size + abs(value) for size, value in zip(sizes, values)]  # a mean rounds too
        by_size = Results(sizes[0].T, sizes[1].T, sizes[2], *means(added))
        return cls(by_value, by_size, min(sample[3].margin for sample in samples))

    def assert_has(self, got: Results, context: str, bound: float = BOUND) -> None:
        for name in NAMES:
            assert_close(got, self, name, context, bound)


def means(parts: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Of the objective and its gradient, from outputs (B, M), by_input and by_parameter (B, P)."""
    return parts[0][:, 0].mean(), parts[2].mean(axis=0)


def assert_close(got: Results, truth: Truth, name: str, context: str, bound: float) -> None:
    """One of the results, to the bound, relative to its sizes."""
    x, want, size = (getattr(r, name) for r in (got, truth.values, truth.sizes))
    assert_within(x, want, size, f"{context}, {name}", bound)


def assert_within(got: Any, want: Any, size: Any, context: str, bound: float = BOUND) -> None:
    got, want, size = (np.asarray(x, np.float64) for x in (got, want, size))
    assert got.shape == want.shape, f"{context}: {got.shape}, want {want.shape}"
    share = abs(got - want) / (bound * size + 1e-300)
    assert (share <= 1).all(), (
        f"{context}: {(share > 1).sum()} of {share.size} are off, up to {share.max():.3g} of the "
        f"bound, at {np.argmax(share)}: got {got.flat[np.argmax(share)]}, "
        f"want {want.flat[np.argmax(share)]}"
    )


def judged(
    case: Structured, theta: list[float], arrays: list[np.ndarray], i: int
) -> tuple[list[Pair], list[Pair], list[Pair], Run]:
    """The outputs of sample i, the gradients to its inputs and to theta, and the run."""
    this = Run()
    parameters = [this.leaf(x) for x in theta]
    inputs = arguments(arrays, i, this.leaf)
    results = flat(case.bound(parameters, constant=this.leaf)(*inputs))
    leaves = flat(inputs)
    found = this.gradients(results[0], [*leaves, *parameters])
    outputs = [result.pair for result in results]
    return outputs, found[: len(leaves)], found[len(leaves) :], this


# --- the ways to run a program -------------------------------------------------------------------


@dataclass
class Trial:
    """A program, its numbers, and the truth about them."""

    case: Structured
    arrays: list[np.ndarray]
    truth: Truth
    parameters: list[Value]
    graph: vgrad.Graph
    threads: Executor
    path: Path

    @property
    def theta(self) -> list[float]:
        return self.case.theta()

    def compiled(self, **options: Any) -> vgrad.Program:
        return vgrad.compile(self.graph, **options)

    def scalar(self, i: int) -> tuple[list[Value], list[Value]]:
        """The outputs of sample i as `Value`s, and its inputs."""
        inputs = arguments(self.arrays, i, lambda x: Value(x, trainable=False))
        return flat(self.case.bound(self.parameters)(*inputs)), flat(inputs)


def make_trial(case: Structured, threads: Executor, path: Path) -> Trial:
    rng = random.Random(f"batch of {case.seed}")
    parameters = [Value(x) for x in case.theta()]
    graph = vgrad.trace(case.bound(parameters), *case.shapes.values(), parameters=parameters)
    sizes = [1, 2, 3, 4, 5, 40] if len(graph) < 150 else [1, 2, 4] if len(graph) < 800 else [1, 2]
    arrays = case.batch(rng.choice(sizes))
    return Trial(case, arrays, Truth.of(case, arrays), parameters, graph, threads, path)


def check_scalar(trial: Trial, plain: Results) -> None:
    """The definition is right, and the plain sweep has its values to the bit."""
    by_input, by_parameter = [], []
    for i in range(len(trial.arrays[0])):
        outputs, inputs = trial.scalar(i)
        leaves = [*inputs, *trial.parameters]
        for leaf in leaves:
            leaf.grad = 0.0
        backpropagate(outputs[0])
        by_input.append([leaf.grad for leaf in inputs])
        by_parameter.append([leaf.grad for leaf in trial.parameters])
        assert same_bits(plain.outputs[:, i], [x.data for x in outputs]), f"plain, sample {i}"
    got = Results(plain.outputs, np.transpose(by_input), np.array(by_parameter), 0, 0)
    for name in ("outputs", "by_input", "by_parameter"):
        assert_close(got, trial.truth, name, "scalar", BOUND)


def check_plain(trial: Trial) -> None:
    compiled = trial.compiled(fuse=False)
    plain = run(compiled, trial.theta, trial.arrays)
    trial.truth.assert_has(plain, "plain")
    check_scalar(trial, plain)
    tiled = trial.compiled(fuse=False, tile=1)
    assert same_bits(columns(tiled(trial.theta, *trial.arrays)), plain.outputs), "plain, tile 1"


def check_fused(trial: Trial) -> None:
    """With the function itself, then as a file or a pickle, which change no bit."""
    compiled = vgrad.compile(trial.case.bound(trial.parameters), trial.parameters)
    fused = run(compiled, trial.theta, trial.arrays)
    trial.truth.assert_has(fused, "fused")
    if not trial.case.seed % 4:
        compiled.verify(trial.theta, *trial.arrays, samples=1)
    if trial.case.seed % 2:
        compiled.save(trial.path, trial.theta)
        twin = vgrad.Program.load(trial.path)
    else:
        twin = pickle.loads(pickle.dumps(compiled))
    assert_same(run(twin, twin.theta(), trial.arrays), fused, "saved or pickled")
    (value, outputs), grad = compiled.value_and_grad(trial.theta, *trial.arrays, aux=True)
    assert_close(Results(columns(outputs), 0, 0, 0, 0), trial.truth, "outputs", "aux", BOUND)
    assert_close(Results(0, 0, 0, value, 0), trial.truth, "value", "aux", BOUND)
    assert_close(Results(0, 0, 0, 0, grad), trial.truth, "grad", "aux", BOUND)


def assert_same(got: Results, want: Results, context: str) -> None:
    for name in NAMES:
        assert same_bits(getattr(got, name), getattr(want, name)), f"{context}: other {name}"


def check_tiles(trial: Trial) -> None:
    """The results are those without tiles, beyond rounding, and to the bit on threads."""
    tile = 3 if len(trial.arrays[0]) > 6 else trial.case.seed % 2 * 2 + 1
    tiled = run(trial.compiled(tile=tile), trial.theta, trial.arrays)
    trial.truth.assert_has(tiled, f"tiles of {tile}")
    if len(trial.arrays[0]) > 2 * tile:
        on_threads = trial.compiled(tile=tile, executor=trial.threads)
        assert_same(run(on_threads, trial.theta, trial.arrays), tiled, f"{tile} on threads")


def check_captured(trial: Trial) -> None:
    """The `Value`s of one sample as a graph; then those of the whole batch, added up."""
    outputs, inputs = trial.scalar(0)
    graph = vgrad.capture(*outputs, parameters=trial.parameters, inputs=[inputs])
    first, row = trial.truth, [np.array([[x.data for x in inputs]])]
    for fuse in (False, True):
        got = run(vgrad.compile(graph, fuse=fuse), trial.theta, row)
        context = f"captured, fuse {fuse}"
        for name in ("outputs", "by_input"):
            want, size = (getattr(x, name)[:, :1] for x in (first.values, first.sizes))
            assert_within(getattr(got, name), want, size, f"{context}, {name}")
        assert_within(got.grad, first.values.by_parameter[0], first.sizes.by_parameter[0], context)
        if not fuse:
            assert same_bits(got.outputs[:, 0], [x.data for x in outputs]), context

    objectives = [trial.scalar(i)[0][0] for i in range(len(trial.arrays[0]))]
    total = sum(objectives) * (1 / len(objectives))
    compiled = vgrad.compile(vgrad.capture(total, parameters=trial.parameters))
    value, grad = compiled.value_and_grad(trial.theta)
    got = Results(0, 0, 0, value, grad)
    for name in ("value", "grad"):
        assert_close(got, trial.truth, name, "the whole batch, captured", BOUND)


def check_promise(trial: Trial) -> None:
    """A fused value is within 1e-12 of the scalar engine's wherever that is clearly as accurate."""
    case, compiled = trial.case, trial.compiled()
    fn = case.bound([*map(Extended, trial.theta)], constant=Extended)
    exact = np.array([x.value for x in flat(fn(*arguments(trial.arrays, 0, Extended)))])
    scalar = np.array([x.data for x in trial.scalar(0)[0]])
    fused = columns(compiled(trial.theta, *trial.arrays))[:, 0]
    accurate = abs(scalar - exact) <= 1e-13 * abs(exact)
    gap, allowed = abs(fused - scalar)[accurate], 1e-12 * abs(scalar[accurate])
    assert (gap <= allowed).all(), f"scalar {scalar}, exact {exact}, fused {fused}"


def check_float32(trial: Trial) -> None:
    if trial.case.seed % 2 and trial.truth.margin > BOUND_32:
        got = run(trial.compiled(dtype=np.float32), trial.theta, trial.arrays)
        trial.truth.assert_has(got, "float32", BOUND_32)


def check_slopes(trial: Trial) -> None:
    """The judge's own gradients, by central differences along two random directions."""
    if "stop_gradient" in trial.case.source:  # which differences do not see
        return
    rng = np.random.default_rng(trial.case.seed)
    theta, arrays = np.array(trial.theta), [array[:1] for array in trial.arrays]
    _, _, by_parameter, this = judged(trial.case, theta.tolist(), arrays, 0)
    for _ in range(2):
        along = rng.choice([-1.0, 0.0, 1.0], len(theta))
        up, down = (
            judged(trial.case, (theta + step * along).tolist(), arrays, 0) for step in (STEP, -STEP)
        )
        if up[3].decisions == down[3].decisions == this.decisions:
            slope = (up[0][0].value - down[0][0].value) / (2 * STEP)
            want = sum((Pair(v, 0) * pair for v, pair in zip(along, by_parameter)), ZERO)
            size = want.size + this.nodes[0].pair.size + up[0][0].size
            assert_within(slope, want.value, size, "central differences", SLOPE_BOUND)


def check_second_derivatives(trial: Trial) -> None:
    """A row of the Hessian of one sample, fused, plain and as a product."""
    graph, arrays = trial.graph, [array[:1] for array in trial.arrays]
    leaves = np.concatenate([graph.inputs, graph.parameters])
    first = graph.gradient(leaves)
    if len(graph) > SECOND:
        return
    k = random.Random(trial.case.seed).randrange(len(leaves))
    this, count, n = Run(), len(graph.outputs), len(graph.inputs)
    results, numbers = interpreted(first, this, trial.theta, arrays)
    row = this.gradients(results[count + k], numbers)
    if this.margin < BOUND:
        return
    slopes = [result.pair for result in results[count:]]
    again = np.concatenate([first.inputs, first.parameters])
    second = first.gradient(again, of=count + k)
    for fuse in (False, True):
        got = columns(vgrad.compile(second, fuse=fuse)(trial.theta, *arrays))[count:, 0]
        assert_pairs(got, slopes + row, f"gradient and second derivative {k}, fuse {fuse}")
        if k >= n:
            unit = np.eye(len(leaves))[k, n:]
            compiled = trial.compiled(fuse=fuse)
            got = compiled.hessian_vector_product(trial.theta, unit, *arrays)
            assert_pairs(got, row[n:], f"Hessian product {k}, fuse {fuse}")


def assert_pairs(got: Any, pairs: list[Pair], context: str) -> None:
    assert_within(got, [p.value for p in pairs], [p.size for p in pairs], context)


def interpreted(
    graph: vgrad.Graph, this: Run, theta: list[float], arrays: list[np.ndarray]
) -> tuple[list[Rough], list[Rough]]:
    """A graph node by node: the outputs of the first sample; its inputs and the parameters."""
    numbers = [this.leaf(x) for x in [*flat([a[0].tolist() for a in arrays]), *theta]]
    leaves = dict(zip([*graph.inputs.tolist(), *graph.parameters.tolist()], numbers))
    nodes: list[Rough] = []
    for i, (code, parents) in enumerate(zip(graph.op.tolist(), graph.parents.tolist())):
        op = ops.OPS[code]
        if op.arity:
            nodes.append(op(*(nodes[x] for x in parents[: op.arity])))
        else:
            nodes.append(leaves[i] if i in leaves else this.leaf(float(graph.value[i])))
    return [nodes[i] for i in graph.outputs.tolist()], numbers


# --- PyTorch -------------------------------------------------------------------------------------


def torch_names() -> dict[str, Any]:
    """The functions that programs use, on tensors of no dimensions."""

    def number(x: Any) -> Any:
        return x.to(torch.float64) if torch.is_tensor(x) else torch.tensor(x, dtype=torch.float64)

    def unary(f: Any) -> Any:
        return lambda x: f(number(x))

    def take(rows: Any, index: Any) -> Any:
        return rows[int(index)]

    names = ("tanh", "sigmoid", "relu", "sin", "cos", "exp", "log", "sqrt", "abs")
    functions: dict[str, Any] = {name: unary(getattr(torch, name)) for name in names}
    functions |= {
        "maximum": lambda x, y: torch.maximum(number(x), number(y)),
        "minimum": lambda x, y: torch.minimum(number(x), number(y)),
        "where": lambda c, x, y: torch.where(number(c) != 0, number(x), number(y)),
        "clip": lambda x, low, high: torch.clamp(number(x), low, high),
        "softmax": lambda xs: [*torch.softmax(torch.stack([*map(number, xs)]), 0)],
        "logsumexp": lambda xs: torch.logsumexp(torch.stack([*map(number, xs)]), 0),
        "stop_gradient": lambda x: number(x).detach(),
        "take": take,
    }
    array = SimpleNamespace(array=lambda xs: filled([*xs], (len(xs),)))
    return {"vgrad": SimpleNamespace(**functions), "np": array, "constant": number}


def check_torch(trial: Trial) -> None:
    """Outputs and gradients of the first sample."""

    def leaf(x: float) -> Any:
        return torch.tensor(x, dtype=torch.float64, requires_grad=True)

    parameters = [*map(leaf, trial.theta)]
    inputs = arguments(trial.arrays, 0, leaf)
    # += would change the tensor itself, and so the bias that a sum began with
    source = re.sub(r"total ([+-])= ", r"total = total \1 ", trial.case.source)
    fn = replace(trial.case, source=source).bound(parameters, **torch_names())
    outputs = flat(fn(*inputs))
    leaves = [*flat(inputs), *parameters]
    grads: Any = [None] * len(leaves)
    if outputs[0].requires_grad:
        grads = torch.autograd.grad(outputs[0], leaves, allow_unused=True)
    got = [0.0 if g is None else float(g) for g in grads]
    n, truth = len(flat(inputs)), trial.truth
    for name, x, part in (
        ("outputs", [float(x.detach()) for x in outputs], np.s_[:, 0]),
        ("by_input", got[:n], np.s_[:, 0]),
        ("by_parameter", got[n:], np.s_[0]),
    ):
        want, size = (getattr(results, name)[part] for results in (truth.values, truth.sizes))
        assert_within(x, want, size, f"torch, {name}")


# --- the tests -----------------------------------------------------------------------------------

CHECKS = [
    *(check_plain, check_fused, check_tiles, check_captured, check_float32, check_slopes),
    *(check_second_derivatives, *([check_promise] if np.finfo(np.longdouble).eps < 1e-18 else [])),
    *([check_torch] if torch else []),
]
BLOCK = 6


def check(case: Structured, threads: Executor, path: Path) -> bool:
    """Every check of one program; whether it told something, as no decision was too close."""
    trial = make_trial(case, threads, path)
    told = trial.truth.margin > BOUND  # else it may go the other way in another order
    for some in CHECKS if told else [check_plain]:
        some(trial)
    return told


def explained(case: Structured, threads: Executor, path: Path) -> bool:
    """The same; an error shows the program, and how few of its lines fail too."""

    def fails(fewer: Structured) -> bool:
        try:
            check(fewer, threads, path)
        except AssertionError:
            return True
        except Exception:
            return False  # a line is gone that others need
        return False

    try:
        return check(case, threads, path)
    except Exception as error:
        raise AssertionError(f"{error}\n\n{case}\n{shrunk(case, fails)}") from error


@pytest.mark.parametrize("block", sweep(1000, 1), ids=lambda k: f"{BLOCK * k}")
def test_structured_programs(block, tmp_path):
    """6 programs to a block, every way to run them."""
    with ThreadPoolExecutor(2) as threads:
        seeds = range(BLOCK * block, BLOCK * (block + 1))
        telling = sum(explained(program(k), threads, tmp_path / "program.npz") for k in seeds)
    assert telling >= 0.7 * BLOCK


def test_the_programs_make_every_kind_of_kernel():
    """And of block, so that the test above is of what it says."""
    kernels, blocks = set(), set()
    for seed in range(60):
        case = program(seed)
        graph = vgrad.trace(case.bound([*map(Value, case.theta())]), *case.shapes.values())
        kernels |= {kernel.name for kernel in compile_plan(graph).summary().kernels}
        blocks |= {*case.blocks}
    assert blocks == {block.__name__ for block in BLOCKS}
    sums = {"matmul", "einsum", "stack", "chain", "sum"}
    assert kernels >= sums | {"mul", "tanh", "exp", "maximum", "where", "pow", "div"}


def test_a_check_of_programs_can_fail():
    """Any number of any result is found where it is 1e-9 of its size off."""
    case = program(5)
    truth = Truth.of(case, case.batch(2))
    truth.assert_has(truth.values, "as it is")
    for name in NAMES:
        value, size = (np.array(getattr(x, name)) for x in (truth.values, truth.sizes))
        for k in np.ndindex(value.shape):
            planted = value.copy()
            planted[k] += 1e-9 * size[k] + 1e-290
            with pytest.raises(AssertionError, match=f"planted, {name}"):
                truth.assert_has(replace(truth.values, **{name: planted}), "planted")


def test_a_program_is_cut_down_to_the_lines_that_fail():
    """The block that has an exponential, and what that needs."""
    case = next(x for x in map(program, range(99)) if "vgrad.exp(s)" in x.source)

    def fails(fewer: Structured) -> bool:
        return "vgrad.exp(s)" in fewer.source and "return" in fewer.source

    few = shrunk(case, fails).source.splitlines()
    assert len(few) < 8 < len(case.source.splitlines())
    assert few[0].startswith("def") and few[-1].startswith("    return")
    assert not fails(replace(case, source="\n".join(few[:-1])))
