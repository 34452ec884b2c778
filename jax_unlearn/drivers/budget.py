"""Work in the order of its priority, as much of it as a time allows."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

__all__ = ["Done", "Piece", "foreseen", "lines", "spend"]


class Piece(NamedTuple):
    """Something to do, the seconds foreseen for it, and the pieces that it needs."""

    name: str
    seconds: float
    make: Callable[[], Any]
    needs: tuple[str, ...] = ()


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
    left behind.

    Args:
      pieces: in the order of their priority.
      seconds: the time.
      told: called after each piece, to save what it gave.
      clock: seconds on some scale.

    Source: our choice.

    >>> ticks = iter([0, 0, 4, 4])
    >>> pieces = [Piece("a", 2, lambda: "x"), Piece("b", 2, lambda: "y")]
    >>> found = spend(pieces, 7, clock=lambda: next(ticks))
    >>> [(done.result, done.seconds, done.reason) for done in found]
    [('x', 4, ''), (None, 0.0, '4 s, 3 s left')]
    """
    end, found, made = clock() + seconds, [], set()
    beyond: list[float] = []
    for piece in pieces:
        begin = clock()
        needed = piece.seconds + max(sum(beyond) / max(len(beyond), 1), 0.0)
        missing = [name for name in piece.needs if name not in made]
        if missing:
            done = Done(piece, 0.0, reason=f"needs {missing[0]}")
        elif needed > end - begin:
            left = f"{needed:.0f} s, {max(end - begin, 0):.0f} s left"
            done = Done(piece, 0.0, reason=left)
        else:
            result, reason = None, ""
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
    """Return what `spend` will do if every piece takes as long as is foreseen.

    >>> pieces = [Piece("a", 5, print), Piece("b", 9, print), Piece("c", 1, print)]
    >>> pieces.append(Piece("d", 0, print, needs=("b",)))
    >>> [done.reason for done in foreseen(pieces, 8)]
    ['', '9 s, 3 s left', '', 'needs b']
    """
    now = [0.0]

    def wait(piece: Piece) -> None:
        now[0] += piece.seconds

    waiting = [one._replace(make=functools.partial(wait, one)) for one in pieces]
    return spend(waiting, seconds, clock=lambda: now[0])


def lines(plan: Iterable[Done]) -> Iterator[str]:
    """Yield what fits and what does not, in seconds, by the folder of the names.

    >>> pieces = [Piece("a/0/FT", 3, print), Piece("a/0/RL", 9, print)]
    >>> list(lines(foreseen(pieces, 5)))
    ['a/0: 3 s (FT 3); left out: RL 9']
    """
    for folder, own in itertools.groupby(
        plan, lambda d: d.piece.name.rpartition("/")[0]
    ):
        fits, rest = [], []
        for done in own:
            (rest if done.reason else fits).append(done.piece)
        told = [
            ", ".join(f"{p.name.rpartition('/')[2]} {p.seconds:.0f}" for p in some)
            for some in (fits, rest)
        ]
        total = sum(piece.seconds for piece in fits)
        inside = [f"{total:.0f} s ({told[0]})"] if fits else []
        yield f"{folder}: {'; '.join(inside + [f'left out: {told[1]}'] * bool(rest))}"
