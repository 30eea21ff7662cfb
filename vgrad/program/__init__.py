"""`compile`: a function of one sample becomes a program over batches.

`program.py` has the public calls. One of them, such as `value_and_grad(theta, X, y)`, goes through
these rooms and back:

    arrays      are the arrays numbers, and of one batch size?
    program     the runner for their shapes, which records the function when it first meets them
    call        which sweep runs, quick, careful or plain, on which part of the batch, and where:
                here, or as tasks of an executor
    runner      the graph and the three sweeps
    (compiler)  tiles, and in each a list of NumPy calls

Beside that stand `replay`, which puts single samples through the scalar engine to say where a
number began not to be finite, `explain`, which prints the plan, and `checkpoint`, which writes
programs to files.

This wing imports compiler, flat and the definition. A program is verified and drawn by wings that
it does not know.
"""

from .arrays import split
from .call import Call
from .program import Program, compile
from .replay import Replay, parameter_name
from .runner import Runner

__all__ = ["Call", "Program", "Replay", "Runner", "compile", "parameter_name", "split"]
