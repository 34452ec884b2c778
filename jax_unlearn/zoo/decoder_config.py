"""What a decoder is built of: sizes, and the form that its family of models has."""

import dataclasses
import math
from typing import Any

import numpy as np

from jax_unlearn import _validate
from jax_unlearn.errors import InputError

__all__ = ["ACTIVATIONS", "FAMILIES", "DecoderConfig", "RopeScaling"]
__all__ += ["decoder_config", "frequencies"]

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How the frequencies of rotary positions are stretched for longer texts.

    Attributes:
      kind: "linear" divides all frequencies by `factor`; "llama3" the low ones, and
        goes over to the high ones between two wavelengths.
      factor: s > 0.
      low, high: "llama3" leaves wavelengths below `length / high` as they are, and
        divides those above `length / low`.
      length: tokens the model was first trained on.
    """

    kind: str = "llama3"
    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    length: int = 8192

    def __post_init__(self):
        _validate.choice("kind", self.kind, "linear", "llama3")
        _validate.positive("factor", self.factor, "Llama 3.1 has 8")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder's sizes and form; the defaults are those of Llama.

    `decoder_config("gemma2", ...)` sets the form of another family.

    Attributes:
      vocab_size: V.
      width: D.
      layers: number of blocks.
      heads: query heads.
      kv_heads: key and value heads, a divisor of `heads`; by default as many.
      head_dim: features of a head, by default D / heads.
      hidden: features of the MLP, by default 4 D.
      length: longest text; learned positions have that many rows.
      family: whose form this is, what `save_pretrained` writes.
      norm: "rms" or "layer" (mean removed, bias).
      epsilon: added to the mean square or variance.
      unit_offset: the norms multiply by 1 + w.
      post_norms: a norm after each branch too.
      qk_norm: an RMS norm of each head's query and key.
      activation: one of `ACTIVATIONS`.
      gated: the MLP is down(act(gate x) · up x), else down(act(up x)).
      qkv_bias, out_bias, mlp_bias: which linear maps have a bias.
      learned_positions: position embeddings, else rotary positions.
      rope_theta: θ of the rotary positions.
      rope_scaling: how these are stretched, None if not at all.
      tied: the head is the embedding, one array.
      scaled_embedding: embeddings are multiplied by √D.
      attention_cap, logit_cap: c of c·tanh(x / c), None for no cap.
      query_scale: the square of what scores are divided by, by default `head_dim`.
      window: how many tokens back the layers of `windowed` see, None for all.
      windowed: layers with the window, from 0.
      eos: tokens that end a text.
      bos, pad: the token that begins a text, and one to fill rows with.
    """

    vocab_size: int
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int | None = None
    head_dim: int | None = None
    hidden: int | None = None
    length: int = 2048
    family: str = "llama"
    norm: str = "rms"
    epsilon: float = 1e-5
    unit_offset: bool = False
    post_norms: bool = False
    qk_norm: bool = False
    activation: str = "silu"
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    learned_positions: bool = False
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tied: bool = True
    scaled_embedding: bool = False
    attention_cap: float | None = None
    logit_cap: float | None = None
    query_scale: float | None = None
    window: int | None = None
    windowed: tuple[int, ...] = ()
    eos: tuple[int, ...] = ()
    bos: int | None = None
    pad: int | None = None

    def __post_init__(self):
        for name in ("vocab_size", "width", "layers", "heads", "length"):
            _validate.at_least(name, getattr(self, name), 1, "see ju.zoo.DecoderConfig")
        for name in ("kv_heads", "head_dim", "hidden", "window"):
            if getattr(self, name) is not None:
                _validate.at_least(name, getattr(self, name), 1, "or leave it out")
        _validate.one_of("activation", self.activation, ACTIVATIONS)
        _validate.choice("norm", self.norm, "rms", "layer")
        # a record read from JSON has lists
        object.__setattr__(self, "eos", tuple(self.eos))
        object.__setattr__(self, "windowed", tuple(self.windowed))
        if isinstance(self.rope_scaling, dict):
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        if self.head_dim is None and self.width % self.heads:
            raise InputError(
                f"heads={self.heads} must divide width={self.width}, or give head_dim"
            )
        if self.heads % self.key_heads:
            raise InputError(
                f"kv_heads={self.key_heads} must divide heads={self.heads}"
            )
        if self.head_size % 2 and not self.learned_positions:
            raise InputError(
                f"head_dim={self.head_size} must be even for rotary positions"
            )

    @property
    def key_heads(self) -> int:
        """Key and value heads."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_size(self) -> int:
        """Features of a head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def hidden_size(self) -> int:
        """Features of the MLP."""
        return 4 * self.width if self.hidden is None else self.hidden

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        square = self.head_size if self.query_scale is None else self.query_scale
        return 1 / math.sqrt(square)

    def window_of(self, layer: int) -> int | None:
        """Return how many tokens back a layer sees, None for all."""
        return self.window if layer in self.windowed else None


