"""The plan of a program as a table that a person can read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..compiler import FusedSweep
from ..flat import KernelSummary, short
from .branched import BranchedCall
from .call import Call
from .paths import Fork
from .runner import Runner


def explain(call: Call | BranchedCall) -> str:
    """The plan of a call; if the function branches, that of each path, below what parts them."""
    if isinstance(call, BranchedCall):
        return _paths(call)
    return _plan(call.runner.sharing(call.shared), call.batch)


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
        parts.append(f"{head}\n{_plan(paths.runners[path].sharing(call.shared), size)}")
    return "\n\n".join(parts)


def _plan(runner: Runner, batch: int) -> str:
    """The kernels of a call with `batch` samples, and their totals, forward sweeps only."""
    return _floats(runner, batch) if batch <= runner.few else _arrays(runner, batch)


def _arrays(runner: Runner, batch: int) -> str:
    sweep, item = runner.quick, runner.dtype.itemsize
    kernels, tile = sweep.summary().kernels, sweep.width(batch)
    flops = [x.flops * (batch if x.result.batched else 1) for x in kernels]
    sizes = [item * x.times * sum(y.size(batch) for y in (x.result, *x.operands)) for x in kernels]
    rows = [
        (str(x.level), _name(x), f"{x.sources:,}", x.formula, short(work), short(size))
        for x, work, size in zip(kernels, flops, sizes)
    ]
    rows.insert(0, ("level", "kernel", "nodes", "result = operands", "flops", "bytes"))
    runs = sum(x.times for x in kernels)
    total = (
        f"kernels: {len(kernels):,}{f', which run {runs:,} times,' if runs > len(kernels) else ''} "
        f"for {sum(x.sources for x in kernels):,} computed nodes; forward: "
        f"{short(sum(flops))} flops and {short(sum(sizes))} bytes\n"
        f"tiles: {-(-batch // tile):,} of {tile:,} samples; "
        f"peak: {short(sweep.memory(tile))} bytes"
    )
    if isinstance(sweep, FusedSweep):
        calls, numbers = (short(1e9 * x) for x in sweep.seconds(tile))
        total += f"; a sample: {calls} ns of calls, {numbers} ns of numbers"
    return f"{_table(rows, '><><>>')}\n{total}"


def _floats(runner: Runner, batch: int) -> str:
    kernels = runner.floats.summary().kernels
    rows = [(str(x.level), _name(x), f"{x.sources:,}") for x in kernels]
    rows.insert(0, ("piece", "op", "nodes"))
    total = (
        f"pieces: {sum(dict((x.level, x.times) for x in kernels).values()):,} for "
        f"{sum(x.sources for x in kernels):,} computed nodes, as Python functions of floats\n"
        f"samples: {batch:,}, one by one; arrays are quicker for more than {runner.few:,}"
    )
    return f"{_table(rows, '><>')}\n{total}"


def _name(kernel: KernelSummary) -> str:
    return f"{kernel.name} × {kernel.times:,}" if kernel.times > 1 else kernel.name


def _table(rows: Sequence[tuple[str, ...]], alignments: str) -> str:
    """Rows with their columns aligned, "<" or ">" each."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        "  ".join(f"{x:{align}{width}}" for x, align, width in zip(row, alignments, widths))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
