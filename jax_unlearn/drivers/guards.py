"""Guards: callbacks of `ju.run` that end a run before it goes too far.

Off unless given. A guard looks every few steps; what makes it act is told in its
`reason`, and the run ends with the state it looked at, or with the last that passed.
Steps after its last look go unseen unless it is told how many steps there are.

>>> import jax.numpy as jnp
>>> import optax
>>> import jax_unlearn as ju
>>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
>>> alg = ju.methods.gradient_ascent(model, optax.sgd(1.0))
>>> forget = ju.Batch(jnp.array([[1.0, 0.0]]), jnp.array([0]))
>>> guard = endpoint_guard(model, forget, endpoint=0.5, every=1)
>>> steps = [ju.UnlearnBatch(forget)] * 20
>>> state = alg.init(jnp.float32(2.0), ())
>>> state = ju.run(alg, state, steps, jax.random.key(0), callback=guard)
>>> guard.step, guard.reason
(10, 'the forget confidence 0.387 has reached the unseen endpoint 0.500')
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jax_unlearn.drivers import sharding
from jax_unlearn.drivers.loop import Callback, predict
from jax_unlearn.drivers.stacking import copied, is_key
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import apart, put_back
from jax_unlearn.losses import true_class_probability
from jax_unlearn.optimizers import skipped
from jax_unlearn.types import Array, Batch, Model, PyTree, UnlearnInfo, UnlearnState

__all__ = ["Guard", "Looks", "endpoint_guard", "finite_guard", "first_of"]
__all__ += ["unseen_endpoint", "utility_guard"]


@dataclasses.dataclass
class Guard:
    """A callback that ends a run when something is wrong.

    Attributes:
      look: `(state, info) -> reason to end, or None`.
      every: steps between two looks, at least.
      good: where to roll back to: the last state that passed, at first the one before
        the run. None stops without rolling back.
      reason: why the guard acted, None if it did not.
      step: steps done when it did.
      steps: of the whole run: it looks at the last one whatever `every` says.
    """

    look: Callable[[UnlearnState, UnlearnInfo], str | None]
    every: int
    good: UnlearnState | None = None
    reason: str | None = None
    step: int | None = None
    steps: int | None = None
    _looked: int = 0

    def __post_init__(self):
        if self.every < 1:
            raise InputError(f"every={self.every}: look after 1 or more steps")
        self.good = self.good and copied(self.good)

    def __call__(
        self, done: int, state: UnlearnState, info: UnlearnInfo
    ) -> UnlearnState | None:
        """Return None to go on, else the state to end with."""
        if done - self._looked < self.every and done != self.steps:
            return None
        self._looked = done
        self.reason = self.look(state, info)
        if self.reason is None:
            self.good = None if self.good is None else copied(state)
            return None
        self.step = done
        return state if self.good is None else self.good

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a saved run needs of the guard, for `Series.carry`."""
        good = enumerate(jax.tree.leaves(sharding.fetch(apart(self.good)[0])))
        looked = np.array([self._looked], np.int32)
        return {"looked": looked, **{f"good/{n}": leaf for n, leaf in good}}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Undo `arrays`."""
        self._looked = int(arrays["looked"][0])
        rest, frozen = apart(self.good)
        leaves, structure = jax.tree.flatten(rest)
        good = (arrays[f"good/{n}"] for n in range(len(leaves)))
        rest = structure.unflatten(map(sharding.placed, good, leaves))
        self.good = put_back(rest, frozen)


class Looks(TypedDict, total=False):
    """When a guard looks, and where it goes back to.

    Attributes:
      every: steps between two looks, 10 by default; each may cost a forward pass.
      roll_back: the state before the run, to return to the last state that passed;
        None ends with the state that did not.
      steps: of the whole run, to look at its last one too; None where nobody knows.
    """

    every: int
    roll_back: UnlearnState | None
    steps: int | None


def utility_guard(
    model: Model, batch: Batch, *, bound: float, **looks: Unpack[Looks]
) -> Guard:
    """End a run when the accuracy on held-out retain samples falls under a bound.

    The outputs of the network are logits `[B, K]`; the batch is of retain samples that
    the run does not train on; the bound is in percent, 0 to 100.

    Raises:
      InputError: a bound outside 0..100, `every` below 1, an empty batch.

    >>> model = Model(
    ...     lambda key, x: ((), ()), lambda p, s, x, *, train, key=None: (x, s)
    ... )
    >>> batch = Batch(np.eye(2, dtype=np.float32), np.array([0, 0]))
    >>> guard = utility_guard(model, batch, bound=60)
    >>> state = UnlearnState((), (), (), (), (), jnp.int32(0))
    >>> guard.look(state, None)
    'the accuracy on held-out retain samples 50.0 % is under 60 %'
    """
    if not 0 <= bound <= 100:
        raise InputError(f"bound={bound} must be a percentage, 0 to 100; try 90")

    def reason(logits: np.ndarray, labels: np.ndarray) -> str | None:
        utility = 100 * float(np.mean(np.argmax(logits, axis=-1) == labels))
        told = f"the accuracy on held-out retain samples {utility:.1f} % is under "
        return None if utility >= bound else f"{told}{bound:g} %"

    return _reading(model, batch, reason, **looks)


def endpoint_guard(
    model: Model, batch: Batch, *, endpoint: float, **looks: Unpack[Looks]
) -> Guard:
    """End a run when the forget confidence has come down to that of unseen data.

    The arguments are those of `utility_guard`, but for a batch of forget samples and
    `endpoint`, the mean true-class probability of unseen ones; see `unseen_endpoint`.

    Raises:
      InputError: an endpoint outside 0..1, `every` below 1, an empty batch.

    Source: our choice, after FaLW's view that unlearned and unseen data look alike.
    """
    if not 0 <= endpoint <= 1:
        raise InputError(
            f"endpoint={endpoint} must be a probability; see unseen_endpoint"
        )

    def reason(logits: np.ndarray, labels: np.ndarray) -> str | None:
        each = true_class_probability(jnp.asarray(logits), jnp.asarray(labels))
        confidence = float(np.mean(np.asarray(each, np.float64)))
        told = f"the forget confidence {confidence:.3f} has reached the unseen endpoint"
        return None if confidence > endpoint else f"{told} {endpoint:.3f}"

    return _reading(model, batch, reason, **looks)


def finite_guard(
    *, roll_back: UnlearnState, every: int = 10, steps: int | None = None
) -> Guard:
    """Return to the last finite state instead of raising `NonFiniteError`.

    The arguments are those of `Looks`, `every` at most the `check_every` of `ju.run`,
    which raises at its own look.

    Raises:
      InputError: `every` below 1.

    >>> state = UnlearnState(jnp.ones(1), (), (), (), (), jnp.int32(0))
    >>> zero = jnp.float32(0)
    >>> info = UnlearnInfo(zero / 0, zero, None, None, None, zero, zero)
    >>> guard = finite_guard(roll_back=state, every=1)
    >>> guard(1, state._replace(params=jnp.full(1, jnp.nan)), info).params.tolist()
    [1.0]
    """

    def look(state: UnlearnState, info: UnlearnInfo) -> str | None:
        told = info.forget_loss, info.retain_loss, info.update_norm
        if skipped(state.opt_state) is not None:  # its optimizer sees to the losses
            told = told[2:]
        finite = bool(_all_finite((told, state.params)))
        return None if finite else "the loss or the update is not finite"

    return Guard(look, every, roll_back, steps=steps)


def first_of(*callbacks: Callback) -> Callback:
    """Return the callback that calls all of them; the first that ends the run, ends it.

    >>> both = first_of(lambda *_: None, lambda done, state, info: state)
    >>> both(1, "state", None)
    'state'
    """

    def callback(
        done: int, state: UnlearnState, info: UnlearnInfo
    ) -> UnlearnState | None:
        ended = [one(done, state, info) for one in callbacks]
        return next((found for found in ended if found is not None), None)

    return callback


def unseen_endpoint(
    confidence: ArrayLike, labels: ArrayLike, forget_labels: ArrayLike
) -> float:
    """Return the confidence of unseen data, classes weighted as in the forget set.

    Σ_k (N_fk / N_f) · mean of p_y over unseen samples of class k, of the true-class
    probabilities `[U]` of unseen samples, their labels, and those of the forget
    samples.

    Raises:
      InputError: no forget sample, or a class of them without unseen samples.

    >>> unseen_endpoint([0.2, 0.4, 0.9], [0, 0, 1], [0, 0, 0, 1])
    0.45
    """
    values, classes = np.asarray(confidence, np.float64), np.asarray(labels)
    asked, counts = np.unique(np.asarray(forget_labels), return_counts=True)
    missing = np.setdiff1d(asked, classes)
    if not len(asked) or len(missing):
        raise InputError(
            f"forget classes {asked.tolist()}, without unseen samples "
            f"{missing.tolist()}: give forget samples, and unseen ones of each class"
        )
    means = [values[classes == one].mean() for one in asked]
    return float(np.average(means, weights=counts))


@jax.jit
def _all_finite(tree: PyTree) -> Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if not is_key(leaf)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _reading(model: Model, batch: Batch, reason, **looks: Unpack[Looks]) -> Guard:
    """Return the guard that looks at the logits of a batch and at its labels."""
    if not len(batch.labels):
        raise InputError("the batch of the guard has no samples; give 1 or more")

    def look(state: UnlearnState, info: UnlearnInfo) -> str | None:
        del info
        logits = predict(model, state.params, state.model_state, batch.inputs)
        return reason(logits, np.asarray(batch.labels))

    good, steps = looks.get("roll_back"), looks.get("steps")
    return Guard(look, looks.get("every", 10), good, steps=steps)
