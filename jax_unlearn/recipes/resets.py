"""Variants of partial reset: the ideas that `ideas.py` tries, a few lines each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import data as datas
from jax_unlearn import objectives
from jax_unlearn.averages import averaged, ema_of
from jax_unlearn.cards import Job, Lab, NotNegative, Positive, Variables
from jax_unlearn.lab import Training, Unlearning, costs
from jax_unlearn.lab.modality import descent
from jax_unlearn.losses import cross_entropy, distillation
from jax_unlearn.methods.assemble import assemble
from jax_unlearn.methods.kernels import insensitive
from jax_unlearn.methods.reset import FRESH, PARTIAL_RESET, PartialReset
from jax_unlearn.objectives.base import on_logits
from jax_unlearn.recipes.rates import LONGEST, annealed, tabled
from jax_unlearn.recipes.reset_shares import learned
from jax_unlearn.types import Array, Model, PyTree, Unlearner

__all__ = ["IDEAS", "PLAIN", "Idea", "Tried", "annealed", "depths", "setting_of"]

PLAIN = "Partial reset"


@dataclasses.dataclass(frozen=True)
class Tried(PartialReset):
    """Options of a trial: those of partial reset, and of its idea.

    Attributes:
      share: of Retrain's cost.
      rate: peak learning rate, in units of the original training's.
      shrink: λ.
      perturb: κ.
      strength: of the idea; each says what it means.
      batch: samples a step; 0: as the original's training.
      warm: share of the steps in which the rate rises to its peak.
      sharpen: of the targets that reset transport goes to; none: as it finds it.
    """

    perturb: NotNegative = 1.0
    strength: NotNegative = 0.0
    batch: int = 0
    warm: NotNegative = 0.0
    sharpen: Positive | None = None


class Parts(NamedTuple):
    """What an idea may make otherwise; the defaults are those of partial reset."""

    start: Variables
    rates: np.ndarray  # by step
    batch: int
    objective: str = "plain"  # of `_unlearner`
    data: Any = ()
    average: float = 0.0  # decay of the moving average that is the result; 0: none
    momentum: PyTree = None  # at the first step


@functools.lru_cache(maxsize=32)
def _unlearner(
    model: Model, decay: float, momentum: float, objective: str, average: float
) -> Unlearner:
    """Return the unlearner of an objective, one of each, so as to compile once."""
    setting = Training(weight_decay=decay, momentum=momentum)
    optimizer = optax.chain(*descent(setting), tabled(np.zeros(1)))
    empty = jnp.zeros((1, 2)), jnp.zeros(1), jnp.float32(0.0)
    told: dict[str, Any] = {"retain": objectives.descent(model), "fewest": 0}
    if objective == "retain":  # (1 − w) CE + w T² KL(θ_o ‖ θ), on D_r

        def mixed(logits, batch, key, data):
            table, _, now = data
            far = distillation(logits, table[batch.index], temperature=2.0)
            return (1 - now) * cross_entropy(logits, batch.labels) + now * far

        told["retain"] = on_logits(model, mixed, empty)
    elif objective == "unseen":  # w T² KL(θ_o ‖ θ) beside CE on D_r

        def distilled(logits, batch, key, data):
            table, _, now = data
            return now * distillation(logits, table[batch.index], temperature=2.0)

        told["forget"] = on_logits(model, distilled, empty)
    made = assemble(model, optimizer, **told)
    if objective != "plain":
        made = made._replace(step=_followed(made.step, objective == "retain"))
    return averaged(made, average) if average else made


def _followed(step: Callable, retain: bool) -> Callable:
    """Return the step whose weight of distillation is that of its number."""

    def weighed(state, batch, key):
        own = list(state.objective_state)
        table, weights, _ = own[retain]
        own[retain] = table, weights, weights[state.step]
        return step(state._replace(objective_state=tuple(own)), batch, key)

    return weighed


def _job(lab: Any, parts: Parts) -> Job:
    """Return the job of parts."""
    training, steps = lab.training, len(parts.rates)
    sizes = training.weight_decay, training.momentum
    base = _unlearner(lab.model, *sizes, parts.objective, parts.average)

    def init(params: PyTree, model_state: PyTree) -> Any:
        state = base.init(params, model_state)
        rates = tabled(parts.rates).init(params)
        kept = state.opt_state[:-1]
        if parts.momentum is not None:
            given = {"trace": parts.momentum}
            kept = [x._replace(**given) if hasattr(x, "trace") else x for x in kept]
        state = state._replace(opt_state=(*kept, rates))
        if parts.objective != "plain":
            own = list(state.objective_state)
            own[parts.objective == "retain"] = jax.tree.map(jnp.asarray, parts.data)
            state = state._replace(objective_state=tuple(own))
        return state

    options = {"batch_size": parts.batch, "steps": steps, "seed": lab.seed + FRESH}
    retain = lab.ids("retain")
    if parts.objective == "unseen":
        ids = lab.ids("unseen"), retain
        schedule = datas.zipped(lab.examples, *ids, **options)
    else:
        schedule = datas.retain_only(lab.examples, retain, **options)

    def average(state: Any) -> Variables:
        found = ema_of(state)
        like = jax.tree.map(lambda m, p: m.astype(p.dtype), found, state.params)
        return like, state.model_state

    finish = average if parts.average else None
    unlearner = base._replace(init=init)
    return Job(unlearner, schedule, start=parts.start, finish=finish)


def plain(lab: Any, options: Tried) -> Parts:
    """Return partial reset."""
    fresh, state = _fresh(lab)

    def mixed(old: Array, new: Array) -> Array:
        return options.shrink * old + options.perturb * new

    start = jax.tree.map(mixed, lab.original[0], fresh), state
    return Parts(start, _rates(lab, options), options.batch or lab.training.batch_size)


def _rates(lab: Any, options: Tried, cost: float = 1.0, end: float = 0.0) -> np.ndarray:
    """Return rates of as many steps as the share pays for, each costing so much."""
    training, samples = lab.training, len(lab.ids("retain"))
    epoch = -(-samples // (options.batch or lab.training.batch_size))
    steps = max(int(options.share * training.epochs * epoch / cost + 1e-9), 1)
    peak = options.rate * training.learning_rate
    return annealed(peak, steps, options.warm, end)


def _fresh(lab: Any) -> Variables:
    return cast(Variables, lab.retraining("retain", seed=lab.seed + FRESH)[0].start)


def _paths(params: PyTree) -> list[str]:
    found = jax.tree_util.tree_leaves_with_path(params)
    return [jax.tree_util.keystr(path) for path, _ in found]


def depths(params: PyTree) -> list[float]:
    """Return how deep each leaf lies, 0 at the first layer and 1 at the head."""
    layers = [path.rpartition("[")[0] for path in _paths(params)]

    def place(layer: str) -> tuple[bool, bool, str]:
        return "head" in layer, "stem" not in layer, layer

    order = sorted({layer.replace("norm", "conv") for layer in layers}, key=place)
    last = max(len(order) - 1, 1)
    return [order.index(layer.replace("norm", "conv")) / last for layer in layers]


def _mixed(lab: Any, options: Tried, factors: list[tuple[Any, Any]]) -> Parts:
    """Return partial reset with λ and κ of every leaf."""
    fresh, state = _fresh(lab)
    old, structure = jax.tree.flatten(lab.original[0])
    rows = zip(factors, old, jax.tree.leaves(fresh), strict=True)
    start = structure.unflatten([keep * a + new * b for (keep, new), a, b in rows])
    return plain(lab, options)._replace(start=(start, state))


def by_layer(sign: float) -> Callable[[Any, Tried], Parts]:
    """Return: λ (1 ± s (2 d − 1)) at depth d, at most 1."""

    def built(lab: Any, options: Tried) -> Parts:
        kept = [
            min(options.shrink * (1 + sign * options.strength * (2 * d - 1)), 1.0)
            for d in depths(lab.original[0])
        ]
        return _mixed(lab, options, [(keep, options.perturb) for keep in kept])

    return built


def of_leaves(word: str, keep: float, new: float) -> Callable[[Any, Tried], Parts]:
    """Return: other λ and κ where a leaf's path has a word."""

    def built(lab: Any, options: Tried) -> Parts:
        usual = options.shrink, options.perturb
        paths = _paths(lab.original[0])
        return _mixed(
            lab, options, [(keep, new) if word in p else usual for p in paths]
        )

    return built


