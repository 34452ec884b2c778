"""Files on the host: written whole or not at all, read without trust.

Archives of arrays are read without pickles, and no memory is taken on their word.
"""

import contextlib
import json
import math
import os
import secrets
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jax_unlearn.errors import InputError, one_line

__all__ = ["check_writable", "read_as", "read_file", "read_json", "read_npz"]
__all__ += ["text_of", "write_atomic"]

BOMB_RATIO, BOMB_SIZE = 200, 2**28  # arrays that were measured shrink 100-fold at most


def write_atomic(
    path: str | os.PathLike[str],
    data: bytes | str | Callable[[IO[bytes]], Any],
    *,
    overwrite: bool = False,
) -> Path:
    """Write a file whole or not at all; return its path.

    The data (text as UTF-8, or a function that writes to an open file) goes to a hidden
    file in the same folder, is flushed to the disk, and takes the name `path` in one
    `os.replace`: whoever looks sees the old file or the new one. Missing folders are
    made. (Our choice.)

    Raises:
      InputError: the file exists and `overwrite` is False, or its folder cannot be
        written to.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = write_atomic(Path(folder.name) / "note.txt", "forget")
    >>> path.read_text()
    'forget'
    >>> folder.cleanup()
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"path={path} is a folder; name a file inside it")
    if path.exists() and not overwrite:
        raise InputError(f"path={path} exists; pass overwrite=True or another path")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = temporary.open("xb")
    except OSError as error:
        raise InputError(
            f"cannot write path={path} ({error.strerror}); choose another folder"
        ) from error
    try:
        with stream:
            if callable(data):
                data(stream)
            else:
                stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse before the work a file or folder that could not be written after it.

    Raises:
      InputError: what exists above it is a file, or may not be written to.

    >>> check_writable("/dev/null/report.html")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: cannot write path=/dev/null/report.html: /dev/null \
    is no folder that may be written to; choose another folder
    """
    above = Path(path).absolute().parent
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"cannot write path={path}: {above} is no folder that may be written to; "
            "choose another folder"
        )


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises:
      InputError: it does not exist or cannot be read.

    >>> read_file("no/such/file.json")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: cannot read path=no/such/file.json (No such file \
or directory); check the path
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read path={path} ({error.strerror}); check the path"
        ) from error


@contextlib.contextmanager
def read_as(path: str | os.PathLike[str], form: str, remedy: str) -> Iterator[None]:
    """Refuse a file that the body cannot read as one of a form, on one line.

    Whatever a reader raises is meant: most libraries name no set of errors for a broken
    file. An `InputError` passes as it is.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"path={path} is not {form} ({one_line(error)}); {remedy}"
        ) from error


def text_of(path: str | os.PathLike[str], content: bytes) -> str:
    """Return the text that a file holds; refuse what is not UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"path={path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value of a JSON file.

    Raises:
      InputError: it does not exist, cannot be read, or is not JSON.

    >>> read_json("no/such/file.json")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: cannot read path=no/such/file.json (No such file \
or directory); check the path
    """
    with read_as(path, "JSON", "write the file anew"):
        return json.loads(read_file(path))


def read_npz(
    source: str | os.PathLike[str] | IO[bytes], *, wanted: Collection[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a `.npz` file, all or those `wanted`, or say why not."""
    try:
        with zipfile.ZipFile(source) as archive:
            return {
                name: _array(archive, member)
                for name, member in _members(archive).items()
                if wanted is None or name in wanted
            }
    except Exception as error:
        raise ValueError(one_line(error)) from error


class Header(NamedTuple):
    """What an array in an archive is said to be."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def npz_headers(source: str | os.PathLike[str]) -> dict[str, Header]:
    """Return shape and type of the arrays of a `.npz` file, in its order, unread."""
    headers = {}
    try:
        with zipfile.ZipFile(source) as archive:
            for member in _members(archive).values():
                _check_size(member)
                with contextlib.suppress(ValueError), archive.open(member) as stream:
                    name = member.filename.removesuffix(".npy")
                    headers[name] = _header(member.filename, stream)
    except Exception as error:
        raise ValueError(one_line(error)) from error
    return headers


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return what is in an archive by the names of the arrays, each there once."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members:
            raise ValueError(f"{name!r} is there twice")
        members[name] = member
    return members


def _check_size(member: zipfile.ZipInfo) -> None:
    shrunk = member.file_size / max(member.compress_size, 1)
    if member.file_size > BOMB_SIZE and shrunk > BOMB_RATIO:
        raise ValueError(f"{member.filename!r} is a zip bomb")


def _header(name: str, stream: IO[bytes]) -> Header:
    """Read the header of an array."""
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"{name!r} is of .npy version {version}")
    shape, _, dtype = readers[version](stream)
    return Header(shape, dtype)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Return an array, if its header declares what the member holds."""
    _check_size(member)
    with archive.open(member) as stream:
        shape, dtype = _header(member.filename, stream)
        if dtype.hasobject:
            name = member.filename.removesuffix(".npy")
            raise ValueError(
                f"{name!r}: Object arrays cannot be loaded when allow_pickle=False; "
                f"save np.array({name}.tolist()), or {name}.astype(str) for text"
            )
        if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{member.filename!r} holds no {dtype} of shape {shape}")
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # at the end the checksum is compared
    return array
