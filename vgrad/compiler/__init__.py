"""Optional speed: the same graph as few NumPy calls on buffers that exist beforehand.

`plan.py` is the page to read first: `compile_plan` lists the passes from a graph to a `Plan`, and
follows a layer of two neurons through them. In short,

    Graph -> fewer nodes -> contractions -> levels -> kernels -> rows     once for each graph
          simplify   fuse, trees, order, maxima  levels   schedule  layout
    Plan  -> places in memory -> calls, bound to them                     once for each tile width
           lifetimes           bound, calls, arithmetic, lowering, watch
    Bound -> results                                                      once for each tile
             sweep

A kernel is nodes that run together, one class per kind, with a forward and an adjoint: `kernels`
has maps, `sums` what adds up term by term, `products` what is a matrix product, `maxima` what a
softmax takes off. They never run in a sweep. They add calls to lists, once, and a `FusedSweep` goes
through the lists.

Where a deep graph repeats, `rolled` plans a turn of it, once, and runs it time and again.

A fused sum may be added up in another order, unless its terms may cancel (`order`); `watch` notices
if it overflows. Where a gradient of 0 meets inf or nan it may be nan. Whoever calls looks at what
comes out, and asks the plain sweep if it is not finite.

This wing imports flat, floats and the definition. Nothing needs it: `fuse=False` runs without.
"""

from .estimate import few
from .fuse import Fused, Ints
from .kernels import Kernel, Map
from .plan import Plan, compile_plan
from .products import Grid
from .rolled import RolledPlan, compile_rolled
from .sums import Chain, Segments
from .sweep import FusedSweep

# fmt: off
__all__ = [
    "Chain", "Fused", "FusedSweep", "Grid", "Ints", "Kernel", "Map", "Plan",
    "RolledPlan", "Segments", "compile_plan", "compile_rolled",
    "few",
]
# fmt: on
