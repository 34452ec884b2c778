"""A language model made of two: the original, less what another says (WHP, ULD)."""

from typing import Any

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Scored
from jax_unlearn.types import Array, Model, PyTree

__all__ = ["contrasted", "contrasted_logits"]


def contrasted_logits(
    logits: Array,
    other: Array,
    *,
    scale: float | Array = 1.0,
    kind: str = "difference",
    top: float | Array = 0.0,
) -> Array:
    """Return z_o − α·relu(z₊ − z_o) ("excess") or z_o − w·z_a ("difference").

    Of logits `[..., V]`; z₊ of a model reinforced on the forget texts (WHP), z_a of an
    assistant that knows nothing else (ULD), α and w the `scale`. With `top`, tokens of
    less than that share of the likeliest one's probability under z_o stay out, as −∞
    would, at −1e9: ULD's filter, published 0.1.

    Raises:
      InputError: an unknown kind, a negative scale, `top` outside [0, 1], or logits of
        another shape.

    Reference: WHP, arXiv 2310.02238, equation 1; ULD, arXiv 2406.08607, equation 5.

    >>> z, other = jnp.array([1.0, 2.0]), jnp.array([2.0, 0.0])
    >>> contrasted_logits(z, other, kind="excess").tolist()
    [0.0, 2.0]
    >>> contrasted_logits(z, other).tolist()
    [-1.0, 2.0]
    """
    _validate.choice("kind", kind, "difference", "excess")
    _validate.not_negative("scale", scale, "try 1")
    _validate.within("top", top, "[0, 1]", "try 0.1")
    if logits.shape != other.shape:
        raise InputError(
            f"logits of shapes {logits.shape} and {other.shape}: both models need one "
            "vocabulary"
        )
    z, a = logits.astype(jnp.float32), other.astype(jnp.float32)
    scale = jnp.asarray(scale, jnp.float32)
    found = z - scale * (jax.nn.relu(a - z) if kind == "excess" else a)
    if isinstance(top, int | float) and not top:
        return found
    least = jnp.max(z, axis=-1, keepdims=True) + jnp.log(jnp.asarray(top, jnp.float32))
    return jnp.where(z >= least, found, jnp.float32(-1e9))


def contrasted(model: Model, other: Model, **options: Any) -> Model:
    """Return the model whose logits are those of one less what another says.

    Its parameters are `(params, params of the other)`, its state the pair of states; so
    `ju.language.generate` and audits take it as any model, and it needs the memory of
    both. The options are those of `contrasted_logits`: `kind="excess"` with a copy
    fine-tuned on the forget texts is WHP, α of 1; with an assistant of fewer layers,
    trained by `next_token` on the forget texts and 5 times `max_entropy` on retain
    texts, it is ULD, w of 1 and `top=0.1`.

    Raises:
      InputError: as `contrasted_logits`; in the call, a model without logits.

    Reference: as `contrasted_logits`.

    >>> import jax_unlearn as ju
    >>> one = ju.from_stateless(lambda key, x: jnp.ones(2), lambda w, x: w * x)
    >>> both = contrasted(one, one, scale=0.5)
    >>> both.apply((jnp.ones(2), jnp.ones(2)), ((), ()), jnp.ones(2), train=False)[0]
    Array([0.5, 0.5], dtype=float32)
    """

    def init(key: Array, inputs: PyTree):
        first, second = jax.random.split(key)
        pair = model.init(first, inputs), other.init(second, inputs)
        return tuple(params for params, _ in pair), tuple(state for _, state in pair)

    def apply(params, model_state, inputs, *, train, key=None):
        mode = {"train": train, "key": key}
        logits, state = model.apply(params[0], model_state[0], inputs, **mode)
        less, second = other.apply(params[1], model_state[1], inputs, **mode)
        if isinstance(logits, Scored) or isinstance(less, Scored):
            raise InputError(
                "contrasted needs logits [B, T, V] of both models; make them by "
                "ju.language.decoder(config, outputs='logits')"
            )
        return contrasted_logits(logits, less, **options), (state, second)

    return Model(init, apply)