def by_gradient(lab: Any, options: Tried) -> Parts:
    """Return: the kernel weights that matter least to D_r beside D_f new (MSG)."""
    difference = optax.tree.sub(lab.gradient("retain"), lab.gradient("forget"))
    marked = jax.tree.leaves(insensitive(difference, share=options.strength))
    usual = options.shrink, options.perturb
    pairs = [
        tuple(jnp.where(m, *two) for two in zip((0.0, 1.0), usual, strict=True))
        for m in marked
    ]
    return _mixed(lab, options, cast(Any, pairs))


def by_meta_gradient(lab: Any, options: Tried) -> Parts:
    """Return: λ of every leaf learned by LTU's meta-gradient, in steps of s."""
    fresh, _ = _fresh(lab)
    told = {"shrink": options.shrink, "perturb": options.perturb}
    kept, spent = learned(lab, fresh, rate=options.strength, **told)
    parts = _mixed(lab, options, [(keep, options.perturb) for keep in kept])
    steps = max(len(parts.rates) - spent, 1)
    peak = options.rate * lab.training.learning_rate
    return parts._replace(rates=annealed(peak, steps, options.warm))


def distilled(lab: Any, options: Tried) -> Parts:
    """Return: a part s, falling to 0, of the loss on D_r distils θ_o (T = 2)."""
    parts = plain(lab, options)
    return parts._replace(objective="retain", data=_teaching(lab, options, parts))


