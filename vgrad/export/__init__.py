"""The plan as text: a NumPy function that a person can read, and run without vgrad.

`Graph.to_numpy_source` compiles the graph as `vgrad.compile` does, and writes down one assignment
per kernel, with the rules of the op table as expressions. No buffers and no batch of a fixed width:
where the compiler binds a view of rows, the text has a slice of a variable.

    Graph  --compile_plan-->  kernels  --source-->  lines of Python

`variables` knows which variable has a node and writes the index that reads it; `source` writes the
kernels and what stands around them.

This wing imports compiler, flat and the definition, and nobody imports it; `Graph` names it.
"""

from .source import to_numpy_source

__all__ = ["to_numpy_source"]
