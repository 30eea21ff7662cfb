"""The scalar engine as the judge: how far from it the vector engine's results are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite, isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..engine import Value, backpropagate
from ..errors import ParityError
from ..program import Call, Program, Replay, Runner

# How large a gap may be, relative to what the number would be if nothing cancelled: to the sum of
# the sizes of all that it is made of. Rounding errors are relative to that. In float64 it is 4,500
# roundings, which sums in another order stay below even where 1 - tanh**2 loses digits, and as many
# in float32.
BOUNDS = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 5e-4}
LEAST = {np.dtype(np.float64): 1e-320, np.dtype(np.float32): 1e-42}  # among the subnormals


_ADVICE = {
    np.dtype(np.float64): "please report this function and these numbers",
    np.dtype(np.float32): "where float32 is too narrow, or a condition lies within its rounding, "
    "compile with dtype=np.float64",
}


@dataclass(frozen=True)
class Gap:
    """A number of the vector engine's, and that of the scalar engine's."""

    where: str
    got: float
    want: float
    allowed: float  # the largest gap between them that the bound permits
    spacing: float  # a unit in the last place, at what is wanted

    @property
    def ulps(self) -> float:
        """The gap in units in the last place; inf where one is not finite."""
        return self._per(self.spacing)

    @property
    def relative(self) -> float:
        """The gap relative to what is wanted; inf where one is not finite."""
        return self._per(abs(self.want))

    @property
    def share(self) -> float:
        """The gap as a share of what is allowed: over 1 is too much."""
        return self._per(self.allowed)

    def _per(self, unit: float) -> float:
        if self.got == self.want or (isnan(self.got) and isnan(self.want)):
            return 0.0
        if not (isfinite(self.got) and isfinite(self.want) and unit):
            return inf
        return abs(self.got - self.want) / unit


@dataclass(frozen=True)
class Verification:
    """What `Program.verify` found; text says it in one line."""

    samples: int
    numbers: int
    worst: Gap  # by share of its bound

    def __str__(self) -> str:
        where = f", at {self.worst.where}" if self.worst.ulps else ""
        return (
            f"{self.samples} samples, {self.numbers:,} numbers agree with the scalar engine's: "
            f"worst gap {self.worst.ulps:.3g} ulp, relative error {self.worst.relative:.2g}, "
            f"{self.worst.share:.2g} of the bound{where}"
        )


def verify(
    program: Program, theta: Any, *arrays: Any, samples: int = 16, seed: int = 0
) -> Verification:
    """Compare some samples' results with the scalar engine's, and report the worst gap.

    Outputs and gradients of `samples` samples, drawn with `seed`, are computed by both. Raises
    ParityError where a gap is over its bound, of `BOUNDS`, and as a call does.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x: vgrad.tanh(w * x), parameters=[w])
    >>> print(program.verify([3.0], np.linspace(-1, 1, 100)))  # doctest: +ELLIPSIS
    16 samples, 49 numbers agree with the scalar engine's: worst gap ...
    """
    call = program.prepared(theta, arrays, scalar=True)
    if not ops.is_count(samples):
        raise ValueError(f"samples must be how many to compare, 1 or more (got {samples!r})")
    chosen = np.random.default_rng(seed).permutation(call.batch)[:samples]
    chosen.sort()
    part = call._replace(arrays=[x[chosen] for x in call.arrays], batch=len(chosen))
    gaps = list(_gaps(part, chosen))
    worst = max(gaps, key=lambda gap: gap.share)
    if worst.share > 1:
        raise ParityError(
            f"results must agree with the scalar engine's to {BOUNDS[call.runner.dtype]} of the "
            f"size of what they are made of (got {worst.got} for {worst.want}, {worst.ulps:.3g} "
            f"ulp apart, at {worst.where}); {_ADVICE[call.runner.dtype]}"
        )
    return Verification(len(chosen), len(gaps), worst)


class _Bounds:
    """What one engine may be off."""

    def __init__(self, runner: Runner) -> None:
        self.dtype = runner.dtype
        self.bound, self.least = BOUNDS[runner.dtype], LEAST[runner.dtype]
        self.exact = not runner.fuse and runner.dtype == np.float64  # the very bits, forward

    def gap(self, where: str, got: float, want: float, scale: float, exact: bool = False) -> Gap:
        """A number beside the one wanted, whose rounding errors are relative to `scale`."""
        allowed = 0.0 if exact and self.exact else self.bound * min(scale, 1e308) + self.least
        with np.errstate(all="ignore"):
            spacing = abs(float(np.spacing(self.dtype.type(want))))
            if isfinite(want) and not np.isfinite(self.dtype.type(want)):
                want = self.dtype.type(want).item()  # what the dtype cannot hold
        return Gap(where, got, want, allowed, spacing)


def _gaps(call: Call, numbers: NDArray[np.intp]) -> Iterator[Gap]:
    """Of every output and gradient of every sample, and of the mean gradient."""
    runner, graph = call.runner, call.runner.graph
    outputs = call.outputs()
    by_leaf = np.concatenate([call.input_gradients()[1], call.parameter_gradients()[1]])
    leaves = np.concatenate([graph.inputs, graph.parameters])
    names = [f"input {k}" for k in range(len(graph.inputs))]
    names += [f"parameter {k}" for k in range(len(graph.parameters))]
    # How errors spread is read off the graph of the gradients, whose outputs these are.
    derived = graph.gradient(leaves) if len(leaves) else graph
    bounds, totals = _Bounds(runner), []
    for i, number in enumerate(numbers.tolist()):
        replay, where = Replay(call, i), f"sample {number}"
        scales = error_scales(derived.to_values(call.theta.tolist(), replay.sample))
        scale = [scales[k] for k in derived.outputs.tolist()]
        for k, got in enumerate(outputs[:, i].tolist()):
            want = replay.root(k)._data
            yield bounds.gap(f"output {k}, {where}", got, want, scale[k], exact=True)
        backpropagate(replay.root())
        wants = [x.grad for x in replay.leaves(leaves)]
        scale = scale[len(outputs) :]
        for name, got, want, size in zip(names, by_leaf[:, i].tolist(), wants, scale):
            yield bounds.gap(f"gradient to {name}, {where}", got, want, size)
        totals.append((wants, scale))
    _, mean, _ = call.gradient(call.batch)
    with np.errstate(all="ignore"):
        wants, scale = np.mean(totals, axis=0)[:, len(graph.inputs) :].tolist()
    for name, got, want, size in zip(names[len(graph.inputs) :], mean.tolist(), wants, scale):
        if isfinite(want):  # else what is shared may be finite, where the gradients meet
            yield bounds.gap(f"mean gradient to {name}", got, want, size)


def error_scales(nodes: list[Value]) -> list[float]:
    """For each node of a graph, in order, what its rounding errors are relative to.

    That is the size of each node on the way to it, carried on by the ops' derivatives and summed:
    to first order the effect that a relative error of 1 in each of them would have.
    """
    scale: dict[Value, float] = {}
    for node in nodes:
        data = [x._data for x in node.parents]
        size = abs(node._data)
        for x, vjp in zip(node.parents, node.op.vjp):
            if vjp is not None and x.op is not ops.const:  # which is what it is
                part = ops.evaluate(vjp, 1.0, node._data, *data)
                size += 0.0 if part == 0 else abs(part) * scale[x]
        scale[node] = inf if isnan(size) else size
    return [scale[node] for node in nodes]
