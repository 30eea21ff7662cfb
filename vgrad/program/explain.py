"""The plan of a program as a table that a person can read."""

from __future__ import annotations

from ..flat import short
from .runner import Runner


def explain(runner: Runner, batch: int) -> str:
    """The kernels of a call with `batch` samples, and their totals, forward sweeps only."""
    sweep, item = runner.first, runner.dtype.itemsize
    kernels, tile = sweep.summary().kernels, sweep.width(batch)
    flops = [x.flops * (batch if x.result.batched else 1) for x in kernels]
    sizes = [item * sum(y.size(batch) for y in (x.result, *x.operands)) for x in kernels]
    rows = [
        (str(x.level), x.name, f"{x.sources:,}", x.formula, short(work), short(size))
        for x, work, size in zip(kernels, flops, sizes)
    ]
    rows.insert(0, ("level", "kernel", "nodes", "result = operands", "flops", "bytes"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(f"{x:{align}{width}}" for x, align, width in zip(row, "><><>>", widths))
        for row in rows
    ]
    total = (
        f"kernels: {len(kernels)} for {sum(x.sources for x in kernels):,} computed nodes; forward: "
        f"{short(sum(flops))} flops and {short(sum(sizes))} bytes\n"
        f"tiles: {-(-batch // tile):,} of {tile:,} samples; "
        f"buffers: {short(sweep.memory(tile))} bytes"
    )
    return "\n".join([*lines, total])
