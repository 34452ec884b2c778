"""The loss through which an attack tells a model what it still gives away."""

import jax

from jax_unlearn.membership.attacks import Attack, AttackParams
from jax_unlearn.types import Array


def nonmember_loss(
    attack: Attack, params: AttackParams, logits: Array, labels: Array
) -> Array:
    """Return BCE(θ_A(φ(f(x), y)), non-member) = log(1 + exp(score)) of every sample.

    It falls as the attack takes the samples for non-members. The attack is fixed: no
    gradient flows into its parameters, all flows into the logits.

    Args:
      attack: the attack θ_A with its features φ.
      params: its trained parameters, an argument like the logits: carry them in the
        state of whatever uses them.
      logits: outputs f(x) of the model under unlearning, `[B, K]`.
      labels: true classes y, `i32[B]`.

    Returns:
      Losses `f32[B]`, at least 0; log 2 where the attack is undecided.

    Raises:
      InputError: shapes that do not fit.

    Source: LTU (arXiv 2407.10494) for the idea; the form of the loss is our choice.

    >>> import jax.numpy as jnp
    >>> from jax_unlearn.membership import logistic
    >>> attack = logistic()
    >>> params = attack.init(jax.random.key(0), 3)
    >>> logits = jnp.array([[2.0, 0.0]])
    >>> nonmember_loss(attack, params, logits, jnp.array([0])).tolist()  # log 2
    [0.6931]
    """
    params = jax.lax.stop_gradient(params)
    return jax.nn.softplus(attack.score(params, attack.features(logits, labels)))
