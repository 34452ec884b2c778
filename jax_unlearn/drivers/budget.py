"""Work in the order of its priority, as much of it as a time allows."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["Done", "Piece", "foreseen", "lines", "spend"]


class Piece(NamedTuple):
    """Something to do, the seconds foreseen for it, and the pieces that it needs.

    `ahead` is what can be done for it in the meantime.
    """

    name: str
    seconds: float
    make: Callable[[], Any]
    needs: tuple[str, ...] = ()
    ahead: tuple[Callable[[], Any], ...] = ()


class Done(NamedTuple):
    """What became of a piece: the seconds it took, its result or why there is none."""

    piece: Piece
    seconds: float
    result: Any = None
    reason: str = ""


def spend(
    pieces: Iterable[Piece],
    seconds: float,
    *,
    told: Callable[[Done], Any] = lambda done: None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Done]:
    """Do the pieces in their order until the time is spent; return what became of each.

    A piece is passed over where it is too long for what is left, or needs one that is
    not done; a shorter one behind it may still fit. What the pieces so far took beyond
    what was foreseen, on the average, is added to the next. One that fails is told and
    left behind. `told` is called after each, to save what it gave.
    """
    end, found, made = clock() + seconds, [], set()
    beyond: list[float] = []
    for piece in pieces:
        begin, result = clock(), None
        left = end - begin
        needed = piece.seconds + max(sum(beyond) / max(len(beyond), 1), 0.0)
        missing = [name for name in piece.needs if name not in made]
        if missing:
            done = Done(piece, 0.0, reason=f"needs {missing[0]}")
        elif needed > left:
            done = Done(piece, 0.0, reason=f"{needed:.0f} s, {max(left, 0):.0f} s left")
        else:
            reason = ""
            try:
                result = piece.make()
                made.add(piece.name)
            except Exception as error:  # one that fails must not cost the others
                reason = str(error) or repr(error)
            done = Done(piece, clock() - begin, result, reason)
            beyond.append(done.seconds - piece.seconds)
        found.append(done)
        told(done)
    return found


def foreseen(pieces: Iterable[Piece], seconds: float) -> list[Done]:
    """Return what `spend` will do if every piece takes as long as is foreseen."""
    now = [0.0]

    def wait(piece: Piece) -> None:
        now[0] += piece.seconds

    waiting = [one._replace(make=functools.partial(wait, one)) for one in pieces]
    return spend(waiting, seconds, clock=lambda: now[0])


def lines(plan: Iterable[Done]) -> Iterator[str]:
    """Yield what fits and what does not, in seconds, by the folder of the names."""
    folder_of = lambda done: done.piece.name.rpartition("/")[0]  # noqa: E731
    for folder, own in itertools.groupby(plan, folder_of):
        done = list(own)
        fits = [one.piece for one in done if not one.reason]
        rest = [one.piece for one in done if one.reason]
        total = f"{sum(piece.seconds for piece in fits):.0f} s ({_told(fits)})"
        told = [total] * bool(fits) + [f"left out: {_told(rest)}"] * bool(rest)
        yield f"{folder}: {'; '.join(told)}"


def _told(pieces: Iterable[Piece]) -> str:
    return ", ".join(f"{p.name.rpartition('/')[2]} {p.seconds:.0f} s" for p in pieces)
