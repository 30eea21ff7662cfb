"""The scalar engine as the judge: how far the vector engine's results are from its own."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, isnan
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array
from ..engine import Value, backpropagate
from ..errors import ParityError
from ..program import Call, Program, Replay

# How large a gap may be, relative to the sum of the sizes of all terms that the number is made of,
# as rounding errors are. It is 4,500 roundings, of float64 or float32: sums in another order stay
# below that even where 1 - tanh**2 loses digits.
BOUNDS = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 5e-4}
LEAST = {np.dtype(np.float64): 1e-320, np.dtype(np.float32): 1e-42}  # among the subnormals
ADVICE = {
    np.dtype(np.float64): "please report this function and these numbers",
    np.dtype(np.float32): "where float32 is too narrow, or a condition lies within its rounding, "
    "compile with dtype=np.float64",
}


@dataclass(frozen=True)
class Gap:
    """A number from the vector engine, and the same number from the scalar engine."""

    where: str
    got: float
    want: float
    allowed: float  # how far apart they may be
    spacing: float  # a unit in the last place of `want`

    @property
    def ulps(self) -> float:
        """The gap in units in the last place; inf if either is not finite."""
        return self._per(self.spacing)

    @property
    def relative(self) -> float:
        """The gap relative to the wanted number; inf if either is not finite."""
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
    """The report of `Program.verify`; its text is one line."""

    samples: int
    numbers: int
    worst: Gap  # the largest share of its bound

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
    """Compare the results for some samples with the scalar engine's, and report the worst gap.

    Both engines compute the outputs and gradients of `samples` samples, drawn with `seed`. Raises
    ParityError if a gap exceeds the bound in `BOUNDS`, and what a call raises.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x: vgrad.tanh(w * x), parameters=[w])
    >>> print(program.verify([3.0], np.linspace(-1, 1, 100)))  # doctest: +ELLIPSIS
    16 samples, 49 numbers agree with the scalar engine's: worst gap ...
    """
    call = program.prepared(theta, arrays, scalar=True)
    if not ops.is_count(samples):
        raise ValueError(f"samples must be how many to compare, 1 or more (got {samples!r})")
    chosen = np.sort(np.random.default_rng(seed).permutation(call.batch)[:samples])
    gaps = _gaps(call.some(chosen), chosen.tolist())
    worst = max(gaps, key=lambda gap: gap.share)
    if worst.share > 1:
        raise ParityError(
            f"results must agree with the scalar engine's to {BOUNDS[call.runner.dtype]} of the "
            f"size of what they are made of (got {worst.got} for {worst.want}, {worst.ulps:.3g} "
            f"ulp apart, at {worst.where}); {ADVICE[call.runner.dtype]}"
        )
    return Verification(len(chosen), len(gaps), worst)


def _gaps(call: Call, numbers: list[int]) -> list[Gap]:
    """The gaps of all outputs and gradients of each sample, then those of the mean gradient."""
    graph, dtype = call.runner.graph, call.runner.dtype
    counts = len(graph.outputs), len(graph.inputs), len(graph.parameters)
    kinds = zip(("output", "gradient to input", "gradient to parameter"), counts)
    names = [f"{kind} {k}" for kind, count in kinds for k in range(count)]
    _, by_input = call.input_gradients()
    _, by_parameter = call.parameter_gradients()
    _, mean, _ = call.gradient(divisor=call.batch)
    got = np.concatenate([call.outputs(), by_input, by_parameter]).T
    want, scale = _by_values(call)
    where = [f"{name}, sample {number}" for number in numbers for name in names]
    exact = 0 if call.runner.fuse or dtype != np.float64 else counts[0]
    gaps = _paired(where, got, want, scale, dtype, exact)
    first = sum(counts[:2])
    with np.errstate(all="ignore"):
        want, scale = (x.mean(axis=0)[first:] for x in (want, scale))
    means = _paired([f"mean {name}" for name in names[first:]], mean, want, scale, dtype)
    # An infinite mean says nothing: gradients may cancel before they pass through shared nodes.
    return gaps + [gap for gap, finite in zip(means, np.isfinite(want)) if finite]


def _by_values(call: Call) -> tuple[Array, Array]:
    """The same numbers from the scalar engine, (B, N), and the scales of their rounding errors."""
    graph, want, scale = call.runner.graph, [], []
    leaves = np.concatenate([graph.inputs, graph.parameters])
    # The graph of the gradients, whose outputs are the same numbers, tells how errors spread.
    derived = graph.gradient(leaves) if len(leaves) else graph
    for i in range(call.batch):
        replay = Replay(call, i)
        scales = error_scales(derived.to_values(call.theta.tolist(), replay.sample))
        scale.append([scales[k] for k in derived.outputs.tolist()])
        backpropagate(replay.root())
        outputs = [replay.root(k)._data for k in range(len(graph.outputs))]
        want.append([*outputs, *(x.grad for x in replay.leaves(leaves))])
    return np.array(want), np.array(scale)


def _paired(
    where: list[str], got: Array, want: Array, scale: Array, dtype: np.dtype[Any], exact: int = 0
) -> list[Gap]:
    """The gap of each number; the first `exact` numbers of each row must be equal."""
    allowed = BOUNDS[dtype] * np.minimum(scale, 1e308) + LEAST[dtype]
    allowed[..., :exact] = 0.0
    with np.errstate(all="ignore"):
        rounded = want.astype(dtype)
        spacing = abs(np.spacing(rounded))
    want = np.where(np.isfinite(want) & np.isinf(rounded), rounded, want)  # too large for the dtype
    columns = (x.ravel().tolist() for x in (got, want, allowed, spacing))
    return [Gap(*row) for row in zip(where, *columns)]


def error_scales(nodes: list[Value]) -> list[float]:
    """For each node of a graph, in order, the size that its rounding errors are relative to.

    It is the effect, to first order, of a relative error of 1 in every node before it: the sum of
    their sizes, each carried on by the derivatives of the ops.
    """
    scale: dict[Value, float] = {}
    for node in nodes:
        data = [x._data for x in node.parents]
        size = abs(node._data)
        for x, vjp in zip(node.parents, node.op.vjp):
            if vjp is not None and x.op is not ops.const:  # constants are exact
                part = ops.evaluate(vjp, 1.0, node._data, *data)
                size += 0.0 if part == 0 else abs(part) * scale[x]
        scale[node] = inf if isnan(size) else size
    return [scale[node] for node in nodes]
