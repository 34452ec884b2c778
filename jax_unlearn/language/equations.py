"""What is minimised on one text or one token: equations of arrays, nothing reduced.

S is the loss of a text and ℓ̄ its mean by token; z are logits `[..., V]` of one token.
Each takes any leading axes, so each also runs on one item under `jax.vmap`, and
computes in float32.
"""

import jax
import jax.numpy as jnp

from jax_unlearn.losses import soft_cross_entropy
from jax_unlearn.types import Array

__all__ = ["ceu_loss", "entropy_gap", "flatness", "preference_loss", "simnpo_loss"]
__all__ += ["steering_loss", "undial_loss"]


def preference_loss(
    total: Array,
    reference: Array,
    *,
    beta: float | Array,
    preferred: Array | float = 0.0,
    preferred_reference: Array | float = 0.0,
) -> Array:
    """Return −(2/β) log σ(β[(S − S_o) − (S_w − S_w,o)]): NPO, and DPO.

    S and S_o, `[...]`, are the losses of the text to forget under the model and the
    original; S_w and S_w,o those of the answer preferred to it, 0 in NPO. At the
    original it is (2/β) log 2, its slope in S is −1; as S grows it falls to 0.

    Reference: NPO, arXiv 2404.05868; DPO, arXiv 2305.18290, with NPO's factor 2/β,
    which TOFU's own code leaves out.

    >>> preference_loss(jnp.array([3.0]), jnp.array([3.0]), beta=2.0).tolist()  # log 2
    [0.6931]
    """
    beta = jnp.asarray(beta, jnp.float32)
    margin = (total - reference) - (preferred - preferred_reference)
    return 2.0 / beta * jax.nn.softplus(-beta * margin)


def simnpo_loss(
    mean: Array, *, beta: float | Array, delta: float | Array = 0.0
) -> Array:
    """Return −(2/β) log σ(β(ℓ̄ − δ)): NPO by token, without the original (SimNPO).

    The paper's margin −γ stands beside β·ℓ̄, so that δ = γ/β; its code has it inside,
    as here.

    Reference: SimNPO, arXiv 2410.07163.

    >>> simnpo_loss(jnp.array([0.0]), beta=2.0).tolist()  # log 2
    [0.6931]
    """
    return preference_loss(mean, jnp.asarray(delta, jnp.float32), beta=beta)


def undial_loss(
    logits: Array, teacher: Array, tokens: Array, *, strength: float | Array
) -> Array:
    """Return the cross-entropy to softmax(z_o − β·1_y): the answer, taken back.

    z_o, `[..., V]`, are the original's logits, not differentiated, y, `i32[...]`, the
    true tokens, β the strength.

    Reference: UNDIAL, arXiv 2402.10052.

    >>> z = jnp.zeros((1, 2))
    >>> undial_loss(z, z, jnp.array([0]), strength=10.0).tolist()  # log 2
    [0.6931]
    """
    own = jax.nn.one_hot(tokens, logits.shape[-1], dtype=jnp.float32)
    lowered = jax.lax.stop_gradient(teacher).astype(jnp.float32)
    lowered -= jnp.asarray(strength, jnp.float32) * own
    return soft_cross_entropy(logits, jax.nn.softmax(lowered))


def ceu_loss(logits: Array, tokens: Array) -> Array:
    """Return the cross-entropy to the model's own prediction without the true token.

    The target, softmax of z with z_y = −∞, is not differentiated.

    Reference: CE-U, arXiv 2503.01224.

    >>> ceu_loss(jnp.zeros((1, 3)), jnp.array([0])).tolist()  # log 3
    [1.0986]
    """
    own = jax.nn.one_hot(tokens, logits.shape[-1], dtype=jnp.bool_)
    others = jnp.where(own, -jnp.inf, logits.astype(jnp.float32))
    return soft_cross_entropy(logits, jax.lax.stop_gradient(jax.nn.softmax(others)))


def entropy_gap(logits: Array) -> Array:
    """Return KL(U ‖ π) = −log V − (1/V) Σ_k log p_k, 0 for a uniform prediction (ME).

    Reference: maximising entropy, arXiv 2410.08109; of ULD's retain texts, arXiv
    2406.08607.

    >>> entropy_gap(jnp.log(jnp.array([[0.8, 0.2]]))).tolist()  # −log 2 − ½ log 0.16
    [0.2231]
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(log_probs, axis=-1) - jnp.log(jnp.float32(logits.shape[-1]))


def flatness(logits: Array) -> Array:
    """Return (max z − mean z)², 0 for a uniform prediction (PDU's forget loss).

    Reference: PDU, arXiv 2506.05314.

    >>> flatness(jnp.array([[3.0, 1.0, 2.0]])).tolist()
    [1.0]
    """
    z = logits.astype(jnp.float32)
    return jnp.square(jnp.max(z, axis=-1) - jnp.mean(z, axis=-1))


def steering_loss(hidden: Array, target: Array) -> Array:
    """Return ‖h − t‖²/D of hidden states and targets `[..., D]` (RMU).

    Reference: RMU, arXiv 2403.03218.

    >>> steering_loss(jnp.array([[1.0, 3.0]]), jnp.zeros((1, 2))).tolist()
    [5.0]
    """
    apart = hidden.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(apart), axis=-1)
