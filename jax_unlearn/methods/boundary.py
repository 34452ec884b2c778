"""Boundary unlearning: push forget samples across the nearest decision boundary."""

import dataclasses
from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import _validate, losses, objectives
from jax_unlearn.cards import Card, Job, Lab, Options, Positive
from jax_unlearn.contracts import forward_pass
from jax_unlearn.errors import InputError
from jax_unlearn.methods.assemble import Assembly, assemble
from jax_unlearn.methods.step import FEWEST, enough
from jax_unlearn.objectives.base import task_loss
from jax_unlearn.objectives.boundary import fixed_label
from jax_unlearn.types import Array, Aux, Model, PyTree, Unlearner, Weighting

__all__ = ["BOUNDARY_EXPAND", "BOUNDARY_SHRINK", "BoundaryExpandData", "BoundaryShrink"]
__all__ += ["boundary_expand", "boundary_shrink"]


def boundary_shrink(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    labels: Array,
    **options: Unpack[Assembly],
) -> Unlearner:
    """Shrink the forgotten class (BS): minimise (1/n) Σ w_i CE(f(x_i), y'_i) over D_f.

    y' is the nearest wrong class under the original model, from
    `ju.objectives.boundary_labels`: the `labels`, a table `i32[N]` by sample id. The
    other arguments are those of `assemble`; reads `UnlearnBatch.forget` alone.
    Published: lr 1e-6 to 1e-5, 10 epochs.

    Raises:
      InputError: labels that are not one integer a sample; a batch without `index`.

    Reference: Chen et al., arXiv 2303.11570.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = boundary_shrink(model, optax.sgd(1.0), labels=jnp.array([1]))
    >>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]), jnp.array([0]))
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> step = jax.jit(alg.step)
    >>> state, info = step(state, ju.UnlearnBatch(forget), jax.random.key(0))
    >>> print(state.params)  # 2 − p_0, p_0 = 1/(1 + e^-2)
    1.1192
    """
    return assemble(model, optimizer, forget=fixed_label(model, labels), **options)


class BoundaryExpandData(NamedTuple):
    """The extra class, `{"kernel": f32[D], "bias": f32[]}`, and the inner arrays."""

    neuron: PyTree
    inner: PyTree


def boundary_expand(
    model: Model,
    features: Model,
    optimizer: optax.GradientTransformation,
    *,
    head_optimizer: optax.GradientTransformation,
    num_classes: int,
    width: int,
    weighting: Weighting | None = None,
    seed: int | Array = 0,
    model_state: str = "sequential",
    fewest: int = FEWEST,
) -> Unlearner:
    """Expand the boundary (BE): send D_f to an extra class that is then dropped.

    Minimises (1/n) Σ w_i CE([f(x_i), k·h(x_i) + b], K) over D_f: h are the features
    before the last layer, (k, b) the neuron of a class K beside the classes 0..K−1.

    The state's parameters are those of the network all along; the neuron is in
    `objective_state`, so to drop it takes nothing. Compiled, the passes of logits and
    features share their forward half: a step costs about 1.6 plain ones.

    Args:
      model: the network; outputs are logits `[B, K]`.
      features: a model of the same parameters and state whose outputs are h, `[B, D]`;
        its `init` is not used.
      optimizer: any optax transformation, of the network alone, so that
        `ju.masks.masked` fits; published: lr 1e-6 to 1e-5, 10 epochs.
      head_optimizer: of the neuron; published code gives both the same.
      num_classes: K.
      width: D.
      weighting: looks at the K logits of the network and the true label.
      seed: of the neuron, drawn from U(−1/√D, 1/√D) like an ordinary linear layer.
      model_state: see `assemble`; the statistics after the pass of the logits count.
      fewest: see `assemble`.

    Returns:
      An `Unlearner` that reads `UnlearnBatch.forget`. `update_norm` counts the neuron.

    Raises:
      InputError: `num_classes` or `width` below 1; in the step, if logits or features
        are not of that size.

    Reference: Chen et al., arXiv 2303.11570.

    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> told = dict(head_optimizer=optax.sgd(0.1), num_classes=2, width=2)
    >>> alg = boundary_expand(model, model, optax.sgd(0.1), **told)
    >>> state = alg.init(jnp.float32(2.0), ())
    >>> print(state.params, state.objective_state.neuron["kernel"].shape)
    2.0 (2,)
    """
    _validate.at_least("num_classes", num_classes, 1, "give the number of logits")
    _validate.at_least("width", width, 1, "give the number of features")
    train = model_state != "frozen"

    def plain(params, model_state, inputs, *, train, key=None):
        return model.apply(params["network"], model_state, inputs, train=train, key=key)

    def shadow(params, model_state, batch, key):
        """Return the losses towards the extra class."""
        read = (params["network"], model_state, batch.inputs)
        own = train and enough(model_state, batch, fewest=fewest)
        mode = {"train": own, "key": key}
        logits, model_state = forward_pass(model.apply, *read, **mode)
        hidden, _ = forward_pass(features.apply, *read, **mode)
        _check_size("the model", logits, "num_classes", num_classes)
        _check_size("features", hidden, "width", width)
        neuron = params["neuron"]
        extra = hidden.astype(jnp.float32) @ neuron["kernel"] + neuron["bias"]
        wide = jnp.concatenate([logits.astype(jnp.float32), extra[:, None]], axis=1)
        towards = jnp.full(batch.labels.shape, num_classes, jnp.int32)
        aux = Aux(logits, task_loss(logits, batch), model_state)
        return losses.cross_entropy(wide, towards), aux

    inner = assemble(
        Model(model.init, plain),
        _side_by_side({"network": optimizer, "neuron": head_optimizer}),
        forget=shadow,
        weighting=weighting,
        model_state=model_state,
        fewest=fewest,
    )

    def split(state):
        """Move the neuron from the parameters to the arrays of the objective."""
        data = BoundaryExpandData(state.params["neuron"], state.objective_state)
        return state._replace(params=state.params["network"], objective_state=data)

    def init(params, model_state):
        both = {"network": params, "neuron": _neuron(seed, width)}
        return split(inner.init(both, model_state))

    def step(state, batch, key):
        neuron, data = state.objective_state
        both = {"network": state.params, "neuron": neuron}
        state = state._replace(params=both, objective_state=data)
        state, info = inner.step(state, batch, key)
        return split(state), info

    return Unlearner(init, step)