_GEMMA: dict[str, Any] = dict(
    epsilon=1e-6, unit_offset=True, activation="gelu_tanh", scaled_embedding=True
)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tied": False},
    "mistral": {"tied": False},
    "qwen2": {"qkv_bias": True, "tied": False, "epsilon": 1e-6},
    "qwen3": {"qk_norm": True, "tied": False, "epsilon": 1e-6},
    "gemma": _GEMMA,
    "gemma2": {
        **_GEMMA,
        "post_norms": True,
        "attention_cap": 50.0,
        "logit_cap": 30.0,
        "query_scale": 256.0,
        "window": 4096,
    },
    "gpt2": {
        "norm": "layer",
        "activation": "gelu_tanh",
        "gated": False,
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "learned_positions": True,
        "length": 1024,
    },
}
"""The forms: what a family has otherwise than the defaults of `DecoderConfig`."""


def decoder_config(family: str, vocab_size: int, **sizes: Any) -> DecoderConfig:
    """Return the config of a family's form and your sizes.

    Source: the families' `config.json` on Hugging Face; Touvron et al., arXiv
    2302.13971 (Llama); Grattafiori et al., arXiv 2407.21783 (its scaling); arXiv
    2407.10671 (Qwen2), 2505.09388 (Qwen3), 2403.08295 and 2408.00118 (Gemma, Gemma 2).

    Raises:
      InputError: an unknown family, sizes that make no decoder.

    >>> config = decoder_config("gemma2", 64, width=32, layers=4)
    >>> config.logit_cap, config.windowed, config.tied
    (30.0, (0, 2), True)
    """
    _validate.one_of("family", family, FAMILIES)
    options = {"family": family, **FAMILIES[family], **sizes}
    layers = options.get("layers", DecoderConfig.layers)
    if family == "gemma2":  # every other layer, beginning with the first
        options.setdefault("windowed", tuple(range(0, layers, 2)))
    return DecoderConfig(vocab_size, **options)


def frequencies(config: DecoderConfig) -> np.ndarray:
    """Return the angles a token turns each pair of features by, `f32[head_dim / 2]`.

    ω_i = θ^(−2i / d), scaled as `RopeScaling` says.

    Reference: Su et al., arXiv 2104.09864.

    >>> frequencies(DecoderConfig(8, width=4, heads=1)).tolist()
    [1.0, 0.01]
    """
    size, scaling = config.head_size, config.rope_scaling
    powers = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    omega = np.float32(1) / np.float32(config.rope_theta) ** powers
    if scaling is None:
        return omega
    slow = omega / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return slow
    wavelength = 2 * math.pi / omega
    turns = scaling.length / wavelength
    share = (turns - scaling.low) / (scaling.high - scaling.low)
    between = (1 - share) * slow + share * omega
    omega = np.where(turns > scaling.high, omega, between)
    return np.where(turns < scaling.low, slow, omega).astype(np.float32)
