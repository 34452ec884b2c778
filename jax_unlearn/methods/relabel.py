"""Methods that give the forget set new targets: random labels, SalUn, transport."""

import dataclasses
from typing import Any, Literal, Unpack, get_args

import jax.numpy as jnp
import optax

from jax_unlearn import _validate, objectives
from jax_unlearn.cards import Card, Job, Lab
from jax_unlearn.masks import masked, soft_threshold
from jax_unlearn.methods.assemble import Options, assemble
from jax_unlearn.types import Array, Model, PyTree, Unlearner


def random_label(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    num_classes: int,
    redraw: bool = False,
    exclude_true: bool = True,
    seed: int | Array = 0,
    **options: Unpack[Options],
) -> Unlearner:
    """Relabel (RL): minimise Σ w_i CE(x_i, y'_i) on D_f, y' random, and CE on D_r.

    With `weighting=ju.weights.falw(counts)`, `forward="merged"` and the whole unseen
    set as reference it is FaLW's Algorithm 1; with `ju.weights.loreun(...)`, RL+LoReUn.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation; published: lr 0.01 to 0.1, 10 epochs.
      num_classes: K.
      redraw: new labels at every step instead of one draw a sample.
      exclude_true: draw over the other K − 1 classes (published form) or over all K.
      seed: of the fixed labels.
      **options: `weighting`, `harmonizer`, `model_state` and `forward` of `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: as `assemble` and `objectives.random_label`.

    Reference: Golatkar et al., arXiv 1911.04933; SalUn's RL, arXiv 2310.12508.

    >>> import jax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = random_label(model, optax.sgd(1.0), num_classes=2)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = alg.step(state, ju.UnlearnBatch(forget), jax.random.key(0))
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

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation; published: lr 0.013 (CIFAR-10, 10 %).
      mask: from `ju.masks.gradient_saliency`, keep 0.5 in the paper.
      num_classes: K.
      legacy: leaky mask of the code public until 2026, see `ju.masks.masked`.
      **options: as `random_label`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: at `init`, if the mask does not fit the parameters.

    Reference: Fan et al., arXiv 2310.12508.

    >>> import jax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: None, lambda w, x: w[None] * x)
    >>> mask = jnp.array([True, False])  # which of the two weights may move
    >>> alg = salun(model, optax.sgd(1.0), mask=mask, num_classes=2)
    >>> forget = ju.Batch(jnp.array([[1.0, 1.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.array([2.0, 0.0]), ())
    >>> state, info = alg.step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # unmasked the second would have gone to p_0
    [1.1192 0.    ]
    """
    optimizer = masked(optimizer, mask, legacy=legacy)
    return random_label(model, optimizer, num_classes=num_classes, **options)


def salun_soft(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    threshold: float,
    num_classes: int,
    **options: Any,
) -> Unlearner:
    """Relabel under a pull to the original weights (SalUn-soft): no mask to prepare.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation.
      threshold: soft threshold of the change a step, see `ju.masks.soft_threshold`.
      num_classes: K.
      **options: as `random_label`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Raises:
      InputError: negative threshold.

    Reference: Fan et al., arXiv 2310.12508, soft-thresholding variant.

    >>> import jax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = salun_soft(model, optax.sgd(1.0), threshold=0.5, num_classes=2)
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = alg.step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − (p_0 − 0.5)
    1.6192
    """
    optimizer = soft_threshold(optimizer, threshold)
    return random_label(model, optimizer, num_classes=num_classes, **options)


