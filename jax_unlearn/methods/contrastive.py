"""FCS: contrast D_f with D_r, between rounds of training on D_r."""

import dataclasses
from typing import NamedTuple

import jax
import optax

from jax_unlearn import objectives
from jax_unlearn.cards import Card, Job, Lab, Options, Positive
from jax_unlearn.contracts import counted, forward_pass
from jax_unlearn.data import fcs_schedule
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_loss
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.step import (
    FEWEST,
    Pass,
    Weigher,
    annealed,
    enough,
    forget_gradient,
    next_state,
    stepping,
)
from jax_unlearn.objectives.base import task_loss
from jax_unlearn.types import Aux, LossFn, Model, PyTree, Unlearner, Weighting
from jax_unlearn.weights.combine import uniform as equal

__all__ = ["FCS", "Fcs", "FcsRounds", "fcs"]

FLOOR = 1 / 300  # published: the contrast's rate falls from 3e-4 to 1e-6


class FcsRounds(NamedTuple):
    """What each kind of step has for itself: an optimizer's state, or arrays."""

    flatten: PyTree
    contrast: PyTree
    repair: PyTree


def fcs(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    flatten_optimizer: optax.GradientTransformation,
    contrast_optimizer: optax.GradientTransformation,
    temperature: float = 1.15,
    retain: LossFn | None = None,
    weighting: Weighting | None = None,
    model_state: str = "sequential",
    fewest: int = FEWEST,
) -> Unlearner:
    """Flatten D_f, then contrast it with D_r and train on D_r in turn (FCS).

    Which batches a step has says what it does, each with an optimizer of its own:
    forget alone: `flatten_optimizer` descends on (1/n) Σ w_i KL(u ‖ p_i), see
    `ju.objectives.uniform`; both: `contrast_optimizer` on (1/n) Σ w_i ℓ_i of
    `ju.objectives.contrast` between the logits of both, those of retain samples held
    fixed; retain alone: `optimizer` on CE(D_r). `ju.data.fcs_schedule` makes the rounds
    as published: a flattening pass over D_f, then epochs of a contrast round and of a
    pass over D_r.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: published: SGD of lr 1e-3 for 64 samples, in proportion to them,
        momentum 0.9, decay 0.01; 8 epochs.
      flatten_optimizer: published: SGD of lr 5e-3, momentum 0.9, no decay.
      contrast_optimizer: published: SGD of lr 3e-4 falling along a cosine to 1e-6,
        momentum 0.9, no decay.
      temperature: t > 0 of the contrast.
      retain: default the cross-entropy.
      weighting: weights of the forget samples.
      model_state: see `assemble`; a contrast step takes statistics of the forget pass,
        then of the retain pass.
      fewest: see `assemble`.

    Returns:
      An `Unlearner` whose `opt_state` and `objective_state` are `FcsRounds`.

    Raises:
      InputError: t that is not positive, unknown `model_state`; in the step, if there
        is no batch.

    Reference: first place (fanchuan) of the NeurIPS 2023 unlearning challenge, whose
    code has these numbers.

    >>> import jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> told = dict(flatten_optimizer=optax.sgd(1.0), contrast_optimizer=optax.sgd(1.0))
    >>> alg = fcs(model, optax.sgd(1.0), **told)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − ½), towards p = (½, ½)
    1.6192
    """
    weighting = equal() if weighting is None else weighting
    weigher = Weigher(model, weighting)
    told = {"weighting": weighting, "model_state": model_state, "fewest": fewest}
    mode = model_state
    flat, plain = objectives.uniform(model), objectives.descent(model)
    remember = plain if retain is None else retain

    def passed(state, batch, key):
        forget_key, retain_key = jax.random.split(key)
        kept, before = batch.retain, state.model_state
        trains = [
            mode != "frozen" and enough(before, part, fewest=fewest)
            for part in batch[:2]
        ]

        def loss(params, model_state, batch, key):
            at, own = (params, model_state), {"train": trains[0], "key": key}
            logits, after = forward_pass(model.apply, *at, batch.inputs, **own)
            if mode == "retain":
                after = model_state
            after = next_state(model_state, after, batch, fewest)
            own = {"train": trains[1], "key": retain_key}
            others, last = forward_pass(model.apply, params, after, kept.inputs, **own)
            last = next_state(after, last, kept, fewest)
            found = objectives.contrast(
                logits,
                jax.lax.stop_gradient(others),
                counted(kept),
                temperature=temperature,
            )
            return found, Aux(logits, task_loss(logits, batch), last)

        grads, info = forget_gradient(weigher, loss, state, batch, key=forget_key)
        return Pass(
            grads,
            info.aux.model_state,
            info.carry,
            info.weights,
            info.aux.task_losses,
            mean_loss(info.losses, batch.forget.mask),
            losses=info.losses,
        )

    rounds = FcsRounds(
        assemble(model, flatten_optimizer, forget=flat, **told),
        stepping(
            passed,
            contrast_optimizer,
            weighting=weighting,
            data=(),
            model_state=model_state,
            joint=True,
        ),
        assemble(model, optimizer, retain=remember, **told),
    )

    def init(params, model_state):
        states = [own.init(params, model_state) for own in rounds]
        return states[0]._replace(
            opt_state=FcsRounds(*(state.opt_state for state in states)),
            objective_state=FcsRounds(*(state.objective_state for state in states)),
        )

    def step(state, batch, key):
        if batch.forget is None and batch.retain is None:
            raise InputError("the step has no batch; ju.data.fcs_schedule makes them")
        name = "repair" if batch.forget is None else "contrast"
        name = "flatten" if batch.retain is None else name
        parts = ("opt_state", "objective_state")
        own = {part: getattr(getattr(state, part), name) for part in parts}
        after, info = getattr(rounds, name).step(state._replace(**own), batch, key)
        back = {
            part: getattr(state, part)._replace(**{name: getattr(after, part)})
            for part in parts
        }
        return after._replace(**back), info

    return Unlearner(init, step)


