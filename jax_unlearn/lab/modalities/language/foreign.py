"""Models in Hugging Face folders: their network and tokenizer, and their weights."""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any

from jax_unlearn.cards import Variables
from jax_unlearn.data import Dataset
from jax_unlearn.drivers import checkpoint
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modalities.language.networks import KEY, LanguageNetwork
from jax_unlearn.language.pretrained import load_pretrained
from jax_unlearn.language.tokens import load_tokenizer
from jax_unlearn.types import copied

__all__ = ["identity_at", "is_foreign", "model_in", "network_in", "record_at"]
__all__ += ["weights_in"]


def is_foreign(path: str | os.PathLike) -> bool:
    """Return whether a path is a model as Hugging Face keeps it."""
    path = Path(path)
    return (path / "config.json").is_file() and not (path / "record.json").exists()


def record_at(path: str | os.PathLike) -> dict[str, Any]:
    """Return the record of a checkpoint; of a folder, that it is a language model."""
    return {KEY: None} if is_foreign(path) else checkpoint.read_record(path)


def identity_at(path: str | os.PathLike) -> str:
    """Return the digest of a checkpoint, or of a folder."""
    path = Path(path)
    return _digest(str(path)) if is_foreign(path) else checkpoint.identity(path)


def model_in(
    path: str | os.PathLike, dataset: Dataset | None
) -> tuple[LanguageNetwork, Variables, dict[str, Any]]:
    """Return network, parameters and record of a folder, taken for trained on data."""
    network, digest = network_in(str(path))
    if dataset is not None and not dataset.is_text:
        raise InputError(
            f"checkpoint {path} reads texts, and {dataset.name} holds none; give the "
            "texts it was trained on"
        )
    topics = ("all",) if dataset is None else tuple(dataset.class_names)
    # what it was tuned from is not known
    network = dataclasses.replace(network, topics=topics, sha256="")
    record = {"imported": {"file": Path(path).name, "sha256": digest}}
    return network, weights_in(str(path), digest), record


@functools.lru_cache(maxsize=1)
def _loaded(path: str, digest: str) -> Any:
    del digest  # another one is another model
    return load_pretrained(path)


def network_in(path: str) -> tuple[LanguageNetwork, str]:
    """Return the network of a folder, of no topics yet, and the digest of its weights.

    Raises:
      InputError: no such folder, a model of no family known, a tokenizer of more tokens
        than the model has.
    """
    if not is_foreign(path):
        raise InputError(
            f"{path} is neither a checkpoint (no record.json) nor a folder of Hugging "
            "Face (no config.json); check the path"
        )
    digest = _digest(path)
    config, tokenizer = _loaded(path, digest).config, load_tokenizer(path)
    if tokenizer.size > config.vocab_size:
        raise InputError(
            f"{path}: its tokenizer has {tokenizer.size} tokens, its model "
            f"{config.vocab_size}; put the model's own tokenizer.json there"
        )
    given = config, tokenizer, "float32", config.length, ("all",), tokenizer.sha256
    return LanguageNetwork(*given, digest), digest  # type: ignore[arg-type]


def weights_in(path: str, digest: str) -> Variables:
    """Return the parameters of a folder, in float32."""
    if digest != (found := _digest(path)):
        raise InputError(
            f"start={path} is not the model that this training began from ({found[:12]}"
            f", not {digest[:12]}); put that one back"
        )
    loaded = _loaded(path, digest)
    return copied((loaded.params, loaded.model_state))  # a step may donate them


def _digest(path: str) -> str:
    """Return the SHA-256 of the config and the weights of a folder."""
    found = hashlib.sha256()
    files = [Path(path) / "config.json", *sorted(Path(path).glob("*.safetensors"))]
    for file in files:
        found.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(2**24):
                found.update(block)
    return found.hexdigest()
