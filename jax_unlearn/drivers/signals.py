"""SIGTERM and Ctrl-C: a run that is being saved comes to rest first, others end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "check", "handled", "held", "pending"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """The process was asked to end by a `signal`, 15 for SIGTERM; all is saved."""

    def __init__(self, number: int):
        super().__init__(f"stopped by signal {number}")
        self.signal = int(number)


class _Requests:
    """What the handler and the runs of this process tell each other."""

    held = 0  # runs that look at `number` after each step
    number: int | None = None


_requests = _Requests()


@contextmanager
def handled() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into `Stopped` while the body runs.

    Inside `held` the first signal waits until `check` is called; the second one does
    not. Outside the main thread, where Python takes no signals, this does nothing. The
    handlers that were there come back at the end.

    Raises:
      Stopped: a signal came.

    >>> with handled():
    ...     signal.getsignal(signal.SIGTERM).__name__
    '_stop'
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _requests.number = None


@contextmanager
def held() -> Iterator[None]:
    """Put off the first signal: the body calls `check` where it can end.

    >>> with held():
    ...     check()
    """
    _requests.held += 1
    try:
        yield
    finally:
        _requests.held -= 1
    if not _requests.held:
        check()


def pending() -> int | None:
    """Return the number of the signal that waits, None if none does.

    >>> pending() is None
    True
    """
    return _requests.number


def check() -> None:
    """End here if a signal waits.

    Raises:
      Stopped: one does.

    >>> check()
    """
    if _requests.number is not None:
        number, _requests.number = _requests.number, None
        raise Stopped(number)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    if _requests.held and _requests.number is None:
        _requests.number = number
        return
    _requests.number = None
    raise Stopped(number)
