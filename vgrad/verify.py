"""The scalar engine as the judge: how far from it the vector engine's results are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isfinite, isnan

import numpy as np
from numpy.typing import NDArray

from . import ops
from .errors import ParityError
from .replay import Call, Replay
from .value import Value, backpropagate, reachable

# How large a gap may be, relative to what the number would be if nothing cancelled: to the sum of
# the sizes of all that it is made of. Rounding errors are relative to that. In float64 it is 4,500
# roundings, which sums in another order stay below even where 1 - tanh**2 loses digits, and as many
# in float32.
BOUNDS = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 5e-4}
LEAST = {np.dtype(np.float64): 1e-320, np.dtype(np.float32): 1e-42}  # among the subnormals


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
        if self.got == self.want or (isnan(self.got) and isnan(self.want)):
            return 0.0
        if not (isfinite(self.got) and isfinite(self.want)):
            return inf
        return abs(self.got - self.want) / self.spacing

    @property
    def share(self) -> float:
        """The gap as a share of what is allowed: over 1 is too much."""
        if self.ulps in (0.0, inf):
            return self.ulps
        return abs(self.got - self.want) / self.allowed if self.allowed else inf


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
            f"worst gap {self.worst.ulps:.3g} ulp, {self.worst.share:.2g} of the bound{where}"
        )


def verify(call: Call, samples: int, seed: int) -> Verification:
    """Compare `samples` samples; raises ParityError where a gap is over its bound."""
    chosen = np.random.default_rng(seed).permutation(call.batch)[:samples]
    chosen.sort()
    part = call._replace(arrays=[x[chosen] for x in call.arrays], batch=len(chosen))
    gaps = list(_gaps(part, chosen))
    worst = max(gaps, key=lambda gap: gap.share)
    if worst.share > 1:
        raise ParityError(
            f"results must agree with the scalar engine's to {BOUNDS[call.engine.dtype]} of the "
            f"size of what they are made of (got {worst.got} for {worst.want}, {worst.ulps:.3g} "
            f"ulp apart, at {worst.where}); please report this function and these numbers"
        )
    return Verification(len(chosen), len(gaps), worst)


def _gaps(call: Call, numbers: NDArray[np.intp]) -> Iterator[Gap]:
    engine, graph = call.engine, call.engine.graph
    outputs = engine.outputs(*call[1:])
    _, by_input = engine.input_gradients(*call[1:])
    _, by_parameter = engine.parameter_gradients(*call[1:])
    gradients = np.concatenate([by_input, by_parameter])
    leaves = np.concatenate([graph.inputs, graph.parameters])
    names = [f"input {k}" for k in range(len(graph.inputs))]
    names += [f"parameter {k}" for k in range(len(graph.parameters))]

    def spacing(x: float) -> float:
        return abs(float(np.spacing(engine.dtype.type(x))))

    bound, least = BOUNDS[engine.dtype], LEAST[engine.dtype]
    for i, number in enumerate(numbers.tolist()):
        replay, where = Replay(call, i), f"sample {number}"
        for k, got in enumerate(outputs[:, i].tolist()):
            root = replay.root(k)
            exact = not engine.fuse and engine.dtype == np.float64
            allowed = 0.0 if exact else bound * error_scale(root) + least
            yield Gap(f"output {k}, {where}", got, root._data, allowed, spacing(root._data))
        values = replay.leaves(leaves)
        wants, scales = backward_with_scale(replay.root(), values)
        for name, got, want, scale in zip(names, gradients[:, i].tolist(), wants, scales):
            size = min(max(scale, abs(want)), 1e308) if scale == scale else 1e308
            allowed = bound * size + least
            yield Gap(f"gradient to {name}, {where}", got, want, allowed, spacing(want))


# --- sizes ----------------------------------------------------------------------------------------


def error_scale(root: Value) -> float:
    """The size of each node on the way to `root`, carried on by the ops' derivatives and summed.

    To first order that bounds the effect that a relative rounding error of 1 in each would have.
    """
    scale: dict[Value, float] = {}
    for node in reversed(reachable(root)):
        data = [x._data for x in node.parents]
        scale[node] = abs(node._data)
        for x, vjp in zip(node.parents, node.op.vjp):
            if vjp is not None:
                part = ops.evaluate(vjp, 1.0, node._data, *data)
                scale[node] += 0.0 if part == 0 else abs(part) * scale[x]
    return float(np.nan_to_num(scale[root], nan=np.inf))


def backward_with_scale(root: Value, leaves: list[Value]) -> tuple[list[float], list[float]]:
    """The leaves' gradients by a backward pass, and for each the sum of |contributions|.

    The second is what a gradient would be if nothing cancelled.
    """
    for leaf in leaves:
        leaf.grad = 0.0
    backpropagate(root)
    scale = {root: 1.0}
    for node in reachable(root):
        g = scale.get(node, 0.0)
        if g and node.grad:
            data = [x._data for x in node.parents]
            for x, vjp in zip(node.parents, node.op.vjp):
                if vjp is not None:
                    part = ops.evaluate(vjp, g, node._data, *data)
                    scale[x] = scale.get(x, 0.0) + abs(part)
    return [leaf.grad for leaf in leaves], [scale.get(leaf, 0.0) for leaf in leaves]
