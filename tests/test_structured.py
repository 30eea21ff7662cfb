"""Programs as people write them: every way to run one agrees with every other."""

from __future__ import annotations

import importlib.util
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import assert_gradients_match, assert_values_match, backward_with_scale, same_bits
from structured import Structured

import vgrad
from vgrad import Value

PROGRAMS = 10_000
BLOCK = 20  # programs to a test


def blocks(count: int, slice_: int) -> list[Any]:
    return [k if k < slice_ else pytest.param(k, marks=pytest.mark.long) for k in range(count)]


def as_values(sample: Any) -> Any:
    return np.vectorize(Value, otypes=[object])(sample)[()]


@pytest.mark.parametrize("block", blocks(PROGRAMS // BLOCK, 1))
def test_every_way_to_run_a_program_agrees(block, tmp_path):
    """10,000 programs in all; the bounds are those of the helpers, and stated there."""
    for seed in range(BLOCK * block, BLOCK * block + BLOCK):
        program = Structured(seed)
        context = f"seed {seed}: {program}"
        batch = [1, 2, 3, 5, 40][seed % 5]
        data = program.data(batch, seed)
        try:
            run_every_way(program, data, seed, context, tmp_path)
        except AssertionError as error:
            raise AssertionError(f"{context}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{context}: {error!r}") from error


def run_every_way(program: Structured, data: list[Any], seed: int, context: str, path: Any) -> None:
    parameters = program.parameters
    fused, plain = (vgrad.compile(program, parameters, fuse=fuse) for fuse in (True, False))
    theta = fused.theta()
    fused.verify(theta, *data, samples=2)
    got, want = fused(theta, *data), plain(theta, *data)
    value, gradient = fused.value_and_grad(theta, *data)
    by_scalar(program, data, (got, want), fused, context)
    again(fused, plain, theta, data, (got, value, gradient), seed, path)
    if seed % 3 == 0 and parameters:
        higher(program, fused, theta, data, context)


def by_scalar(program: Structured, data: list[Any], results: Any, fused: Any, context: str) -> None:
    """One sample on the scalar engine, which the plain sweep equals to the bit, and captured."""
    arguments = [as_values(x[0]) for x in data]
    leaves = [*(x for a in arguments for x in np.ravel(a)), *program.parameters]
    roots = program(*arguments)
    fused_outputs, plain_outputs = ([x[:1] for x in result] for result in results)
    assert same_bits(plain_outputs, [[root.data] for root in roots])
    assert_values_match(fused_outputs, list(roots), context)
    want, scale = backward_with_scale(roots[0], leaves)
    theta, sample = fused.theta(), [x[:1] for x in data]
    by_input = [x for a in fused.input_grads(theta, *sample) for x in np.ravel(a)]
    close([*by_input, *fused.per_sample_grads(theta, *sample)[0]], want, 1e-9)
    graph = vgrad.capture(*roots, parameters=leaves)
    captured = vgrad.compile(graph)
    captured.verify(captured.theta())
    close(captured.value_and_grad(captured.theta())[1], want, 1e-9)
    exact = vgrad.compile(graph, fuse=False)
    outputs = exact(exact.theta())
    assert same_bits(np.ravel(outputs), [root.data for root in roots])
    assert_gradients_match(exact.value_and_grad(exact.theta())[1], want, scale, context)


def close(got: Any, want: Any, bound: float) -> None:
    """To a bound relative to the largest number, or 1.

    Gradients pass on roundings of 1e-16 that a tanh close to 1 makes 1e5 times as large, and the
    next one again; `verify`, which knows by how much, looks more closely.
    """
    got, want = np.asarray(got), np.asarray(want)
    assert (np.abs(got - want) <= bound * (1 + np.abs(want).max(initial=0))).all(), (got, want)


def again(
    fused: Any, plain: Any, theta: Any, data: list[Any], results: Any, seed: int, path: Any
) -> None:
    """Saved and loaded, pickled, and by an executor: the same bits; in tiles, but for roundings."""
    got, value, gradient = results
    fused.save(path / "program.npz")
    for other in (vgrad.Program.load(path / "program.npz"), pickle.loads(pickle.dumps(fused))):
        assert all(map(same_bits, other(theta, *data), got))
        assert same_bits(other.value_and_grad(theta, *data)[1], gradient)
    tile = 1 + seed % 4
    with ThreadPoolExecutor(2) as pool:
        tiled = [
            vgrad.compile(plain._fn, plain._parameters, tile=tile, executor=executor)
            for executor in (None, pool)
        ]
        results = [x.value_and_grad(theta, *data) for x in tiled]
    assert results[0][0] == results[1][0] and same_bits(results[0][1], results[1][1])
    close(results[0][0], value, 1e-9)
    close(results[0][1], gradient, 1e-9)


def higher(program: Structured, fused: Any, theta: Any, data: list[Any], context: str) -> None:
    """The product of the Hessian and a direction: fused, plain, and by another graph."""
    few = [x[:2] for x in data]
    v = np.cos(np.arange(len(theta)))
    graph = vgrad.trace(program, *program.shapes, parameters=program.parameters)
    derived = graph.gradient()
    first = len(graph.outputs)
    fused_derived, plain_derived = (vgrad.compile(derived, fuse=fuse) for fuse in (True, False))
    got, want = (x(theta, *few)[-1].mean(axis=0) for x in (fused_derived, plain_derived))
    close(got, want, 1e-9)
    close(fused.value_and_grad(theta, *few)[1], want, 1e-9)
    second = derived.gradient(of=first)  # of the derivative to the first parameter
    row, by_plain = (
        vgrad.compile(second, fuse=fuse)(theta, *few)[-1].mean(axis=0) for fuse in (True, False)
    )
    product = fused.hessian_vector_product(theta, np.eye(len(theta))[0], *few)
    close(row, by_plain, 1e-8)
    close(product, by_plain, 1e-8)
    # Differences see what stop_gradient hides, and kinks, of which relu makes some. Their own error
    # is that of the third derivative times 1e-12, and of roundings by 1e-6.
    others = "still branches pooling embedding hinge dense convolution"
    if not any(name in repr(program) for name in others.split()):
        up, down = (plain_derived(theta + s * 1e-6 * v, *few)[-1].mean(axis=0) for s in (1, -1))
        close(fused.hessian_vector_product(theta, v, *few), (up - down) / 2e-6, 1e-4)


def test_the_programs_take_every_kernel():
    """So that the tests above hold something: of each kind many."""
    kinds: Counter[str] = Counter()
    names: Counter[str] = Counter()
    for seed in range(80):
        program = Structured(seed)
        compiled = vgrad.compile(program, program.parameters)
        compiled.theta(*program.data(3, seed))
        (runner,) = compiled.runners.values()
        kinds.update({kernel.name for kernel in runner.plan.kernels})
        names.update(name for name, _ in program.blocks)
    assert all(kinds[kind] >= 8 for kind in ("matmul", "einsum", "chain", "sum")), kinds
    assert kinds["stack"] >= 3 and len(names) == 15


class OfTorch:
    """The functions of the programs, of PyTorch."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        for name in ("tanh", "relu", "sigmoid", "sin", "cos", "exp", "log", "sqrt"):
            setattr(self, name, getattr(torch, name))

    def softmax(self, xs: Any) -> Any:
        return list(self.torch.softmax(self.torch.stack(list(xs)), 0))

    def logsumexp(self, xs: Any) -> Any:
        return self.torch.logsumexp(self.torch.stack(list(xs)), 0)

    def _all(self, *xs: Any) -> list[Any]:
        return [self.torch.as_tensor(x, dtype=self.torch.float64) for x in xs]

    def maximum(self, x: Any, y: Any) -> Any:
        return self.torch.maximum(*self._all(x, y))

    def minimum(self, x: Any, y: Any) -> Any:
        return self.torch.minimum(*self._all(x, y))

    def clip(self, x: Any, low: float, high: float) -> Any:
        return self.torch.clamp(x, low, high)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        return self.torch.where(condition, *self._all(x, y))

    def stop_gradient(self, x: Any) -> Any:
        return x.detach()

    def take(self, rows: Any, index: Any) -> Any:
        return rows[int(index)]


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
@pytest.mark.parametrize("block", blocks(PROGRAMS // BLOCK // 10, 1))
def test_pytorch_finds_the_same(block):
    """In float64, to the roundings of programs of some hundred steps."""
    torch = importlib.import_module("torch")
    for seed in range(BLOCK * block, BLOCK * block + BLOCK):
        program = Structured(seed)
        data = program.data(1, seed)
        compiled = vgrad.compile(program, program.parameters)
        theta = compiled.theta()
        value, gradient = compiled.value_and_grad(theta, *data)
        leaf = partial(torch.tensor, dtype=torch.float64, requires_grad=True)
        twin = Structured(seed, leaf, OfTorch(torch))
        root = twin(*(np.vectorize(leaf, otypes=[object])(x[0])[()] for x in data))[0]
        assert float(root) == pytest.approx(value, rel=1e-10, abs=1e-10), f"seed {seed}: {program}"
        if not program.parameters:
            continue
        found = torch.autograd.grad(root, twin.parameters, allow_unused=True)
        want = [0.0 if x is None else float(x) for x in found]
        scale = 1 + np.abs(want).max()
        assert (np.abs(gradient - want) <= 1e-9 * scale).all(), f"seed {seed}: {program}"
