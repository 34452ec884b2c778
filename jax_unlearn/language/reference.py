"""Losses of texts under a model, as tables by id."""

import jax
import numpy as np

from jax_unlearn.errors import InputError
from jax_unlearn.language.text import Text, scored
from jax_unlearn.types import Array, Batch, Model, ModelState, Params

__all__ = ["reference_nll"]


def reference_nll(
    model: Model,
    params: Params,
    model_state: ModelState,
    data: Text | Batch,
    *,
    size: int = 0,
    batch_size: int = 32,
) -> Array:
    """Return S of each text under a model, `f32[N]`: the table that NPO and DPO read.

    The model runs in eval mode, `batch_size` texts at a time, and need not be kept. The
    texts are those of ids 0 to N − 1; of a `Batch` with `index` those of its ids, in a
    table of `size`, 0 elsewhere.

    Raises:
      InputError: no `Text`, an id beyond `size`.

    >>> import jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(
    ...     lambda key, x: 0.0, lambda w, text: w * jnp.ones((*text.tokens.shape, 4))
    ... )
    >>> text = Text(jnp.array([[2, 3, 1]]), jnp.array([[False, True, True]]))
    >>> reference_nll(model, 1.0, (), text).tolist()  # 2 log 4
    [2.7726]
    """
    from jax_unlearn.drivers.loop import predict

    text, index = data, None
    if isinstance(data, Batch):
        text, index = data.inputs, data.index
    if not isinstance(text, Text):
        raise InputError(
            f"data of type {type(text).__name__}: give a ju.language.Text, or a Batch "
            "of it"
        )

    def apply(params, model_state, inputs, *, train, key=None):
        mode = {"train": train, "key": key}
        outputs, after = model.apply(params, model_state, inputs, **mode)
        return scored(outputs, inputs), after

    host = jax.tree.map(np.asarray, text)
    scoring = Model(model.init, apply)
    found = predict(scoring, params, model_state, host, batch_size=batch_size)
    total = np.asarray(found.nll, np.float32).sum(axis=1)  # type: ignore[attr-defined]
    if index is None:
        return jax.numpy.asarray(total)
    ids = np.asarray(index)
    table = np.zeros(size or int(ids.max()) + 1, np.float32)
    if ids.min() < 0 or ids.max() >= len(table):
        raise InputError(f"index holds {ids.min()} to {ids.max()}, size={len(table)}")
    table[ids] = total
    return jax.numpy.asarray(table)
