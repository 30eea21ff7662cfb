"""Documents for a language model: the names that Python itself ships, or the lines of a file."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NAME = r"[A-Za-z][A-Za-z_]*"
DEFINITION = re.compile(rf"^[ \t]*(?:async +def|def|class) +({NAME})\s*[(:\[]".encode(), re.M)


def python_names() -> list[str]:
    """The public names that the standard library defines, in lower case and alphabetical order.

    Those of functions, classes and methods, at any depth, that have letters and underscores only.
    Nothing is imported: a regular expression goes through the sources, and takes a definition in
    the example of a docstring for one as well. Where there are no sources, as in some embedded
    Pythons, the modules that happen to be loaded are asked for their names.
    """
    found = {name.decode() for source in sources() for name in DEFINITION.findall(source)}
    return sorted({name.lower() for name in found or loaded_names()})


def sources() -> Iterator[bytes]:
    """The sources of the standard library's public modules, without tests, IDLE and lib2to3."""
    root = Path(getattr(os, "__file__", "")).parent  # a frozen one has none
    for module in sys.stdlib_module_names - {"test", "idlelib", "lib2to3"}:
        if not module.startswith("_"):
            for path in [*root.glob(f"{module}.py"), *(root / module).rglob("*.py")]:
                if not {"test", "tests"} & {*path.relative_to(root).parts}:
                    yield path.read_bytes()


def loaded_names() -> set[str]:
    """The public names of the standard library's modules that are loaded, builtins among them."""
    modules = [sys.modules[name] for name in sys.stdlib_module_names & sys.modules.keys()]
    return {name for module in modules for name in vars(module) if re.fullmatch(NAME, name)}


def lines(path: str) -> list[str]:
    """The lines of a text file, stripped, without blank ones; the type of an option."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        got = f"{path!r}: {error.strerror}"
        raise argparse.ArgumentTypeError(f"must be a text that can be read (got {got})") from None
    except UnicodeDecodeError:
        raise argparse.ArgumentTypeError(f"must be text in UTF-8 (got {path!r})") from None
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise argparse.ArgumentTypeError(f"must have a line that is not blank (got {path!r})")
    return found
