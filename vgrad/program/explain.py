"""The plan of a program as a table that a person can read."""

from __future__ import annotations

from collections.abc import Iterable

from ..flat import KernelSummary, short
from .runner import Runner


def explain(runner: Runner, batch: int) -> str:
    """The kernels of a call with `batch` samples, and what they add up to."""
    sweep = runner.first
    kernels, tile = sweep.summary().kernels, sweep.width(batch)
    head = ("level", "kernel", "nodes", "result = operands", "flops", "bytes")
    work = [_work(kernel, batch, runner.dtype.itemsize) for kernel in kernels]
    rows = [
        (str(x.level), x.name, f"{x.sources:,}", x.formula, *map(short, sizes))
        for x, sizes in zip(kernels, work)
    ]
    flops, size = map(sum, zip(*work)) if work else (0, 0)
    total = (
        f"kernels: {len(kernels)} for {sum(x.sources for x in kernels):,} computed nodes; forward: "
        f"{short(flops)} flops and {short(size)} bytes\n"
        f"tiles: {-(-batch // tile):,} of {tile:,} samples; "
        f"buffers: {short(sweep.memory(tile))} bytes"
    )
    return "\n".join([*_table([head, *rows]), total])


def _work(kernel: KernelSummary, batch: int, itemsize: int) -> tuple[int, int]:
    """The floating-point operations of a whole forward sweep, and the bytes read and written."""
    numbers = sum(x.size(batch) for x in (kernel.result, *kernel.operands))
    return kernel.flops * (batch if kernel.result.batched else 1), itemsize * numbers


def _table(rows: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    left = (False, True, False, True, False, False)
    for row in rows:
        cells = [x.ljust(w) if is_left else x.rjust(w) for x, w, is_left in zip(row, widths, left)]
        yield "  ".join(cells)
