"""."""

from .derivatives import gradient, tangent
from .files import Arrays, Header, Path, expect, loading_arrays, save_arrays
from .graph import (
    BATCHED,
    FROM_INPUTS,
    FROM_PARAMETERS,
    SHARED,
    STORED,
    Graph,
    from_stored,
    to_stored,
)
from .memory import exceeds_share, require_buffers, require_samples, short
from .passes import Segments, origins, reached, run_lengths, runs, scatter, segments
from .recording import argument_names, capture, record, recorded, trace
from .sweep import PlainSweep
from .tape import Tape

__all__ = [
    "BATCHED",
    "FROM_INPUTS",
    "FROM_PARAMETERS",
    "SHARED",
    "STORED",
    "Arrays",
    "Graph",
    "Header",
    "Path",
    "PlainSweep",
    "Segments",
    "Tape",
    "argument_names",
    "capture",
    "exceeds_share",
    "expect",
    "from_stored",
    "gradient",
    "loading_arrays",
    "origins",
    "reached",
    "record",
    "recorded",
    "require_buffers",
    "require_samples",
    "run_lengths",
    "runs",
    "save_arrays",
    "scatter",
    "segments",
    "short",
    "tangent",
    "to_stored",
    "trace",
]
