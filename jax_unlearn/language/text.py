"""Token sequences, and how likely a model finds them.

Shapes: B batch, T tokens. Position t of a `Scored` is about token t + 1.
"""

from typing import NamedTuple

from jax_unlearn.types import Array

__all__ = ["Scored", "Text"]


class Text(NamedTuple):
    """Texts as tokens: the `inputs` of a language model's batch.

    Attributes:
      tokens: `i32[B, T]`; padding may hold any token.
      targets: tokens that are answered for (answer and end of text), `bool[B, T]`;
        prompt and padding are not.
      segments: which text of a packed row a token is of, from 1, 0 for padding,
        `i32[B, T]`; None where a row is one text, whose padding `real` tells.
      real: tokens that are no padding, `bool[B, T]`; None where all are, or where
        `segments` says so.
    """

    tokens: Array
    targets: Array
    segments: Array | None = None
    real: Array | None = None


class Scored(NamedTuple):
    """What a model says of each token of a text.

    Attributes:
      nll: −log π(x_{t+1} | x_{≤t}), `f32[B, T − 1]`, 0 where not counted.
      counted: tokens that are answered for, `bool[B, T − 1]`.
    """

    nll: Array
    counted: Array