def distilled_unseen(lab: Any, options: Tried) -> Parts:
    """Return: as many unseen samples a step distil θ_o, weight s falling to 0."""
    parts = plain(lab, options)._replace(rates=_rates(lab, options, cost=2.0))
    return parts._replace(objective="unseen", data=_teaching(lab, options, parts))


def _teaching(lab: Any, options: Tried, parts: Parts) -> tuple[Array, Array, Array]:
    """Return the original's logits by id, and weights by step."""
    logits = lab.predict(np.arange(len(lab.examples.labels)))
    weights = np.zeros(LONGEST, np.float32)
    steps = len(parts.rates)
    weights[:steps] = options.strength * (1 - np.arange(steps) / steps)
    return jnp.asarray(logits, jnp.float32), jnp.asarray(weights), jnp.float32(0.0)


def smoothed(lab: Any, options: Tried) -> Parts:
    """Return: the result is a moving average of the parameters, of decay s."""
    return plain(lab, options)._replace(average=options.strength)


def swa(lab: Any, options: Tried) -> Parts:
    """Return: the rate falls to a quarter only, and the parameters are averaged."""
    rates = _rates(lab, options, end=0.25)
    return plain(lab, options)._replace(rates=rates, average=options.strength)


def with_momentum(lab: Any, options: Tried) -> Parts:
    """Return: momentum begins as s of what the original's training ended with."""
    job, _ = lab.retraining("trained")
    unlearner, start = cast(Unlearner, job.unlearner), cast(Variables, job.start)
    states = lab.origin.earlier
    last = states.at(states.total - 1, unlearner.init(*start))
    trace = next(s.trace for s in last.opt_state if hasattr(s, "trace"))
    kept = jax.tree.map(lambda m: options.strength * m, trace)
    return plain(lab, options)._replace(momentum=kept)


def rewound(lab: Any, options: Tried) -> Parts:
    """Return: begun from the original's own training after a part s of it."""
    job, _ = lab.retraining("trained")
    unlearner, start = cast(Unlearner, job.unlearner), cast(Variables, job.start)
    states = lab.origin.earlier
    found = states.at(states.step(options.strength), unlearner.init(*start))
    at = found.params, found.model_state
    return plain(lab, options)._replace(start=jax.tree.map(jnp.asarray, at))


def then(part: float, **changes: Any) -> Callable[[Any, Tried], Job]:
    """Return: the last part of the budget spent on another method, of rate s."""

    def built(lab: Any, options: Tried) -> Job:
        first = dataclasses.replace(options, share=(1 - part) * options.share)
        at, _ = lab.done(_job(lab, plain(lab, first)), lab.original, 1)
        asked = {"learning_rate": options.strength, **changes}
        return _within(lab, asked, part * options.share, at)

    return built


def transported(lab: Any, options: Tried) -> Job:
    """Return: reset transport, a part s of its cost spent on the reset model."""
    asked = {"method": "reset_transport", "learning_rate": 0.02, "rate": options.rate}
    asked |= {"lead": options.strength, "shrink": options.shrink}
    asked |= {"sharpen": options.sharpen}
    return _within(lab, asked, options.share, lab.original)


def _within(lab: Any, asked: Mapping[str, Any], budget: float, at: Variables) -> Job:
    """Return a method's job that begins at a model, as long as a budget lasts."""
    setting = lab.setting.part(asked).but(budget=budget)
    found = costs.met(setting, lab.origin, lab.request, lab.modality)
    told = {**asked, "epochs": found.epochs, "steps": found.steps}
    job = lab.part(told, lab.ids("forget"), lab.ids("retain"), at)
    return job._replace(start=job.start or at)


