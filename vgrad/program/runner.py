"""One recorded graph and the sweeps that can run it."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..arguments import FLOAT64, Array, Structure
from ..cached import cached_property
from ..compiler import FusedSweep, Plan, RolledPlan, compile_plan, compile_rolled, few
from ..flat import (
    Graph,
    PlainSweep,
    SweepSummary,
    part,
    shared,
    unshared,
    without_answers,
)
from ..floats import FloatSweep
from ..progress import Progress, Report


@dataclass(eq=False, repr=False)
class Runner:
    """A graph, ready to run over batches; it holds no state that a call could see.

    Four sweeps can run it, with the same methods: one on floats, for few samples; the quick one;
    the careful one, in which maps keep gradients of 0 even where they meet inf or nan; and the
    plain one, which computes what the scalar engine does. The quick and the careful one may sum in
    another order, unless nothing is fused: then the quick one is plain too. `call.py` chooses among
    them. The strict one tells where 0 met inf.
    """

    graph: Graph
    fuse: bool = True
    tile: int | None = None
    dtype: np.dtype[Any] = FLOAT64
    progress: Report | None = None  # told what compiling does, where that takes long

    @property
    def output_shapes(self) -> Structure:
        """The shapes of what the function returns; of a path, without its answers."""
        shapes = self.graph.output_shapes
        return shapes[0] if self.graph.questions else shapes

    @cached_property
    def objective_shape(self) -> Structure:
        """The shape of output 0."""
        shape = self.output_shapes
        while isinstance(shape, list):
            shape = shape[0]
        return shape

    def __reduce__(self) -> Any:
        return _restored, (self._pickled,)

    @cached_property
    def _pickled(self) -> bytes:
        fields = replace(self.graph, leaves=()), self.fuse, self.tile, self.dtype
        return pickle.dumps(fields, pickle.HIGHEST_PROTOCOL)

    @cached_property
    def key(self) -> bytes:
        """A hash of all that it is made of, by which workers know it."""
        return _hash(self._pickled)

    @cached_property
    def futures(self) -> WeakKeyDictionary[Any, Any]:
        """Its own with dask's clients, which give memory back when nobody holds them."""
        return WeakKeyDictionary()

    @cached_property
    def plan(self) -> Plan | RolledPlan:
        """The compiled graph, of the quick sweep and of the careful one, if nothing is merged."""
        return self._compiled(merge=True)

    def _compiled(self, merge: bool) -> Plan | RolledPlan:
        say = Progress(self.progress)
        rolled = compile_rolled(self.graph, self.dtype, merge)
        return rolled or compile_plan(self.graph, dtype=self.dtype, merge=merge, say=say)

    @cached_property
    def few(self) -> int:
        """Up to how many samples run on floats."""
        may = self.fuse and self.tile is None and self.dtype == FLOAT64
        return few(self.graph) if may else 0

    @cached_property
    def floats(self) -> FloatSweep:
        """The sweep on floats, which runs first if there are few samples."""
        return FloatSweep(self.graph)

    @cached_property
    def quick(self) -> FusedSweep | PlainSweep:
        """The sweep on arrays that runs first; its numbers stand if all are finite."""
        if self.fuse:
            return FusedSweep(self.plan, self.tile, self.dtype)
        return PlainSweep(self.graph, self.tile, self.dtype)

    @cached_property
    def careful(self) -> FusedSweep:
        """The fused sweep that keeps gradients of 0 in maps, each node's own."""
        plan = self._compiled(merge=False) if self.plan.merged else self.plan
        return FusedSweep(plan, self.tile, self.dtype, careful=True)

    @cached_property
    def plain(self) -> PlainSweep:
        """The plain sweep that keeps gradients of 0, as the scalar engine does."""
        return PlainSweep(self.graph, self.tile, self.dtype, "careful")

    @cached_property
    def strict(self) -> PlainSweep:
        """The plain sweep whose gradients are nan where a gradient of 0 met inf or nan."""
        return PlainSweep(self.graph, self.tile, self.dtype, "strict")

    def sweep(self, name: str) -> Any:
        """The sweep of this name: "floats", "quick", "careful", "plain" or "strict"."""
        return getattr(self, name)

    def first(self, theta: Array, batch: int) -> str:
        """The name of the sweep to ask first. Hot path.

        If products stand for choices, fused sweeps need a finite theta.
        """
        if batch <= self.few:
            return "floats"
        return self._on_arrays(theta)

    def _on_arrays(self, theta: Array) -> str:
        can_fuse = not (self.fuse and self.plan.picks) or np.isfinite(theta).all()
        return "quick" if can_fuse else "plain"

    def others(self, theta: Array, first: str) -> Iterator[str]:
        """Those to ask after it, until one finds what is finite; asked for one by one."""
        if first == "floats":
            first = self._on_arrays(theta)
            yield first
        if self.fuse and first == "quick":
            yield "careful"
        if first != "plain":
            yield "plain"

    def as_for(self, batch: int) -> Runner:
        """The runner with the sweep that a batch of this size gets, for any number of samples."""
        twin = replace(self)
        vars(twin).update(vars(self))  # what is compiled already
        vars(twin)["few"] = sys.maxsize if batch <= self.few else 0
        if self.graph.parameters.size:
            vars(twin)["per_sample"] = self.per_sample.as_for(batch)
        return twin

    def summary(self, batch: int) -> SweepSummary:
        """The kernels of the sweep that runs first."""
        summary: SweepSummary = self.sweep("floats" if batch <= self.few else "quick").summary()
        return summary

    def unrolled(self) -> SweepSummary:
        """The kernels as pictures show them, without loops."""
        whole = self.fuse and isinstance(self.plan, RolledPlan)
        plan = compile_plan(self.graph, dtype=self.dtype) if whole else self.quick
        return plan.summary()

    @cached_property
    def per_sample(self) -> Runner:
        """The same with the parameters as one more input, for their gradients per sample."""
        return replace(self, graph=unshared(self.graph))

    @cached_property
    def asking(self) -> Runner:
        """The answers to a path's questions alone."""
        graph, count = self.graph, len(self.graph.questions)
        return replace(self, graph=part(graph, graph.outputs[-count:], (count,)))

    def derived(self, make: Callable[..., Graph], *options: Any) -> Runner:
        """The runner of a graph made of this one, without a path's answers."""
        return self._twin((make, options), lambda: make(without_answers(self.graph), *options))

    def sharing(self, arguments: tuple[int, ...]) -> Runner:
        """The same with some arguments as more parameters, as all samples share them."""
        if not arguments:
            return self
        return self._twin((shared, arguments), lambda: shared(self.graph, arguments))

    def _twin(self, key: Any, make: Callable[[], Graph]) -> Runner:
        """The runner of another graph, made when it is first asked for, and then kept."""
        if key not in self._twins:
            self._twins.setdefault(key, replace(self, graph=make()))
        return self._twins[key]

    @cached_property
    def _twins(self) -> dict[Any, Runner]:
        return {}


KNOWN = 8  # programs that a worker keeps, which meets the same ones with every task
_known: OrderedDict[bytes, Runner] = OrderedDict()


def known(key: bytes, pickled: bytes | None = None) -> Runner | None:
    """The runner whose pickle has this hash, if it came here lately, or comes now."""
    runner = _known.get(key)
    if runner is None and pickled is not None:
        runner = _known.setdefault(key, Runner(*pickle.loads(pickled)))
    with suppress(KeyError):  # other threads may be here
        _known.move_to_end(key)
        while len(_known) > KNOWN:
            _known.popitem(last=False)
    return runner


def _restored(pickled: bytes) -> Runner:
    runner = known(_hash(pickled), pickled)
    assert runner is not None
    return runner


def _hash(pickled: bytes) -> bytes:
    return blake2b(pickled, digest_size=16).digest()
