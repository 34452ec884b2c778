"""What of a language model moves: adapters alone, or all of it in fewer digits."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn.adapters.parts import whole_variables
from jax_unlearn.cards import Variables
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modality import Division, by_pattern
from jax_unlearn.language.lora import LINEAR, lora, lora_variables, merge_lora

__all__ = ["adapted", "division", "whole_of"]


def division(setting: Any) -> Division | None:
    """Return how a setting of unlearning divides a model; None if it moves all."""
    own = setting.modality_options
    if own.lora and setting.trainable:
        raise InputError(
            f"trainable={setting.trainable!r}, lora={own.lora}: adapters alone are "
            "moved; leave one of them out, or choose their maps by --lora-match"
        )
    return _division(
        own.lora, own.lora_alpha, own.lora_match, own.dtype, setting.trainable
    )


def adapted(training: Any) -> Division | None:
    """Return how a training divides its start; None if it trains all of it."""
    if not training.lora:
        return None
    # parameters that nothing moves are held as they are computed with
    own = training.lora, training.lora_alpha, training.lora_match, training.dtype
    return _division(*own, "")


@functools.lru_cache(maxsize=8)
def _division(
    rank: int, alpha: float, match: str, dtype: str, pattern: str
) -> Division | None:
    inner = by_pattern(pattern)
    if not rank and not dtype:
        return inner
    told: dict[str, Any] = {"rank": rank, "alpha": alpha, "match": match or LINEAR}

    def model(given: Any) -> Any:
        if rank:
            return lora(given, **told)
        return given if inner is None else inner.model(given)

    def divide(params: Any, model_state: Any) -> Variables:
        if dtype:
            params = _of(params, dtype)
        if rank:
            try:
                return lora_variables(params, model_state, **told)
            except InputError as error:
                raise InputError(f"lora_{error}") from error  # of "match"
        given = params, model_state
        return given if inner is None else inner.divide(*given)

    def network(given: Any) -> Any:
        return dataclasses.replace(given, dtype=dtype) if dtype else given

    return Division(model, divide, whole_of, network, alone=inner is None)


def whole_of(params: Any, model_state: Any, original: Any = None) -> Variables:
    """Return the variables of the model itself, float32, of divided ones.

    Adapters are added to the original's weights where they are given, so that no other
    weight is rounded.
    """
    params, model_state = whole_variables(params, model_state)
    if not (isinstance(params, dict) and "lora" in params):
        return _of(params, "float32"), model_state
    base = _of(params["base"], "float32") if original is None else original
    return merge_lora({**params, "base": base}, model_state)


def _of(params: Any, dtype: str) -> Any:
    """Return parameters of another precision; the very arrays where it is theirs."""
    kind = jnp.dtype(dtype)
    return jax.tree.map(lambda x: x if x.dtype == kind else x.astype(kind), params)
