"""Fisher information of single weights, and the noise that forgets with it."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Job, Lab, NotNegative, Options
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import counted, mean_loss, over_batches, sample_gradient
from jax_unlearn.leaves import alike, divided
from jax_unlearn.types import Array, LossFn, Params, PyTree

__all__ = ["FISHER_FORGETTING", "FisherForgetting", "fisher_information"]
__all__ += ["fisher_noise", "published_noise"]


def fisher_information(
    loss_fn: LossFn, *, per: str = "sample"
) -> Callable[..., PyTree]:
    """Transform a loss into the diagonal of its empirical Fisher information.

    per="sample": F = (1/n) Σ_i (∇ℓ_i)², the definition. The gradients of all samples of
    a batch are in memory at once (B times the parameters, float32): choose the batches
    accordingly.

    per="batch": F = (1/T) Σ_t (∇ mean_{i in batch t} ℓ_i)², what the public code of SSD
    and SFRon computes, at the price of one backward pass a batch. It is NOT the Fisher
    of the definition: its expectation is μ² + Var(∇ℓ_i)/B instead of μ² + Var(∇ℓ_i), μ
    the mean gradient. Values compare only between sets cut into batches of one size B.

    per="model": F = (1/n) Σ_i Σ_y p_y(x_i) (∇(−ln p_y(x_i)))², labels drawn from the
    model itself, all K of them: the Fisher information of Golatkar et al. and of their
    code; K times the price. Of a classifier; the true labels are not read.

    Args:
      loss_fn: unreduced losses in eval mode:
        `objectives.descent(model)._replace(train=False)`.
      per: "sample", "batch" or "model".

    Returns:
      `(params, model_state, batches, key) -> F`, float32, like `params`; compiled once
      per shape of batch, padding left out by the masks, 0 where no sample counts;
      InputError if there is no batch.

    Raises:
      InputError: unknown `per`; an objective in train mode; for "model", outputs that
        are no logits of classes.

    Reference: Golatkar et al., arXiv 1911.04933 (per="model"; with the true labels it
    is called empirical); Foster et al., arXiv 2308.07707 (SSD).

    >>> from jax_unlearn.types import Aux, Batch
    >>> def loss_fn(w, state, batch, key):
    ...     losses = w * batch.inputs
    ...     return losses, Aux(losses, losses, state)
    >>> batches = [Batch(jnp.array([1.0, 3.0]), jnp.array([0, 0]))]
    >>> key = jax.random.key(0)
    >>> print(fisher_information(loss_fn)(jnp.float32(1), (), batches, key))  # (1+9)/2
    5.0
    >>> by_batch = fisher_information(loss_fn, per="batch")
    >>> print(by_batch(jnp.float32(1), (), batches, key))  # 2²
    4.0
    """
    _validate.eval_mode(loss_fn)
    _validate.one_of("per", per, ("sample", "batch", "model"))

    def by_model(params, model_state, batch, key):
        outputs = jax.eval_shape(
            lambda: loss_fn(params, model_state, batch, key)[1]
        ).outputs
        if getattr(outputs, "ndim", 0) != 2:
            raise InputError(
                'per="model" goes through the classes of a classifier, and these '
                'outputs are no logits [B, K]; use per="sample"'
            )

        def towards(label):
            """Return √p_y·(−ln p_y): its gradient, squared, is the label's share."""

            def losses_of(params, model_state, batch, key):
                own = batch._replace(labels=jnp.full_like(batch.labels, label))
                losses, aux = loss_fn(params, model_state, own, key)
                share = jax.nn.softmax(aux.outputs.astype(jnp.float32))[:, label]
                return losses * jnp.sqrt(jax.lax.stop_gradient(share)), aux

            return by_sample(params, model_state, batch, key, losses_of)[0]

        labels = jnp.arange(outputs.shape[1])
        total = jax.tree.map(lambda x: x.sum(0), jax.lax.map(towards, labels))
        return total, jnp.sum(counted(batch))

    def by_sample(params, model_state, batch, key, losses_of=loss_fn):
        where = counted(batch)
        keys = jax.random.split(key, where.shape[0])
        gradients = jax.vmap(sample_gradient(losses_of), in_axes=(None, None, 0, 0))
        grads = gradients(params, model_state, batch._replace(mask=None), keys)

        def squares(leaf: Array) -> Array:
            axes = tuple(range(1, leaf.ndim))
            leaf = leaf.astype(jnp.float32)
            return jnp.sum(jnp.where(jnp.expand_dims(where, axes), leaf, 0.0) ** 2, 0)

        return jax.tree.map(squares, grads), jnp.sum(where)

    def by_batch(params, model_state, batch, key):
        where = counted(batch)

        part, whole = divided(params)

        def mean(part):
            losses, _ = loss_fn(whole(part), model_state, batch, key)
            return mean_loss(losses.astype(jnp.float32), where)

        grads = optax.tree.cast(jax.grad(mean)(part), jnp.float32)
        return optax.tree.mul(grads, grads), jnp.minimum(jnp.sum(where), 1)

    ways = {"sample": by_sample, "batch": by_batch, "model": by_model}
    return over_batches(ways[per])


