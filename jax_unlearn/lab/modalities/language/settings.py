"""What language models are told: how to train, and how to forget."""

import dataclasses
import functools
from typing import Annotated, Any, Literal

from jax_unlearn import _validate
from jax_unlearn.cards import Count, NotNegative, Options, Positive
from jax_unlearn.errors import InputError
from jax_unlearn.lab.modality import MAX_WIDTH, Dtype

__all__ = ["DEFAULTS", "Language", "LanguageTraining"]

Whole = Annotated[int, functools.partial(_validate.at_least, low=0)]
Size = Annotated[int, functools.partial(_validate.within, interval=f"[1, {MAX_WIDTH}]")]


@dataclasses.dataclass(frozen=True)
class LanguageTraining(Options):
    """How a language model is trained: AdamW, clipped, warmed up, then along a cosine.

    Attributes:
      start: model to begin from, with its network and tokenizer: a checkpoint of a
        language model, or a Hugging Face folder. Default: weights drawn by the seed.
      tokenizer: tokenizer: a Hugging Face folder, a tokenizer.json, or a checkpoint
        that has one. Default: that of --start, or a byte-level BPE trained on the
        texts, without those to forget and those held out.
      vocabulary: number of tokens of a BPE that is trained.
      family: form of a new network: llama, qwen2, qwen3, gemma, gemma2, gpt2 or
        mistral.
      width: width of the hidden states.
      layers: number of blocks.
      heads: number of attention heads.
      kv_heads: number of heads of keys and values; 0: as many as --heads.
      hidden: units of the feed-forward part; 0: the family's usual number.
      dtype: number type of the computation; parameters are float32.
      length: largest number of tokens of a text; longer texts are refused. 0: that of
        the longest.
      packed: tokens in a row of training, which holds several texts that do not attend
        to each other; 0: a row for each text, padded.
      epochs: passes over the texts.
      batch_size: texts in a step.
      learning_rate: largest learning rate.
      warmup: share of the steps in which the learning rate rises.
      weight_decay: weight decay of AdamW.
      clip: largest L2 norm of the gradient; 0 does not clip.
      remat: compute each block again in the backward pass: less memory, a third more
        time, the same results.
      lora: rank of adapters (LoRA) beside the linear maps of --start; only they are
        trained, and are added to the maps at the end. 0: all weights are trained.
      lora_alpha: α of LoRA: the product of the adapters is added α/r times.
      lora_match: maps with adapters: a pattern searched for in names such as
        "layer0/mlp/up"; "": all of the blocks.

    >>> LanguageTraining(warmup=2.0)
    Traceback (most recent call last):
    jax_unlearn.errors.InputError: warmup=2.0 must lie in [0, 1)
    """

    start: str = ""
    tokenizer: str = ""
    vocabulary: Count = 2048
    family: str = "llama"
    width: Size = 128
    layers: Size = 4
    heads: Size = 4
    kv_heads: Whole = 0
    hidden: Whole = 0
    dtype: Dtype = "float32"
    length: Whole = 0
    packed: Whole = 256
    epochs: Count = 15
    batch_size: Count = 16
    learning_rate: Positive = 2e-3
    warmup: Annotated[
        float, lambda name, value, remedy: _validate.within(name, value, "[0, 1)")
    ] = 0.05
    weight_decay: NotNegative = 0.01
    clip: NotNegative = 1.0
    remat: bool = False
    lora: Whole = 0
    lora_alpha: Positive = 32.0
    lora_match: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.lora and not self.start:
            raise InputError(
                f"lora={self.lora}: adapters stand beside weights that were trained; "
                "give --start, a checkpoint or a Hugging Face folder"
            )
        if self.heads and self.width % self.heads:
            raise InputError(
                f"width={self.width}: heads={self.heads} must divide it; try --heads "
                f"{_divisor(self.width, self.heads)}"
            )


def _divisor(width: int, heads: int) -> int:
    """Return the largest divisor of a width up to a number."""
    return next(n for n in range(min(heads, width), 0, -1) if width % n == 0)


@dataclasses.dataclass(frozen=True)
class Language(Options):
    """What an unlearning of a language model is told beside its method.

    Attributes:
      reduction: how the losses of a text's tokens are joined in the forget loss:
        "sequence", their mean; "sum"; or "token", the mean over all tokens of the
        batch.
      packed_into: tokens in a row, which holds several texts that do not attend to each
        other: the same losses with less padding. 0: a row for each text.
      lora: rank of adapters (LoRA) beside the linear maps; only they change, and are
        added to the maps at the end. 0: all weights change.
      lora_alpha: α of LoRA: the product of the adapters is added α/r times.
      lora_match: maps with adapters: a pattern searched for in names such as
        "layer0/mlp/up"; "": all of the blocks.
      dtype: number type of weights and products in unlearning; updates are summed in
        float32, and the model is written as float32. "": that of the checkpoint.
    """

    reduction: Literal["sequence", "sum", "token"] = "sequence"
    lora: Whole = 0
    lora_alpha: Positive = 32.0
    lora_match: str = ""
    dtype: Literal["", "float32", "bfloat16"] = ""
    packed_into: Whole = 0

    @property
    def masters(self) -> bool:
        """Whether steps add up in float32 copies of what is moved."""
        return self.dtype == "bfloat16"

    def told(self) -> dict[str, Any]:
        """Return what is read of it: those of adapters where there are some."""
        unread = set() if self.lora else {"lora", "lora_alpha", "lora_match"}
        unread |= set() if self.packed_into else {"packed_into"}
        return {k: v for k, v in vars(self).items() if k not in unread and v != ""}


DEFAULTS: dict[str, Any] = {
    "method": "neggrad_plus",
    "schedule": "zipped",
    "optimizer": "adam",
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
    "batch_size": 16,
    "clip": 1.0,
    "alpha": 0.5,
    "groups": "pooled",  # no unseen text is of a forgotten author
    "perturb": None,  # 1 − λ: a new start is mostly a base, as large as the original
}
"""Where the defaults of language models are others."""
