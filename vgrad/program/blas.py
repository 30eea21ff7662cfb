"""How many threads NumPy's matrix products use: one, in a process that is one of many."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

# What OpenBLAS calls its functions, as NumPy's wheels and others have it.
NAMES = [
    (f"{start}openblas_get_num_threads{end}", f"{start}openblas_set_num_threads{end}")
    for start in ("scipy_", "")
    for end in ("64_", "")
]


@contextmanager
def one_thread() -> Iterator[None]:
    """Matrix products use one thread meanwhile, where that can be said: of OpenBLAS, on Linux.

    Else the threads of all processes wait for each other, and a call takes ten times as long.
    """
    found = _functions()
    before = [get() for get, _ in found]
    for _, set_threads in found:
        set_threads(1)
    try:
        yield
    finally:
        for (_, set_threads), number in zip(found, before):
            set_threads(number)


@cache
def _functions() -> list[tuple[Callable[[], int], Callable[[int], Any]]]:
    """Functions that get and set the number of threads, for each OpenBLAS in this process."""
    found = []
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text().splitlines()
        paths = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
        for library in map(ctypes.CDLL, sorted(paths)):
            for names in NAMES:
                with suppress(AttributeError):
                    found.append((getattr(library, names[0]), getattr(library, names[1])))
                    break
    return found
