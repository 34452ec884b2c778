"""Diffusion models by description, in memory and on disk."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Meta

from jax_unlearn import diffusion
from jax_unlearn.adapters import from_nnx
from jax_unlearn.data import Dataset, Examples, digest
from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError, unknown_name
from jax_unlearn.lab import schema
from jax_unlearn.lab.generation.settings import (
    CONDITIONS,
    DTYPES,
    NOISES,
    PREDICTIONS,
    GeneratorTraining,
    Sampling,
)
from jax_unlearn.lab.models import head_of
from jax_unlearn.lab.networks import Count
from jax_unlearn.lab.settings import MAX_WIDTH
from jax_unlearn.lab.stages import Trained
from jax_unlearn.types import Batch, Model


@dataclasses.dataclass(frozen=True)
class Network:
    """All that is needed to build a diffusion model again.

    Attributes:
      condition: "class" or "text".
      widths, layers, attention, dtype, timesteps, noise, prediction, drop: as in
        `GeneratorTraining`.
      class_names: of the data set.
      image_shape: (H, W, C).
      words: the vocabulary of captions, empty without.
      length: L of the captions in tokens.
      thresholds: by which attributes of captions are told.
    """

    condition: str
    widths: Annotated[tuple[Count, ...], Meta(min_length=1)]
    layers: Count
    attention: tuple[Annotated[int, Meta(ge=0, le=1)], ...]
    dtype: str
    timesteps: int  # diffusion says how many it takes
    noise: str
    prediction: str
    drop: Annotated[float, Meta(ge=0, lt=1)]
    class_names: Annotated[tuple[str, ...], Meta(min_length=1)]
    image_shape: Annotated[tuple[Count, ...], Meta(min_length=3, max_length=3)]
    words: tuple[str, ...] = ()
    length: Annotated[int, Meta(ge=0, le=MAX_WIDTH)] = 0
    thresholds: tuple[schema.Finite, ...] = ()

    def __post_init__(self):
        for kind, name, known in (
            ("condition", self.condition, CONDITIONS),
            ("dtype", self.dtype, DTYPES),
            ("noise", self.noise, NOISES),
            ("prediction", self.prediction, PREDICTIONS),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)

    @classmethod
    def from_record(cls, record: Any) -> "Network":
        """Return the network a checkpoint's record describes.

        Args:
          record: what JSON holds.

        Raises:
          InputError: a field that is missing, unknown, or does not hold what it should.
        """
        return schema.read(cls, record, name="generator", remedy=schema.TRAIN_ANEW)

    @property
    def num_classes(self) -> int:
        """Return K."""
        return len(self.class_names)


class Generator(NamedTuple):
    """A diffusion model ready for use.

    Attributes:
      model: of inputs (x_t, t, condition).
      process: its noise schedule.
      network: its description.
      null: the null condition of one sample, or None if it was trained without.
    """

    model: Model
    process: diffusion.Process
    network: Network
    null: np.ndarray | None

    @property
    def num_classes(self) -> int:
        """Return K."""
        return self.network.num_classes

    def samples(self, examples: Examples) -> Examples:
        """Return the images with their conditions, as the objectives read them."""
        if self.network.condition == "class":
            return examples
        tokens = self.captions(examples)
        return Examples((examples.inputs, tokens), examples.labels)  # type: ignore

    def captions(self, examples: Examples) -> np.ndarray:
        """Return the captions of images as tokens `i32[N, L]`."""
        texts = diffusion.captions_of(
            examples.inputs,
            examples.labels,
            self.network.class_names,
            self.network.thresholds,  # type: ignore
        )
        return diffusion.tokenize(vocabulary_of(self.network), texts)

    def prompts(self, classes: np.ndarray) -> np.ndarray:
        """Return a condition for each class id: the id, or the plain caption."""
        if self.network.condition == "class":
            return diffusion.check_classes(classes, self.num_classes)
        return self.tokens(
            [diffusion.caption(self.network.class_names[c]) for c in classes]
        )

    def tokens(self, prompts: Sequence[str]) -> np.ndarray:
        """Return prompts as tokens `i32[N, L]`.

        Raises:
          InputError: a model of classes, an unknown word, or too many words.
        """
        if self.network.condition == "class":
            raise InputError(
                f"prompts={tuple(prompts)}: this model was trained on classes; ask "
                "for classes, or train one with --condition text"
            )
        return diffusion.tokenize(vocabulary_of(self.network), prompts)


def vocabulary_of(network: Network) -> diffusion.Vocabulary:
    """Return the vocabulary of a network conditioned on captions."""
    return diffusion.Vocabulary(network.words, network.length)


def describe(training: GeneratorTraining, dataset: Dataset) -> Network:
    """Return the network of a training setting for a data set.

    >>> from jax_unlearn.data import digits
    >>> describe(GeneratorTraining(), digits()).image_shape
    (8, 8, 1)
    """
    shape = tuple(int(n) for n in dataset.train.inputs.shape[1:])
    words: dict[str, Any] = {}
    if training.condition == "text":
        known = diffusion.all_words(dataset.class_names)
        limits = diffusion.thresholds(dataset.train.inputs)
        words = {"words": known.words, "length": known.length, "thresholds": limits}
    return Network(
        training.condition,
        tuple(training.widths),
        training.layers,
        tuple(training.attention),
        training.dtype,
        training.timesteps,
        training.noise,
        training.prediction,
        training.drop,
        tuple(dataset.class_names),
        shape,
        **words,
    )


def build(network: Network) -> Generator:
    """Return the diffusion model of a description.

    >>> from jax_unlearn.data import digits
    >>> generator = build(describe(GeneratorTraining(widths=(8,)), digits()))
    >>> print(generator.null, generator.process.num_train_timesteps)
    10 1000
    """
    from jax_unlearn import zoo

    options: dict[str, Any] = {
        "in_channels": network.image_shape[-1],
        "block_out_channels": network.widths,
        "layers_per_block": network.layers,
        "attention": tuple(bool(a) for a in network.attention) or None,
        "dtype": jnp.dtype(network.dtype),
    }
    if network.condition == "class":
        model = from_nnx(
            lambda rngs: zoo.UNet(network.num_classes, **options, rngs=rngs)
        )
        null: Any = np.asarray(network.num_classes, np.int32)
    else:
        model = from_nnx(
            lambda rngs: zoo.TextUNet(
                len(network.words) + 1, length=network.length, **options, rngs=rngs
            )
        )
        null = diffusion.null_tokens(vocabulary_of(network))
    make = diffusion.cosine if network.noise == "cosine" else diffusion.linear
    process = make(network.timesteps, prediction_type=network.prediction)
    return Generator(model, process, network, null if network.drop else None)


def sampler_of(generator: Generator, sampling: Sampling) -> diffusion.Sampler:
    """Return the sampler of a setting, checked against the model.

    Raises:
      InputError: more steps than timesteps, or guidance on a model trained without.
    """
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
    progress: Any = None,
) -> np.ndarray:
    """Return generated images as bytes `u8[N, H, W, C]`.

    Args:
      generator: the model.
      trained: its parameters.
      conditions: one an image.
      sampling: how.
      seed: of all noise.
      progress: told (steps done, steps in all).
    """
    guided = sampling.guidance_scale != 1.0
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
        progress=progress,
    )
    return diffusion.to_pixels(images)


class Stored(NamedTuple):
    """A diffusion model read from disk.

    Attributes:
      generator: the model.
      trained: parameters and state.
      ids: ids of the images it is trained on, forgotten ones left out, `i64[n]`.
      unseen: ids held out of training, `i64[u]`.
      record: the whole record of the checkpoint.
    """

    generator: Generator
    trained: Trained
    ids: np.ndarray
    unseen: np.ndarray
    record: dict[str, Any]


def save_generator(
    path: str | os.PathLike,
    trained: Trained,
    network: Network,
    dataset: Dataset,
    ids: np.ndarray,
    unseen: np.ndarray,
    record: dict[str, Any] | None = None,
) -> Path:
    """Write a diffusion model as a new checkpoint folder.

    Args:
      path: folder to make.
      trained: the model; the moving average, where there is one.
      network: its description.
      dataset: its data; stored by name and number of images only.
      ids: what it is trained on, the forgotten images left out.
      unseen: what was held out.
      record: more to tell, JSON-able.

    Raises:
      InputError: the folder exists or cannot be written.
    """
    tree = {
        "params": trained.params,
        "ids": np.asarray(ids, np.int32),
        "unseen": np.asarray(unseen, np.int32),
    }
    about = {
        "generator": dataclasses.asdict(network),
        "dataset": {"name": dataset.name, "train": len(dataset.train.labels)},
        "num_ids": len(ids),
        "num_unseen": len(unseen),
        "ids_sha256": digest(ids),
        "seconds": trained.seconds,
    }
    return checkpoint.save(path, tree, {**about, **(record or {})})


def load_generator(path: str | os.PathLike, dataset: Dataset | None = None) -> Stored:
    """Read a diffusion model back, checked against the data it is to be used with.

    Args:
      path: checkpoint folder.
      dataset: if given, must have the image shape, the classes and the number of
        training images the model knows.

    Raises:
      InputError: missing or damaged checkpoint, one of another model, or data that do
        not fit.
    """
    record = checkpoint.read_record(path)
    network, head = head_of(
        path, record, Network, "generator", "jax-unlearn generate train"
    )
    if dataset is not None:
        shape = tuple(dataset.train.inputs.shape[1:])
        found = (shape, dataset.num_classes, len(dataset.train.labels))
        known = (network.image_shape, network.num_classes, head.dataset.train)
        if found != known:
            raise InputError(
                f"checkpoint {path} knows (image shape, classes, training images) = "
                f"{known}, the data have {found}; give the data it was trained on"
            )
    generator = build(network)
    params, state = jax.eval_shape(generator.model.init, jax.random.key(0), None)
    template = {
        "params": params,
        "ids": jax.ShapeDtypeStruct((head.num_ids,), np.int32),
        "unseen": jax.ShapeDtypeStruct((head.num_unseen,), np.int32),
    }
    # Fresh arrays, on no device in particular; see pipeline.models.
    tree = jax.tree.map(
        lambda x: jnp.array(np.asarray(x)), checkpoint.load(path, template)
    )
    trained = Trained(tree["params"], state, record.get("seconds", {}))
    ids, unseen = (np.asarray(tree[name], np.int64) for name in ("ids", "unseen"))
    return Stored(generator, trained, ids, unseen, record)


def whole(examples: Examples, ids: np.ndarray) -> Batch:
    """Return some images with their conditions as one batch of host arrays."""
    inputs = jax.tree.map(lambda leaf: leaf[ids], examples.inputs)
    labels: Any = examples.labels[ids]
    return Batch(inputs, labels)
