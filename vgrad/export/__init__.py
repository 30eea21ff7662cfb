"""."""

from .source import to_numpy_source

__all__ = ["to_numpy_source"]
