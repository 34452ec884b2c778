"""Training from scratch, of any kind of model: the original, Retrain, a judge."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from jax_unlearn.cards import Job
from jax_unlearn.data import retain_only
from jax_unlearn.drivers.loop import Callback
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.subject import Subject
from jax_unlearn.types import Array, Unlearner


class Trainer:
    """Train models of one setting, the compiled step shared between the runs.

    Args:
      subject: the network and its data.
      setting: how to train.
    """

    def __init__(self, subject: Subject, setting: Any):
        self.subject, self.setting = subject, setting
        self._unlearners: dict[tuple[int, float], Unlearner] = {}

    def steps(self, samples: int) -> int:
        """Return how many steps training on so many samples takes."""
        return self.subject.modality.steps(self.setting, samples)

    def __call__(
        self,
        ids: np.ndarray,
        *,
        seed: int,
        callback: Callback | None = None,
        series: Series | None = None,
    ) -> Trained:
        """Train from scratch on the samples of the given ids.

        Args:
          ids: what to train on.
          seed: of initialisation, order, augmentation and noise.
          callback: as in `run`.
          series: as in `execute`.

        Raises:
          NonFiniteError: the loss diverged.
        """
        job, key = self.job(ids, seed=seed)
        return execute(job, None, key, callback=callback, series=series)

    def job(
        self, ids: np.ndarray, *, seed: int, share: float = 1.0, rate: float = 1.0
    ) -> tuple[Job, Array]:
        """Return a training, its start included, and the key of its run.

        Args:
          ids: what to train on.
          seed: of initialisation, order, augmentation and noise.
          share: of the steps, within which the schedule is annealed.
          rate: factor of the peak learning rate.
        """
        examples, setting = self.subject.examples, self.setting
        steps = math.ceil(share * self.steps(len(ids)) - 1e-9)  # 0.3·10 is 3, not 4
        size = min(setting.batch_size, len(ids))
        schedule = retain_only(
            examples,
            ids,
            batch_size=setting.batch_size,
            epochs=-(-steps // -(-len(ids) // size)),
            seed=seed,
        )
        if (steps, rate) not in self._unlearners:
            told = dataclasses.replace(
                setting, learning_rate=rate * setting.learning_rate
            )
            self._unlearners[steps, rate] = self.subject.modality.optimize(
                self.subject.built, told, steps
            )
        init_key, run_key = jax.random.split(jax.random.key(seed))
        two = jax.tree.map(lambda leaf: leaf[:2], examples.inputs)
        start = jax.jit(self.subject.model.init)(init_key, two)
        job = Job(
            self._unlearners[steps, rate],
            dataclasses.replace(schedule, steps=steps),
            start=start,
            finish=self.subject.modality.finish,
        )
        return job, run_key
