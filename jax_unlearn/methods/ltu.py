"""Learning to unlearn (LTU): both gradients by meta-optimization, then harmonized."""

from collections.abc import Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import harmonize, objectives
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import meta_grad, uniform_weights, weighted_loss
from jax_unlearn.membership.attacks import Attack, AttackParams
from jax_unlearn.methods.step import Pass, mean_loss, stepping, weights_of, with_data
from jax_unlearn.objectives.base import Objective
from jax_unlearn.types import (
    Array,
    Batch,
    Harmonizer,
    Model,
    ModelState,
    Params,
    PyTree,
    UnlearnBatch,
    Unlearner,
    UnlearnState,
    Weighting,
)
from jax_unlearn.weights.combine import uniform


def ltu(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    queries: int,
    attacks: Sequence[Attack],
    attack_params: Mapping[str, AttackParams],
    inner: optax.GradientTransformation | None = None,
    inner_steps: int = 1,
    first_order: bool = False,
    remat: bool = False,
    weighting: Weighting | None = None,
    harmonizer: Harmonizer | None = None,
    redraw: bool = False,
    seed: int | Array = 0,
    model_state: str = "frozen",
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

    All passes read the incoming model state, and g_f looks at the model in use (eval
    mode). So does g_r by default: its queries are skewed on purpose, and BatchNorm
    statistics of such batches are those of no data the model will meet.

    Give the optimizer to `ju.masks.masked` to move only salient weights.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation, for the outer step.
      num_classes: K.
      queries: N, how many query batches of equal size stand one after the other in
        `UnlearnBatch.retain`.
      attacks: two or more membership attacks of different names.
      attack_params: what they have learned, by name, as from
        `ju.membership.train_attacks`.
      inner: any optax transformation, for the virtual step; default SGD of rate 0.003.
        Where its rate passes the inverse of the support loss's largest curvature the
        virtual step diverges, and the gradient through it explodes: lower the rate, or
        clip in `optimizer`. `optax.set_to_zero()` looks nowhere ahead (the ablation
        without meta-test).
      inner_steps: number of virtual steps.
      first_order: take the virtual step's gradient for a constant.
      remat: save memory, see `ju.gradients.meta_grad`.
      weighting: weights of the support of g_r, taken anew at each virtual step;
        default uniform.
      harmonizer: default `one_way()`: g_f gives up what conflicts with g_r.
      redraw: new random labels at every step instead of one draw a sample.
      seed: of the fixed labels.
      model_state: "frozen": BatchNorm statistics stay, all passes are in eval mode.
        "sequential" and "retain": g_r is one of train mode, each batch with statistics
        of its own; the next state is the mean of what the support (of "sequential"
        only) and the queries, after the virtual step, make of the incoming one.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`. Of its
      `UnlearnInfo`, `forget_loss` is the random-label loss, `retain_loss` the mean
      query loss after the virtual step, `conflict` the cosine between g_f and g_r.

    Raises:
      InputError: fewer than two attacks, a name twice or without parameters, `queries`
        below 1, unknown `model_state`; in the step: no forget or retain batch, a
        retain batch that is not N equal parts, fewer forget samples than attacks.

    Reference: LTU, arXiv 2407.10494, equations 1 to 4. Which losses the attacks make,
    the division of the forget batch and the defaults are our choice.

    >>> from jax_unlearn import membership
    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> attacks = [membership.logistic(), membership.gaussian_ratio()]
    >>> learned = {
    ...     a.name: a.init(jax.random.key(0), d) for a, d in zip(attacks, (3, 1))
    ... }
    >>> alg = ltu(
    ...     model,
    ...     optax.sgd(0.1),
    ...     num_classes=2,
    ...     queries=2,
    ...     attacks=attacks,
    ...     attack_params=learned,
    ... )
    >>> x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([0, 1])
    >>> batch = UnlearnBatch(Batch(x, y, jnp.array([0, 1])), Batch(x, y))
    >>> state, info = alg.step(alg.init(jnp.float32(2.0), ()), batch, jax.random.key(0))
    >>> print(info.forget_loss)  # both samples relabelled to the other class
    2.1269
    """
    names = [attack.name for attack in attacks]
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"attacks={names}: give 2 or more membership models, each with its own "
            "name, such as membership.default_attacks()"
        )
    missing = [name for name in names if name not in attack_params]
    if missing:
        raise InputError(
            f"attack_params lacks {missing[0]!r}: pass what "
            "membership.train_attacks returned for these attacks"
        )
    relabel = objectives.random_label(
        model, num_classes=num_classes, redraw=redraw, seed=seed
    )
    return meta_unlearn(
        model,
        optimizer,
        relabel=relabel,
        remember=objectives.descent(model),
        audits=[
            objectives.nonmember(model, attack, attack_params[attack.name])
            for attack in attacks
        ],
        queries=queries,
        inner=inner,
        inner_steps=inner_steps,
        first_order=first_order,
        remat=remat,
        weighting=weighting,
        harmonizer=harmonizer,
        model_state=model_state,
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
) -> Unlearner:
    """Learn to unlearn with objectives of your own: `ltu` of any kind of model.

    Args:
      model: the network.
      optimizer: any optax transformation, for the outer step.
      relabel: support loss of g_r on forget samples; of diffusion models
        `ju.objectives.relabel_condition`.
      remember: query loss of g_r on retain samples; `ju.objectives.denoise`.
      audits: two or more losses of g_f that share one forward pass;
        `ju.objectives.denoising_nonmember`.
      queries: as in `ltu`, like all that follows.
      inner: default SGD of rate 0.003.
      inner_steps: number of virtual steps.
      first_order: take the virtual step's gradient for a constant.
      remat: save memory.
      weighting: default uniform.
      harmonizer: default `one_way()`.
      model_state: "frozen", "sequential" or "retain".

    Returns:
      An `Unlearner`, see `ltu`.

    Raises:
      InputError: fewer than two audits, `queries` below 1; in the step as `ltu`.

    Reference: LTU, arXiv 2407.10494, equations 1 to 4.

    >>> from jax_unlearn.adapters import from_stateless
    >>> model = from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> up, down = objectives.ascent(model), objectives.descent(model)
    >>> alg = meta_unlearn(
    ...     model, optax.sgd(0.1), relabel=up, remember=down, audits=[up, up], queries=1
    ... )
    >>> print(alg.init(jnp.float32(2.0), ()).step)
    0
    """
    if len(audits) < 2:
        raise InputError(f"{len(audits)} audits: give 2 or more losses for g_f")
    if queries < 1:
        raise InputError(f"queries={queries} must be at least 1")
    if model_state not in ("sequential", "retain", "frozen"):
        raise InputError(
            f"model_state={model_state!r}: choose 'sequential', 'retain' or 'frozen'"
        )
    audits = tuple(audits)
    if model_state == "frozen":
        relabel, remember = (o._replace(train=False) for o in (relabel, remember))
    inner = optax.sgd(0.003) if inner is None else inner
    weigh = uniform() if weighting is None else weighting
    join = harmonize.one_way() if harmonizer is None else harmonizer
    options = {
        "inner": inner,
        "inner_steps": inner_steps,
        "first_order": first_order,
        "remat": remat,
    }

    def remembering(state: UnlearnState, batch: UnlearnBatch, key: Array):
        forget, parts = cast(Batch, batch.forget), _split(batch.retain, queries)
        (support,) = with_data((relabel,), state.objective_state[:1])
        support_key, *query_keys = jax.random.split(key, queries + 1)
        weights_fn = weights_of(model, weigh, state, batch, support)

        def support_loss(params: Params):
            losses, aux = support(params, state.model_state, forget, support_key)
            return weighted_loss(losses, aux, weights_fn, where=forget.mask)

        def query_losses(params: Params):
            def one(part: Batch, key: Array):
                losses, aux = remember(params, state.model_state, part, key)
                loss, _ = weighted_loss(losses, aux, uniform_weights, where=part.mask)
                return loss, aux.model_state

            return jax.vmap(one)(parts, jnp.stack(query_keys))

        return meta_grad(support_loss, query_losses, state.params, **options)

    def forgetting(state: UnlearnState, forget: Batch, key: Array):
        judges = with_data(audits, state.objective_state[1:])
        order_key, support_key, query_key = jax.random.split(key, 3)
        order = jax.random.permutation(order_key, len(judges))
        part = np.arange(forget.labels.shape[0]) % len(judges)
        seen, rest = (_rows(forget, np.flatnonzero(p)) for p in (part == 0, part > 0))
        owner = order[part[part > 0]]  # which attack looks at which query sample
        others = range(1, len(judges))

        def support_loss(params: Params):
            losses = _judged(judges, params, state.model_state, seen, support_key)
            loss, _ = weighted_loss(
                losses[order[0]], None, uniform_weights, where=seen.mask
            )
            return loss, None

        def query_losses(params: Params):
            losses = _judged(judges, params, state.model_state, rest, query_key)
            own = jnp.take_along_axis(losses, owner[None], axis=0)[0]
            return jnp.stack(
                [
                    mean_loss(own[rows], None if rest.mask is None else rest.mask[rows])
                    for rows in (np.flatnonzero(part[part > 0] == i) for i in others)
                ]
            ), None

        return meta_grad(support_loss, query_losses, state.params, **options)

    def passed(state: UnlearnState, batch: UnlearnBatch, key: Array) -> Pass:
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
        g_retain, kept = remembering(state, batch, retain_key)
        g_forget, _ = forgetting(state, forget, forget_key)
        support = kept.support_aux
        first = support.aux.model_state if model_state == "sequential" else None
        return Pass(
            join(g_forget, g_retain),
            _mean_state(first, kept.query_aux, queries),
            support.carry,
            support.weights,
            support.aux.task_losses,
            mean_loss(support.losses, forget.mask),
            jnp.mean(kept.query_losses),
            harmonize.cosine(g_forget, g_retain),
        )

    return stepping(
        passed,
        optimizer,
        weighting=weigh,
        data=tuple(objective.data for objective in (relabel, *audits)),
        frozen=model_state == "frozen",
    )


def _split(batch: Batch | None, parts: int) -> Batch:
    """Return the batch with a leading axis of equal parts."""
    retain = cast(Batch, batch)
    size = retain.labels.shape[0]
    if size % parts or not size:
        raise InputError(
            f"{size} retain samples in the batch are not queries={parts} equal parts; "
            "use ju.data.queried with as many strategies"
        )
    return jax.tree.map(
        lambda leaf: leaf.reshape(parts, size // parts, *leaf.shape[1:]), retain
    )


def _rows(batch: Batch, rows: np.ndarray) -> Batch:
    return jax.tree.map(lambda leaf: leaf[rows], batch)


def _judged(audits, params, model_state, batch, key) -> Array:
    """Return the losses of all attacks from one forward pass, `[attacks, B]`."""
    outputs, _ = audits[0].outputs(params, model_state, batch, key)
    return jnp.stack([a.output_loss(outputs, batch, key, a.data)[0] for a in audits])


def _mean_state(first: ModelState | None, others: PyTree, count: int) -> ModelState:
    """Return the mean of the states of all passes; what has no mean, of the last."""

    def mean(stacked: Array, *support: Array) -> Array:
        if not jnp.issubdtype(stacked.dtype, jnp.floating):
            return stacked[-1]
        total = jnp.sum(stacked, axis=0)
        for leaf in support:
            total += leaf
        return (total / (count + len(support))).astype(stacked.dtype)

    trees = (others,) if first is None else (others, first)
    return jax.tree.map(mean, *trees)
