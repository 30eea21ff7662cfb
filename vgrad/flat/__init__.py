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
from .passes import Duplicates, duplicates, hash64, origins, reached, span_lengths, spans
from .recording import argument_names, capture, interpret, record, recorded, trace
from .rows import Rows, strides_of
from .sweep import PlainSweep
from .tape import Tape

__all__ = [
    "BATCHED",
    "FROM_INPUTS",
    "FROM_PARAMETERS",
    "SHARED",
    "STORED",
    "Arrays",
    "Duplicates",
    "Graph",
    "Header",
    "Path",
    "PlainSweep",
    "Rows",
    "Tape",
    "argument_names",
    "capture",
    "duplicates",
    "exceeds_share",
    "expect",
    "from_stored",
    "gradient",
    "hash64",
    "interpret",
    "loading_arrays",
    "origins",
    "reached",
    "record",
    "recorded",
    "require_buffers",
    "require_samples",
    "save_arrays",
    "short",
    "span_lengths",
    "spans",
    "strides_of",
    "tangent",
    "to_stored",
    "trace",
]
