"""Primal-dual unlearning (PDU): flat predictions, under a bound on the retain loss."""

import dataclasses
from functools import partial
from typing import Annotated

import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options, Positive
from jax_unlearn.methods.assemble import separate_pass
from jax_unlearn.methods.step import FEWEST, Weigher, stepping, with_data
from jax_unlearn.types import Array, Harmonizer, LossFn, Model, Unlearner, Weighting
from jax_unlearn.weights.combine import uniform

__all__ = ["PDU", "Pdu", "multiplier", "pdu"]


def multiplier(
    price: Array, loss: Array, *, bound: float | Array, rate: float | Array
) -> Array:
    """Return λ ← max(0, λ + η(L_r − ε)): dearer where the retain loss is above ε.

    Reference: PDU, arXiv 2506.05314.

    >>> print(multiplier(jnp.float32(1.0), jnp.float32(0.5), bound=0.3, rate=5.0))
    2.0
    """
    return jnp.maximum(price + jnp.float32(rate) * (loss - jnp.float32(bound)), 0.0)


def pdu(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    forget: LossFn | None = None,
    retain: LossFn | None = None,
    price: float = 100.0,
    rate: float = 5.0,
    bound: float = 0.3,
    warmup: int = 0,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    model_state: str = "sequential",
) -> Unlearner:
    """Minimise the forget loss subject to L_r ≤ ε, by steps of both players.

    A step descends along g_f + λ·g_r; then λ ← max(0, λ + η(L_r − ε)) from the mean
    retain loss of the same batch, once `warmup` steps are done. λ travels in
    `weight_state`, beside the weighting's: `state.weight_state[1]`.

    Args:
      model: of logits `[B, T, V]`, for the default of `forget`.
      optimizer: any optax transformation.
      forget: default `ju.objectives.pdu_forget(model)`.
      retain: default `ju.objectives.next_token(model)`.
      price: λ₀.
      rate: η; 0 leaves λ where it is.
      bound: ε.
      warmup: steps without a change of λ; published, those of 5 epochs.
      weighting: of the forget losses; default uniform.
      harmonizer: joins g_f and λ·g_r; default their sum.
      model_state: as of `assemble`.

    Raises:
      InputError: a negative number; in the step, no batch at all.

    Reference: PDU, arXiv 2506.05314.

    >>> import jax, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> up, down = ju.objectives.ascent(model), ju.objectives.descent(model)
    >>> alg = pdu(model, optax.sgd(0.1), forget=up, retain=down, price=1.0, bound=0.0)
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, _ = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> print(state.weight_state[1])  # 1 + 5·0.1269
    1.6346
    """
    for name, value in (("price", price), ("rate", rate), ("bound", bound)):
        _validate.not_negative(name, value, "try 100, 5 and 0.3")
    _validate.at_least("warmup", warmup, 0)
    forget = objectives.pdu_forget(model) if forget is None else forget
    retain = objectives.next_token(model) if retain is None else retain
    if model_state == "frozen":
        forget, retain = (
            loss._replace(train=False)
            if isinstance(loss, objectives.Objective)
            else loss
            for loss in (forget, retain)
        )
    weigher, join = (
        Weigher(model, weighting or uniform()),
        harmonizer or harmonize.add(),
    )

    def passed(state, batch, key):
        inner, dear, still = state.weight_state
        losses = tuple(map(with_data, (forget, retain), state.objective_state))
        told = {"mode": model_state, "fewest": FEWEST, "key": key}
        told["harmonizer"] = harmonize.scaled(join, retain=dear)
        found = separate_pass(
            losses, weigher, state._replace(weight_state=inner), batch, **told
        )
        loss = jnp.asarray(found.retain_loss, jnp.float32)
        moves = jnp.logical_and(state.step >= still, batch.retain is not None)
        after = jnp.where(moves, multiplier(dear, loss, bound=bound, rate=rate), dear)
        after = found.weight_state, after, still
        return found._replace(weight_state=after, shares=(1.0, dear))

    def init():
        still = jnp.int32(warmup)
        return weigher.weighting.init(), jnp.float32(price), still

    return stepping(
        passed,
        optimizer,
        weighting=Weighting(init, weigher.weighting.update),
        data=tuple(getattr(loss, "data", ()) for loss in (forget, retain)),
        model_state=model_state,
        joint=True,
    )


@dataclasses.dataclass(frozen=True)
class Pdu(Options):
    """Options of PDU.

    Attributes:
      price: price of the retain loss at the start, λ₀.
      price_rate: rate η at which the price follows the retain loss.
      retain_bound: bound ε of the retain loss by token.
      price_warmup: epochs before the price changes.
    """

    price: NotNegative = 100.0
    price_rate: Positive = 5.0
    retain_bound: NotNegative = 0.3
    price_warmup: Annotated[int, partial(_validate.at_least, low=0)] = 5


def _pdu(lab: Lab, options: Pdu) -> Job:
    schedule = lab.schedule("both")
    epochs = max(lab.setting.epochs, 1)
    share = min(options.price_warmup / epochs, 1.0)
    unlearner = pdu(
        lab.model,
        lab.optimizer(),
        forget=lab.objective("pdu_forget"),
        retain=lab.objective("next_token"),
        price=options.price,
        rate=options.price_rate,
        bound=options.retain_bound,
        warmup=round(share * len(schedule)),
        **lab.joint(),
    )
    return Job(unlearner, schedule)


PDU = (
    Card.of(_pdu, "PDU", "Primal-dual (PDU)", "arXiv 2506.05314")
    .but(roles=("pdu_forget", "next_token"), schedule=True, cost="E·(R + F)")
    .but(
        step_reads=(),
        suits="Good if the loss on other texts must stay below a bound: the weight of "
        "this constraint is learned during unlearning. Predictions on forgotten texts "
        "end flat.",
    )
    .tries(learning_rate=(1e-5, 3e-5, 1e-4), retain_bound=(0.1, 0.3), epochs=(10,))
)