@dataclasses.dataclass(frozen=True)
class Fcs(Options):
    """Options of FCS.

    Attributes:
      flatten_rate: learning rate of the first pass, as a multiple of --learning-rate.
      contrast_rate: learning rate of the contrast rounds, which falls along a cosine,
        as a multiple of --learning-rate.
      contrast_temperature: temperature t of the contrast.
    """

    flatten_rate: Positive = 5.0
    contrast_rate: Positive = 0.3
    contrast_temperature: Positive = 1.15


def _fcs(lab: Lab, options: Fcs) -> Job:
    ids, told = (lab.ids("forget"), lab.ids("retain")), lab.passes()
    schedule = fcs_schedule(lab.examples, *ids, **told).schedule
    pairs = min(-(-len(part) // min(told["batch_size"], len(part))) for part in ids)
    rate = lab.setting.learning_rate
    flatten, contrasting = (
        lab.optimizer(learning_rate=rate * factor, weight_decay=0.0)
        for factor in (options.flatten_rate, options.contrast_rate)
    )
    total = pairs * lab.setting.epochs
    cosine = optax.cosine_decay_schedule(1.0, total, alpha=FLOOR)
    unlearner = fcs(
        lab.model,
        lab.optimizer(),
        flatten_optimizer=flatten,
        contrast_optimizer=annealed(contrasting, cosine),
        temperature=options.contrast_temperature,
        retain=lab.objective("remember"),
        weighting=lab.weighting(),
        model_state=lab.model_state,
    )
    return Job(unlearner, schedule)


FCS = (
    Card.of(_fcs, "FCS", "Contrastive rounds (FCS)", "NeurIPS 2023")
    .but(cost="F + E·(R + 4/3·F)", roles=("remember", "logits"), by_epochs=True)
    .but(
        suits="Good for random samples if the retain set may be read several times: "
        "epochs on it repair the damage of the forget steps (flat outputs, contrast). "
        "After few epochs accuracy is still damaged."
    )
    .tries(
        learning_rate=(0.001, 0.003, 0.01),
        contrast_rate=(0.3, 1.0),
        epochs=(8,),
        weight_decay=(0.01,),
    )
)
