"""Generated Python on floats: quicker than arrays where levels are narrow and samples few.

    Graph -> stretches -> pieces, alike or not -> text, one for all that are alike -> functions
            repeats       pieces                  text                                sweep

This wing imports flat and the definition.
"""

from .sweep import FloatSweep
from .text import seconds

__all__ = ["FloatSweep", "seconds"]