def endpoint_transport(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    targets: Array,
    **options: Unpack[Options],
) -> Unlearner:
    """Send every forget sample to an unseen prediction of its class and quantile.

    Minimises Σ w_i CE(t_i, f(x_i)) on D_f beside CE on D_r. The targets say where to
    go, so it does not overshoot.

    Args:
      model: the network; outputs are logits `[B, K]`.
      optimizer: any optax transformation.
      targets: table `f32[N, K]` by sample id, from `ju.objectives.transport_targets`
        and `target_table`.
      **options: `weighting`, `harmonizer`, `model_state` and `forward` of `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget` and `.retain`.

    Source: our choice.

    >>> import jax, jax.numpy as jnp
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = endpoint_transport(model, optax.sgd(1.0), targets=jnp.full((1, 2), 0.5))
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> state, info = alg.step(state, ju.UnlearnBatch(forget), jax.random.key(0))
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
class SalunSoft:
    """Options of SalUn-soft.

    Attributes:
      threshold: soft threshold a step.
    """

    threshold: float = 1e-5

    def __post_init__(self):
        _validate.not_negative("threshold", self.threshold, "try 1e-5")


@dataclasses.dataclass(frozen=True)
class EndpointTransport:
    """Options of endpoint transport.

    Attributes:
      ranking: score of the original model that says which forget samples would be
        predicted well unseen; "neighbours": the share of the nearest retain samples of
        the same class; "reference": trees grown on the retain samples are asked too,
        and unseen samples weighted to be as easy as the forget samples.
    """

    ranking: Ranking = "confidence"

    def __post_init__(self):
        _validate.one_of("ranking", self.ranking, get_args(Ranking))


def _random_label(lab: Lab, options: Any) -> Job:
    del options  # the mask of SalUn is in the optimizer
    return _relabelled(lab, lab.optimizer())


def _salun_soft(lab: Lab, options: SalunSoft) -> Job:
    return _relabelled(lab, soft_threshold(lab.optimizer(), options.threshold))


def _relabelled(lab: Lab, optimizer: optax.GradientTransformation) -> Job:
    unlearner = assemble(
        lab.model,
        optimizer,
        forget=lab.objective("relabel"),
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
    unlearner = endpoint_transport(
        lab.model,
        lab.optimizer(),
        targets=jnp.asarray(table),
        **lab.joint(),
        **lab.forward(),
    )
    return Job(unlearner, lab.schedule("both"))


_BOTH = ("forget", "retain")
_SEARCH = {"learning_rate": (0.001, 0.003, 0.01), "epochs": (2, 5)}

RANDOM_LABEL = Card(
    name="random_label",
    label="RL",
    title="Random labels (RL)",
    build=_random_label,
    reads=_BOTH,
    cost="E·(R + F)",
    source="arXiv 1911.04933",
    roles=("relabel", "remember"),
    schedule=True,
    step_reads=(),
    search=_SEARCH,
)

SALUN = Card(
    name="salun",
    label="SalUn",
    title="SalUn",
    build=_random_label,
    reads=(*_BOTH, "original"),
    cost="E·(R + F) + F",
    source="arXiv 2310.12508",
    roles=("relabel", "remember"),
    schedule=True,
    salient=True,
    step_reads=(),
    search=_SEARCH,
)

SALUN_SOFT = Card(
    name="salun_soft",
    label="SalUn-soft",
    title="SalUn-soft",
    build=_salun_soft,
    reads=_BOTH,
    cost="E·(R + F)",
    source="arXiv 2310.12508",
    options=SalunSoft,
    roles=("relabel", "remember"),
    schedule=True,
    step_reads=(),
    search=_SEARCH,
)

ENDPOINT_TRANSPORT = Card(
    name="endpoint_transport",
    label="Endpoint transport",
    title="Endpoint transport",
    build=_endpoint_transport,
    reads=(*_BOTH, "unseen", "original"),
    cost="E·(R + F)",
    options=EndpointTransport,
    roles=("remember", "logits"),
    schedule=True,
    compares="unseen classes",
    step_reads=(),
    search={"learning_rate": (0.03, 0.1, 0.2), "epochs": (3, 8)},
)

AMNESIAC_RELABEL = Card(
    name="amnesiac_relabel",
    label="Amnesiac (relabel)",
    title="Amnesiac, relabelled",
    build=_random_label,
    reads=_BOTH,
    cost="E·(R + F)",
    source="arXiv 2010.10981",
    roles=("relabel", "remember"),
    schedule=True,
    step_reads=(),
    search={
        "learning_rate": (1e-4, 3e-4, 1e-3),
        "epochs": (1, 3),
        "optimizer": ("adam",),
    },
)