def _neuron(seed: int | Array, width: int) -> PyTree:
    kernel_key, bias_key = jax.random.split(jax.random.key(seed))
    reach = width**-0.5

    def drawn(key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.uniform(key, shape, jnp.float32, minval=-reach, maxval=reach)

    return {"kernel": drawn(kernel_key, (width,)), "bias": drawn(bias_key, ())}


def _check_size(whose: str, outputs: Array, name: str, size: int) -> None:
    if outputs.ndim != 2 or outputs.shape[1] != size:
        raise InputError(
            f"{whose} gives {outputs.shape}, {name}={size}: it must give [B, {name}]"
        )


def _side_by_side(
    optimizers: dict[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """Give each part of the parameters an optimizer of its own."""

    def init(params):
        return {name: optimizers[name].init(params[name]) for name in optimizers}

    def update(updates, state, params: PyTree = None, **told):
        def own(name: str):
            def along(part: PyTree) -> Array:
                return told["value_fn"]({**params, name: part})

            extra = {"grad": told["grad"][name], "value_fn": along}
            optimizer = optax.with_extra_args_support(optimizers[name])
            given = updates[name], state[name], params[name]
            return optimizer.update(*given, value=told["value"], **extra)

        pairs = {name: own(name) for name in optimizers}
        moves, states = ({name: pairs[name][i] for name in pairs} for i in (0, 1))
        return moves, states

    return optax.GradientTransformationExtraArgs(init, update)


@dataclasses.dataclass(frozen=True)
class BoundaryShrink(Options):
    """Options of boundary shrink.

    Attributes:
      bound: distance at which neighbours are sought, as a share of the range of pixels.
    """

    bound: Positive = 0.1


def _boundary_shrink(lab: Lab, options: BoundaryShrink) -> Job:
    forget = lab.ids("forget")
    drawn = objectives.boundary_labels(
        lab.range.model(lab.model),
        *lab.original,
        jnp.asarray(lab.range.unit(lab.examples.inputs[forget])),
        jnp.asarray(lab.labels("forget")),
        bound=options.bound,
    )
    table = np.zeros(len(lab.examples.labels), np.int32)
    table[forget] = np.asarray(drawn)
    told = {"weighting": lab.weighting(), "model_state": lab.model_state}
    return Job.of(lab, "forget", boundary_shrink, labels=jnp.asarray(table), **told)


def _boundary_expand(lab: Lab, _: Options) -> Job:
    unlearner = boundary_expand(
        lab.model,
        lab.featured,
        lab.optimizer(),
        head_optimizer=lab.optimizer(plain=True),
        num_classes=lab.num_classes,
        width=lab.features(np.arange(1)).shape[1],
        weighting=lab.weighting(),
        model_state=lab.model_state,
        seed=lab.seed,
    )
    return Job(unlearner, lab.schedule("forget"))


BOUNDARY_SHRINK = (
    Card.of(_boundary_shrink, "BS", "Boundary shrink (BS)", "arXiv 2303.11570")
    .but(reads=("forget", "original"), cost="E·F + F", roles=("logits",), step_reads=())
    .but(
        suits="Good for a whole class without the retain set: its samples go to the "
        "nearest other class. Take few epochs, because nothing protects the other "
        "classes."
    )
    .tries(learning_rate=(0.0001, 0.0003, 0.001), epochs=(3, 8))
)

BOUNDARY_EXPAND = (
    Card.of(_boundary_expand, "BE", "Boundary expand (BE)", "arXiv 2303.11570")
    .but(reads=("forget",), cost="E·F", roles=("logits", "features"), step_reads=())
    .but(search=BOUNDARY_SHRINK.search)
    .but(
        suits="Good for a whole class without retain set or original: its samples go "
        "to an extra class, which is then removed. It forgets less than "
        "boundary_shrink."
    )
)
