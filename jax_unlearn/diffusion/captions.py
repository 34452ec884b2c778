"""Captions made of class names and attributes, words as tokens, requests by word.

Shapes: N images, L tokens a caption. Token 0 is padding; a caption of padding alone is
the null condition of classifier-free guidance.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.diffusion.conditions import Replace
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.types import Array

__all__ = ["SHADES", "WEIGHTS", "Vocabulary", "all_words", "caption"]
__all__ += ["captions_of", "detokenize", "mentions", "null_tokens", "replace_word"]
__all__ += ["thresholds", "tokenize", "vocabulary", "word_of"]

SHADES = ("dark", "bright")
WEIGHTS = ("thin", "bold")


class Vocabulary(NamedTuple):
    """The words a model knows (token i + 1 is word i), and L, tokens of a caption."""

    words: tuple[str, ...]
    length: int


def vocabulary(texts: Sequence[str], *, length: int | None = None) -> Vocabulary:
    """Return the words of some texts, which stand between spaces, sorted.

    Captions have the length of the longest text unless told.

    Raises:
      InputError: no words, or `length` too short for a text.

    >>> vocabulary(["a cat", "a dog"])
    Vocabulary(words=('a', 'cat', 'dog'), length=2)
    """
    split = [text.lower().split() for text in texts]
    longest = max((len(words) for words in split), default=0)
    if not longest:
        raise InputError(f"texts={list(texts)[:3]}: there is no word in them")
    if length is not None and length < longest:
        raise InputError(f"length={length} is too short: a text has {longest} words")
    return Vocabulary(tuple(sorted(set().union(*split))), length or longest)


def tokenize(known: Vocabulary, texts: Sequence[str]) -> np.ndarray:
    """Return texts as tokens `i32[N, L]`, padded with 0; case does not matter.

    Raises:
      InputError: an unknown word, or more than L words.

    >>> tokenize(Vocabulary(("a", "cat"), 3), ["A cat"])
    array([[1, 2, 0]], dtype=int32)
    """
    numbers = {word: i + 1 for i, word in enumerate(known.words)}
    tokens = np.zeros((len(texts), known.length), np.int32)
    for row, text in zip(tokens, texts, strict=True):
        words = text.lower().split()
        if len(words) > known.length:
            raise InputError(
                f"prompt {text!r} has {len(words)} words, the model reads "
                f"{known.length}; shorten it"
            )
        for place, word in enumerate(words):
            if word not in numbers:
                raise unknown_name("word", word, known.words)
            row[place] = numbers[word]
    return tokens


def detokenize(known: Vocabulary, tokens: ArrayLike) -> list[str]:
    """Return tokens `i[N, L]` as texts, padding left out.

    Raises:
      InputError: a token the vocabulary does not have.

    >>> detokenize(Vocabulary(("a", "cat"), 3), [[1, 2, 0]])
    ['a cat']
    """
    rows = np.asarray(tokens)
    wrong = rows[(rows < 0) | (rows > len(known.words))]
    if wrong.size:
        raise InputError(
            f"token {wrong.flat[0]} is unknown: the vocabulary has {len(known.words)} "
            "words, so 0 (padding) to that"
        )
    return [" ".join(known.words[t - 1] for t in row if t) for row in rows]


def null_tokens(known: Vocabulary) -> np.ndarray:
    """Return the null condition: padding alone, `i32[L]`.

    >>> null_tokens(Vocabulary(("a",), 3))
    array([0, 0, 0], dtype=int32)
    """
    return np.zeros(known.length, np.int32)


def thresholds(images: ArrayLike) -> tuple[float, float]:
    """Return the medians by which `captions_of` divides images `u8[N, H, W, C]`.

    They are those of the image means, and of the shares of pixels over 127.

    >>> thresholds(np.array([0, 255, 255], np.uint8).reshape(3, 1, 1, 1))
    (255.0, 1.0)
    """
    means, shares = _measures(images)
    return float(np.median(means)), float(np.median(shares))


def word_of(class_name: str) -> str:
    """Return a class name as one word: lower case, no spaces.

    >>> word_of("T-shirt/top"), word_of("Ankle boot")
    ('t-shirt/top', 'ankle-boot')
    """
    return "-".join(class_name.lower().split())


def caption(
    class_name: str, shade: str | None = None, weight: str | None = None
) -> str:
    """Return the caption of an image of a class, dark or bright, thin or bold.

    >>> caption("Trouser", "dark", "thin"), caption("Trouser")
    ('a dark thin trouser', 'a trouser')
    """
    words = ("a", shade, weight, word_of(class_name))
    return " ".join(word for word in words if word)


def captions_of(
    images: ArrayLike,
    labels: ArrayLike,
    class_names: Sequence[str],
    limits: tuple[float, float],
) -> list[str]:
    """Return the captions of images, made of class names, shades and weights.

    An image is bright, or else dark, if its mean pixel is over its limit; bold, or else
    thin, if the share of its pixels over 127 is over its own. The limits are the
    `thresholds` of the training images.

    >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    >>> captions_of(images, [1, 0], ["cat", "dog"], (100.0, 0.5))
    ['a dark thin dog', 'a bright bold cat']
    """
    means, shares = _measures(images)
    over = (means > limits[0]).astype(int), (shares > limits[1]).astype(int)
    rows = zip(np.asarray(labels), *over, strict=True)
    return [caption(class_names[int(c)], SHADES[s], WEIGHTS[w]) for c, s, w in rows]


def all_words(class_names: Sequence[str]) -> Vocabulary:
    """Return the vocabulary of all captions of some classes.

    >>> all_words(["cat"])
    Vocabulary(words=('a', 'bold', 'bright', 'cat', 'dark', 'thin'), length=4)
    """
    triples = itertools.product(class_names, SHADES, WEIGHTS)
    return vocabulary([caption(*triple) for triple in triples])


def mentions(tokens: ArrayLike, known: Vocabulary, word: str) -> np.ndarray:
    """Return which captions `[N, L]` hold a word, `bool[N]`: the forget set.

    Raises:
      InputError: an unknown word.

    >>> mentions([[1, 2, 0], [1, 1, 0]], Vocabulary(("a", "cat"), 3), "cat")
    array([ True, False])
    """
    return (np.asarray(tokens) == _token(known, word)).any(axis=-1)


def replace_word(known: Vocabulary, old: str, new: str) -> Replace:
    """Return the replacement of a concept, one word, by its anchor in every caption.

    Raises:
      InputError: an unknown word, or twice the same.

    Source: concept ablation (Kumari et al., arXiv 2303.13516) for the idea.

    >>> replace = replace_word(Vocabulary(("a", "cat", "dog"), 2), "cat", "dog")
    >>> print(replace(None, jnp.array([[1, 2], [1, 3]]), None))
    [[1 3]
     [1 3]]
    """
    if word_of(old) == word_of(new):
        raise InputError(f"old={old!r}, new={new!r}: the anchor must be another word")
    source, target = _token(known, old), _token(known, new)

    def replace(key: Array, condition: Array, labels: Array) -> Array:
        del key, labels
        other = jnp.asarray(target, condition.dtype)
        return jnp.where(condition == source, other, condition)

    return replace


def _token(known: Vocabulary, word: str) -> int:
    name = word_of(word)
    if name not in known.words:
        raise unknown_name("word", word, known.words)
    return known.words.index(name) + 1


def _measures(images: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and share of pixels over 127 of each image."""
    values = np.asarray(images)
    if values.ndim != 4 or values.dtype != np.uint8:
        raise InputError(
            f"images of shape {values.shape} and type {values.dtype} must be uint8 "
            "[N, H, W, C]"
        )
    axes = (1, 2, 3)
    return values.mean(axis=axes), (values > 127).mean(axis=axes)
