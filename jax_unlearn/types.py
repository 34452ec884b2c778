"""The nouns of the library: models, batches, samples, and the functions on them.

Shapes: B batch, K classes. Every noun is a NamedTuple, so every value is a pytree that
passes through `jax.jit`, `jax.vmap` and `jax.lax.scan`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jax_unlearn.leaves import apart, put_back

__all__ = ["ApplyFn", "Array", "Aux", "Batch", "Harmonizer", "LossFn", "Model"]
__all__ += ["ModelState", "Params", "PyTree", "Sample", "UnlearnBatch", "UnlearnInfo"]
__all__ += ["UnlearnState", "Unlearner", "WeightFn", "Weighting", "copied"]

Array = jax.Array
PyTree = Any
Params = PyTree
ModelState = PyTree


class ApplyFn(Protocol):
    """Forward pass of a whole batch."""

    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        inputs: PyTree,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[PyTree, ModelState]:
        """Return (outputs [B, ...], the next model state)."""
        ...


class Model(NamedTuple):
    """A network as two pure functions, of any framework.

    Attributes:
      init: `(key, inputs [B, ...]) -> (params, model_state)`. `model_state` holds
        what is carried but not trained (BatchNorm statistics); `{}` or `()` if none.
      apply: `(params, model_state, inputs, *, train, key=None) ->
        (outputs, model_state)`. With `train=False` the state comes back unchanged.
    """

    init: Callable[[Array, PyTree], tuple[Params, ModelState]]
    apply: ApplyFn


class Batch(NamedTuple):
    """Labelled samples.

    Attributes:
      inputs: pytree of arrays `[B, ...]`.
      labels: true classes, `i32[B]`.
      index: id of each sample in its data set, `i32[B]`; needed by whatever keeps
        a value per sample (static weights, fixed random labels, target tables).
      mask: `bool[B]`, False for padding; None means that every sample counts.
    """

    inputs: PyTree
    labels: Array
    index: Array | None = None
    mask: Array | None = None


class UnlearnBatch(NamedTuple):
    """What one unlearning step reads; None where the phase does not use it.

    Attributes:
      forget: samples whose influence is removed.
      retain: samples whose influence stays.
      reference: unseen samples, for weightings that compare with them (FaLW).
    """

    forget: Batch | None = None
    retain: Batch | None = None
    reference: Batch | None = None


class Sample(NamedTuple):
    """What a weighting may look at, one row a sample, already detached.

    Attributes:
      losses: loss on the TRUE target, `f32[B]` (the `task_losses` of `Aux`).
      outputs: model outputs `[B, ...]` (logits `[B, K]` in classification).
      labels: `i32[B]`.
      index: `i32[B]` or None.
      mask: `bool[B]` or None.
    """

    losses: Array
    outputs: PyTree
    labels: Array
    index: Array | None = None
    mask: Array | None = None


class Aux(NamedTuple):
    """What a loss function returns beside the losses.

    Attributes:
      outputs: model outputs `[B, ...]`.
      task_losses: loss on the true target, `f32[B]`: cross-entropy, denoising error
        or token loss, whatever the objective itself minimises.
      model_state: the next model state.
    """

    outputs: PyTree
    task_losses: Array
    model_state: ModelState


class LossFn(Protocol):
    """Unreduced losses of a batch as a function of the parameters."""

    def __call__(
        self, params: Params, model_state: ModelState, batch: Batch, key: Array
    ) -> tuple[Array, Aux]:
        """Return (losses f32[B], Aux)."""
        ...


class WeightFn(Protocol):
    """The `update` of a `Weighting`."""

    def __call__(
        self,
        sample: Sample,
        state: PyTree,
        *,
        reference: "Callable[[], Sample] | None" = None,
    ) -> tuple[Array, PyTree]:
        """Return (weights f32[B], the next state)."""
        ...


class Weighting(NamedTuple):
    """How much each forget sample counts.

    Attributes:
      init: `() -> state`; arrays a weighting needs (losses under the original model,
        class moments) live in its state, never in the compiled program.
      update: `(sample, state, *, reference=None) -> (weights f32[B], state)`.
        `reference` is a function without arguments that computes the `Sample` of the
        unseen batch, so that a weighting pays for it only when used; None where the
        step has no such batch.
      joint: whether a weight depends on the other samples of its batch, so that parts
        of a batch, weighted apart, are not the batch.
    """

    init: Callable[[], PyTree]
    update: WeightFn
    joint: bool = False


Harmonizer = Callable[[PyTree, PyTree], PyTree]
"""`(g_forget, g_retain) -> g`, pytrees like the parameters."""


class UnlearnState(NamedTuple):
    """What is carried from step to step: all arrays, nothing else.

    The compiled step of one unlearner serves another of the same hyper-parameters.

    Attributes:
      params, model_state: the model as unlearned so far.
      opt_state: state of the optax transformation (saliency mask included).
      weight_state: state of the weighting.
      objective_state: arrays of the objectives (teacher, target tables), `()` if none.
      step: number of steps done, `i32[]`.
      ema: moving average of the parameters, `()` if none; see `ju.ema_of`.
    """

    params: Params
    model_state: ModelState
    opt_state: PyTree
    weight_state: PyTree
    objective_state: PyTree
    step: Array
    ema: PyTree = ()


class UnlearnInfo(NamedTuple):
    """What one may want to log of a step; nothing in it is carried.

    Attributes:
      forget_loss, retain_loss: mean unweighted loss of the objective, `f32[]`, 0 where
        the step had no such batch.
      weights: forget weights `f32[B]`, None where the step had no forget batch.
      task_losses: losses the weights looked at, `f32[B]`, or None.
      index: ids of the forget samples, −1 for padding, `i32[B]`, or None.
      conflict: cosine of the angle between the two gradients, `f32[]`, 0 where the
        step had only one.
      update_norm: L2 norm of the applied update, `f32[]`.
    """

    forget_loss: Array
    retain_loss: Array
    weights: Array | None
    task_losses: Array | None
    index: Array | None
    conflict: Array
    update_norm: Array


class Unlearner(NamedTuple):
    """An unlearning algorithm as two pure functions.

    Attributes:
      init: `(params, model_state) -> UnlearnState`; copies what it keeps.
      step: `(state, UnlearnBatch, key) -> (UnlearnState, UnlearnInfo)`; not compiled
        here: `run` and `scan_steps` do that, or the caller's own loop.
    """

    init: Callable[[Params, ModelState], UnlearnState]
    step: Callable[
        [UnlearnState, UnlearnBatch, Array], tuple[UnlearnState, UnlearnInfo]
    ]


def copied(tree: PyTree, *, frozen: bool = False) -> PyTree:
    """Copy what the next step would donate, or the caller keeps; `frozen` parts too."""
    rest, contents = (tree, ()) if frozen else apart(tree)
    return put_back(jax.tree.map(_copy, rest), contents)


def _copy(leaf: Any) -> Array:
    """Copy an array; one that is all here without a program for its shape."""
    here = isinstance(leaf, Array) and not isinstance(leaf, Tracer)
    if here and leaf.is_fully_addressable and isinstance(leaf.dtype, np.dtype):
        return jax.device_put(leaf, may_alias=False)
    return jnp.array(leaf, copy=True)  # random keys would share their words
