"""How much memory a call may take; more than that is refused before any is taken."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..errors import OutOfMemoryError

SHARE = 0.75  # of the machine's memory; a call that needs more is refused


def require_buffers(
    width: int, fixed: int, per_sample: int, workers: int = 1, taken: int = 0
) -> None:
    """Raise OutOfMemoryError if tiles of this width are too large.

    Each worker has a tile of `fixed` bytes and `per_sample` bytes for each sample; `taken` bytes
    go to other things.
    """
    needed = taken + workers * (fixed + width * per_sample)
    if exceeds_share(needed):
        fits = ((_share() - taken) // workers - fixed) // per_sample
        advice = f"compile with tile={fits}, or less"
        if fits <= 0:
            advice = "not even tile=1 would fit, so record a smaller function"
        what = f"tiles of {width:,} samples" + (f" for {workers} workers" if workers > 1 else "")
        raise _refusal(needed, what, advice)


def require_samples(batch: int, per_sample: int, *what: object) -> None:
    """Raise OutOfMemoryError if an array of `per_sample` bytes for each sample takes more than
    half of the share; computing it takes the other half."""
    if exceeds_share(2 * batch * per_sample):
        advice = f"call it with {_share() // 2 // per_sample:,} samples at a time, or fewer"
        words = " ".join(map(str, what))  # only now, as a dtype is slow to format
        raise _refusal(batch * per_sample, f"{words} for {batch:,} samples", advice)


def exceeds_share(size: int) -> bool:
    """Whether `size` bytes are more than a call may take."""
    return machine_memory() is not None and size > _share()


def _refusal(needed: int, what: str, advice: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"a call must need no more than {SHARE:.0%} of this machine's memory, {in_bytes(_share())} "
        f"(got {what}, with which it takes about {in_bytes(needed)}); {advice}"
    )


def _share() -> int:
    return int(SHARE * (machine_memory() or 0))


@cache
def machine_memory() -> int | None:
    """The bytes of memory that this process may use in all; None if unknown."""
    return min(filter(None, (_physical(), _control_group())), default=None)


def _physical() -> int | None:
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    windll = getattr(ctypes, "windll", None)  # Windows has no sysconf
    size = ctypes.c_ulonglong(0)  # in kilobytes
    if windll and windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(size)):
        return 1024 * size.value
    return None


def _control_group() -> int | None:
    """The limit that a container sets, on Linux."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # version 2, version 1
        file = Path("/sys/fs/cgroup", name)
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdigit():  # else "max"
            return int(text)
    return None


def in_bytes(size: float) -> str:
    """A size in words: 1.5 GB."""
    return f"{short(size)}B" if size >= 1000 else f"{size:.3g} bytes"


def short(number: float) -> str:
    """Three digits and a unit: 1.23 M."""
    units = ["", " k", " M", " G", " T"]
    while number >= 1000 and len(units) > 1:
        number /= 1000
        del units[0]
    return f"{number:.3g}{units[0]}"
