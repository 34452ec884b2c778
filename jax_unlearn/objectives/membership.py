"""The objective of a sample that must not be taken for a member."""

from jax_unlearn import losses
from jax_unlearn.membership.attacks import Attack, AttackParams
from jax_unlearn.membership.loss import nonmember_loss
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Model


def nonmember(model: Model, attack: Attack, attack_params: AttackParams) -> Objective:
    """Return the loss of being taken for a member: ℓ = log(1 + exp(score(x, y))).

    Attacks look at a model in use, so the forward pass is in eval mode.

    Args:
      model: the network; outputs are logits `[B, K]`.
      attack: a differentiable membership attack.
      attack_params: what it has learned.

    Source: LTU, arXiv 2407.10494; the form of the loss is our choice.

    >>> import jax, jax.numpy as jnp
    >>> from jax_unlearn.adapters import from_stateless
    >>> from jax_unlearn.membership import logistic
    >>> from jax_unlearn.types import Batch
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> attack = logistic()
    >>> objective = nonmember(model, attack, attack.init(jax.random.key(0), 3))
    >>> batch = Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> objective(2.0, (), batch, jax.random.key(0))[0].tolist()  # undecided: log 2
    [0.6931]
    """

    def output_loss(outputs, batch, key, data):
        del key
        loss = nonmember_loss(attack, data, outputs, batch.labels)
        return loss, losses.cross_entropy(outputs, batch.labels)

    return Objective(model, output_loss, attack_params, train=False)
