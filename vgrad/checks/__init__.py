"""Results held against what they must be: by the scalar engine, and by central differences.

`verify` answers whether the vector engine computes what the scalar engine does. It draws samples
from a batch, runs the program's sweeps over them, forward and backward, replays each sample through
`Value`s, and pairs up the numbers (`parity.py`). How far apart two may be depends on what they are
made of: the graph of the gradients tells how rounding errors add up on the way to each.

`gradcheck` answers whether the gradients are right, even where both engines follow the same wrong
rule. There is one procedure for a program, for a function of `Value`s and for the rules of a single
op: each is listed as `Claims` (names, a function of several numbers, a point, the gradient there),
and `compare` puts central differences beside every derivative (`differences.py`). The lists, and
the report, are in `gradients.py`; if a derivative is wrong, the rules of all ops behind it are
compared in turn, and those that are wrong are named.

The wing may import `program`, `flat` and the definition; nothing in vgrad needs it to compute.
Others use four names: `verify`, which is also the method `Program.verify`, and `gradcheck`, each
with the class of its report, `Verification` and `Gradcheck`.
"""

from .gradients import Gradcheck, gradcheck
from .parity import Verification, verify

__all__ = ["Gradcheck", "Verification", "gradcheck", "verify"]
