"""A sweep in summary: its kernels, as `explain` lists and pictures draw them."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..arguments import Shape, count


class ReadSummary(NamedTuple):
    """The result of a kernel, or one of its operands."""

    is_view: bool  # of the buffer; else it is gathered, which copies it
    shape: Shape  # without the batch
    batched: bool

    def size(self, batch: int) -> int:
        """How many numbers a batch has there."""
        return count(self.shape) * (batch if self.batched else 1)

    def __str__(self) -> str:
        """As in "16 x B", without lengths of 1."""
        lengths = [str(n) for n in self.shape if n > 1] or ["1"]
        return " x ".join([*lengths, *["B"] * self.batched])


class KernelSummary(NamedTuple):
    """One kernel: nodes that run together."""

    level: int
    name: str  # as in "matmul"
    title: str  # as in "16 × dot of 3, matmul"
    sources: int  # how many computed nodes of the graph it replaces
    flops: int  # of a forward, per sample if it is batched
    nodes: NDArray[Any]  # nodes that it computes
    reads: NDArray[Any]  # nodes that it reads
    result: ReadSummary
    operands: list[ReadSummary]
    exact: bool = True  # whether a node's value is the scalar engine's, to the bit
    times: int = 1  # how often it runs, on as many nodes each time; the numbers above are of all

    @property
    def formula(self) -> str:
        """As in "16 x B = view 16 x 3, view 3 x B"."""
        reads = [f"{'view' if x.is_view else 'gather'} {x}" for x in self.operands]
        return f"{self.result} = {', '.join(reads)}"


class SweepSummary(NamedTuple):
    """The kernels in running order; nodes that the compiler adds come after those of the graph."""

    kernels: list[KernelSummary]
    nodes: int  # how many there are
    outputs: NDArray[Any]  # the nodes that the outputs are read from
    stands: NDArray[Any]  # (n,) of the graph's nodes: which stands for each, as part of it or equal
