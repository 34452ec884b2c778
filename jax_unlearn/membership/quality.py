"""How well a membership attack does on held-out samples, and whether that is chance.

Shapes: N members, M non-members.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array

__all__ = ["AttackInfo", "auc", "auc_standard_error", "better_than_chance"]
__all__ += ["check_attacks"]


class AttackInfo(NamedTuple):
    """How well an attack does on samples it was not trained on.

    Attributes:
      auc: probability that a held-out member scores above a held-out non-member, ties
        half, `f32[]`; NaN where a score is not finite.
      standard_error: of the AUC (Hanley and McNeil), `f32[]`.
      train_loss, held_out_loss: class-balanced cross-entropy; undecided is 0.693.
      members, nonmembers: number of held-out samples, `i32[]`.
    """

    auc: Array
    standard_error: Array
    train_loss: Array
    held_out_loss: Array
    members: Array
    nonmembers: Array


def auc(member_scores: Array, nonmember_scores: Array) -> Array:
    """Return P(member score > non-member score) + ½ P(equal), over all pairs.

    It is the area under the ROC curve, `f32[]` in [0, 1], by ranks: O((N + M) log M);
    NaN if a score is not finite.

    >>> import jax.numpy as jnp
    >>> print(auc(jnp.array([2.0, 1.0]), jnp.array([0.0, 1.0])))  # (1+1+1+½)/4
    0.875
    """
    ordered = jnp.sort(nonmember_scores)
    below = jnp.searchsorted(ordered, member_scores, side="left")
    up_to = jnp.searchsorted(ordered, member_scores, side="right")
    wins = (below + up_to).astype(jnp.float32) / (2 * nonmember_scores.size)
    finite = jnp.all(jnp.isfinite(member_scores)) & jnp.all(jnp.isfinite(ordered))
    return jnp.where(finite, jnp.mean(wins), jnp.nan)


def auc_standard_error(
    area: float | Array, members: int | Array, nonmembers: int | Array
) -> Array:
    """Return the standard error of an AUC estimated from so many samples.

    √((A(1−A) + (N−1)(Q₁−A²) + (M−1)(Q₂−A²))/(NM)), Q₁ = A/(2−A), Q₂ = 2A²/(1+A), A the
    area and N, M ≥ 1. At A = ½ it is that of the rank-sum test, √((N+M+1)/(12NM)); at 0
    and 1 it is 0.

    Reference: Hanley and McNeil, Radiology 143 (1982), 29–36.

    >>> print(auc_standard_error(0.5, 1, 1))
    0.5
    """
    a, n, m = (jnp.asarray(v, jnp.float32) for v in (area, members, nonmembers))
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    variance = a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)
    return jnp.sqrt(jnp.maximum(variance, 0.0) / (n * m))


def better_than_chance(
    info: AttackInfo, *, min_auc: float = 0.5, z: float = 1.96
) -> Array:
    """Return whether the AUC is above `min_auc` by more than chance explains.

    auc > min_auc + z·SE(min_auc), False where the AUC is NaN: the confidence interval,
    with the standard error of Hanley and McNeil at its bound (Wilson's kind), leaves
    `min_auc` out. At ½ that is the rank-sum test. The error at the bound, not at the
    estimate, since the latter is 0 for an AUC of 1, however few the samples. z = 1.96
    is 95 % two-sided.

    Raises:
      InputError: `min_auc` outside [0.5, 1) or `z` out of range.

    Reference: Hanley and McNeil, Radiology 143 (1982), 29–36.

    >>> one = jnp.float32(1)
    >>> info = AttackInfo(one, one, one, one, jnp.int32(2), jnp.int32(2))
    >>> print(better_than_chance(info))  # all 4 pairs right: chance does that too
    False
    """
    _validate.within("min_auc", min_auc, "[0.5, 1)", "try 0.5")
    _validate.not_negative("z", z, "try 1.96")
    error = auc_standard_error(min_auc, info.members, info.nonmembers)
    return info.auc > min_auc + z * error


def check_attacks(
    infos: Mapping[str, AttackInfo],
    *,
    min_auc: float = 0.5,
    z: float = 1.96,
    min_models: int = 2,
) -> None:
    """Refuse attacks that cannot guide unlearning.

    An attack no better than chance gives no feedback, and LTU needs one for its support
    and another for its queries: `min_models`. With leading axes, every model counts.
    `better_than_chance` is the same test, with the same options, without refusal.

    Raises:
      InputError: fewer than `min_models` attacks, an attack whose confidence interval
        includes `min_auc`, values that are not finite.

    >>> check_attacks({})
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: attacks=[]: 2 or more membership models are needed, \
such as membership.default_attacks()
    """
    if len(infos) < min_models:
        raise InputError(
            f"attacks={sorted(infos)}: {min_models} or more membership models are "
            "needed, such as membership.default_attacks()"
        )
    for name, info in infos.items():
        if np.all(better_than_chance(info, min_auc=min_auc, z=z)):
            continue
        area, error = np.asarray(info.auc), np.asarray(info.standard_error)
        worst = np.unravel_index(np.argmin(area), area.shape)
        n, m = int(np.max(info.members)), int(np.max(info.nonmembers))
        bound = min_auc + z * float(auc_standard_error(min_auc, n, m))
        raise InputError(
            f"attack {name!r} is no better than chance: held-out auc="
            f"{area[worst]:.3f} (standard error {error[worst]:.3f}, "
            f"members={n}, nonmembers={m}), needed above {bound:.3f}; leave it out, "
            "use more samples, or a model that overfits"
        )
