"""The same graph as arrays: the vector engine, before anything makes it quick.

A function is called once on nodes in place of numbers, and a tape records every op on them
(`recording`, `node`, `tape`, `parameters`; `refusals` says what cannot be recorded). Ops on whole
arrays are recorded in one go (`bulk`), as the nodes that a loop would record. What it asks about a
number, as by `if`, is answered by the numbers of one sample (`questions`), so that the graph is the
path which that sample takes; in a pure function, by all answers in turn (`ways`). Whatever the
outputs need becomes a `Graph`: op codes, parent indices, constants, levels. A DAG of `Value`s
becomes one in the same way. The graph is plain data, which is checked, stored in files (`graph`,
`files`) and differentiated into another graph (`derivatives`, `derived`).

`sweep` runs it over a batch and is the file to read first. Every node has a row of a buffer, and
nodes of one level and one op are computed by one call of NumPy:

    fn  --trace-->  Tape  -->  Graph  --lay_out-->  groups of rows  --forward, backward-->  results

Deep graphs repeat: `repeats` finds where, and `pieces` cuts them so that many pieces are alike.

The plain sweep is the definition in arrays: it computes what the scalar engine does, in the same
order. The compiler's sweep has the same methods, description of rows (`rows`), summary (`summary`)
and limit of memory (`memory`).

This wing imports the definition, the files at the top of vgrad, and no other wing.
"""

# fmt: off
# isort: off
from .derivatives import gradient
from .derived import Leaves, gradient_graph, hessian, jacobian, slope, tangent, weighted
from .files import Arrays, Header, Path, expect, loading_arrays, save_arrays
from .graph import (
    BATCHED, FROM_INPUTS, FROM_PARAMETERS, SHARED, STORED, Graph, from_stored, to_stored,
)
from .memory import exceeds_share, require_buffers, require_samples, short
from .questions import LoneSample, Question, SampleAnswers, path_of
from .parts import (
    asked, inlined, needed, part, shared, unshared, with_parameters, without_answers,
)
from .pieces import Form, Pieces, in_pieces, in_turns
from .passes import duplicates, hash64, origins, reached, span_lengths, spans
from .repeats import program_order
from .recording import argument_names, capture, interpret, record, recorded, run_alone, trace
from .rows import Rows, as_slice, copies, strides_of
from .summary import KernelSummary, ReadSummary, SweepSummary
from .sweep import PlainSweep
from .tape import Tape

__all__ = [
    "BATCHED", "FROM_INPUTS", "FROM_PARAMETERS", "SHARED", "STORED", "Arrays", "Form", "Graph",
    "Header", "KernelSummary", "Leaves", "LoneSample", "Path", "Pieces", "PlainSweep", "Question",
    "ReadSummary", "Rows", "SampleAnswers", "SweepSummary", "Tape", "argument_names", "as_slice",
    "asked", "capture", "copies", "duplicates", "exceeds_share", "expect", "from_stored",
    "gradient", "gradient_graph", "hash64", "hessian", "in_pieces", "in_turns", "inlined",
    "interpret", "jacobian", "loading_arrays", "needed", "origins", "part", "path_of",
    "program_order", "reached", "record", "recorded", "require_buffers", "require_samples",
    "run_alone", "save_arrays", "shared", "short", "slope", "span_lengths", "spans", "strides_of",
    "tangent", "to_stored", "trace", "unshared", "weighted", "with_parameters", "without_answers",
]
# fmt: on
