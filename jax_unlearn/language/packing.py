"""Packing: several texts side by side in a row, none of which attends to another.

Shapes: N texts of T tokens, R rows of L.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Text

__all__ = ["pack", "rows_of"]


def rows_of(lengths: ArrayLike, length: int) -> NDArray[np.int64]:
    """Return the row of each text, `i64[N]`: the longest first, each where it fits.

    >>> rows_of([5, 2, 4, 3], 8)
    array([0, 1, 1, 0])
    """
    sizes = np.asarray(lengths, np.int64)
    if sizes.size and sizes.max() > length:
        raise InputError(
            f"length={length}: a text has {sizes.max()} tokens; give rows of as many"
        )
    rows, left = np.zeros(len(sizes), np.int64), np.zeros(0, np.int64)
    for place in np.argsort(-sizes, kind="stable"):
        fits = np.flatnonzero(left >= sizes[place])
        if not len(fits):
            left = np.append(left, length)
            fits = [len(left) - 1]
        rows[place] = fits[0]
        left[fits[0]] -= sizes[place]
    return rows


def pack(text: Text, *, length: int, rows: int = 0) -> Text:
    """Return texts packed into rows `[R, L]`, with the segment of each token.

    A segment is a text, numbered from 1 within its row; positions and attention begin
    anew with it. R is `rows`, or as many as it takes where that is 0. The mean loss of
    all tokens is that of the texts one by one.

    Raises:
      InputError: a text longer than L, or more texts than `rows` hold.

    >>> real = np.array([[True, True, False], [True, True, True]])
    >>> text = Text(np.array([[1, 2, 0], [3, 4, 5]]), real, None, real)
    >>> packed = pack(text, length=6)
    >>> packed.tokens, packed.segments
    (array([[3, 4, 5, 1, 2, 0]]), array([[1, 1, 1, 2, 2, 0]], dtype=int32))
    """
    tokens, targets = np.asarray(text.tokens), np.asarray(text.targets)
    real = np.ones(tokens.shape, bool) if text.real is None else np.asarray(text.real)
    place = rows_of(real.sum(axis=1), length)
    needed = 1 + int(place.max(initial=0))
    if rows and needed > rows:
        raise InputError(f"rows={rows}: the texts fill {needed}; give as many")
    shape = rows or needed, length
    made = np.zeros(shape, tokens.dtype), np.zeros(shape, bool)
    segments, ends = np.zeros(shape, np.int32), np.zeros((shape[0], 2), np.int64)
    for number in np.argsort(-real.sum(axis=1), kind="stable"):
        row, own = place[number], real[number]
        begin, count = ends[row]
        stop = begin + own.sum()
        made[0][row, begin:stop] = tokens[number, own]
        made[1][row, begin:stop] = targets[number, own]
        segments[row, begin:stop] = count + 1
        ends[row] = stop, count + 1
    return Text(made[0], made[1], segments, segments > 0)  # type: ignore[arg-type]
