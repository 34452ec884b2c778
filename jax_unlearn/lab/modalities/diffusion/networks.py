"""Diffusion models by description, in memory and on disk."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Meta

from jax_unlearn import diffusion
from jax_unlearn.adapters import from_nnx
from jax_unlearn.cards import Variables
from jax_unlearn.data import Dataset, Examples
from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema
from jax_unlearn.lab.job import Progress, Trained, silent
from jax_unlearn.lab.modalities.diffusion import settings
from jax_unlearn.lab.modalities.diffusion.settings import DiffusionTraining, Sampling
from jax_unlearn.lab.modality import MAX_WIDTH, Dimension, Dtype
from jax_unlearn.types import Array, Batch, Model

__all__ = ["DiffusionNetwork", "Generator", "build", "describe", "draw", "sampler_of"]


@dataclasses.dataclass(frozen=True)
class DiffusionNetwork:
    """All that is needed to build a diffusion model again; stored with checkpoints."""

    condition: settings.Condition
    widths: Annotated[tuple[Dimension, ...], Meta(min_length=1)]
    layers: Dimension
    attention: tuple[Annotated[int, Meta(ge=0, le=1)], ...]
    dtype: Dtype
    timesteps: int  # diffusion says how many it takes
    noise: settings.Noise
    prediction: settings.Prediction
    drop: Annotated[float, Meta(ge=0, lt=1)]
    class_names: Annotated[tuple[str, ...], Meta(min_length=1)]
    image_shape: Annotated[tuple[Dimension, ...], Meta(min_length=3, max_length=3)]
    words: tuple[str, ...] = ()
    length: Annotated[int, Meta(ge=0, le=MAX_WIDTH)] = 0  # tokens of a caption
    thresholds: tuple[schema.Finite, ...] = ()  # by which attributes are told

    @property
    def num_classes(self) -> int:
        """Return K."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return (H, W, C), as all networks call it."""
        return self.image_shape

    @property
    def vocabulary(self) -> diffusion.Vocabulary:
        """Return the words of its captions."""
        return diffusion.Vocabulary(self.words, self.length)


class Generator(NamedTuple):
    """A diffusion model ready for use, of inputs (x_t, t, condition)."""

    model: Model
    process: diffusion.Process
    network: DiffusionNetwork
    null: np.ndarray | None  # condition of a sample; None: trained without

    def samples(self, examples: Examples) -> Examples:
        """Return the images with their conditions, as the objectives read them."""
        if self.network.condition == "class":
            return examples
        told = self.prompts(examples.labels)  # the same for all, if it is "none"
        if self.network.condition == "text":
            told = self.captions(examples)
        return Examples((examples.inputs, told), examples.labels)  # type: ignore

    def captions(self, examples: Examples) -> np.ndarray:
        """Return the captions of images as tokens `i32[N, L]`."""
        texts = diffusion.captions_of(
            examples.inputs,
            examples.labels,
            self.network.class_names,
            self.network.thresholds,  # type: ignore
        )
        return diffusion.tokenize(self.network.vocabulary, texts)

    def errors(
        self, at: Variables, examples: Examples, ids: np.ndarray, **options: Any
    ) -> diffusion.ErrorTable:
        """Return `diffusion.denoising_errors` of some images; options as there."""
        options = {"model": self.model, "process": self.process, **options}
        options |= {"params": at[0], "model_state": at[1]}
        chosen: Any = examples.at(ids)
        return diffusion.denoising_errors(samples=Batch(*chosen), **options)

    def returned(
        self, at: Variables, examples: Examples, ids: np.ndarray, key: Array
    ) -> np.ndarray:
        """Return `diffusion.returned` of some images."""
        chosen: Any = examples.at(ids)
        given = (self.model, *at, Batch(*chosen), key)
        return diffusion.returned(*given, process=self.process)

    def prompts(self, classes: np.ndarray) -> np.ndarray:
        """Return a condition for each class id: the id, or the plain caption."""
        if self.network.condition == "none":
            return np.zeros(len(classes), np.int32)
        if self.network.condition == "class":
            return diffusion.check_classes(classes, self.network.num_classes)
        return self.tokens(
            [diffusion.caption(self.network.class_names[c]) for c in classes]
        )

    def tokens(self, prompts: Sequence[str]) -> np.ndarray:
        """Return prompts as tokens `i32[N, L]`."""
        if self.network.condition != "text":
            given = "on classes; ask for classes, or"
            if self.network.condition == "none":
                given = "without conditions;"
            raise InputError(
                f"prompts={tuple(prompts)}: this model was trained {given} train one "
                "with --condition text"
            )
        return diffusion.tokenize(self.network.vocabulary, prompts)


