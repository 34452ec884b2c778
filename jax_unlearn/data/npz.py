"""Archives of arrays, read without pickles and without trust in what they declare."""

import math
import os
import zipfile
from collections.abc import Collection
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

BOMB_RATIO, BOMB_SIZE = 200, 2**28  # arrays that were measured shrink 100-fold at most


def read_npz(
    source: str | os.PathLike[str] | IO[bytes],
    *,
    wanted: Collection[str] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a `.npz` file.

    Nothing is unpickled, nothing is unpacked to the disk, and no memory is taken for
    an array before the archive is seen to hold as many bytes as it declares. Members of
    over 256 MiB that shrank more than 200-fold are taken for a bomb. Checksums are
    compared. (The two limits: our choice.)

    Args:
      source: path, or an open file.
      wanted: names to read, those that are there; None reads all.

    Returns:
      Arrays by name, without the suffix `.npy`.

    Raises:
      ValueError: says why the file cannot be read, in at most 80 characters.

    >>> import io
    >>> stream = io.BytesIO()
    >>> np.savez(stream, ids=[1, 2])
    >>> read_npz(stream)
    {'ids': array([1, 2])}
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            names = [member.filename.removesuffix(".npy") for member in members]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{twice[0]!r} is there twice")
            return {
                name: _array(archive, member)
                for name, member in zip(names, members, strict=True)
                if wanted is None or name in wanted
            }
    except Exception as error:  # NumPy and zipfile name no set of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason[:80]) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    shrunk = member.file_size / max(member.compress_size, 1)
    if member.file_size > BOMB_SIZE and shrunk > BOMB_RATIO:
        raise ValueError(f"{member.filename!r} is a zip bomb")
    with archive.open(member) as stream:
        _check_header(stream, member)
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # at the end the checksum is compared
    return array


def _check_header(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Refuse a header that declares other than what the member holds."""
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"{member.filename!r} is of .npy version {version}")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    if stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
        raise ValueError(f"{member.filename!r} holds no {dtype} of shape {shape}")
