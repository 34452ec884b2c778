"""Packing: several texts side by side in a row, none of which attends to another.

Shapes: N texts of T tokens, R rows of L.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jax_unlearn.contracts import forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Scored, Text, answered
from jax_unlearn.types import Array, Model

__all__ = ["pack", "repacked", "rows_of", "usual_rows"]

DRAWS = 256  # of batches


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


def usual_rows(lengths: ArrayLike, texts: int, *, length: int) -> int:
    """Return how many rows of L tokens hold random texts of these lengths, mostly.

    The most of 256 draws, so that about one batch in some hundred takes more.

    >>> usual_rows([100, 100], 4, length=256)
    2
    """
    sizes, rng = np.asarray(lengths, np.int64), np.random.default_rng(0)
    draws = (rng.choice(sizes, texts) for _ in range(DRAWS))
    return max(1 + int(rows_of(draw, length).max(initial=0)) for draw in draws)


def repacked(model: Model, rows: Callable[[int], int], *, length: int) -> Model:
    """Return a model of the same losses that packs the texts of a batch by itself.

    Texts `[B, T]`, padded at their end, are laid side by side into rows of L, scored
    there, and their losses given back as `[B, T − 1]`: all that reads losses of texts
    (objectives, weightings) sees what it saw, for as many tokens as the texts have and
    not as many as the longest. Texts with `segments` are scored as they come, so give
    those that fill more rows some: else what finds no place has the loss NaN.

    Args:
      model: that gives `Scored`, such as `decoder(config, outputs="scored")`.
      rows: for B texts, such as `usual_rows` of their lengths.
      length: L, of a row.

    Raises:
      InputError: in the step, outputs that are no `Scored`.

    >>> import jax_unlearn as ju
    >>> config = ju.zoo.DecoderConfig(64, width=32, layers=1)
    >>> model = ju.language.decoder(config, outputs="scored")
    >>> packs = repacked(model, lambda texts: 1, length=4)
    >>> params, state = jax.jit(model.init)(jax.random.key(0), None)
    >>> real = jnp.array([[True, True] + 3 * [False]] * 2)
    >>> text = Text(jnp.array([[5, 3, 0, 0, 0], [7, 1, 0, 0, 0]]), real, None, real)
    >>> both = [jax.jit(m.apply, static_argnames="train") for m in (packs, model)]
    >>> own, other = (f(params, state, text, train=False)[0].nll for f in both)
    >>> bool(jnp.allclose(own, other, atol=1e-5))
    True
    """

    def apply(params, model_state, inputs, *, train: bool, key: Any = None):
        at, told = (model.apply, params, model_state), {"train": train, "key": key}
        whole = isinstance(inputs, Text) and inputs.segments is None
        texts, longest = inputs.tokens.shape if whole else (0, 0)
        size = rows(texts) * length if whole else 0
        if size >= texts * longest or inputs.real is None:
            return forward_pass(*at, inputs, **told)
        sizes = jnp.sum(inputs.real, axis=1, dtype=jnp.int32)
        begin, fits = _laid(sizes, size // length, length)
        place = jnp.where(inputs.real, begin[:, None] + jnp.arange(longest)[None], size)

        def put(values: Array) -> Array:
            made = jnp.zeros(size, values.dtype).at[place].set(values, mode="drop")
            return made.reshape(-1, length)

        owner = jnp.arange(1, texts + 1, dtype=jnp.int32)[:, None]
        segments = put(jnp.broadcast_to(owner, place.shape))
        laid = Text(put(inputs.tokens), put(inputs.targets), segments, segments > 0)
        outputs, after = forward_pass(*at, laid, **told)
        if not isinstance(outputs, Scored):
            raise InputError(
                f"the model gives {type(outputs).__name__}: only losses of tokens can "
                "be packed; make it by decoder(config, outputs='scored')"
            )
        # the last position of a row predicts nothing
        nll = jnp.pad(outputs.nll, ((0, 0), (0, 1))).reshape(-1)
        own = nll.at[place[:, :-1]].get(mode="fill", fill_value=0.0)
        own = jnp.where(fits[:, None], own, jnp.nan)
        counted = answered(inputs)
        return Scored(jnp.where(counted, own, 0.0), counted), after

    return Model(model.init, apply)


def _laid(sizes: Array, rows: int, length: int) -> tuple[Array, Array]:
    """Return where each text begins, laid as by `rows_of`, and whether it has a place.

    Places are numbered through all rows.
    """

    def lay(left: Array, size: Array):
        room = left >= size
        row = jnp.argmax(room)
        begin = row.astype(jnp.int32) * length + length - left[row]
        return left.at[row].add(jnp.where(room[row], -size, 0)), (begin, room[row])

    order = jnp.argsort(-sizes)
    left = jnp.full(rows, length, jnp.int32)
    _, (begin, fits) = jax.lax.scan(lay, left, sizes[order])
    back = jnp.argsort(order)
    return begin[back], fits[back]
