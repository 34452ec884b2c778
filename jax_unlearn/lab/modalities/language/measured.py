"""What is measured on a language model: losses of texts."""

import functools
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.cards import Variables
from jax_unlearn.data import Examples
from jax_unlearn.drivers.loop import predict
from jax_unlearn.language.text import Scored, Text, scored
from jax_unlearn.types import Array, Model

__all__ = [
    "TokenStatistics",
    "attack_scores",
    "loss_table",
    "mean_losses",
    "observed",
    "scores_of",
    "token_statistics",
]

BATCH = 32  # texts scored at a time


def scores_of(
    model: Model, at: Variables, examples: Examples, batch: int = BATCH
) -> Scored:
    """Return the losses of the tokens of some texts, on the host."""
    return predict(model, *at, examples.inputs, batch_size=batch)  # type: ignore


def mean_losses(found: Scored) -> np.ndarray:
    """Return ℓ̄ of each text, `f64[n]`."""
    counted = np.asarray(found.counted)
    total = np.where(counted, np.asarray(found.nll, np.float64), 0.0).sum(axis=1)
    return total / np.maximum(counted.sum(axis=1), 1)


def observed(subject: Any, at: Variables, examples: Examples) -> np.ndarray:
    """Return logit p of each text against 0, p = e^{−ℓ̄}, `f32[n, 2]`."""
    loss = mean_losses(scores_of(subject.model, at, examples))
    loss = np.maximum(loss, 1e-7)
    logit = -loss - np.log(-np.expm1(-loss))
    return np.stack([logit, np.zeros_like(logit)], axis=1).astype(np.float32)


def loss_table(lab: Any, *, total: bool = False) -> Array:
    """Return the original's ℓ̄ by text, or S (`total`), 0 beyond the forget set."""
    forget = lab.ids("forget")
    inputs = jax.tree.map(lambda leaf: leaf[forget], lab.examples.inputs)
    part = Examples(inputs, lab.examples.labels[forget])
    means = np.zeros(len(lab.examples.labels), np.float32)
    found = scores_of(lab.subject.model, lab.original, part)
    means[forget] = mean_losses(found)
    if total:
        means[forget] *= np.asarray(found.counted).sum(axis=1)
    return jnp.asarray(means)


class TokenStatistics(NamedTuple):
    """What a model says of each token, `[n, T − 1]`.

    Attributes:
      nll, counted: as of `Scored`.
      mean, std: of log π under π itself, for Min-K++.
      right: whether the likeliest token is the one that comes.
    """

    nll: np.ndarray
    counted: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    right: np.ndarray


def token_statistics(
    model: Model, at: Variables, examples: Examples
) -> TokenStatistics:
    """Return what a model of logits says of the tokens of some texts."""
    return predict(_with_statistics(model), *at, examples.inputs, batch_size=8)  # type: ignore


@functools.lru_cache(maxsize=8)
def _with_statistics(model: Model) -> Model:
    def apply(params, state, text: Text, *, train: bool, key: Any = None):
        logits, state = model.apply(params, state, text, train=train, key=key)
        found = scored(logits, text)
        logp = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
        p = jnp.exp(logp)
        mean = jnp.sum(p * logp, axis=-1)
        square = jnp.sum(p * jnp.square(logp), axis=-1) - jnp.square(mean)
        std = jnp.sqrt(jnp.maximum(square, 1e-6))
        right = jnp.argmax(logp, axis=-1) == text.tokens[:, 1:]
        return TokenStatistics(found.nll, found.counted, mean, std, right), state

    return Model(model.init, apply)


SHARE = 0.4  # of the tokens, the least likely ones, that Min-K looks at


def attack_scores(
    built: Any,
    at: Variables,
    examples: Examples,
    answers: Sequence[str],
    reference: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of membership attacks by name, `f64[n]` each, high for members.

    `loss` −ℓ̄; `min_k` the mean of the lowest 40 % of log p; `min_k_plus_plus` the same
    of (log p − μ)/σ; `zlib` −ℓ̄ over the compressed size; `reference` ℓ̄ of another model
    less ℓ̄.

    Reference: Shi et al., arXiv 2310.16789; Zhang et al., arXiv 2404.02936; Carlini et
    al., arXiv 2012.07805.
    """
    found = token_statistics(built.logits, at, examples)
    logp = -np.asarray(found.nll, np.float64)
    counted = np.asarray(found.counted)
    plus = (logp - np.asarray(found.mean)) / np.asarray(found.std)
    loss = mean_losses(Scored(found.nll, found.counted))  # type: ignore[arg-type]
    sizes = np.array([len(zlib.compress(text.encode())) for text in answers])
    scores = {
        "loss": -loss,
        "min_k": _lowest(logp, counted),
        "min_k_plus_plus": _lowest(plus, counted),
        "zlib": -loss / sizes,
    }
    return scores if reference is None else {**scores, "reference": reference - loss}


def _lowest(values: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the mean of the lowest share of each text's values."""
    means = []
    for row, own in zip(values, counted, strict=True):
        kept = np.sort(row[own])
        means.append(kept[: max(1, int(SHARE * len(kept)))].mean())
    return np.array(means)
