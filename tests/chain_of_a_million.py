"""A chain of a million values builds, runs backward, is pickled and freed; so does its graph.

Nothing here may recurse, and nothing may wait for the garbage collector, which is off. Run by
test_value.py, beside the other tests.
"""

from __future__ import annotations

import gc
import pickle

import vgrad
from vgrad import Value

N = 1_000_000


def living(kind: type) -> int:
    return sum(type(x) is kind for x in gc.get_objects())


def main() -> None:
    gc.disable()
    x = root = Value(0.5)
    for _ in range(N):
        root = -root
    root.backward()
    assert (root.data, root.level, x.grad) == (0.5, N, 1.0)

    twin = pickle.loads(pickle.dumps(root))
    assert (twin.data, twin.level, twin.grad) == (0.5, N, 1.0)
    del twin

    graph = vgrad.capture(root)
    del root
    assert living(Value) == 1
    assert len(graph) == N + 1 and graph.level[-1] == N

    program = vgrad.compile(graph)
    value, grad = program.value_and_grad(program.theta())
    assert (value, grad.tolist()) == (0.5, [1.0])
    del graph, program
    assert living(vgrad.compiler.FusedSweep) == living(vgrad.compiler.bound.Bound) == 0


if __name__ == "__main__":
    main()
