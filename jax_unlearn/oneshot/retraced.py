"""Training gone through again, for methods that need what it should have logged."""

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.cards import Lab
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import divided
from jax_unlearn.types import Params, PyTree

__all__ = ["SAME", "check_same"]

SAME = 1e-3  # how far, relatively, a path gone again may end from the original


def check_same(lab: Lab, params: Params) -> None:
    """Refuse an original that its training, gone through again, does not lead to."""
    original, _ = divided(lab.original[0])
    distance = _norm(jax.tree.map(jnp.subtract, divided(params)[0], original))
    size = _norm(original)
    if not distance <= SAME * size:
        raise InputError(
            f"the training of the original, gone through again, ends {distance:.3g} "
            f"from it (norm {size:.3g}): it was made by another version or machine, or "
            "is an unlearned one; train it anew"
        )


def _norm(tree: PyTree) -> float:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))
