"""What is measured on a language model: losses of texts."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.audit import language
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
STEP = 64  # tokens by which passes differ in length


def scores_of(
    model: Model, at: Variables, examples: Examples, batch: int = BATCH
) -> Scored:
    """Return the losses of the tokens of some texts, on the host."""
    return _by_length(model, at, examples, batch)


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
    means = np.zeros(len(lab.examples.labels), np.float32)
    found = scores_of(lab.subject.model, lab.original, lab.examples.at(forget))
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
    return _by_length(_with_statistics(model), at, examples, 8)


def _by_length(model: Model, at: Variables, examples: Examples, batch: int) -> Any:
    """Return what a model says of each token, short texts with short ones.

    Passes are as long as their longest text, in steps, so that few programs serve all.
    """
    text: Any = examples.inputs
    if text.real is None or len(text.tokens) <= batch:
        return predict(model, *at, text, batch_size=batch)
    longest = text.tokens.shape[1]
    sizes = np.asarray(text.real).sum(axis=1)
    kept = np.minimum(-(-sizes // STEP) * STEP, longest)
    found: Any = None
    for length in np.unique(kept):
        own = np.flatnonzero(kept == length)
        part = jax.tree.map(lambda leaf, own=own, n=length: leaf[own, :n], text)
        # one program a length, however many texts have it
        rows = np.resize(np.arange(len(own)), -(-len(own) // batch) * batch)
        part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], part)
        made: Any = predict(model, *at, part, batch_size=batch)
        if found is None:
            shape = len(sizes), longest - 1
            found = jax.tree.map(lambda leaf: np.zeros(shape, leaf.dtype), made)  # noqa: B023
        for whole, leaf in zip(found, made, strict=True):
            whole[own, : length - 1] = leaf[: len(own)]
    return found


@functools.lru_cache(maxsize=8)
def _with_statistics(model: Model) -> Model:
    def apply(params, model_state, inputs, *, train: bool, key: Any = None):
        text: Text = inputs
        logits, state = model.apply(params, model_state, text, train=train, key=key)
        found = scored(logits, text)
        logp = jax.nn.log_softmax(logits[:, :-1].astype(jnp.float32))
        p = jnp.exp(logp)
        mean = jnp.sum(p * logp, axis=-1)
        square = jnp.sum(p * jnp.square(logp), axis=-1) - jnp.square(mean)
        std = jnp.sqrt(jnp.maximum(square, 1e-6))
        right = jnp.argmax(logp, axis=-1) == text.tokens[:, 1:]
        told: Any = (found.nll, found.counted, mean, std, right)
        return TokenStatistics(*told), state

    return Model(model.init, apply)


def attack_scores(
    built: Any,
    at: Variables,
    examples: Examples,
    answers: Sequence[str],
    reference: Any = None,
) -> dict[str, np.ndarray]:
    """Return the scores of membership attacks by name, `f64[n]` each, high for members.

    See `ju.audit.language`; `reference` are losses of another model.
    """
    found = token_statistics(built.logits, at, examples)
    nll, mean, std = (
        [row[of] for row, of in zip(values, found.counted, strict=True)]
        for values in (found.nll, found.mean, found.std)
    )
    scores = {
        "loss": language.loss_score(nll),
        "min_k": language.min_k(nll),
        "min_k_plus_plus": language.min_k_plus_plus(nll, mean, std),
        "zlib": language.zlib_ratio(nll, answers),
    }
    if reference is not None:
        scores["reference"] = language.reference_score(nll, reference)
    return scores