def describe(training: DiffusionTraining, dataset: Dataset) -> DiffusionNetwork:
    """Return the network of a training setting for a data set."""
    sides, step = dataset.train.inputs.shape[1:3], 2 ** (len(training.widths) - 1)
    if any(side % step for side in sides):  # before anything is compiled
        raise InputError(
            f"widths={list(training.widths)}: so many levels need images whose sides "
            f"are multiples of {step}, {dataset.name} has {sides[0]} x {sides[1]}; "
            "give fewer"
        )
    fields = (field.name for field in dataclasses.fields(DiffusionNetwork))
    told = {name: getattr(training, name) for name in fields if hasattr(training, name)}
    told |= {name: tuple(told[name]) for name in ("widths", "attention")}
    if training.condition == "none":
        told["drop"] = 0.0  # there is nothing to drop
    if training.condition == "text":
        known = diffusion.all_words(dataset.class_names)
        limits = diffusion.thresholds(dataset.train.inputs)
        told |= {"words": known.words, "length": known.length, "thresholds": limits}
    return DiffusionNetwork(
        **told,
        class_names=tuple(dataset.class_names),
        image_shape=tuple(int(n) for n in dataset.train.inputs.shape[1:]),
    )


@functools.lru_cache(maxsize=16)
def build(network: DiffusionNetwork) -> Generator:
    """Return the model; equal descriptions share one, and so its compiled programs."""
    from jax_unlearn import zoo

    options: dict[str, Any] = {
        "in_channels": network.image_shape[-1],
        "block_out_channels": network.widths,
        "layers_per_block": network.layers,
        "attention": tuple(bool(a) for a in network.attention) or None,
        "dtype": jnp.dtype(network.dtype),
    }
    make: Any
    null: Any = None
    if network.condition == "class":
        make, conditions = zoo.UNet, network.num_classes
        null = np.asarray(network.num_classes, np.int32)
    elif network.condition == "none":
        make, conditions = zoo.UNet, None
    else:
        make, conditions = zoo.TextUNet, len(network.words) + 1
        options["length"] = network.length
        null = diffusion.null_tokens(network.vocabulary)
    model = from_nnx(lambda rngs: make(conditions, **options, rngs=rngs))
    noise = diffusion.cosine if network.noise == "cosine" else diffusion.linear
    process = noise(network.timesteps, prediction_type=network.prediction)
    return Generator(model, process, network, null if network.drop else None)


def sampler_of(generator: Generator, sampling: Sampling) -> diffusion.Sampler:
    """Return the sampler of a setting, checked against the model."""
    if sampling.guidance_scale != 1.0 and generator.null is None:
        raise InputError(
            f"guidance_scale={sampling.guidance_scale}: this model was trained with "
            "drop=0, without a null condition; use --guidance-scale 1"
        )
    if sampling.sampler == "ddpm":
        return diffusion.ddpm(generator.process)
    total = generator.network.timesteps
    if sampling.sampling_steps > total:
        raise InputError(
            f"sampling_steps={sampling.sampling_steps}: this model has {total} "
            f"timesteps; use --sampling-steps {total} or fewer"
        )
    return diffusion.ddim(generator.process, sampling.sampling_steps, eta=sampling.eta)


def draw(
    generator: Generator,
    trained: Trained,
    conditions: np.ndarray,
    sampling: Sampling,
    *,
    seed: int,
    progress: Progress = silent,
    phase: str = "sampling",
) -> np.ndarray:
    """Return an image for each condition as bytes `u8[N, H, W, C]`."""
    guided, total = sampling.guidance_scale != 1.0, sampling.sampling_steps
    progress(phase, 0, total)
    images = diffusion.generate(
        generator.model,
        trained.params,
        trained.model_state,
        conditions,
        jax.random.key(seed),
        sampler=sampler_of(generator, sampling),
        shape=generator.network.image_shape,
        guidance_scale=sampling.guidance_scale,
        null=generator.null if guided else None,
        batch_size=sampling.sample_batch,
        # it goes batch by batch: its steps in all are scaled to one sampling's
        progress=lambda done, steps: progress(
            phase, max(1, done * total // steps), total
        ),
    )
    return diffusion.to_pixels(images)
