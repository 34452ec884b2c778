"""Methods that give the forget set new targets: random labels, SalUn, transport.

All read `UnlearnBatch.forget` and `.retain`.
"""

import dataclasses
from typing import Any, Literal, Unpack

import jax.numpy as jnp
import optax

from jax_unlearn import objectives
from jax_unlearn.cards import Card, Fraction, Job, Lab, NotNegative, Options
from jax_unlearn.errors import InputError
from jax_unlearn.masks import falling_threshold, masked, soft_threshold
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.types import Array, Model, PyTree, Unlearner

__all__ = ["AMNESIAC_RELABEL", "ENDPOINT_TRANSPORT", "RANDOM_LABEL", "SALUN"]
__all__ += ["SALUN_SOFT", "EndpointTransport", "Ranking", "Relabel", "SalunSoft"]
__all__ += ["amnesiac_relabel", "endpoint_transport", "random_label", "salun"]
__all__ += ["salun_soft"]


def random_label(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    redraw: bool = False,
    exclude_true: bool = True,
    seed: int | Array = 0,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Relabel (RL): minimise Σ w_i CE(x_i, y'_i) on D_f, y' random, and CE on D_r.

    With `weighting=ju.weights.falw(counts)`, `forward="merged"` and the whole unseen
    set as reference it is FaLW's Algorithm 1; with `ju.weights.loreun(...)`, RL+LoReUn.

    The labels' arguments are those of `objectives.random_label`, the others those of
    `assemble`. Published: lr 0.01 to 0.1, 10 epochs.

    Raises:
      InputError: as `assemble` and `objectives.random_label`.

    Reference: Golatkar et al., arXiv 1911.04933; SalUn's RL, arXiv 2310.12508.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = random_label(model, optax.sgd(1.0), num_classes=2)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − p_0, for the only other class is 1
    1.1192
    """
    return assemble(
        model,
        optimizer,
        forget=objectives.random_label(
            model,
            num_classes=num_classes,
            redraw=redraw,
            exclude_true=exclude_true,
            seed=seed,
        ),
        retain=objectives.descent(model),
        **options,
    )


def salun(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    mask: PyTree,
    num_classes: int,
    legacy: bool = False,
    **options: Any,
) -> Unlearner:
    """Relabel only the salient weights (SalUn): RL under m = 1(|∇ℓ_f(θ_o)| large).

    The mask m is from `ju.masks.gradient_saliency`, keep 0.5 in the paper; `legacy` is
    that of `ju.masks.masked`, a leaky mask. The other arguments are those of
    `random_label`. Published: lr 0.013 (CIFAR-10, 10 %).

    Raises:
      InputError: at `init`, if the mask does not fit the parameters.

    Reference: Fan et al., arXiv 2310.12508.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: w[None] * x)
    >>> mask = jnp.array([True, False])  # which of the two weights may move
    >>> alg = salun(model, optax.sgd(1.0), mask=mask, num_classes=2)
    >>> forget = ju.Batch(jnp.array([[1.0, 1.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.array([2.0, 0.0]), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # unmasked the second would have gone to p_0
    [1.1192 0.    ]
    """
    optimizer = masked(optimizer, mask, legacy=legacy)
    return random_label(model, optimizer, num_classes=num_classes, **options)


def salun_soft(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    steps: int | None = None,
    epoch_steps: int | None = None,
    share: float = 0.5,
    threshold: float | None = None,
    **options: Any,
) -> Unlearner:
    """Relabel under a pull to where weights were (SalUn-soft): no mask to prepare.

    As published the k-th smallest change pulls, k falling over the run: `steps`,
    `epoch_steps` and `share` are those of `ju.masks.falling_threshold`. With a
    `threshold` it stays the same throughout, as of `ju.masks.soft_threshold`. The other
    arguments are those of `random_label`; published: redraw=True, exclude_true=False.

    Raises:
      InputError: neither `steps` nor `threshold`; a number out of range.

    Reference: Fan et al., arXiv 2310.12508, soft-thresholding variant.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = salun_soft(model, optax.sgd(1.0), threshold=0.5, num_classes=2)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − 0.5)
    1.6192
    """
    if threshold is not None:
        optimizer = soft_threshold(optimizer, threshold)
    elif steps is None:
        raise InputError(
            "salun_soft needs steps=..., the length of the run over which its "
            "threshold falls, or a threshold=... that stays the same"
        )
    else:
        told = {"share": share, "steps": steps, "epoch_steps": epoch_steps}
        optimizer = falling_threshold(optimizer, **told)
    return random_label(model, optimizer, num_classes=num_classes, **options)


def amnesiac_relabel(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    seed: int | Array = 0,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Train on over D_r and a relabelled D_f: (Σ w_i CE(x_i, y'_i) + Σ CE)/(n_f + n_r).

    Each forget sample gets one wrong label for good, and training goes on over the
    shuffled union (`ju.data.merged`): `random_label` with `forward="merged"`. The
    published methods differ in the schedule only, RL also being run as forget passes
    and retain passes in turn.

    The arguments are those of `random_label`, `forward` being "merged" unless told.
    Published: the optimizer the model was trained with, which goes on (Adam of lr 1e-3,
    batch 64, up to 10 epochs).

    Raises:
      InputError: as `random_label`.

    Reference: Graves et al., arXiv 2010.10981, the form they call "unlearning"; the
    other one is `ju.oneshot.amnesiac`.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = amnesiac_relabel(model, optax.sgd(1.0), num_classes=2)
    >>> x = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = jax.jit(alg.step)(state, ju.UnlearnBatch(x, x), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − p_1)/2, from −CE(1)/2 and CE(0)/2
    1.6192
    """
    given: Assembly = {"forward": "merged", **options}
    return random_label(model, optimizer, num_classes=num_classes, seed=seed, **given)


def endpoint_transport(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    targets: Array,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Send every forget sample to an unseen prediction of its class and quantile.

    Minimises Σ w_i CE(t_i, f(x_i)) on D_f beside CE on D_r, without overshooting. The
    targets are a table `f32[N, K]` by sample id, from `ju.objectives.transport_targets`
    and `target_table`; the other arguments are those of `assemble`.

    Source: our choice. Its nearest published relative is ReGUn (arXiv 2603.11210, see
    `regun`), which leads a whole batch to one mean prediction of unseen data.

    >>> import jax, jax.numpy as jnp, jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = endpoint_transport(model, optax.sgd(1.0), targets=jnp.full((1, 2), 0.5))
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − 0.5), towards p = (½, ½)
    1.6192
    """
    return assemble(
        model,
        optimizer,
        forget=objectives.transport(model, targets),
        retain=objectives.descent(model),
        **options,
    )


Ranking = Literal[
    "confidence", "el2n", "margin", "gradient_norm", "neighbours", "reference"
]


@dataclasses.dataclass(frozen=True)
class Relabel(Options):
    """Options of methods that relabel.

    Attributes:
      redraw: draw new labels at every step, as SalUn's public code does, instead of
        once for each sample.
      any_label: draw labels from all classes, the true one included, as SalUn's public
        code does.
    """

    redraw: bool = False
    any_label: bool = False

    @property
    def labels(self) -> dict[str, bool]:
        """What the objective is told: nothing where all is as usual."""
        told = {"redraw": self.redraw, "exclude_true": not self.any_label}
        return told if self.redraw or self.any_label else {}


@dataclasses.dataclass(frozen=True)
class SalunSoft(Relabel):
    """Options of SalUn-soft.

    Attributes:
      redraw: new labels at every step (SalUn's public code) instead of one a sample.
      any_label: draw over all classes (likewise), the true one included.
      held: share of the weights that the threshold leaves where they were at the start
        of the epoch, falling to 0 over the run, as published.
      threshold: soft threshold on the change from the original, the same in all steps;
        replaces --held.
    """

    held: Fraction = 0.5
    threshold: NotNegative | None = None


@dataclasses.dataclass(frozen=True)
class EndpointTransport(Options):
    """Options of endpoint transport.

    Attributes:
      ranking: score by which forget samples are ordered, from those that a model
        without them would still predict well. A score of the original model;
        "neighbours", the share of the nearest retain samples with the same class; or
        "reference", which adds trees grown on the retain samples and weights unseen
        samples to be as easy as the forget samples.
    """

    ranking: Ranking = "confidence"


def _random_label(lab: Lab, options: Relabel) -> Job:
    # the mask of SalUn is in the optimizer
    return _relabelled(lab, lab.optimizer(), options)


def _salun_soft(lab: Lab, options: SalunSoft) -> Job:
    optimizer, schedule = lab.optimizer(), lab.schedule("both")
    if options.threshold is not None:
        optimizer = soft_threshold(optimizer, options.threshold)
    else:
        setting, steps = lab.setting, len(schedule)
        samples = len(lab.ids("forget")) + len(lab.ids("retain"))
        size = -(-samples // setting.batch_size) if setting.steps else None
        told = {"share": options.held, "steps": steps}
        told["epoch_steps"] = min(size or steps // setting.epochs, steps)
        optimizer = falling_threshold(optimizer, **told)
    return _relabelled(lab, optimizer, options)


def _relabelled(
    lab: Lab, optimizer: optax.GradientTransformation, options: Relabel
) -> Job:
    unlearner = assemble(
        lab.model,
        optimizer,
        forget=lab.objective("relabel", **options.labels),
        retain=lab.objective("remember"),
        **lab.joint(),
        **lab.forward(),
    )
    return Job(unlearner, lab.schedule("both"))


def _endpoint_transport(lab: Lab, options: EndpointTransport) -> Job:
    ranked = lab.difficulty(options.ranking)
    targets = objectives.transport_targets(
        ranked.scores,
        lab.labels("forget"),
        lab.probabilities("unseen"),
        lab.labels("unseen"),
        ease=ranked.ease,
    )
    size = len(lab.examples.labels)
    table = objectives.target_table(lab.ids("forget"), targets, size)
    told = {"targets": jnp.asarray(table), **lab.joint(), **lab.forward()}
    return Job.of(lab, "both", endpoint_transport, **told)


def _check_labels(setting: Any) -> None:
    """Refuse labels drawn otherwise where conditions take their place."""
    if setting.modality != "classification" and setting.options.labels:
        raise InputError(
            f"modality={setting.modality!r} draws conditions by replace=...; leave "
            "redraw and any_label out"
        )


RANDOM_LABEL = (
    Card.of(_random_label, "RL", "Random labels (RL)", "arXiv 1911.04933")
    .but(cost="E·(R + F)", roles=("relabel", "remember"), schedule=True, step_reads=())
    .but(check=_check_labels)
    .but(
        suits="Good for whole classes. Random samples end with a lower confidence than "
        "after retraining, which exposes them: search its rate. What it hides comes "
        "back when the model is tuned on some of them."
    )
    .tries(learning_rate=(0.001, 0.003, 0.01), epochs=(2, 5))
)

SALUN = (
    RANDOM_LABEL.but(name="salun", label="SalUn", title="SalUn", salient=True)
    .but(source="arXiv 2310.12508", reads=("forget", "retain", "original"))
    .but(cost="E·(R + F) + F")
    .but(
        suits="Good for whole classes and diffusion models: random labels, on only the "
        "weights with the largest gradients of the forget set. On random samples "
        "expect what random labels give."
    )
)

SALUN_SOFT = (
    RANDOM_LABEL.but(name="salun_soft", label="SalUn-soft", title="SalUn-soft")
    .but(source="arXiv 2310.12508", build=_salun_soft, options=SalunSoft)
    .but(
        suits="Good to avoid the choice of a mask: random labels, where each step sets "
        "small changes of weights to zero. Expect what SalUn gives."
    )
)

ENDPOINT_TRANSPORT = (
    Card.of(_endpoint_transport, "Endpoint transport")
    .but(reads=("forget", "retain", "unseen", "original"), compares="unseen classes")
    .but(cost="E·(R + F)", roles=("remember", "logits"), schedule=True, step_reads=())
    .but(beforehand=("ranking",))
    .but(
        suits="Good for random and long-tailed samples: it moves their outputs to "
        "those of similar unseen samples, not to chance. It needs unseen samples of "
        "their classes."
    )
    .tries(learning_rate=(0.03, 0.1, 0.2), epochs=(3, 8))
)

AMNESIAC_RELABEL = (
    RANDOM_LABEL.but(name="amnesiac_relabel", label="Amnesiac (relabel)")
    .but(title="Amnesiac, relabelled", source="arXiv 2010.10981")
    .but(
        suits="Good for a class, in about one epoch of Adam. Random samples are "
        "forgotten too much, as by random labels."
    )
    .tries(learning_rate=(1e-4, 3e-4, 1e-3), epochs=(1, 3), optimizer=("adam",))
)
