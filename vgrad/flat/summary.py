"""A sweep in summary: its kernels, as `explain` lists them and pictures draw them."""

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
        """How many numbers that is for a batch."""
        return count(self.shape) * (batch if self.batched else 1)

    def __str__(self) -> str:
        """As in "16 x B", with the lengths of 1 left out."""
        lengths = [str(n) for n in self.shape if n > 1] or ["1"]
        return " x ".join([*lengths, *["B"] * self.batched])


class KernelSummary(NamedTuple):
    """One kernel: nodes that run together."""

    level: int
    name: str  # as in "matmul"
    title: str  # as in "16 × dot of 3, matmul"
    sources: int  # how many computed nodes of the graph it stands for
    flops: int  # of a forward, per sample if it is batched
    nodes: NDArray[Any]  # those that it computes,
    reads: NDArray[Any]  # and those that it reads
    result: ReadSummary
    operands: list[ReadSummary]

    @property
    def formula(self) -> str:
        """As in "16 x B = view 16 x 3, view 3 x B"."""
        reads = [f"{'view' if x.is_view else 'gather'} {x}" for x in self.operands]
        return f"{self.result} = {', '.join(reads)}"


class SweepSummary(NamedTuple):
    """The kernels in the order in which they run.

    Nodes are numbered as in the graph; what the compiler adds comes after those.
    """

    kernels: list[KernelSummary]
    nodes: int  # how many there are
    outputs: NDArray[Any]  # the nodes that the outputs are read from
