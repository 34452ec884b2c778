"""Methods that lead D_f to what the original says of other data: DELETE, ReGUn."""

import dataclasses
from typing import Unpack

import numpy as np
import optax

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.types import Array, LossFn, Model, ModelState, Params, Unlearner

__all__ = ["DELETE", "REGUN", "Regun", "delete", "regun"]


def delete(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    teacher_params: Params,
    teacher_state: ModelState,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Follow the original on D_f without the true class, the retain set unused.

    Minimises (1/n) Σ w_i KL(q_i ‖ p_i) of `ju.objectives.other_classes`. Made for whole
    classes. The other arguments are those of `assemble`. Published: SGD of lr 1e-4,
    momentum 0.9, 20 epochs over D_f.

    Reference: arXiv 2503.23751.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> original = jnp.float32(2.0)
    >>> alg = delete(model, optax.sgd(1.0), teacher_params=original, teacher_state=())
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(original, ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − p_0
    1.1192
    """
    forget = objectives.other_classes(model, teacher_params, teacher_state)
    return assemble(model, optimizer, forget=forget, **options)


def regun(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    references: Array,
    retain_share: float = 0.5,
    retain: LossFn | None = None,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Lead D_f to the mean prediction of unseen data of its classes (ReGUn).

    Minimises (1/n_f) Σ w_i KL(q ‖ p_i) on D_f + λ_r·CE on D_r, with one q a batch, see
    `ju.objectives.reference`, and λ_r the `retain_share`. The retain loss is CE unless
    given, the other arguments are those of `assemble`. Published: λ_r 0.5, SGD of lr
    0.01, momentum 0.9, no decay, 10 epochs, a tenth of the data held out for q.

    Raises:
      InputError: negative `retain_share`; as `ju.objectives.reference`.

    Reference: arXiv 2603.11210; q matched to the batch's classes as in the paper.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = regun(model, optax.sgd(1.0), references=jnp.full((2, 2), 0.5))
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − ½) + ½·p_1
    1.6788
    """
    _validate.not_negative("retain_share", retain_share, "published: 0.5")
    join = options.get("harmonizer") or harmonize.add()
    options["harmonizer"] = harmonize.scaled(join, retain=retain_share)
    return assemble(
        model,
        optimizer,
        forget=objectives.reference(model, references),
        retain=objectives.descent(model) if retain is None else retain,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class Regun(Options):
    """Options of ReGUn.

    Attributes:
      retain_share: factor of the retain loss beside the forget loss.
      one_reference: use one target for all batches, whatever their classes.
    """

    retain_share: NotNegative = 0.5
    one_reference: bool = False


def _delete(lab: Lab, _: Options) -> Job:
    params, state = lab.original
    teacher = {"teacher_params": params, "teacher_state": state}
    told = {"weighting": lab.weighting(), "model_state": lab.model_state}
    return Job.of(lab, "forget", delete, **teacher, **told)


def _regun(lab: Lab, options: Regun) -> Job:
    labels, classes = np.asarray(lab.labels("unseen")), lab.num_classes
    q = lab.probabilities("unseen")
    if options.one_reference:
        q = np.broadcast_to(q.mean(axis=0), q.shape)
    told = {"retain": lab.objective("remember"), **lab.joint()}
    told["references"] = objectives.class_references(q, labels, classes)
    told["retain_share"] = options.retain_share
    return Job.of(lab, "zipped", regun, **told)


DELETE = (
    Card.of(_delete, "DELETE", source="arXiv 2503.23751")
    .but(reads=("forget", "original"), cost="4/3·E·F", roles=("logits",), step_reads=())
    .but(
        suits="Good for whole classes without the retain set: it removes the true "
        "class and keeps the original's odds of all others. For random samples the "
        "usual rate damages the accuracy on all others: search a smaller one."
    )
    .tries(learning_rate=(0.001, 0.003, 0.01), epochs=(5, 20))
)

REGUN = (
    Card.of(_regun, "ReGUn", source="arXiv 2603.11210")
    .but(reads=("forget", "retain", "unseen", "original"), cost="2·E·R")
    .but(roles=("remember", "logits"), joins=True, compares="unseen", step_reads=())
    .but(
        suits="Good for random samples if there are unseen samples of their classes: "
        "outputs on the forget set move towards outputs on those. The usual rate can "
        "ruin the retain accuracy of a small network: search a smaller one."
    )
    .tries(learning_rate=(0.003, 0.01, 0.03), epochs=(3, 8))
)
