"""Learning to unlearn (LTU): both gradients by meta-optimization, then harmonized."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, cast, get_args

import jax
import jax.numpy as jnp
import optax

from jax_unlearn import _validate, harmonize, objectives
from jax_unlearn.cards import Card, Count, Job, Lab, NotNegative, Options
from jax_unlearn.data import queried
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import mean_loss, meta_grad
from jax_unlearn.leaves import apart, put_back
from jax_unlearn.membership.attacks import Attack, AttackParams
from jax_unlearn.methods.ltu_gradients import Parts, forgetting, remembering
from jax_unlearn.methods.step import (
    FEWEST,
    Pass,
    Weigher,
    mean_state,
    next_state,
    stepping,
)
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import Array, Harmonizer, Model, Unlearner, Weighting
from jax_unlearn.weights.combine import uniform

__all__ = ["ATTACKS", "LTU", "STRATEGIES", "Attacks", "Ltu", "Queries", "ltu"]
__all__ += ["meta_unlearn"]


Feedback = Callable[[Model, Attack, AttackParams], Objective]
"""`(model, attack, what it has learned) -> loss of being taken for a member`."""


def ltu(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int | None = None,
    queries: int,
    attacks: Sequence[Attack],
    attack_params: Mapping[str, AttackParams],
    remember: Objective | None = None,
    feedback: Feedback | None = None,
    task: Objective | None = None,
    redraw: bool = False,
    seed: int | Array = 0,
    **options: Any,
) -> Unlearner:
    """Learn to unlearn: keep and forget what still holds one step ahead.

    A step descends along H(g_f, g_r), both gradients of the same form, L_s(θ) +
    Σ_i L_qi(θ + inner.update(∇L_s(θ))), differentiated through the inner step:

    - g_r, remembering: the support loss is Σ w_i CE(x_i, y'_i)/n on forget samples, y'
      random labels; query i is the cross-entropy on the i-th part of the retain batch,
      drawn by a strategy of its own (`ju.data.queried`).
    - g_f, forgetting: the losses are those of membership attacks that take the forget
      samples for members, log(1 + exp(score)). The forget batch is cut into as many
      parts as there are attacks; one attack, drawn anew each step, is the support on
      the first part, every other one a query on a part of its own.

    All passes read the incoming model state, g_f in eval mode, and g_r too by default:
    BatchNorm statistics of skewed queries are those of no data the model will meet.

    Args:
      model: the network; outputs are logits `[B, K]`, unless the three objectives
        below say otherwise.
      optimizer: of the outer step; `ju.masks.masked` moves only salient weights.
      num_classes: K, of the random labels; left out where `remember` takes their place.
      queries: N, see `meta_unlearn`.
      attacks: two or more membership attacks of different names.
      attack_params: what they have learned, by name, as from
        `ju.membership.train_attacks`.
      remember: the support loss in place of random labels: of language models
        `ju.objectives.alternative` of refusals or other answers.
      feedback: `(model, attack, its parameters) -> Objective`, the loss of being taken
        for a member; default `ju.objectives.nonmember`, of language models
        `ju.objectives.token_nonmember`.
      task: the query loss on retain samples; default the cross-entropy, of language
        models `ju.objectives.next_token`.
      redraw: new random labels at every step instead of one draw a sample.
      seed: of the fixed labels.
      **options: what else `meta_unlearn` takes.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`. Of its
      `UnlearnInfo`, `forget_loss` is the random-label loss, `retain_loss` the mean
      query loss after the virtual step, `conflict` the cosine between g_f and g_r.

    Raises:
      InputError: as `meta_unlearn`; a name of an attack twice or without parameters;
        both `num_classes` and `remember`, or neither.

    Reference: LTU, arXiv 2407.10494, equations 1 to 4. Which losses the attacks make,
    the division of the forget batch and the defaults are our choice.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> attacks = [ju.membership.logistic(), ju.membership.gaussian_ratio()]
    >>> params = [a.init(jax.random.key(0), d) for a, d in zip(attacks, (3, 1))]
    >>> learned = {a.name: p for a, p in zip(attacks, params)}
    >>> told = dict(num_classes=2, queries=2, attacks=attacks, attack_params=learned)
    >>> alg = ltu(model, optax.sgd(0.1), **told)
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1])
    >>> batch = ju.UnlearnBatch(ju.Batch(x, y, jnp.arange(2)), ju.Batch(x, y))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = jax.jit(alg.step)(state, batch, jax.random.key(0))
    >>> print(info.forget_loss)  # both samples relabelled to the other class
    2.1269
    """
    names = [attack.name for attack in attacks]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"attacks={names}: give 2 or more membership models, each with its own "
            "name, such as membership.default_attacks()"
        )
    if missing := [name for name in names if name not in attack_params]:
        raise InputError(
            f"attack_params lacks {missing[0]!r}: pass what "
            "membership.train_attacks returned for these attacks"
        )
    if (num_classes is None) == (remember is None):
        raise InputError(
            f"num_classes={num_classes} and {'no' if remember is None else 'a'} "
            "remember: give the number of classes for random labels, or remember, an "
            "objective in their place"
        )
    if remember is None:
        assert num_classes is not None
        remember = objectives.random_label(
            model, num_classes=num_classes, redraw=redraw, seed=seed
        )
    judge = objectives.nonmember if feedback is None else feedback
    return meta_unlearn(
        model,
        optimizer,
        relabel=remember,
        remember=objectives.descent(model) if task is None else task,
        audits=[judge(model, a, attack_params[a.name]) for a in attacks],
        queries=queries,
        **options,
    )


def meta_unlearn(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    relabel: Objective,
    remember: Objective,
    audits: Sequence[Objective],
    queries: int,
    inner: optax.GradientTransformation | None = None,
    inner_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    model_state: str = "frozen",
    fewest: int = FEWEST,
) -> Unlearner:
    """Learn to unlearn with objectives of your own: `ltu` of any kind of model.

    Args:
      model: the network.
      optimizer: of the outer step.
      relabel: support loss of g_r on forget samples; of diffusion models
        `ju.objectives.relabel_condition`.
      remember: query loss of g_r on retain samples; `ju.objectives.denoise`.
      audits: two or more losses of g_f that share one forward pass;
        `ju.objectives.denoising_nonmember`.
      queries: N, how many query batches of equal size stand one after the other in
        `UnlearnBatch.retain`.
      inner: of the virtual step; default SGD of rate 0.003. Where its rate passes the
        inverse of the support loss's largest curvature the gradient through it
        explodes: lower the rate, or clip in `optimizer`. `optax.set_to_zero()` does not
        look ahead (the ablation without meta-test).
      inner_steps: number of virtual steps.
      first_order: take the virtual step's gradient for a constant.
      remat: save memory, see `ju.gradients.meta_grad`.
      weighting: of the support of g_r, anew at each virtual step; default uniform.
      harmonizer: default `one_way()`: g_f gives up what conflicts with g_r.
      model_state: "frozen": BatchNorm statistics stay, all passes are in eval mode.
        "sequential" and "retain": g_r is one of train mode, each batch with statistics
        of its own; the next state is the mean of what the support (of "sequential"
        only) and the queries, after the virtual step, make of the incoming one.
      fewest: of the support and of each query, see `assemble`.

    Returns:
      An `Unlearner`, see `ltu`.

    Raises:
      InputError: fewer than two audits, `queries` below 1, unknown `model_state`; in
        the step: no forget or retain batch, a retain batch that is not N equal parts,
        fewer forget samples than audits.

    Reference: as `ltu`.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> up, down = objectives.ascent(model), objectives.descent(model)
    >>> told = dict(relabel=up, remember=down, audits=[up, up], queries=1)
    >>> alg = meta_unlearn(model, optax.sgd(0.1), **told)
    >>> x = ju.Batch(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> print(info.forget_loss)  # −log(1 + e^-2), of both samples
    -0.1269
    """
    if len(audits) < 2:
        raise InputError(f"{len(audits)} audits: give 2 or more losses for g_f")
    _validate.at_least("queries", queries, 1)
    if model_state == "frozen":
        relabel, remember = (o._replace(train=False) for o in (relabel, remember))
    join = harmonizer or harmonize.one_way()
    meta = dict(inner_steps=inner_steps, first_order=first_order, remat=remat)
    gradient = partial(meta_grad, inner=inner or optax.sgd(0.003), **meta)
    weigher = Weigher(model, weighting or uniform())
    parts = Parts(relabel, remember, tuple(audits), queries, weigher, gradient, fewest)

    def passed(state, batch, key):
        forget, retain = batch.forget, batch.retain
        if forget is None or retain is None:
            raise InputError(
                "ltu reads a forget and a retain batch each step; use ju.data.queried"
            )
        if forget.labels.shape[0] < len(audits):
            raise InputError(
                f"{forget.labels.shape[0]} forget samples in the batch, "
                f"{len(audits)} attacks: each needs one to look at; enlarge the batch"
            )
        forget_key, retain_key = jax.random.split(key)
        g_retain, remembered = remembering(parts, state, batch, retain_key)
        g_forget = forgetting(parts, state, forget, forget_key)
        support = remembered.support_aux
        at = state.model_state
        after = next_state(at, support.aux.model_state, forget, fewest)
        rest, frozen = apart(after)
        first = rest if model_state == "sequential" else None
        return Pass(
            join(g_forget, g_retain),
            put_back(mean_state(first, remembered.query_aux, queries), frozen),
            support.carry,
            support.weights,
            support.aux.task_losses,
            mean_loss(support.losses, forget.mask),
            jnp.mean(remembered.query_losses),
            harmonize.cosine(g_forget, g_retain),
        )

    return stepping(
        passed,
        optimizer,
        joint=True,
        weighting=weigher.weighting,
        data=tuple(objective.data for objective in (relabel, *audits)),
        model_state=model_state,
    )


Queries = Literal["uniform", "class_skewed", "feature_cluster", "hard", "nearest"]
Attacks = Literal["logistic", "softmax_mlp", "entropy_mlp", "gaussian_ratio"]
STRATEGIES, ATTACKS = get_args(Queries), get_args(Attacks)


@dataclasses.dataclass(frozen=True)
class Ltu(Options):
    """Options of LTU.

    Attributes:
      strategies: how query batches are drawn from the retain samples, one strategy for
        each; a name may be repeated.
      query_size: samples in each query batch.
      attacks: membership models; a name may be repeated, for another fit.
      allow_weak: go on where no attack is better than chance, instead of refusing.
      shadows: number of shadow models to train the attacks on, instead of the model
        itself; their AUC is measured on the model all the same.
      inner_rate: learning rate of the virtual step; 0 takes none.
      first_order: treat the gradient of the virtual step as a constant.
    """

    strategies: tuple[Queries, ...] = STRATEGIES
    query_size: Count = 32
    attacks: tuple[Attacks, ...] = ATTACKS
    allow_weak: bool = False
    shadows: Annotated[int, partial(_validate.at_least, low=0)] = 0
    inner_rate: NotNegative = 0.003
    first_order: bool = False

    def __post_init__(self):
        for name in ("strategies", "attacks"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        if not self.strategies:
            known = ", ".join(STRATEGIES)
            raise InputError(f"strategies=(): ltu needs one or more of {known}")
        if len(self.attacks) < 2:
            raise InputError(
                f"attacks={self.attacks}: ltu needs 2 or more membership models of "
                f"{', '.join(ATTACKS)}"
            )


def _ltu(lab: Lab, options: Ltu) -> Job:
    learned = lab.membership(options)
    rate = options.inner_rate
    unlearner = meta_unlearn(
        lab.model,
        lab.optimizer(),
        relabel=cast(Objective, lab.objective("relabel")),
        remember=cast(Objective, lab.objective("remember")),
        audits=learned.audits,
        queries=len(learned.strategies),
        inner=optax.sgd(rate) if rate > 0 else optax.set_to_zero(),
        first_order=options.first_order,
        remat=lab.setting.remat,
        **lab.joint(),
    )
    ids = lab.ids("forget"), lab.ids("retain")
    told = {"query_size": learned.query_size, **lab.passes()}
    schedule = queried(lab.examples, *ids, learned.strategies, **told)
    return Job(unlearner, schedule, details=learned.details)


def _check(setting) -> None:
    size, attacks = setting.batch_size, len(setting.options.attacks)
    if size < attacks:
        raise InputError(
            f"batch_size={size} is less than the {attacks} attacks, each of which "
            "looks at a part of the batch; try 64"
        )


LTU = (
    Card.of(_ltu, "LTU", source="arXiv 2407.10494")
    .but(reads=("forget", "retain", "unseen"), compares="unseen", check=_check)
    .but(cost="at least 4·E·(R + F): second order", frozen=True, step_reads=())
    .but(roles=("relabel", "remember", "nonmember"), joins=True, harmonizer="one_way")
    .but(
        suits="Good where few retain samples may be read. It is costly and needs "
        "small rates."
    )
    .tries(
        **{"learning_rate": (0.0003, 0.001, 0.003), "epochs": (2, 5), "rho": (0.3,)},
        clip=(30.0,),  # the second-order term can explode
        allow_weak=(True,),
    )
)
