"""Amnesiac unlearning: subtract the logged updates of the batches of forget samples."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import _validate
from jax_unlearn.cards import Card, Job, Lab, Options, Variables
from jax_unlearn.drivers.loop import run
from jax_unlearn.errors import InputError
from jax_unlearn.gradients import counted
from jax_unlearn.leaves import alike, divided
from jax_unlearn.tables import row_ids
from jax_unlearn.types import Params, PyTree, UnlearnBatch, Unlearner, UnlearnState

__all__ = ["AMNESIAC", "SAME", "Batches", "UpdateLog", "amnesiac", "check_same"]


class Batches(Protocol):
    """The batches of a run by the number of the step: a schedule, or a list."""

    def __getitem__(self, step: int, /) -> UnlearnBatch: ...


class UpdateLog:
    """What every step of a training run changed, and whose samples it saw.

    A callback for `ju.run`. Keeps a float32 copy of the parameters on the host for
    every logged step: 4.5 GB for 100 steps of a ResNet-18; `watched` keeps those steps
    only that held a sample of the list. Under `scan` one entry is a whole chunk of
    steps and all its samples: train with `scan=1` for the published form.

    Args:
      state: the state `ju.run` starts from.
      batches: the schedule that is run (from its beginning, also where a run is
        resumed), or a list of batches; their `index` says who is in them.
      watched: ids that may have to be forgotten; None logs every step.

    Attributes:
      updates: θ after − θ before, one pytree of host arrays an entry.
      ids: ids of the samples of each entry, sorted, `i64[...]`.

    Reference: Graves et al., arXiv 2010.10981.

    >>> import optax
    >>> import jax_unlearn as ju
    >>> model = ju.from_stateless(lambda key, x: 2.0, lambda w, x: w * x)
    >>> alg = ju.methods.finetune(model, optax.sgd(1.0))
    >>> x, y = jnp.array([[1.0, 0.0]]), jnp.array([0])
    >>> first, last = (ju.Batch(x, y, jnp.array([i])) for i in (5, 7))
    >>> batches = [ju.UnlearnBatch(retain=first), ju.UnlearnBatch(retain=last)]
    >>> state = alg.init(jnp.float32(0.0), ())
    >>> log = UpdateLog(state, batches)
    >>> after = ju.run(alg, state, batches, jax.random.key(0), callback=log).params
    >>> log.touched([7])
    array([False,  True])
    >>> print(amnesiac(after, log.updates, log.touched([7])))  # sigmoid(0) = 0.5
    0.5
    """

    def __init__(self, state: UnlearnState, batches: Batches, *, watched: Any = None):
        self.updates: list[PyTree] = []
        self.ids: list[np.ndarray] = []
        self._batches = batches
        self._watched = None if watched is None else np.unique(np.asarray(watched))
        self._done, self._params = int(state.step), _host(state.params)

    def __call__(self, done: int, state: UnlearnState, info: Any) -> None:
        """Log the steps since the last call."""
        del info
        if done <= self._done:
            raise InputError(
                f"step {done} after step {self._done}: one log belongs to one run; "
                "make a new UpdateLog"
            )
        before, self._params = self._params, _host(state.params)
        parts = [_ids(self._batches[step]) for step in range(self._done, done)]
        self._done = done
        ids = np.unique(np.concatenate(parts))
        if self._watched is None or np.isin(ids, self._watched).any():
            self.ids.append(ids)
            self.updates.append(jax.tree.map(np.subtract, self._params, before))

    def touched(self, forget_ids: Any) -> np.ndarray:
        """Return which entries held a sample of the ids `[F]`, `bool[entries]`.

        Raises:
          InputError: an id that was not watched.
        """
        forget = np.asarray(forget_ids)
        watched = forget if self._watched is None else self._watched
        if (missing := np.setdiff1d(forget, watched)).size:
            raise InputError(
                f"forget_ids={missing[0]} was not watched; its updates are not in the "
                "log"
            )
        return np.array([np.isin(ids, forget).any() for ids in self.ids], np.bool_)


def amnesiac(params: Params, updates: Sequence[PyTree], touched: Any) -> Params:
    """Subtract the updates of the batches that held forget samples: θ − Σ_{t in S} Δ_t.

    That is the state before training on them only where they came last and the
    optimizer has no memory (plain SGD). It is published to be followed by some training
    on the retain set. BatchNorm statistics are not taken back.

    The `updates` of an `UpdateLog` are Δ_t, T pytrees like the trained parameters, and
    `touched`, `bool[T]`, is S. The sum is made in float64 on the host; without a
    touched update it is `params`.

    Raises:
      InputError: `touched` is not `bool[T]`, updates not shaped like `params`.

    Reference: Graves et al., arXiv 2010.10981.

    >>> print(amnesiac(jnp.float32(5), [1.0, 2.0, 3.0], [False, True, True]))
    0.0
    """
    which = np.asarray(touched)
    if which.dtype != np.bool_ or which.shape != (len(updates),):
        raise InputError(
            f"touched of type {which.dtype}{list(which.shape)} must be "
            f"bool[{len(updates)}]; give one truth value an update"
        )
    part, whole = divided(params)
    held = zip(updates, which, strict=True)
    chosen = [alike(update, part) for update, touched in held if touched]
    for update in chosen:
        _validate.same_shapes("updates", update, part)
    total = jax.tree.map(lambda p: np.asarray(p, np.float64), part)
    for update in chosen:
        total = jax.tree.map(np.subtract, total, update)
    return whole(jax.tree.map(lambda t, p: jnp.asarray(t, p.dtype), total, part))


def _host(params: Params) -> PyTree:
    """Return a copy on the host in float32; the original may be donated."""
    part, _ = divided(params)
    return jax.tree.map(lambda leaf: np.array(leaf, np.float32, copy=True), part)


def _ids(batch: UnlearnBatch) -> np.ndarray:
    """Return the ids of the samples a step learns from."""
    parts = [np.zeros(0, np.int64)]
    for part in filter(None, (batch.forget, batch.retain)):
        index = np.asarray(row_ids(part.index, "the log needs"), np.int64)
        parts.append(index[np.asarray(counted(part))])
    return np.concatenate(parts)


def _amnesiac(lab: Lab, _: Options) -> Job:
    job, key = lab.retraining("trained")
    unlearner = cast(Unlearner, job.unlearner)
    schedule = cast(Sequence[UnlearnBatch], job.schedule)
    state = unlearner.init(*cast(Variables, job.start))
    log = UpdateLog(state, schedule, watched=lab.ids("forget"))
    check_same(lab, run(unlearner, state, schedule, key, callback=log).params)
    touched = log.touched(lab.ids("forget"))
    return Job.once(lambda params: amnesiac(params, log.updates, touched))


AMNESIAC = (
    Card.of(_amnesiac, "Amnesiac (subtract)", "Amnesiac, updates subtracted")
    .but(source="arXiv 2010.10981", reads=("forget", "training"), kind="one-shot")
    .but(cost="0; every update of the training is kept (here: trained again)")
    .but(weighs=False)
    .but(
        suits="Good if few training batches held forget samples and every update was "
        "kept. With many such batches, subtracting their updates ruins the model."
    )
)


SAME = 1e-3  # how far, relatively, a path gone again may end from the original


def check_same(lab: Lab, params: Params) -> None:
    """Refuse an original that its training, gone through again, does not lead to."""
    original, _ = divided(lab.original[0])
    distance = _norm(jax.tree.map(jnp.subtract, divided(params)[0], original))
    size = _norm(original)
    if not distance <= SAME * size:
        raise InputError(
            f"the training of the original, gone through again, ends {distance:.3g} "
            f"from it (norm {size:.3g}): it was made by another version or machine, or "
            "is an unlearned one; train it anew"
        )


def _norm(tree: PyTree) -> float:
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in leaves)))
