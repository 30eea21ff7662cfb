"""`compile`: a function of one sample becomes a program over batches.

`program.py` has the public calls. One of them, such as `value_and_grad(theta, X, y)`, goes through
these files and back:

    program     the call itself
    (signature) arrays by name take their places
    arrays      are they numbers, and of one batch size? which do all samples share?
    recordings  the paths for their shapes, the first recorded when it first meets them
    (branched)  if the function branches: which samples take which path; one call for each path
    call        which sweep runs, on floats, quick, careful or plain, on which part of the batch
    (workers)   an executor's tasks, if it has one for a large batch
    work        shard by shard, and totals added up in a tree
    runner      the graph and the four sweeps
    (compiler)  tiles, and in each a list of NumPy calls
    (floats)    or sample by sample, if there are few

A function that asks about numbers has *paths* (`paths`): one list of answers, one graph, one runner
for each. `branched` parts the samples of a call:

    samples  --where they were last-->  path 0: call, answers      all as the path has them? done
                                        path 1: call, answers      others: sorted by their answers,
                                        ...                        on known paths or on new ones

What an executor gets depends on what it is:

    workers     tasks in order, some under way, and workers that are lost
    tasks       one call on its way to threads, to processes that map its arrays, or elsewhere
    cluster     the same for the workers of a dask `Client`
    mapped      arrays in shared memory or in files, which other processes find
    placed      the arrays of many calls that stay with the workers
    blas        one thread for the matrix products of a process that is one of many
    blocks      dask arrays: a task for each block, and a tree of sums

`derivatives` has the calls for Jacobians, Hessians and products with them: calls of graphs that are
made of the recorded one. `parameters` knows theta and the nesting that it stands for.

Besides, `options` checks those of `compile`, `replay` puts single samples through the scalar engine
to find the first number that is not finite, `explain` prints the plan, and `checkpoint` writes
programs to files.

This wing imports compiler, floats, flat and the definition. Wings that it does not know verify and
draw programs.
"""

from .arrays import split
from .branched import BranchedCall
from .call import Call
from .paths import Fork, Paths
from .program import Program, compile
from .replay import Replay, parameter_name
from .runner import Runner

__all__ = [
    "BranchedCall", "Call", "Fork", "Paths", "Program", "Replay", "Runner", "compile",
    "parameter_name", "split",
]  # fmt: skip