def fisher_noise(
    params: Params,
    fisher: PyTree,
    key: Array,
    *,
    alpha: float | Array = 1e-6,
    largest: float | Array = 1e3,
) -> Params:
    """Forget by noise: θ + √(α·min(1/F, c))·ε, ε ~ N(0, 1).

    Weights the retain set does not need (small F) are drowned, the others stay. This is
    the equation alone; what the authors' code does besides is in `published_noise`.

    F ≥ 0 is that of the RETAIN set, from `fisher_information`, like `params`; α ≥ 0 is
    about 1e-6, c > 0, the `largest` 1/F, is 1000 in the public code.

    Raises:
      InputError: negative alpha, largest not positive, F not shaped like `params`.

    Reference: Golatkar et al., arXiv 1911.04933.

    >>> params = {"w": jnp.array([1.0, 1.0])}
    >>> fisher = {"w": jnp.array([1e12, 0.0])}
    >>> noisy = fisher_noise(params, fisher, jax.random.key(0), alpha=0.1)
    >>> print(jnp.abs(noisy["w"] - params["w"]) > 0.01)
    [False  True]
    """
    _validate.at_least("alpha", alpha, 0)
    _validate.positive("largest", largest)
    part, whole = divided(params)
    fisher = alike(fisher, part)
    _validate.same_shapes("fisher", fisher, part)
    noise = optax.tree.random_like(key, optax.tree.cast(part, jnp.float32))
    scale, floor = jnp.float32(alpha), jnp.float32(1) / jnp.float32(largest)

    def disturb(param, f, noise):
        variance = scale / jnp.maximum(f.astype(jnp.float32), floor)
        moved = param.astype(jnp.float32) + jnp.sqrt(variance) * noise
        return moved.astype(param.dtype)

    return whole(jax.tree.map(disturb, part, fisher, noise))


def published_noise(
    params: Params,
    fisher: PyTree,
    key: Array,
    *,
    num_classes: int,
    alpha: float | Array = 1e-6,
    gone: Sequence[int] = (),
) -> Params:
    """Forget by the noise of the authors' code.

    The variance is α·min(1/(F + 1e-8), c), c = 1000, or 100 in the last layer; then its
    mean over the inputs of each unit, and ten times as much in the last layer and in
    vectors (biases, BatchNorm). Weights of classes that go as a whole (`gone`) are 0
    with a variance of 0.001. The last layer is, as there, whatever has K units. Inputs
    are the last axis but one, as flax keeps kernels.

    F is that of the retain set, `fisher_information(loss, per="model")`, like `params`.

    Raises:
      InputError: negative alpha, F not shaped like `params`.

    Reference: Golatkar et al., arXiv 1911.04933, and its code. The paper derives a
    deviation ∝ F^(-1/4); its code draws with F^(-1/2), and tables of others run that.

    >>> params = {"w": jnp.ones((2, 3, 4))}
    >>> fisher = {"w": jnp.full((2, 3, 4), 1e12)}
    >>> noisy = published_noise(params, fisher, jax.random.key(0), num_classes=10)
    >>> print(jnp.abs(noisy["w"] - 1).max() < 1e-6)
    True
    """
    _validate.at_least("alpha", alpha, 0)
    part, whole = divided(params)
    fisher = alike(fisher, part)
    _validate.same_shapes("fisher", fisher, part)
    noise = optax.tree.random_like(key, optax.tree.cast(part, jnp.float32))
    rows = jnp.asarray(gone, jnp.int32)

    def disturb(param, f, noise):
        last = param.ndim > 0 and param.shape[-1] == num_classes
        inverse = 1 / (f.astype(jnp.float32) + 1e-8)
        variance = alpha * jnp.minimum(inverse, 1e2 if last else 1e3)
        if param.ndim > 1:
            mean = jnp.mean(variance, axis=-2, keepdims=True)
            variance = jnp.broadcast_to(mean, param.shape)
        mean = jnp.asarray(param, jnp.float32)
        if last:
            mean = mean.at[..., rows].set(0.0)
            variance = variance.at[..., rows].set(1e-4)
        factor = 10.0 if last or param.ndim == 1 else 1.0
        return (mean + jnp.sqrt(factor * variance) * noise).astype(param.dtype)

    return whole(jax.tree.map(disturb, part, fisher, noise))


@dataclasses.dataclass(frozen=True)
class FisherForgetting(Options):
    """Options of Fisher forgetting.

    Attributes:
      noise: variance of the noise where the Fisher information is 1.
      published: whether to do, for classifiers, what the authors' code does, at K times
        the price: labels drawn from the model, the variance a mean over each unit's
        inputs, ten times as much in the last layer and in vectors, classes that go as a
        whole set to 0. Else the equation alone, with the true labels.
    """

    noise: NotNegative = 1e-6
    published: bool = False


def _fisher_forgetting(lab: Lab, options: FisherForgetting) -> Job:
    def move(params: Params) -> Params:
        key = jax.random.key(lab.seed)
        if not options.published:
            return fisher_noise(params, lab.fisher("retain"), key, alpha=options.noise)
        forget, retain = (lab.labels(part) for part in ("forget", "retain"))
        gone = np.setdiff1d(forget, retain)
        fisher = lab.fisher("retain", per="model")
        told = {"num_classes": lab.num_classes, "gone": gone.tolist()}
        return published_noise(params, fisher, key, alpha=options.noise, **told)

    return Job.once(move)


FISHER_FORGETTING = (
    Card.of(_fisher_forgetting, "Fisher", "Fisher forgetting, its equation alone")
    .but(source="arXiv 1911.04933")
    .but(reads=("retain",), cost="R·(1 + published·(K - 1))")
    .but(kind="one-shot", roles=("evaluate",), weighs=False)
    .but(
        suits="Good as a baseline in one step: noise on the weights that matter little "
        "to the retain set. It damages all accuracy, so search the noise by powers of "
        "ten. --published is the form of its authors' code."
    )
    .tries(noise=(1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3))
)
