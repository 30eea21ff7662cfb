"""The plan of a program as a table that a person can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..flat import short
from .branched import BranchedCall
from .call import Call
from .paths import Fork
from .runner import Runner


def explain(call: Call | BranchedCall) -> str:
    """The plan of a call; if the function branches, that of each path, below what parts them."""
    return _paths(call) if isinstance(call, BranchedCall) else _plan(call.runner, call.batch)


def _paths(call: BranchedCall) -> str:
    """The questions that part the samples of a call, and the kernels of each path."""
    paths, sizes, alone = call.paths, call.sizes(), call.batch
    forks, total = paths.forks(), Counter[Fork]()
    for path, size in sizes.items():
        total.update(dict.fromkeys(paths.forks_of(path), size))
        alone -= size
    number = {fork: k for k, fork in enumerate(forks, start=1)}
    rows = [("question", "asked at", "samples", "answers")]
    for fork, k in number.items():
        answers = [
            f"{answer}: {total[child]:,}, "
            + (f"question {number[child]}" if child.question else f"path {child.path}")
            for answer, child in fork.branches()
        ]
        rows.append((str(k), ", ".join(fork.where), f"{total[fork]:,}", "; ".join(answers)))
    parts = [_table(rows, "><><")]
    if alone:
        parts[0] += f"\non paths that are not recorded, one by one: {alone:,}"
    for path, size in sizes.items():
        head = f"path {path}, of {size:,} samples, with {len(paths.forks_of(path)) - 1:,} answers"
        parts.append(f"{head}\n{_plan(paths.runners[path], size)}")
    return "\n\n".join(parts)


def _plan(runner: Runner, batch: int) -> str:
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
    total = (
        f"kernels: {len(kernels)} for {sum(x.sources for x in kernels):,} computed nodes; forward: "
        f"{short(sum(flops))} flops and {short(sum(sizes))} bytes\n"
        f"tiles: {-(-batch // tile):,} of {tile:,} samples; "
        f"buffers: {short(sweep.memory(tile))} bytes"
    )
    return f"{_table(rows, '><><>>')}\n{total}"


def _table(rows: Sequence[tuple[str, ...]], alignments: str) -> str:
    """Rows with their columns aligned, "<" or ">" each."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(f"{x:{align}{width}}" for x, align, width in zip(row, alignments, widths))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