LARGER = 0.15  # by so much an idea is tried at a larger λ, too
BOTH, SAME = (0.0, LARGER), (0.0,)


class Idea(NamedTuple):
    """How it is built, the options it is tried with, and what is added to λ."""

    build: Callable[[Any, Tried], Parts | Job]
    tried: tuple[Mapping[str, Any], ...]
    larger: tuple[float, ...] = BOTH


def _strengths(*values: float, **more: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple({"strength": value, **more} for value in values)


_FINER = tuple({"shrink": λ} for λ in (0.1, 0.2, 0.38, 0.52, 0.68, 0.82))
_ANEW = tuple({"shrink": 0.0, "perturb": 1.0, "rate": rate} for rate in (1.0, 2.0, 4.0))
_RL = {"method": "random_label"}
_LTU = {"method": "ltu", "query_size": 16, "clip": 30.0, "allow_weak": True}
IDEAS: dict[str, Idea] = {
    "peak rate": Idea(plain, ({"rate": 0.5}, {"rate": 4.0}), SAME),
    "smaller batches": Idea(plain, ({"batch": 32}, {"batch": 16})),
    "larger batches": Idea(plain, ({"batch": 128},), SAME),
    "longer warm-up": Idea(plain, ({"warm": 0.15}, {"warm": 0.4}), SAME),
    "κ alone": Idea(plain, ({"perturb": 0.3}, {"perturb": 1.5}), SAME),
    "finer λ": Idea(plain, _FINER, SAME),
    "λ = 0: short Retrain": Idea(plain, _ANEW, SAME),
    "λ learned (LTU)": Idea(by_meta_gradient, _strengths(0.05, 0.2)),
    "λ falling by layer": Idea(by_layer(-1.0), _strengths(0.3, 0.8)),
    "λ rising by layer": Idea(by_layer(1.0), _strengths(0.3, 0.8)),
    "normalisation kept": Idea(of_leaves("norm", 1.0, 0.0), ({},)),
    "only normalisation kept": Idea(
        of_leaves("norm", 1.0, 0.0), ({"shrink": 0.0, "perturb": 1.0},), SAME
    ),
    "normalisation new": Idea(of_leaves("norm", 0.0, 1.0), ({},)),
    "head new": Idea(of_leaves("head", 0.0, 1.0), ({},)),
    "by gradient (MSG)": Idea(by_gradient, _strengths(0.3, 0.6)),
    "distilling on D_r": Idea(distilled, _strengths(0.3, 0.8)),
    "distilling on unseen": Idea(distilled_unseen, _strengths(0.3, 1.0)),
    "EMA": Idea(smoothed, _strengths(0.8, 0.95), SAME),
    "SWA": Idea(swa, _strengths(0.8, 0.95), SAME),
    "the original's momentum": Idea(with_momentum, _strengths(1.0), SAME),
    "rewound instead": Idea(rewound, _strengths(0.05, 0.15, 0.4), SAME),
    "transport at the end": Idea(
        then(0.25, method="endpoint_transport"), _strengths(0.01, 0.05)
    ),
    "RL at the end": Idea(then(0.1, **_RL), _strengths(0.003, 0.03)),
    "RL + FaLW at the end": Idea(
        then(0.1, weighting="falw", estimator="exact", **_RL), _strengths(0.003, 0.03)
    ),
    "RL + LoReUn at the end": Idea(
        then(0.1, weighting="loreun", relative=True, **_RL), _strengths(0.003, 0.03)
    ),
    "LTU at the end": Idea(then(0.1, **_LTU), _strengths(1e-4, 1e-3), SAME),
    "reset transport": Idea(
        transported, (*_strengths(0.3, 0.6), *_strengths(0.3, 0.6, sharpen=1.0))
    ),
}
"""By what the tables call them; all beside the plain method."""


def setting_of(idea: str, options: Mapping[str, Any]) -> Unlearning:
    """Return the setting of a trial."""
    build = plain if idea == PLAIN else IDEAS[idea].build

    def job(lab: Lab, options: Tried) -> Job:
        made = build(lab, options)
        return made if isinstance(made, Job) else _job(lab, made)

    name = "idea_" + "".join(c if c.isalnum() else "_" for c in idea)
    card = PARTIAL_RESET.but(name=name, build=job, options=Tried, step_reads=None)
    return Unlearning.of(method=card, **options)
