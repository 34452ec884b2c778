"""Decoders with their tokenizers, and texts as tokens."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jax_unlearn.data import Dataset, Examples
from jax_unlearn.drivers.checkpoint import identity, read_record
from jax_unlearn.errors import InputError
from jax_unlearn.lab import schema
from jax_unlearn.lab.modalities.language.settings import LanguageTraining
from jax_unlearn.lab.modality import Dtype
from jax_unlearn.language import tokens
from jax_unlearn.language.text import Text
from jax_unlearn.language.texts import HIDDEN
from jax_unlearn.language.tokens import Tokenizer
from jax_unlearn.types import Model
from jax_unlearn.zoo.decoder_config import DecoderConfig, decoder_config

MULTIPLE = 8  # of which the longest text is rounded up
KEY = "decoder"  # of the network in records


@dataclasses.dataclass(frozen=True)
class LanguageNetwork:
    """All that is needed to build a language model again, its tokenizer included."""

    config: DecoderConfig
    tokenizer: Tokenizer
    dtype: Dtype
    length: int  # most tokens of a text
    topics: tuple[str, ...]
    tokenizer_sha256: str  # of all that decides the tokens of a text
    sha256: str = ""  # of the model its training began from

    @property
    def num_classes(self) -> int:
        """Number of topics."""
        return len(self.topics)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a text in a data set: question and answer."""
        return (2,)

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens that end a text."""
        return tuple(sorted({self.tokenizer.eos, *self.config.eos}))

    @property
    def name(self) -> str:
        """The family."""
        return self.config.family

    def unlike(self, other: "LanguageNetwork") -> tuple[str, str] | None:
        """Return what two models that are compared have not alike, and what to do."""
        if self.tokenizer_sha256 != other.tokenizer_sha256:
            return "another tokenizer", "train it with --original or --tokenizer"
        if _spelled(self.config) != _spelled(other.config):
            return "another network", "train it with --original"
        return None

    @classmethod
    def from_record(cls, record: Any) -> "LanguageNetwork":
        """Return the network of a checkpoint's record."""
        network = schema.read(cls, record, name=KEY, remedy=schema.TRAIN_ANEW)
        if network.tokenizer_sha256 != network.tokenizer.sha256:
            raise InputError(
                f"{KEY}.tokenizer is not the one of its sha256; take another copy"
            )
        return network


def _spelled(config: DecoderConfig) -> DecoderConfig:
    """Return a network's sizes as files of Hugging Face have them: no default left."""
    sizes = {"kv_heads": config.key_heads, "hidden": config.hidden_size}
    sizes["head_dim"] = config.head_size
    return dataclasses.replace(config, **sizes, eos=(), bos=None, pad=None)


class LanguageModel(NamedTuple):
    """A language model ready for use: what it scores, and its logits."""

    model: Model  # of `Scored`
    logits: Model
    network: LanguageNetwork

    def samples(self, examples: Examples) -> Examples:
        """Return texts as tokens, as the objectives read them."""
        if isinstance(examples.inputs, Text):
            return examples
        network = self.network
        size = network.config.length
        questions, answers = examples.inputs[:, 0], examples.inputs[:, 1]
        text = _encoded(tuple(questions), tuple(answers), network.tokenizer, size)
        if len(text.tokens) and text.tokens.max() >= network.config.vocab_size:
            raise InputError(
                f"token {text.tokens.max()} is none of the model's "
                f"{network.config.vocab_size}; give the tokenizer it was trained with"
            )
        return Examples(text, examples.labels)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=4)
