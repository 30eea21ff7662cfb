"""The plan of a program as a table that a person can read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..compiler import FusedSweep, Kernel
from ..flat import BATCHED, FROM_PARAMETERS, Rows, short
from .runner import Runner


class Line(NamedTuple):
    """One kernel: a row of the table. What it does is for a whole forward sweep."""

    level: int
    kernel: str
    nodes: int  # how many nodes of the graph it stands for
    operands: str
    flops: int
    bytes: int  # read and written


def explain(runner: Runner, batch: int) -> str:
    """The kernels of a call with `batch` samples, and what they add up to."""
    if not runner.fuse:
        lines, tile = _plain_lines(runner, batch), min(runner.plain.tile, batch)
        memory = 2 * runner.dtype.itemsize * sum(runner.plain.layout.rows) * tile
    else:
        lines, tile = _lines(runner.plan, batch), runner.plan.width(batch)
        memory = runner.plan.memory(tile, FROM_PARAMETERS)
    head = ("level", "kernel", "nodes", "result = operands", "flops", "bytes")
    rows = [
        (str(x.level), x.kernel, f"{x.nodes:,}", x.operands, short(x.flops), short(x.bytes))
        for x in lines
    ]
    total = (
        f"kernels: {len(lines)} for {sum(x.nodes for x in lines):,} computed nodes; forward: "
        f"{short(sum(x.flops for x in lines))} flops and {short(sum(x.bytes for x in lines))} "
        f"bytes\ntiles: {-(-batch // tile):,} of {tile:,} samples; buffers: {short(memory)} bytes"
    )
    return "\n".join([*_table([head, *rows]), total])


def _lines(plan: FusedSweep, batch: int) -> list[Line]:
    return [_line(plan, kernel, batch) for kernel in plan.kernels]


def _line(plan: FusedSweep, kernel: Kernel, batch: int) -> Line:
    samples = batch if kernel.buffer == BATCHED else 1
    touched = [kernel.out, *kernel.operands]
    numbers = sum(
        access.array.size * (batch if access.buffer == BATCHED else 1) for access in touched
    )
    operands = ", ".join(map(_operand, kernel.operands))
    return Line(
        kernel.group.level,
        kernel.name,
        int(plan.fused.sources[kernel.group.nodes].sum()),
        f"{_shape(kernel.out)} = {operands}",
        kernel.flops * samples,
        plan.dtype.itemsize * numbers,
    )


def _plain_lines(runner: Runner, batch: int) -> list[Line]:
    lines = []
    for group in runner.plain.layout.groups:
        n = group.size
        places = [group.out, *group.operands]
        kinds = ["view" if isinstance(x.rows, slice) else "gather" for x in group.operands]
        sizes = [n * (batch if x.buffer == BATCHED else 1) for x in places]
        size = runner.dtype.itemsize * sum(sizes)
        shapes = [f"{n} x B" if x.buffer == BATCHED else f"{n}" for x in places]
        operands = ", ".join(f"{kind} {shape}" for kind, shape in zip(kinds, shapes[1:]))
        lines.append(
            Line(group.level, group.op.name, n, f"{shapes[0]} = {operands}", sizes[0], size)
        )
    return lines


def _operand(access: Rows) -> str:
    return f"{'gather' if access.strides is None else 'view'} {_shape(access)}"


def _shape(access: Rows) -> str:
    lengths = [str(n) for n in access.shape if n > 1] or ["1"]
    return " x ".join([*lengths, *(["B"] if access.buffer == BATCHED else [])])


def _table(rows: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    left = (False, True, False, True, False, False)
    for row in rows:
        cells = [x.ljust(w) if is_left else x.rjust(w) for x, w, is_left in zip(row, widths, left)]
        yield "  ".join(cells)
