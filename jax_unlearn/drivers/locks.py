"""One run a folder: a lock that ends with the process, however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jax_unlearn.errors import InputError

LOCK = ".lock"


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder for this process while the body runs.

    The lock is the system's (`flock` on `folder/.lock`): a killed process leaves none,
    only the file. Where the system has no `flock` (Windows), nothing is locked.

    Args:
      folder: made if missing.

    Raises:
      InputError: another process holds it, which is named; or the folder cannot be
        written to.

    Source: our choice.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(folder):
    ...     print(os.listdir(folder))
    ['.lock']
    """
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None
    path = Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
        while fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, file):
                break
            os.close(file)  # its last holder removed it meanwhile
            file = _open(path)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(file, 20, 0).decode() or "unknown"
        os.close(file)
        raise InputError(
            f"folder {folder} is in use by another run (process {holder}); wait for "
            "it, or choose another folder"
        ) from error
    except OSError as error:
        raise InputError(
            f"cannot write to folder {folder} ({error.strerror}); free some space or "
            "choose another folder"
        ) from error
    try:
        yield
    finally:
        if fcntl is not None and _names(path, file):  # not one that came after it
            path.unlink(missing_ok=True)
        os.close(file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _names(path: Path, file: int) -> bool:
    """Return whether an open file is still the one of that path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
