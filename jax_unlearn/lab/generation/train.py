"""Training of diffusion models: Adam, clipping, a moving average of the parameters."""

import contextlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jax_unlearn import diffusion, methods, objectives
from jax_unlearn.data import Examples, retain_only
from jax_unlearn.drivers import signals
from jax_unlearn.drivers.loop import Callback, run
from jax_unlearn.drivers.series import Series
from jax_unlearn.lab.generation.models import Generator
from jax_unlearn.lab.generation.settings import GeneratorTraining
from jax_unlearn.lab.stages import Trained, adam, saving
from jax_unlearn.types import Unlearner


class GeneratorTrainer:
    """Train diffusion models of one setting, the compiled step shared between runs.

    Args:
      generator: the network.
      setting: how to train.
    """

    def __init__(self, generator: Generator, setting: GeneratorTraining):
        self.generator = generator
        self.setting = setting
        self._unlearner = self._make()

    def __call__(
        self,
        examples: Examples,
        ids: np.ndarray,
        *,
        seed: int,
        callback: Callback | None = None,
        series: Series | None = None,
    ) -> Trained:
        """Train from scratch on the images of the given ids; return the average.

        Args:
          examples: training images.
          ids: what to train on.
          seed: of initialisation, order and noise.
          callback: as in `run`.
          series: where the run is saved as it goes on, and gone on from.

        Raises:
          NonFiniteError: the loss diverged.
        """
        start = time.perf_counter()
        samples = self.generator.samples(examples)
        schedule = retain_only(
            samples,
            ids,
            batch_size=self.setting.batch_size,
            epochs=-(-self.setting.steps * self.setting.batch_size // len(ids)) + 1,
            seed=seed,
        )
        init_key, run_key = jax.random.split(jax.random.key(seed))
        params, state = jax.jit(lambda key: self.generator.model.init(key, None))(
            init_key
        )
        begun = self._unlearner.init(params, state)
        first = run(self._unlearner, begun, [schedule[0]], run_key)
        jax.block_until_ready(first.params)
        compiled = time.perf_counter()
        before = 0.0
        if series is not None:
            begun = series.latest(begun) or begun
            callback, before = saving(callback, series), series.spent
        steps = range(int(begun.step), self.setting.steps)
        batches = (schedule[step] for step in steps)
        with signals.held() if series is not None else contextlib.nullcontext():
            done = run(self._unlearner, begun, batches, run_key, callback=callback)
            average = jax.block_until_ready(diffusion.ema_of(done.opt_state))
        seconds = {
            "prepare": 0.0,
            "compile": compiled - start,
            "run": before + time.perf_counter() - compiled,
        }
        return Trained(average, done.model_state, seconds)

    def _make(self) -> Unlearner:
        setting, generator = self.setting, self.generator
        rates = optax.cosine_decay_schedule(setting.learning_rate, setting.steps)
        optimizer = optax.chain(
            optax.clip_by_global_norm(setting.clip),
            adam(),
            # strict dtype promotion forbids a schedule of an integer
            optax.scale_by_learning_rate(lambda step: rates(jnp.float32(step))),
            diffusion.ema_params(setting.ema),
        )
        loss = objectives.denoise(
            generator.model,
            generator.process,
            drop=setting.drop,
            null=generator.null,
        )
        return methods.assemble(generator.model, optimizer, retain=loss)
