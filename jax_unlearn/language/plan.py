"""How much memory a decoder takes to train, before anything of it is loaded."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jax_unlearn import _validate
from jax_unlearn.errors import InputError
from jax_unlearn.language.lora import LINEAR, adapter_size
from jax_unlearn.language.model import decoder

if TYPE_CHECKING:
    from jax_unlearn.zoo import DecoderConfig

__all__ = ["CARDS", "MemoryPlan", "card_of", "plan"]

CARDS = {
    **{"T4": 16, "V100": 16, "L4": 24, "A10G": 24, "A100-40": 40, "A100": 80},
    **{"H100": 80, "H200": 141, "v2": 8, "v3": 16, "v4": 32, "v5e": 16},
    **{"v5p": 95, "v6e": 32},
}
"""Gigabytes of accelerators by name; of TPU v2 and v3, of a core."""


def card_of(told: str) -> float:
    """Return the bytes of an accelerator, by its name or in gigabytes; 0 if "".

    Raises:
      InputError: a name that is not known, or a number that is not positive.

    >>> card_of("H200"), card_of("24"), card_of("")
    (141000000000.0, 24000000000.0, 0.0)
    """
    known = {name.lower(): size for name, size in CARDS.items()}
    if not told or told.lower() in known:
        return 1e9 * known.get(told.lower(), 0)
    try:
        size = float(told)
    except ValueError:
        raise InputError(
            f"card={told!r} is not known; give its gigabytes, such as 80, or "
            f"{', '.join(CARDS)}"
        ) from None
    _validate.positive("card", size, "gigabytes, such as 80")
    return 1e9 * size


REMEDIES = {
    "logits": "score chunks of tokens (chunk=64), or take a smaller batch",
    "activations": "compute blocks anew (remat=True), or take a smaller batch",
    "state": "train adapters (rank=16), or keep moments in fewer digits",
    "weights": "part the weights over several cards, or take dtype=bfloat16",
}


class MemoryPlan(NamedTuple):
    """Bytes on each device, by what holds them.

    Attributes:
      weights: the parameters, and those of frozen models beside them.
      gradients: of what is trained.
      moments: the optimizer's.
      masters: float32 copies of what is trained, see `ju.memory.master`.
      activations: what the forward pass keeps for the backward pass.
      logits: of a chunk of tokens, their softmax and their gradient.
      parameters: how many the model has.
      trained: how many of them, or of its adapters, are trained.
    """

    weights: int
    gradients: int
    moments: int
    masters: int
    activations: int
    logits: int
    parameters: int
    trained: int

    @property
    def total(self) -> int:
        """The sum of all parts, in bytes."""
        return sum(self[:6])

    def fits(self, card: float, *, share: float = 0.9) -> bool:
        """Return whether it fits a card of so many bytes, of which a share is ours."""
        return self.total <= share * card

    def lines(
        self, card: float | None = None, *, remedies: Mapping[str, str] = REMEDIES
    ) -> list[str]:
        """Return the plan as lines of text, and what to change where it does not fit.

        `remedies` are its words for the largest part, by that.

        >>> MemoryPlan(16, 0, 0, 0, 0, 10**9, 8, 8).lines(2e9)[-2:]
        ['in all        1.00 GB', 'fits a card of 2.0 GB']
        """
        parts = zip(self._fields[:6], self[:6], strict=True)
        rows = [f"{name:<12}{size / 1e9:>7.2f} GB" for name, size in parts if size]
        rows.append(f"{'in all':<12}{self.total / 1e9:>7.2f} GB")
        if card is None:
            return rows
        if self.fits(card):
            return [*rows, f"fits a card of {card / 1e9:.1f} GB"]
        remedy = remedies[self._largest()]
        return [*rows, f"too much for a card of {card / 1e9:.1f} GB: {remedy}"]

    def _largest(self) -> str:
        """Return what to make smaller first."""
        state = self.gradients + self.moments + self.masters
        if max(self.activations, self.logits) > max(state, self.weights):
            return "logits" if self.logits > self.activations else "activations"
        return "state" if state > self.weights else "weights"


def plan(
    config: "DecoderConfig",
    *,
    batch: int,
    length: int,
    dtype: Any = jnp.float32,
    rank: int | None = None,
    match: str = LINEAR,
    moments: int = 2,
    moment_dtype: Any = jnp.float32,
    masters: bool | None = None,
    gradients: int = 1,
    references: int = 0,
    remat: bool = False,
    chunk: int | None = None,
    devices: int = 1,
) -> MemoryPlan:
    """Return the memory of a training step, counted from shapes alone.

    Weights, gradients, moments and masters are exact. Activations and logits are those
    of XLA for a step of `decoder(config, outputs="scored")` within a quarter, measured
    on small models (`tests/language/test_language_plan.py`): of each token a layer
    keeps 6 D + 4 (H + G) d + 3 F + 9/4 H T numbers, of each logit in a chunk there are
    three.

    Args:
      config: of the model.
      batch: texts of a step.
      length: tokens of a text, T.
      dtype: of the parameters, and of the products.
      rank: of adapters, which are float32 and alone are trained; None trains all.
      match: which linear maps have adapters, as in `lora`.
      moments: numbers an optimizer keeps of each weight: Adam 2, momentum 1, SGD 0.
      moment_dtype: theirs.
      masters: float32 copies; by default where weights of fewer digits are trained.
      gradients: how many are held at once; 2 where a method joins those of forget and
        retain texts.
      references: frozen models beside it (the teacher of NPO without a table).
      remat: as in `decoder`.
      chunk: as in `decoder`.
      devices: over which all is parted evenly, texts and weights alike.

    Raises:
      InputError: a number that is not positive.

    >>> import jax_unlearn as ju
    >>> sizes = dict(width=4096, layers=32, heads=32, kv_heads=8, hidden=14336)
    >>> config = ju.zoo.decoder_config("llama", 128256, **sizes)
    >>> options = dict(batch=8, length=512, dtype=jnp.bfloat16, remat=True)
    >>> for line in plan(config, rank=16, **options).lines(141e9):
    ...     print(line)
    weights       16.23 GB
    gradients      0.17 GB
    moments        0.34 GB
    activations    4.53 GB
    logits         0.39 GB
    in all        21.66 GB
    fits a card of 141.0 GB
    """
    from jax_unlearn.zoo.decoder import chunk_of

    for name, number in {"batch": batch, "length": length, "devices": devices}.items():
        _validate.at_least(name, number, 1, "see ju.language.plan")
    for name, number in {"moments": moments, "references": references}.items():
        _validate.at_least(name, number, 0, "see ju.language.plan")
    _validate.at_least("gradients", gradients, 1, "1, or 2 with forget and retain")
    size = jnp.dtype(dtype).itemsize
    # blocks are of one shape: one is traced, for many take seconds
    model = decoder(dataclasses.replace(config, layers=1), param_dtype=dtype)
    params: Any = jax.eval_shape(model.init, jax.random.key(0), None)[0]
    blocks = {f"layer{n}": params["layer0"] for n in range(config.layers)}
    whole = _count(params | blocks)
    trained, own = whole, size
    if rank is not None:
        trained, own = adapter_size(params | blocks, rank=rank, match=match), 4
    if masters is None:
        masters = own < 4
    weights = whole * size * (1 + references) + (0 if rank is None else 4 * trained)
    products = min(size, 4)
    heads = (config.heads + config.key_heads) * config.head_size
    attention = 4 * heads * 4 + 9 * config.heads * length
    layer = 6 * config.width * 4 + 3 * config.hidden_size * products + attention
    outside = 5 * config.width * 4 + 3 * config.hidden_size * products
    kept = config.layers * layer
    if remat:  # inputs of the blocks, and one block at a time
        kept = config.layers * config.width * 4 + layer
    rows = chunk_of(config, batch, length, chunk)
    parts = {
        "weights": weights,
        "gradients": gradients * trained * own,
        "moments": moments * trained * jnp.dtype(moment_dtype).itemsize,
        "masters": 4 * trained if masters else 0,
        "activations": batch * length * (kept + outside),
        "logits": 3 * 4 * batch * rows * config.vocab_size,
    }
    parts = {name: -(-value // devices) for name, value in parts.items()}
    return MemoryPlan(**parts, parameters=whole, trained=trained)


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
