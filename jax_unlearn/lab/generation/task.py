"""What a method on a diffusion model is built from."""

from typing import NamedTuple

import jax
import numpy as np
import optax

from jax_unlearn import diffusion, masks
from jax_unlearn.data import Examples, take
from jax_unlearn.lab.generation.models import Generator
from jax_unlearn.lab.generation.settings import GeneratorUnlearning
from jax_unlearn.lab.settings import Unlearning
from jax_unlearn.lab.stages import Request, Trained, optimizer_of
from jax_unlearn.types import Array, Batch, Model, PyTree

PROBED = 512  # images on which errors, masks and attacks are measured, at most


class GenerationTask(NamedTuple):
    """What a method is built from.

    Attributes:
      generator: the model's functions.
      original: its parameters.
      samples: training images with their conditions.
      request: which of them to forget.
      setting: how.
      seed: of all draws.
      concept: the word to forget, of a model of captions.
    """

    generator: Generator
    original: Trained
    samples: Examples
    request: Request
    setting: GeneratorUnlearning
    seed: int
    concept: str | None = None

    @property
    def key(self) -> Array:
        """Return the key of what is measured before the run."""
        return jax.random.fold_in(jax.random.key(self.seed), 7)

    @property
    def draws(self) -> int:
        """Return the timesteps an image and step."""
        return self.setting.draws if self.setting.time == "draws" else 1

    def some(self, ids: np.ndarray) -> np.ndarray:
        """Return at most `PROBED` of the ids, chosen by the seed."""
        rng = np.random.default_rng(self.seed)
        return np.sort(rng.permutation(ids)[:PROBED])

    def optimizer(self, mask: PyTree | None = None) -> optax.GradientTransformation:
        """Return Adam, clipped, over the masked weights."""
        setting = self.setting
        inner = optimizer_of(
            Unlearning(
                optimizer="adam",
                learning_rate=setting.learning_rate,
                clip=setting.clip,
                weight_decay=0.0,
            ),
            setting.steps,
        )
        return inner if mask is None else masks.masked(inner, mask)

    @property
    def pair(self) -> tuple[Model, diffusion.Process]:
        """Return the model and its noising process, as objectives take them."""
        return self.generator.model, self.generator.process

    def batches(self, ids: np.ndarray) -> list[Batch]:
        """Return images cut into batches, the last one padded."""
        size = min(self.setting.batch_size, len(ids))
        found = []
        for start in range(0, len(ids), size):
            rows = np.arange(start, start + size)
            mask = rows < len(ids)
            found.append(take(self.samples, ids[np.minimum(rows, len(ids) - 1)], mask))
        return found
