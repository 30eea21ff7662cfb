"""Results held against what they must be: by the scalar engine, and by central differences.

`verify` answers whether the vector engine computes what the scalar engine does. It draws samples
from a batch, runs the program's sweeps over them, forward and backward, replays each sample through
`Value`s, and pairs up the numbers (`parity.py`). How far apart two may be depends on the terms they
are made of: the graph of the gradients tells how rounding errors add up on the way to each.

`gradcheck` answers whether the gradients are right, even if both engines follow the same wrong
rule. Programs, functions of `Value`s and the rules of a single op are checked alike: each becomes
`Claims` (names, a function of several numbers, a point, the gradient there), and `compare` puts
central differences beside every derivative (`differences.py`). The report is in `gradients.py`; if
a derivative is wrong, the rules of all ops behind it are compared in turn.

The wing imports program, flat and the definition, and nothing in vgrad needs it to compute.
"""

from .gradients import Gradcheck, gradcheck
from .parity import Verification, verify

__all__ = ["Gradcheck", "Verification", "gradcheck", "verify"]