def _encoded(
    questions: tuple[str, ...],
    answers: tuple[str, ...],
    tokenizer: Tokenizer,
    size: int,
) -> Text:
    """Return texts as tokens, of a length that is a multiple of eight."""
    found = tokens.encode(questions, answers, tokenizer, length=size)
    longest = int(found.lengths.max(initial=1))
    kept = min(-(-longest // MULTIPLE) * MULTIPLE, size)
    return jax.tree.map(lambda leaf: leaf[:, :kept], found.text)


def describe(training: LanguageTraining, dataset: Dataset) -> LanguageNetwork:
    """Return the network of a training setting for a data set."""
    if not dataset.is_text:
        raise InputError(
            f"modality='language' reads texts, and {dataset.name} holds none; give a "
            ".jsonl of question and answer or of text"
        )
    start = _start(training.start) if training.start else None
    tokenizer = start[0].tokenizer if start else None
    if training.tokenizer:
        tokenizer = tokenizer_of(training.tokenizer)
    if tokenizer is None:
        tokenizer = tokens.train_tokenizer(_readable(dataset), size=training.vocabulary)
    pair = dataset.train.inputs[:, 0].tolist(), dataset.train.inputs[:, 1].tolist()
    lengths = tokens.encode(pair[0], pair[1], tokenizer, length=training.length)
    longest = int(lengths.lengths.max())
    length = training.length or -(-longest // MULTIPLE) * MULTIPLE
    if start is not None:
        config = start[0].config
        if tokenizer.size > config.vocab_size:
            raise InputError(
                f"tokenizer={training.tokenizer}: it has {tokenizer.size} tokens, the "
                f"model of {training.start} {config.vocab_size}; leave --tokenizer out"
            )
        if longest > config.length:
            raise InputError(
                f"the longest text has {longest} tokens, the model of {training.start} "
                f"takes {config.length}; divide the longer texts"
            )
        length = min(length, config.length)
    else:
        config = _config(training, tokenizer.size, length, tokenizer)
    return LanguageNetwork(
        config,
        tokenizer,
        training.dtype,
        length,
        tuple(dataset.class_names),
        tokenizer.sha256,
        start[1] if start else "",
    )


def config_of(training: LanguageTraining) -> DecoderConfig:
    """Return the sizes of a training's network, nothing of it loaded."""
    if not training.start:
        return _config(training, training.vocabulary, training.length)
    if (Path(training.start) / "record.json").is_file():
        return _recorded(training.start).config
    from jax_unlearn.language.pretrained import read_config

    return read_config(training.start)


def _config(
    training: LanguageTraining,
    size: int,
    length: int,
    tokenizer: Tokenizer | None = None,
) -> DecoderConfig:
    """Return the sizes that a training asks for."""
    sizes: dict[str, Any] = {
        "width": training.width,
        "layers": training.layers,
        "heads": training.heads,
        "kv_heads": training.kv_heads or None,
        "hidden": training.hidden or None,
        "length": max(2048, length, training.packed),
        "tied": True,
    }
    if tokenizer is not None:
        sizes |= {"eos": (tokenizer.eos,), "pad": tokenizer.pad}
    return decoder_config(training.family, size, **sizes)


def _readable(dataset: Dataset) -> list[str]:
    """Return the texts that a tokenizer may learn from."""
    inputs = dataset.train.inputs
    hidden = dataset.columns.get(HIDDEN)
    rows = inputs if hidden is None else inputs[~hidden]
    if not len(rows):
        raise InputError(
            "no text is left to train a tokenizer on; give --tokenizer or --start"
        )
    return [f"{q}\n{a}" if q else a for q, a in rows.tolist()]


def texts_of(dataset: Dataset, ids: np.ndarray) -> list[str]:
    """Return texts as a tokenizer learns from them."""
    rows = dataset.train.inputs[ids].tolist()
    return [f"{q}\n{a}" if q else a for q, a in rows]


def tokenizer_of(path: str) -> Tokenizer:
    """Return the tokenizer of a checkpoint, or of a Hugging Face folder or file."""
    if (Path(path) / "record.json").is_file():
        return _recorded(path).tokenizer
    return tokens.load_tokenizer(path)


def _recorded(path: str) -> LanguageNetwork:
    """Return the network of a checkpoint."""
    record = read_record(path)
    if KEY not in record:
        raise InputError(
            f"checkpoint {path} holds no language model; give one of `train --modality "
            "language`, or a Hugging Face folder"
        )
    return LanguageNetwork.from_record(record[KEY])


def _start(path: str) -> tuple[LanguageNetwork, str]:
    """Return the network that training begins from, and the digest of its weights."""
    if (Path(path) / "record.json").is_file():
        return _recorded(path), identity(path)
    from jax_unlearn.lab.modalities.language.foreign import network_in

    return network_in(path)


@functools.lru_cache(maxsize=16)
def build(network: LanguageNetwork) -> LanguageModel:
    """Return the model; equal descriptions share one, and so its compiled programs."""
    from jax_unlearn.language.model import decoder

    logits = decoder(network.config, dtype=np.dtype(network.dtype))
    return LanguageModel(scored(network), logits, network)


def scored(network: LanguageNetwork, remat: bool = False) -> Model:
    """Return the model of the losses of tokens, its blocks perhaps computed anew."""
    from jax_unlearn.language.model import decoder

    how: dict[str, Any] = {"dtype": np.dtype(network.dtype), "remat": remat}
    return decoder(network.config, outputs="scored", **how)


__all__ = ["KEY", "LanguageModel", "LanguageNetwork", "build", "config_of", "describe"]
__all__ += ["scored", "texts_of", "tokenizer_of"]
