"""The scalar engine as the judge: how far the vector engine's results are from its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isnan
from typing import Any

import numpy as np

from .. import ops
from ..arguments import Array
from ..engine import Value, backpropagate
from ..errors import ParityError
from ..flat import FROM_INPUTS, Graph, SweepSummary, origins
from ..program import Call, Program, Replay, parameter_name

# How large a gap may be, relative to the sizes of all that is rounded in another way than by the
# scalar engine: of float64 the terms of sums in another order, as of a matrix product, and parts of
# gradients; of float32 everything. Whatever is computed from exact numbers alone must be equal. It
# is 4,500 roundings: sums in another order stay below that even where 1 - tanh**2 loses digits.
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
    """The report of `Program.verify`; its text is one line.

    >>> import vgrad
    >>> program = vgrad.compile(lambda x: x + 1, parameters=[])
    >>> report = program.verify([], [1.0, 2.0])
    >>> report.samples, report.numbers, report.worst.ulps
    (2, 4, 0.0)
    """

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
    program: Program, theta: Any, *arrays: Any, samples: int = 16, seed: int = 0, **named: Any
) -> Verification:
    """Compare the results for some samples with the scalar engine's, and report the worst gap.

    Both engines compute the outputs and gradients of `samples` samples, drawn with `seed`, and what
    is added `once`. Raises ParityError if a gap exceeds the bound in `BOUNDS`, or if a sample takes
    another path than on the scalar engine, ValueError unless `samples` is 1 or more, and what a
    call raises.

    >>> import vgrad
    >>> w = vgrad.Value(3.0)
    >>> program = vgrad.compile(lambda x: vgrad.tanh(w * x), parameters=[w])
    >>> print(program.verify([3.0], np.linspace(-1, 1, 100)))  # doctest: +ELLIPSIS
    16 samples, 49 numbers agree with the scalar engine's: worst gap ...
    """
    call = program.prepared(theta, arrays, named, scalar=True)
    if not ops.is_count(samples):
        raise ValueError(f"samples must be how many to compare, 1 or more (got {samples!r})")
    chosen = np.sort(np.random.default_rng(seed).permutation(call.batch)[:samples])
    gaps, sizes = [], {id(part.runner): part.batch for part in call.parts()}
    for few in call.some(chosen).parts():
        part = few._replace(runner=few.runner.as_for(sizes.get(id(few.runner), few.batch)))
        numbers = (chosen if part.numbers is None else chosen[part.numbers]).tolist()
        _require_path(part, numbers)
        gaps += _gaps(part, numbers)
    worst = max(gaps, key=lambda gap: gap.share)
    if worst.share > 1:
        raise ParityError(
            f"results must agree with the scalar engine's to {BOUNDS[call.runner.dtype]} of the "
            f"size of what they are made of (got {worst.got} for {worst.want}, {worst.ulps:.3g} "
            f"ulp apart, at {worst.where}); {ADVICE[call.runner.dtype]}"
        )
    found = Verification(len(chosen), len(gaps), worst)
    if program.once is not None:
        alone = verify(program.once, theta)
        worst = max(worst, alone.worst, key=lambda gap: gap.share)
        found = Verification(len(chosen), len(gaps) + alone.numbers, worst)
    return found


def _require_path(call: Call, numbers: list[int]) -> None:
    """Raise ParityError unless the scalar engine answers as the path of these samples does."""
    graph = call.runner.graph
    first = len(graph.outputs) - len(graph.questions)
    for sample in range(call.batch if graph.questions else 0):
        replay = Replay(call, sample)
        for k, question in enumerate(graph.questions):
            answer = replay.root(first + k)._number
            if answer != question.answer:
                raise ParityError(
                    f"a sample must take the path that it takes on the scalar engine (got "
                    f"{question.answer} for {answer} at {question.line}, sample "
                    f"{numbers[sample]}); {ADVICE[call.runner.dtype]}"
                )


def _gaps(call: Call, numbers: list[int]) -> list[Gap]:
    """The gaps of all outputs and gradients of each sample, then those of the mean gradient."""
    graph, dtype = call.runner.graph, call.runner.dtype
    counts = len(graph.outputs), len(graph.inputs), len(graph.parameters)
    names = [f"output {k}" for k in range(counts[0])]
    names += [f"gradient to input {k}" for k in range(counts[1])]
    names += [f"gradient to {parameter_name(graph, k)}" for k in range(counts[2])]
    _, by_input = call.input_gradients()
    _, by_parameter = call.parameter_gradients()
    _, mean, _ = call.gradient(divisor=call.batch)
    got = np.concatenate([call.outputs(), by_input, by_parameter]).T
    want, scale = _by_values(call)
    where = [f"{name}, sample {number}" for number in numbers for name in names]
    gaps = _paired(where, got, want, scale, dtype)
    first = sum(counts[:2])
    with np.errstate(all="ignore"):
        scale = scale + abs(want)  # as the mean rounds too
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
    rounds, bound = _rounded_anew(call, derived), BOUNDS[call.runner.dtype]
    for i in range(call.batch):
        replay = Replay(call, i)
        values = derived.to_values(call.theta.tolist(), replay.sample)
        scales = error_scales(values, rounds, bound)
        scale.append([scales[k] for k in derived.outputs.tolist()])
        backpropagate(replay.root())
        outputs = [replay.root(k)._number for k in range(len(graph.outputs))]
        want.append([*outputs, *(x.grad for x in replay.leaves(leaves))])
    return np.array(want), np.array(scale)


def _rounded_anew(call: Call, derived: Graph) -> list[bool]:
    """Which nodes of the graph of gradients may have other roundings than the scalar engine's.

    Of those that compute the outputs, the ones that the sweep does not claim to be exact; of those
    that compute gradients, all.
    """
    graph, anew = call.runner.graph, [True] * len(derived)
    if call.runner.dtype != np.float64:
        return anew
    inexact = _inexact(call.runner.summary(call.batch), graph)
    pairs = list(zip(derived.outputs.tolist(), graph.outputs.tolist()))
    seen: dict[int, int] = {}
    while pairs:
        node, own = pairs.pop()
        if node >= 0 and node not in seen:
            seen[node], anew[node] = own, inexact[own]
            pairs += zip(derived.parents[node].tolist(), graph.parents[own].tolist())
    return anew


def _inexact(summary: SweepSummary, graph: Graph) -> list[bool]:
    """Which nodes are computed by a kernel that is not exact, as they are or as parts of others."""
    inexact = np.zeros(summary.nodes, bool)
    for kernel in summary.kernels:
        inexact[kernel.nodes] = not kernel.exact
    own = inexact[summary.stands].tolist()
    return [x and not keeps for x, keeps in zip(own, _keep_order(graph))]


def _keep_order(graph: Graph) -> list[bool]:
    """Which nodes are in sums that must keep their order, whatever a sweep claims.

    These are the plainest of those that `compile` promises to keep: sums of leaves alone, and sums
    that subtract a number that they add. The tree of a sum has the sums that no other node uses.
    """
    n, inputs = len(graph), origins(graph) & FROM_INPUTS
    uses = np.bincount(np.append(graph.parents[graph.parents >= 0], graph.outputs), minlength=n)
    root, sign = list(range(n)), [1] * n
    numbers: dict[int, set[tuple[Any, int]]] = {}
    for node in range(n - 1, -1, -1):
        signs = ops.OPS[graph.op[node]].signs
        for parent, own in zip(graph.parents[node].tolist(), signs):
            own *= sign[node]
            is_sum = bool(ops.OPS[graph.op[parent]].signs)
            if is_sum and uses[parent] == 1 and inputs[parent] == inputs[node]:
                root[parent], sign[parent] = root[node], own
                continue
            is_constant = graph.op[parent] == ops.const.code
            number = ("constant", float(graph.value[parent])) if is_constant else parent
            numbers.setdefault(root[node], set()).add((number, own))
    keep = {
        tree
        for tree, terms in numbers.items()
        if any((number, -own) in terms for number, own in terms)
        or all(isinstance(x, tuple) or not graph.level[x] for x, _ in terms)
    }
    return [x in keep for x in root]


def _paired(
    where: list[str], got: Array, want: Array, scale: Array, dtype: np.dtype[Any]
) -> list[Gap]:
    """The gap of each number; where nothing is rounded in another way, they must be equal."""
    allowed = BOUNDS[dtype] * np.minimum(scale, 1e308) + np.where(scale > 0, LEAST[dtype], 0.0)
    with np.errstate(all="ignore"):
        rounded = want.astype(dtype)
        spacing = abs(np.spacing(rounded))
    want = np.where(np.isfinite(want) & np.isinf(rounded), rounded, want)  # too large for the dtype
    columns = (x.ravel().tolist() for x in (got, want, allowed, spacing))
    return [Gap(*row) for row in zip(where, *columns)]


def error_scales(
    nodes: list[Value], rounds: Sequence[bool] | None = None, bound: float = 1e-12
) -> list[float]:
    """For each node of a graph, in order, the size that its rounding errors are relative to.

    It is the effect of a relative error of `bound` in every node that `rounds`, by default all, and
    in those computed from it: the sum of their sizes, each carried on by the derivatives of the
    ops. A sum that rounds may be added up in another order, so its terms count as well. Derivatives
    are taken where they are largest within the errors of the operands, as that of a square at 0
    would say that it has none.
    """
    scale: dict[Value, float] = {}
    for k, node in enumerate(nodes):
        errors = [0.0 if x.op is ops.const else scale[x] for x in node.parents]
        size = abs(node._number) if any(errors) or rounds is None or rounds[k] else 0.0
        if rounds is not None and rounds[k] and node.op.signs:
            size += sum(abs(x._number) for x in node.parents)
        scale[node] = size + (_carried(node, errors, bound) if any(errors) else 0.0)
        if isnan(scale[node]):
            scale[node] = inf
    return [scale[node] for node in nodes]


def _carried(node: Value, errors: list[float], bound: float) -> float:
    """What errors of the operands come to in a node, in units of `bound`."""
    data = [x._number for x in node.parents]
    if node.op.is_condition:  # it may turn out the other way
        return 1 / bound if abs(data[0] - data[1]) <= bound * sum(errors) else 0.0
    if node.op is ops.where and errors[0]:
        return inf if isnan(data[1] - data[2]) else abs(data[1] - data[2]) / bound + sum(errors[1:])
    total = 0.0
    for error, vjp in zip(errors, node.op.vjp):
        if error and vjp is not None:
            slopes = []
            for shift in (0.0,) if node.op.signs else (0.0, bound, -bound):
                moved = [x + shift * min(e, 1e300) for x, e in zip(data, errors)]
                slopes.append(abs(ops.evaluate(vjp, 1.0, node._number, *moved)))
            slope = max(slopes)
            total += 0.0 if slope == 0 else slope * error
    return total
