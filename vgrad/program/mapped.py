"""Arrays that other processes of this machine can map: in memory without a name, and in files.

    block = Block([X, y])      copies of them, until it is closed
    Mapped.of(x)               where x lies, if it is a part of one of these, or of an `np.memmap`
    mapped[10:20].array()      some of its rows, in another process

On Linux a block is memory (`memfd_create`), which has no name that could be left behind when
somebody is killed, and goes with its last user. Elsewhere it is a temporary file.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import Array, count

ALIGNED = 64  # bytes
READ: dict[str, int] = {"access": mmap.ACCESS_READ}
if hasattr(mmap, "MAP_POPULATE"):  # all pages at once, in place of one by one when they are read
    READ = {"flags": mmap.MAP_SHARED | mmap.MAP_POPULATE, "prot": mmap.PROT_READ}


class Block:
    """Copies of arrays, one behind the other, that other processes can map until it is closed.

    An array that repeats its first row has that row alone. `arrays` are read-only, and keep the
    memory while they are in use here.

    >>> block = Block([np.arange(3.0)])
    >>> Mapped.of(block.arrays[0][1:]).array()
    array([1., 2.])
    >>> block.close()
    """

    def __init__(self, arrays: Sequence[Array]) -> None:
        sizes = [-(-_row_wise(x).nbytes // ALIGNED) * ALIGNED for x in arrays]
        *starts, total = accumulate(sizes, initial=0)
        if hasattr(os, "memfd_create"):
            number = os.memfd_create("vgrad")
            path = f"/proc/{os.getpid()}/fd/{number}"
            self._end: Any = weakref.finalize(self, os.close, number)
        else:
            number, path = tempfile.mkstemp(prefix="vgrad-")
            os.close(number)
            self._end = weakref.finalize(self, _unlink, path)
        os.truncate(path, max(1, total))
        self.arrays = [_copied(x, path, start) for x, start in zip(arrays, starts)]

    def close(self) -> None:
        """Let go of the memory; it is there as long as somebody has arrays in it."""
        self._end()
        self.arrays = []


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _row_wise(x: Array) -> Array:
    """The array, or its first row if that is repeated."""
    return x[:1] if x.ndim and len(x) > 1 and not x.strides[0] else x


def _copied(x: Array, path: str, start: int) -> Array:
    rows = _row_wise(x)
    if not rows.size:
        return x
    with open(path, "r+b") as file:  # which is quicker than to write to mapped memory
        file.seek(start)
        file.write(np.ascontiguousarray(rows).data)
    copy = np.memmap(path, x.dtype, "r", start, rows.shape)
    return np.broadcast_to(copy, x.shape) if rows is not x else np.asarray(copy)


@dataclass(frozen=True)
class Mapped:
    """Where an array lies in a file; only its rows that are wanted are ever read."""

    path: str
    file: tuple[int, int]  # its device and number, as its name may be another's by now
    dtype: str
    start: int
    shape: tuple[int, ...]
    is_repeated: bool  # if all rows are the first

    @staticmethod
    def of(x: Array) -> Mapped | None:
        """Where it lies, if other processes can find it there, row by row."""
        rows = _row_wise(x)
        base: Any = x
        while base is not None and not isinstance(base, np.memmap):
            base = getattr(base, "base", None)
        if base is None or base.filename is None or base.mode == "c":
            return None  # what is written to a copy on write is not in the file
        if not rows.flags.c_contiguous or not rows.size:
            return None
        pages: Any = base
        begin = np.frombuffer(pages._mmap, np.uint8).__array_interface__["data"][0]
        path = os.fspath(base.filename)
        file = _file_at(begin, path)
        if file is None:
            return None
        start = base.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
        start += x.__array_interface__["data"][0] - begin
        return Mapped(path, file, x.dtype.str, start, x.shape, rows is not x)

    def __getitem__(self, samples: Any) -> Mapped:
        """Some rows of it, from one to another."""
        a, b, _ = samples.indices(self.shape[0])
        size = np.dtype(self.dtype).itemsize * count(self.shape[1:])
        start = self.start if self.is_repeated else self.start + a * size
        return replace(self, start=start, shape=(b - a, *self.shape[1:]))

    def array(self) -> Array:
        """The array; raises FileNotFoundError once its block is closed."""
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != self.file:
                raise FileNotFoundError(f"{self.path} is another file by now")
            shape = (1, *self.shape[1:]) if self.is_repeated else self.shape
            behind = self.start % mmap.ALLOCATIONGRANULARITY
            size = behind + count(shape) * np.dtype(self.dtype).itemsize
            pages = mmap.mmap(file.fileno(), size, offset=self.start - behind, **READ)
            found = np.ndarray(shape, self.dtype, pages, behind)
        return np.broadcast_to(found, self.shape)


def _file_at(address: int, path: str) -> tuple[int, int] | None:
    """The device and number of the file of this name, unless memory is mapped from another one.

    Such a file has been deleted or replaced since.
    """
    try:
        status = os.stat(path)
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        addresses, _, _, _, number, *_ = line.split(maxsplit=5)
        low, high = (int(x, 16) for x in addresses.split("-"))
        if low <= address < high:
            return (status.st_dev, status.st_ino) if int(number) == status.st_ino else None
    return None
