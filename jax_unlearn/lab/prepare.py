"""From a setting and a request to a job that is ready to run."""

import dataclasses
import time
from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.data import Dataset, retain_subset
from jax_unlearn.drivers import guards, memory
from jax_unlearn.errors import InputError
from jax_unlearn.lab import stepwise, transforms
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.stages import Job, Request, Trained, checked
from jax_unlearn.lab.task import Origin, Task
from jax_unlearn.types import Batch, Model, Unlearner, UnlearnState

HELD = 0.1  # of the retain samples, for the guard of utility


class Preparer:
    """Turn settings into jobs, the compiled steps shared between requests.

    All arrays of a request travel in the state, so a second request with the same
    setting and shapes runs the program compiled for the first.

    Args:
      model: the network.
      dataset: its data.
      features: the model that returns features of the network instead of logits, with
        the same parameters; default the network itself.
    """

    def __init__(self, model: Model, dataset: Dataset, features: Model | None = None):
        self.model = model
        self.dataset = dataset
        self.features = model if features is None else features
        self._steps: dict[Hashable, Unlearner] = {}
        self._models: dict[tuple[int, bool], Model] = {}

    def __call__(
        self,
        setting: Unlearning,
        request: Request,
        original: Trained,
        *,
        seed: int,
        origin: Origin | None = None,
    ) -> Job:
        """Prepare what the method needs: mask, loss table, targets, attacks, queries.

        Args:
          setting: how to unlearn.
          request: whom to forget.
          original: the trained model.
          seed: of random labels and order.
          origin: how the original was trained, for methods that need to know.

        Raises:
          InputError: a forget class without unseen samples (FaLW, endpoint transport),
            or another request that cannot be served.
        """
        start = time.perf_counter()
        check_unseen(self.dataset, request, setting)
        request = accessible(self.dataset, request, setting.rho, seed)
        request, held = held_back(self.dataset, request, setting, seed)
        task = Task(
            self._economical(setting),
            self.features,
            self.dataset,
            setting,
            request,
            original,
            origin,
            seed,
        )
        if setting.entry.kind == "one-shot":
            made = Job(None, None, transform=transforms.BUILDERS[setting.method](task))
        else:
            made = self._stepwise(task)
            if setting.guard_utility > 0 or setting.guard_endpoint:
                made = made._replace(guards=self._guards(task, held, made.steps))
        return made._replace(prepare_seconds=time.perf_counter() - start)

    def _guards(
        self, task: Task, held: np.ndarray, steps: int
    ) -> Callable[[UnlearnState], list[guards.Guard]]:
        """Return what makes the guards of a run."""
        setting, train = task.setting, self.dataset.train

        def batch(ids: np.ndarray) -> Batch:
            return Batch(train.inputs[ids], jnp.asarray(train.labels[ids]))

        def make(state: UnlearnState) -> list[guards.Guard]:
            told = {
                "every": setting.guard_every,
                "roll_back": state if setting.guard_roll_back else None,
                "steps": steps,
            }
            made = []
            if setting.guard_utility > 0:
                bound = setting.guard_utility
                kept = batch(held)
                made.append(guards.utility_guard(self.model, kept, bound=bound, **told))
            if setting.guard_endpoint:
                forget, unseen = task.request.forget, task.request.unseen
                endpoint = guards.unseen_endpoint(
                    task.confidence(unseen), task.labels(unseen), task.labels(forget)
                )
                asked = batch(forget)
                made.append(
                    guards.endpoint_guard(self.model, asked, endpoint=endpoint, **told)
                )
            return made

        return make

    def _economical(self, setting: Unlearning) -> Model:
        """Return the model with the memory switches of the setting, one a switch."""
        key = setting.microbatch, setting.remat
        if key not in self._models:
            model = memory.rematerialised(self.model) if setting.remat else self.model
            if setting.microbatch:
                model = memory.microbatched(model, setting.microbatch)
            self._models[key] = model
        return self._models[key]

    def _stepwise(self, task: Task) -> Job:
        """Return a job whose step is that of the first alike."""
        made = stepwise.BUILDERS[task.setting.method](task)
        unlearner, schedule = checked(made)
        at = task.original.params, task.original.model_state
        jax.block_until_ready(unlearner.init(*at))
        key = (
            _program(task.setting, len(schedule)),
            task.origin and task.origin.training,
        )
        shared = self._steps.setdefault(key, unlearner)
        return made._replace(unlearner=unlearner._replace(step=shared.step))


def accessible(dataset: Dataset, request: Request, rho: float, seed: int) -> Request:
    """Return the request with the share of the retain set that may be read.

    Args:
      dataset: its data.
      request: ids.
      rho: ρ, the share; the subset of a seed is the same for every method.
      seed: of the draw.

    Raises:
      InputError: a share too small to hold every class.
    """
    if rho == 1:
        return request
    subset = retain_subset(dataset.train.labels, request.retain, rho=rho, seed=seed)
    return request._replace(retain=subset)


def held_back(
    dataset: Dataset, request: Request, setting: Unlearning, seed: int
) -> tuple[Request, np.ndarray]:
    """Return the request less what the guard of utility looks at, and that: `i64[h]`.

    Args:
      dataset: its data.
      request: ids.
      setting: of the method; without that guard nothing is held back.
      seed: of the draw.

    Raises:
      InputError: a retain set too small to give a tenth of it away.
    """
    if setting.guard_utility <= 0:
        return request, np.zeros(0, np.int64)
    held = accessible(dataset, request, HELD, seed).retain
    return request._replace(retain=np.setdiff1d(request.retain, held)), held


def check_unseen(dataset: Dataset, request: Request, setting: Unlearning) -> None:
    """Refuse a request without the unseen samples that the method compares with.

    Raises:
      InputError: there are none, or names the forget class that has none.
    """
    if setting.needs_unseen and len(request.unseen) < 2:
        raise InputError(
            f"method={setting.method!r} compares with unseen samples, of which there "
            f"are {len(request.unseen)}; hold some out (--unseen-fraction) or use "
            "another method"
        )
    labels = dataset.train.labels
    missing = np.setdiff1d(labels[request.forget], labels[request.unseen])
    if setting.needs_unseen_classes and missing.size:
        raise InputError(
            f"class {missing[0]} has forget samples but no unseen ones to compare "
            "with; hold out some of it (--unseen-fraction) or use another method"
        )


def _program(setting: Unlearning, steps: int) -> tuple[Unlearning, int | None]:
    """Return what decides the compiled step: not rate, length, data or their number."""
    free = {"guard_utility": 0.0, "guard_endpoint": False}
    same = dataclasses.replace(setting, learning_rate=1.0, epochs=1, rho=1.0, **free)
    counted = setting.method in ("l1_sparse", "sfron", "retrain")
    return same, steps if counted else None
