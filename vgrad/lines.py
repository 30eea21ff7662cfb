"""Which line of the user's code is running, and which line made a `Value`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from .engine import computed

_HERE, _NUMPY, _PYTHON = (
    os.path.dirname(os.path.abspath(f)) + os.sep for f in (__file__, np.__file__, os.__file__)
)
_SCIPY = os.path.join(os.path.dirname(os.path.dirname(_NUMPY)), "scipy") + os.sep  # beside it


def user_line() -> str:
    """The innermost line on the stack that is not a library's, as "file:line"."""
    frame = user_frame()
    return source_line(frame.f_code.co_filename, frame.f_lineno)


def user_frame() -> FrameType:
    """The frame of that line."""
    frame = sys._getframe(1)
    while frame.f_back and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def error_line(error: BaseException) -> str:
    """The innermost line on the way to an error that is not a library's, as "file:line"."""
    found, traceback = "", error.__traceback__
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        if not _is_library(filename):
            found = source_line(filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def outermost_frame(frame: FrameType) -> FrameType:
    """The frame that a thread's work begins with, the outermost that is not Python's own library's.

    It stays the same from the first line of a thread's function, or of a task that a pool was
    given, to the last.
    """
    outermost, outer = frame, frame.f_back
    while outer is not None:
        if not _is_pythons(outer.f_code.co_filename):
            outermost = outer
        outer = outer.f_back
    return outermost


def defining_line(function: Any) -> str:
    """The line that defines a function, as "file:line"; where there is none, the user's line."""
    code = getattr(function, "__code__", None)
    return source_line(code.co_filename, code.co_firstlineno) if code else user_line()


def source_line(filename: str, line: int) -> str:
    """A line of source code, as errors name it."""
    return f"{os.path.basename(filename)}:{line}"


def _is_library(filename: str) -> bool:
    """Whether a file is vgrad's, NumPy's, SciPy's or Python's: no mistake is sought there."""
    if filename.startswith((_HERE, _NUMPY, _SCIPY, "<__array_function__")):
        return True
    return _is_pythons(filename)


def _is_pythons(filename: str) -> bool:
    return filename.startswith(_PYTHON) and "-packages" not in filename


@contextmanager
def source_lines() -> Iterator[None]:
    """Note the line that makes each `Value` computed inside, as its `line`.

    Errors of `check_finite` name it, and `capture` records it. Python calls back for every function
    in this thread meanwhile, so code inside runs several times slower.

    >>> from vgrad import Value
    >>> with source_lines():
    ...     y = Value(2.0) * 3
    >>> y.line
    '<doctest vgrad.lines.source_lines[1]>:2'
    """
    before = sys.getprofile()

    def note(frame: FrameType, event: str, result: Any) -> None:
        if event == "return" and frame.f_code is computed.__code__ and result is not None:
            result.line = user_line()

    try:
        sys.setprofile(note)
        yield
    finally:
        sys.setprofile(before)
