"""Files on the host: written whole or not at all, read with errors a user can mend."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from jax_unlearn.errors import InputError


def write_atomic(
    path: str | os.PathLike[str], data: bytes | str, *, overwrite: bool = False
) -> Path:
    """Write a file whole or not at all.

    The data goes to a hidden file in the same folder, is flushed to the disk, and
    takes the name `path` in one `os.replace`: whoever looks sees the old file or the
    new one. Missing folders are made. (Our choice.)

    Args:
      path: the file to write.
      data: its content; text is written as UTF-8.
      overwrite: whether a file of that name may be replaced.

    Returns:
      The path written.

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
    content = data.encode() if isinstance(data, str) else data
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
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse before the work what could not be written after it.

    Args:
      path: of a file or a folder to make, with the folders above it.

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
    """Read a file.

    Args:
      path: the file to read.

    Returns:
      Its bytes.

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


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Args:
      path: the file to read.

    Returns:
      Its value.

    Raises:
      InputError: it does not exist, cannot be read, or is not JSON.

    >>> read_json("no/such/file.json")
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: cannot read path=no/such/file.json (No such file \
or directory); check the path
    """
    content = read_file(path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"path={path} is not JSON ({reason}); write the file anew"
        ) from error
