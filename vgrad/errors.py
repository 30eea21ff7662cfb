"""The errors vgrad raises, each also the built-in kind a caller would expect."""


class VgradError(Exception):
    """Base class of every error that vgrad raises on purpose."""


class TraceError(VgradError, TypeError):
    """A function does what cannot be recorded: control flow, or a node from elsewhere."""


class ShapeError(VgradError, ValueError):
    """An array, `theta` or a list of operands has the wrong shape."""


class GraphFormatError(VgradError, ValueError):
    """A graph's arrays break an invariant of the flat form."""
