"""."""

from .fuse import Fused, Ints, fuse
from .kernels import Kernel
from .plan import FusedSweep
from .schedule import CHAIN, GRID, MAP, SEGMENTS, Group, schedule

__all__ = [
    "CHAIN",
    "GRID",
    "MAP",
    "SEGMENTS",
    "Fused",
    "FusedSweep",
    "Group",
    "Ints",
    "Kernel",
    "fuse",
    "schedule",
]
