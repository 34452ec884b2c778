"""Methods that train on the retain set alone and let the rest fade."""

import dataclasses
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, objectives
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.types import Array, LossFn, Model, Unlearner

__all__ = ["FINETUNE", "L1_SPARSE", "RETRAIN", "L1PenaltyState", "L1Sparse", "finetune"]
__all__ += ["l1_penalty", "l1_sparse"]


def finetune(
    model: Model, optimizer: optax.GradientTransformation, **options: Unpack[Assembly]
) -> Unlearner:
    """Fine-tune (FT): minimise the cross-entropy on D_r.

    From a fresh initialisation it is Retrain, or on all data ordinary training. The
    arguments are those of `assemble`, of which the unlearner reads
    `UnlearnBatch.retain`. Published: lr 0.01, 10 epochs (CIFAR-10).

    Reference: SalUn's FT, arXiv 2310.12508.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = finetune(model, optax.sgd(1.0))
    >>> retain = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = ju.UnlearnBatch(retain=retain)
    >>> state, info = jax.jit(alg.step)(state, step, jax.random.key(0))
    >>> print(state.params)  # 2 + p_1, p_1 = 1/(1 + e²)
    2.1192
    """
    return assemble(model, optimizer, retain=objectives.descent(model), **options)


def l1_sparse(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    penalty: float = 1e-4,
    steps: int,
    retain: LossFn | None = None,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Fine-tune under a fading ℓ1 penalty: CE(D_r) + γ_t‖θ‖₁, γ_t from γ to 0.

    γ is the `penalty`, published 1e-4 to 5e-4; γ_t falls linearly over the `steps` (in
    the authors' code by the epoch). The other arguments are those of `assemble`, the
    loss CE unless given.

    Raises:
      InputError: negative penalty, or steps below 1.

    Reference: Jia et al., arXiv 2304.04934, equation 6.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = l1_sparse(model, optax.sgd(1.0), penalty=0.5, steps=10)
    >>> retain = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = ju.UnlearnBatch(retain=retain)
    >>> state, info = jax.jit(alg.step)(state, step, jax.random.key(0))
    >>> print(state.params)  # 2 + p_1 − 0.5
    1.6192
    """
    _validate.not_negative("penalty", penalty, "try 1e-4")
    _validate.at_least("steps", steps, 1)
    schedule = optax.linear_schedule(penalty, 0.0, steps)
    return assemble(
        model,
        optax.chain(l1_penalty(schedule), optimizer),
        retain=objectives.descent(model) if retain is None else retain,
        **options,
    )


class L1PenaltyState(NamedTuple):
    """State of `l1_penalty`: the number of steps done, `i32[]`."""

    count: Array


def l1_penalty(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Add the subgradient of γ_t‖θ‖₁ to the gradients: g + γ_t·sign(θ).

    `schedule` maps the step's number to γ_t; `update` needs `params`.

    >>> penalty = l1_penalty(optax.constant_schedule(0.5))
    >>> params = jnp.array([2.0, -3.0, 0.0])
    >>> print(penalty.update(jnp.zeros(3), penalty.init(params), params)[0])
    [ 0.5 -0.5  0. ]
    """

    def init(params) -> L1PenaltyState:
        del params
        return L1PenaltyState(jnp.int32(0))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("l1_penalty needs params: call update(g, state, params)")
        gamma = schedule(state.count)

        def pulled(g, p):
            return g + jnp.asarray(gamma, g.dtype) * jnp.sign(p).astype(g.dtype)

        updates = jax.tree.map(pulled, updates, params)
        return updates, L1PenaltyState(state.count + 1)

    return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True)
class L1Sparse(Options):
    """Options of l1-sparse.

    Attributes:
      penalty: γ of the first step.
    """

    penalty: NotNegative = 1e-4


def _finetune(lab: Lab, _: Options) -> Job:
    told = {"retain": lab.objective("remember"), "model_state": lab.model_state}
    return Job.of(lab, "retain", assemble, **told)


def _l1_sparse(lab: Lab, options: L1Sparse) -> Job:
    schedule = lab.schedule("retain")
    unlearner = l1_sparse(
        lab.model,
        lab.optimizer(),
        penalty=options.penalty,
        steps=len(schedule),
        retain=lab.objective("remember"),
        model_state=lab.model_state,
    )
    return Job(unlearner, schedule)


def _retrain(lab: Lab, _: Options) -> Job:
    return lab.retraining("retain", seed=lab.seed)[0]


FINETUNE = (
    Card.of(_finetune, "FT", "Fine-tune (FT)", "arXiv 2310.12508")
    .but(reads=("retain",), cost="E·R", weighs=False, step_reads=())
    .but(
        suits="Good as a baseline: cheap and harmless. It forgets what the retain set "
        "does not support, and little else; raise the rate until retain accuracy "
        "begins to fall."
    )
    .tries(learning_rate=(0.03, 0.1, 0.2), epochs=(3, 8))
)

L1_SPARSE = (
    Card.of(_l1_sparse, "l1-sparse", source="arXiv 2304.04934")
    .but(reads=("retain",), cost="E·R", weighs=False, step_reads=("length",))
    .but(
        suits="Good for networks with many more weights than needed: fine-tuning that "
        "also prunes, which removes memorised samples. At its default penalty it does "
        "little more than fine-tuning."
    )
    .tries(learning_rate=(0.03, 0.1, 0.2), penalty=(1e-4, 1e-3), epochs=(5,))
)

RETRAIN = (
    Card.of(_retrain, "Retrain", source="–")
    .but(reads=("retain", "training"), cost="T·R", kind="training", weighs=False)
    .but(step_reads=("length",))
    .but(
        suits="Good wherever its cost can be paid: exact, and the target of all other "
        "methods."
    )
)
