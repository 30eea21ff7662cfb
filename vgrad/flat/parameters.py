"""Which leaves of a recording are parameters, and which of them it has met so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..engine import Value
from ..errors import TraceError
from ..trees import as_tree


class Parameters:
    """Which leaves are parameters: those `given`, or if None every trainable one.

    Every other leaf is a constant. With `complete` a trainable constant is an error. Those `found`
    before, where none are given, come first.
    """

    def __init__(
        self,
        given: Any = None,
        complete: bool = False,
        found: Sequence[Value] = (),
    ) -> None:
        self.given = None if given is None else as_tree(given)
        self.first = found if self.given is None else self.given.values
        self.leaves: dict[int, Value] = {}  # those recorded so far, by place, in the order of theta
        self.complete = complete
        self._wanted = frozenset(() if self.given is None else self.given.values)
        self.labels: dict[Value, str] = {} if self.given is None else self.given.labels
        self.frozen: dict[int, Value] = {}  # trainable leaves that became constants, by place
        self._clean: set[Value] = set()  # known to depend on no parameter

    def op_of(self, leaf: Value) -> ops.Op:
        """The op that records a leaf: `parameter` or `const`."""
        wanted = leaf.trainable if self.given is None else leaf in self._wanted
        return ops.parameter if wanted else ops.const

    def reach(self, value: Value) -> bool:
        """Whether `value` was computed from a parameter, so that its number depends on theta."""
        stack, seen = [value], set[Value]()
        while stack:
            x = stack.pop()
            if x not in self._clean and x not in seen:
                if x.op is ops.parameter and self.op_of(x) is ops.parameter:
                    return True
                seen.add(x)
                stack += x.parents
        self._clean |= seen
        return False

    def check(
        self, parents: NDArray[np.int32], outputs: list[int], name: str, may_use_none: bool
    ) -> None:
        """Raise TraceError if a trainable leaf became a constant, by what must be a mistake.

        `parents` and `outputs` are the places that the graph reads. A path may use no parameter
        where others do.
        """
        if not self.frozen:
            return
        read = np.append(parents, outputs)
        frozen = np.isin(list(self.frozen), read)
        if not frozen.any():
            return
        leaf = list(self.frozen.values())[frozen.argmax()]
        if self.complete:
            raise TraceError(
                f"{name} must depend on no other parameters than in its first call (got {leaf}); "
                "give compile the parameters, and use a plain number for a Value that the function "
                "itself creates"
            )
        if self.leaves and not may_use_none and not np.isin(list(self.leaves), read).any():
            raise TraceError(
                f"{name} must use one of the parameters given (got {leaf}, trainable but not among "
                "them); give those that it uses, or an empty list for none"
            )
