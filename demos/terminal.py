"""What the demos have in common: options, and progress in the terminal."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

REFRESH = 0.05  # seconds


def options(description: str | None, writes: str) -> argparse.ArgumentParser:
    """A parser of the options that every demo has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=Help)
    parser.add_argument("--out", type=folder, default=Path("."), help=f"folder for {writes}")
    parser.add_argument("--no-plot", action="store_true", help="write no picture")
    return parser


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a demo as a program, which ends quietly where nobody reads on, as after `| head`."""
    try:
        try:
            code = main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        code = 141  # as a shell says of what a closed pipe has ended
    raise SystemExit(code)


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def folder(text: str) -> Path:
    """A folder, or what can become one."""
    path = Path(text)
    if not _nearest(path).is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder (got {text!r})")
    return path


def _nearest(path: Path) -> Path:
    """The path, or the nearest above it that exists."""
    return next(x for x in (path, *path.absolute().parents) if x.exists())


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    return _at_least(1, text)


def count(text: str) -> int:
    """A whole number, 0 or more."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number (got {text!r})") from None
    if number < least:
        raise argparse.ArgumentTypeError(f"must be at least {least} (got {number})")
    return number


def several(n: int, what: str) -> str:
    """As in "1 step", "2,000 steps"."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def target(text: str) -> Path:
    """A file that can be written, in a folder or in what can become one."""
    path = Path(text)
    there = _nearest(path.parent)
    if path.is_dir() or not there.is_dir() or not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be a file that can be written (got {text!r})")
    return path


def write(path: Path, picture: Callable[[Path], Any]) -> None:
    """Have a picture written to a path, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(path)
    print(f"wrote {path}")


class Progress:
    """Prints the state of a loop: over itself in a terminal, a line each time elsewhere.

    With `lasting=False` it prints nothing elsewhere, and in a terminal nothing stays.
    """

    def __init__(self, lasting: bool = True) -> None:
        self._lasting = lasting
        self._terminal = sys.stdout.isatty()
        self._line = ""  # what the terminal shows
        self._waiting = ""  # what came too soon after that
        self._written = -REFRESH

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._waiting and self._lasting:
            self._write(self._waiting)
        if self._line and self._lasting:
            print()
        elif self._line:
            self._write("")
            print("\r", end="", flush=True)

    def __call__(self, line: str) -> None:
        if not self._terminal:
            if self._lasting:
                print(line, flush=True)
        elif time.monotonic() - self._written < REFRESH:
            self._waiting = line
        else:
            self._write(line)

    def _write(self, line: str) -> None:
        print("\r" + line.ljust(len(self._line)), end="", flush=True)
        self._line, self._waiting, self._written = line, "", time.monotonic()
