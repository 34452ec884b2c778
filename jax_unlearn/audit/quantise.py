"""Quantisation: does what was forgotten come back when the parameters are rounded?

Unlearning that moves parameters a little can be undone by rounding them: original and
unlearned parameters fall on the same grid points.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn._validate import choice
from jax_unlearn.audit import _checks
from jax_unlearn.errors import InputError
from jax_unlearn.types import Params

__all__ = ["quantised"]


def quantised(
    params: Params, *, bits: int = 8, by: str = "block", block: int = 64
) -> Params:
    r"""Round the weights to `bits` bits by absolute maxima, and return them as floats.

    .. math::
        \hat w = \frac{s}{L} \operatorname{round}\Big(\frac{L w}{s}\Big), \qquad
        s = \max_{\text{group}} |w|, \quad L = 2^{\text{bits} - 1} - 1

    A group is `block` weights that follow each other in a leaf, or (`by="channel"`) all
    that lead to one output: the last axis, as flax has it. Half-way values go to the
    even integer. A group of zeros stays. Weights are floating leaves of two axes or
    more; biases, scales of norms and anything else stay as they are, as is usual.
    Shapes and dtypes are kept; the arithmetic is float32.

    To probe a model, look at its forget samples again with the rounded parameters.
    Target: Retrain rounded alike; null: a Retrain of another seed rounded alike. Right
    more often than these, it held what it seemed to have lost. It takes one unlearned
    model and two Retrains, three for an interval.

    Raises:
      InputError: bits outside 2..16, an unknown grouping, a weight that is not finite.

    It serves classifiers and language models alike, in 8 bits and in 4.

    Source: Zhang et al., arXiv 2410.16454, of language models (4 bits bring back most
    of what they forgot); for classifiers, and this grouping: our choice.

    >>> weights = {"w": jnp.array([[1.0, 0.3], [-0.5, 0.0]]), "b": jnp.array([0.3])}
    >>> rounded = quantised(weights, bits=3)  # thirds of the largest
    >>> rounded["w"].round(3).tolist(), rounded["b"].round(3).tolist()
    ([[1.0, 0.333], [-0.667, 0.0]], [0.3])
    """
    choice("by", by, "block", "channel")
    _checks.whole("block", block, 1, "try 64")
    _checks.whole("bits", bits, 2, "try 8 or 4")
    if bits > 16:
        raise InputError(f"bits={bits} are no fewer than half precision; try 8 or 4")
    levels = float(2 ** (bits - 1) - 1)

    def rounded(path: Any, leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        if array.ndim < 2 or not jnp.issubdtype(array.dtype, jnp.floating):
            return leaf
        values = np.asarray(array, np.float32)
        if not np.isfinite(values).all():
            name = jax.tree_util.keystr(path)
            raise InputError(
                f"params{name} hold NaN or infinite values; find out where the model "
                "diverged"
            )
        if by == "channel":
            groups = values.reshape(-1, values.shape[-1])
            axis = 0
        else:
            flat = values.ravel()
            groups = np.pad(flat, (0, -flat.size % block)).reshape(-1, block)
            axis = 1
        scale = np.abs(groups).max(axis=axis, keepdims=True)
        safe = np.where(scale > 0, scale, np.float32(1))
        steps = np.rint(groups / safe * np.float32(levels))
        found = steps * (safe / np.float32(levels))
        found = found.ravel()[: values.size].reshape(values.shape)
        return jnp.asarray(found, array.dtype)

    return jax.tree_util.tree_map_with_path(rounded, params)
