"""Files of arrays: written whole or not at all, and read without trust in their contents.

A file is an uncompressed .npz, which `np.load` reads too: arrays of numbers, and a header of JSON
text. Nothing in it is ever run. As it is uncompressed, its size bounds the memory that reading
takes, whatever it claims.
"""

from __future__ import annotations

import errno
import io
import json
import math
import operator
import os
import secrets
import shutil
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GraphFormatError, UnknownOpError

Path = str | os.PathLike[str]
Header = dict[str, Any]
Arrays = dict[str, NDArray[Any]]

VERSION = 1  # of the files' contents; add 1 for a change that an older vgrad cannot read
HEADER = "header"
DTYPES = ("|u1", "<i4", "<f8")  # what arrays may hold, in the byte order of the file
LONGEST = 300  # characters: of an array's header, and of what an error quotes from a file


def save_arrays(path: Path, kind: str, about: Header, arrays: Arrays) -> None:
    """Write a file of this kind, such as "vgrad.Graph": a header for JSON, and named arrays.

    An older file is replaced at the end, in one step. Raises OSError, and leaves things as they
    were, if the file cannot be written.
    """
    fields = {"format": kind, "version": VERSION, **about}
    header = json.dumps(fields, separators=(",", ":"), default=operator.index)  # NumPy's integers
    members = {HEADER: np.frombuffer(header.encode(), np.uint8), **arrays}
    with _replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in members.items():
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: equal arrays give equal bytes
            with archive.open(info, "w", force_zip64=True) as member:
                array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


@contextmanager
def loading_arrays(path: Path, kind: str) -> Iterator[tuple[Header, Arrays]]:
    """The contents of a file of this kind, for a `with` block that builds something from them.

    Raises GraphFormatError, which names the file, if it is of another kind or version, is damaged,
    or makes the block fail; OSError if it cannot be read.
    """
    path = os.fsdecode(path)
    _refuse_devices(path)
    with open(path, "rb") as file:
        with _naming(path, kind):
            size = os.fstat(file.fileno()).st_size
            archive = zipfile.ZipFile(file)
            members = _members(archive, size)
            about = _header(archive, members)
        found = about.pop("format")
        if found != kind and found.startswith("vgrad."):
            raise GraphFormatError(
                f"{path} must be a file of {kind}.save (got one of {found:.50}.save); "
                f"use {found:.50}.load"
            )
        with _naming(path, kind):
            if found != kind:
                raise GraphFormatError(f"its format must be {kind} (got {found!r:.50})")
            version = about.pop("version", None)
            if type(version) is not int or version != VERSION:
                raise GraphFormatError(f"its version must be {VERSION} (got {version!r:.50})")
            yield about, {name: _array(archive, member) for name, member in members.items()}


def expect(what: str, found: Any, wanted: Collection[str]) -> None:
    """Raise GraphFormatError unless `found` is a dict that has the names wanted and no others."""
    if not isinstance(found, dict):
        raise GraphFormatError(f"{what} must have names (got a {type(found).__name__})")
    for name in wanted:
        if name not in found:
            raise GraphFormatError(f"{what} must have {name} (got {', '.join(found) or 'none'})")
    for name in found.keys() - wanted:
        raise GraphFormatError(f"{what} must be {', '.join(wanted)} (got {name!r} too)")


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path`, which replaces it once the `with` block has filled it."""
    target = _target(path)
    temporary = f"{target}.{secrets.token_hex(4)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # its bytes reach the disk before its name does
        with suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with suppress(OSError):  # where folders can be opened, the new name outlives a power cut too
        folder = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _target(path: Path) -> str:
    """The file that `path` leads to, through links; raises OSError if it may not be written."""
    target = os.path.realpath(os.fsdecode(path))
    _refuse_devices(target)
    if os.path.exists(target):  # a rename needs fewer rights than a write
        open(target, "r+b").close()
    return target


def _refuse_devices(path: str) -> None:
    """Raise OSError for what has no end, such as /dev/zero, or waits, as pipes and sockets do.

    A rename would replace even a device. Of folders the system says itself what they are.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        problem = "must be a file, not a device, a pipe or a socket; give the path of a file"
        raise OSError(errno.EINVAL, problem, path)


@contextmanager
def _naming(path: str, kind: str) -> Iterator[None]:
    """Turn every error caused by the contents of a file into a GraphFormatError that names it."""
    try:
        yield
    except Exception as error:
        # No file is read beyond its size, so it is the machine that lacks memory. For impossible
        # positions in a file the system says EINVAL.
        if isinstance(error, MemoryError) or getattr(error, "errno", None) not in (
            None,
            errno.EINVAL,
        ):
            raise
        known = isinstance(error, GraphFormatError | zipfile.BadZipFile)
        problem = str(error) if known else f"{type(error).__name__}: {error}"
        advice = "save it again with this version of vgrad"
        if isinstance(error, UnknownOpError):
            advice = "import the module that defines it"
        raise GraphFormatError(
            f"{path} must be a whole file of {kind}.save, but {problem:.{LONGEST}}; {advice}"
        ) from error


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The members of a file of this size, by name; checked not to share bytes."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise GraphFormatError(f"each member must be there once (got {name!r} twice)")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise GraphFormatError(f"member {name!r} must be uncompressed")
        members[name] = info
    total = sum(info.file_size for info in members.values())
    if total > size:
        raise GraphFormatError(f"its members must fit into its {size} bytes (got {total})")
    return members


def _header(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo]) -> Header:
    """The header, taken out of the members: a dict with a string called "format"."""
    if HEADER not in members:
        raise GraphFormatError(f"it must have a member {HEADER!r}")
    header = json.loads(_array(archive, members.pop(HEADER)).tobytes().decode())
    if not isinstance(header, dict) or not isinstance(header.get("format"), str):
        raise GraphFormatError("its header must say of what format it is")
    return header


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """The array of a member, whose header must be true."""
    data = archive.read(info)  # which looks at the checksum
    stream, member = io.BytesIO(data), f"member {info.filename!r}"
    if np.lib.format.read_magic(stream) != (1, 0):
        raise GraphFormatError(f"{member} must be in version 1.0 of .npy")
    if int.from_bytes(data[8:10], "little") > LONGEST:  # NumPy parses it as Python code
        raise GraphFormatError(f"{member} must have a header of at most {LONGEST} bytes")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.str not in DTYPES or fortran:
        kinds = "uint8, int32 or float64, row after row"
        raise GraphFormatError(f"{member} must be {kinds} (got {dtype})")
    start, left = stream.tell(), len(data) - stream.tell()
    if not all(type(k) is int and k >= 0 for k in shape) or len(shape) > 2:
        raise GraphFormatError(f"{member} must have one or two axes (got {shape})")
    if math.prod(shape) * dtype.itemsize != left:
        raise GraphFormatError(f"{member}, {dtype} {shape}, must fill its {left} bytes")
    array = np.frombuffer(data, dtype, offset=start) if left else np.empty(0, dtype)
    return array.reshape(shape).astype(dtype.newbyteorder("="))
