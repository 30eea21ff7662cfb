"""."""

from .plan import Plan, compile_plan
from .sweep import FusedSweep

__all__ = ["FusedSweep", "Plan", "compile_plan"]
