"""How families of models write a decoder down: `config.json`, and names of tensors."""

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from jax_unlearn.errors import InputError

if TYPE_CHECKING:
    from jax_unlearn.zoo import DecoderConfig

__all__ = ["Place", "config_of", "place_of", "record_of"]

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
WRITTEN = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh"}
GPT2 = {
    "vocab_size": "vocab_size",
    "width": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "hidden": "n_inner",
    "length": "n_positions",
    "epsilon": "layer_norm_epsilon",
    "activation": "activation_function",
}
LLAMA = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "hidden": "intermediate_size",
    "length": "max_position_embeddings",
    "epsilon": "rms_norm_eps",
    "activation": "hidden_act",
}
CAPS = {
    "attention_cap": "attn_logit_softcapping",
    "logit_cap": "final_logit_softcapping",
    "query_scale": "query_pre_attn_scalar",
}
NEEDED = ("vocab_size", "width", "layers", "heads")
DEFAULTS: dict[str, dict[str, Any]] = {
    "gpt2": {"epsilon": 1e-5, "length": 1024},
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256},
    "qwen3": {"head_dim": 128},
}
"""What transformers takes where a file is silent, and is not ours."""


def config_of(record: Mapping[str, Any], source: str) -> "DecoderConfig":
    """Return the config of a `config.json`; `source` names it in messages.

    Raises:
      InputError: an unknown family, activation, scaling or kind of weights; sizes that
        are missing.
    """
    from jax_unlearn.zoo.decoder_config import FAMILIES, decoder_config

    family = record.get("model_type")
    if family not in FAMILIES:
        told = "has no model_type" if family is None else f"has model_type={family!r}"
        raise InputError(
            f"{source} {told}; known are {', '.join(FAMILIES)}: for another, give your "
            "own network by ju.from_nnx or ju.from_linen"
        )
    if record.get("quantization_config"):
        raise InputError(
            f"{source} is of quantized weights, which cannot be trained; take the "
            "checkpoint they were made of"
        )
    names = GPT2 if family == "gpt2" else LLAMA
    options: dict[str, Any] = {ours: record.get(o) for ours, o in names.items()}
    defaults = {"epsilon": 1e-6, **DEFAULTS.get(family, {})}
    options = {k: defaults.get(k) if v is None else v for k, v in options.items()}
    missing = [names[k] for k in NEEDED if options[k] is None]
    if family != "gpt2":
        missing += [] if options["hidden"] is not None else ["intermediate_size"]
        if options["kv_heads"] is None and family != "llama":
            missing += ["num_key_value_heads"]
        options |= _rotary(record, source)
    if missing:
        raise InputError(f"{source} lacks {', '.join(missing)}; take another copy")
    options["activation"] = _activation(record, family, options["activation"], source)
    options |= _biases(record, family)
    options |= _windows(record, family, options["layers"])
    if family == "gemma2":
        options |= {ours: record[c] for ours, c in CAPS.items() if c in record}
    for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if family == "gpt2" and record.get(name):
            raise InputError(f"{source} has {name}, which this decoder has not")
    tied = record.get("tie_word_embeddings")
    options["tied"] = FAMILIES[family].get("tied", True) if tied is None else bool(tied)
    options |= _tokens(record)
    options = {k: v for k, v in options.items() if v is not None or k in CAPS}
    found = decoder_config(family, options.pop("vocab_size"), **options)
    # what a file leaves out is what it says, so that both are equal
    sizes = {"kv_heads": found.key_heads, "head_dim": found.head_size}
    return dataclasses.replace(found, hidden=found.hidden_size, **sizes)


def record_of(config: "DecoderConfig") -> dict[str, Any]:
    """Return the `config.json` of a config, for transformers of versions 4 and 5."""
    family = config.family
    filled = {
        **{name: getattr(config, name) for name in LLAMA},
        "hidden": config.hidden_size,
        "activation": WRITTEN[config.activation],
    }
    record: dict[str, Any] = {
        "model_type": family,
        "architectures": [_ARCHITECTURES[family]],
        "tie_word_embeddings": config.tied,
        "bos_token_id": config.bos,
        "eos_token_id": config.eos[0] if len(config.eos) == 1 else list(config.eos),
        "pad_token_id": config.pad,
    }
    if not config.eos:
        record["eos_token_id"] = None
    if family == "gpt2":
        filled["activation"] = {"gelu_tanh": "gelu_new"}.get(
            config.activation, filled["activation"]
        )
        return record | {theirs: filled[ours] for ours, theirs in GPT2.items()}
    filled |= {"kv_heads": config.key_heads, "head_dim": config.head_size}
    record |= {theirs: filled[ours] for ours, theirs in LLAMA.items()}
    record |= _rotary_record(config)
    record["attention_bias"] = config.qkv_bias and family != "qwen2"
    if family == "llama":
        record["mlp_bias"] = config.mlp_bias
    if family.startswith("gemma"):
        record["hidden_activation"] = record["hidden_act"]
    if family == "gemma2":
        record |= {theirs: getattr(config, ours) for ours, theirs in CAPS.items()}
    if family.startswith("qwen"):
        record["use_sliding_window"] = bool(config.windowed)
        layers = config.layers
        record["max_window_layers"] = layers - len(config.windowed)
    if family in ("mistral", "gemma2", "qwen2", "qwen3"):
        record["sliding_window"] = config.window
    if family in ("gemma2", "qwen2", "qwen3"):
        record["layer_types"] = [
            "sliding_attention" if layer in config.windowed else "full_attention"
            for layer in range(config.layers)
        ]
    return record


class Place(NamedTuple):
    """Where a parameter is in a file.

    Attributes:
      name: of the tensor.
      transposed: `[out, in]` there, `[in, out]` here.
      part: which third of the last axis, None for all of it.
    """

    name: str
    transposed: bool = False
    part: int | None = None


_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
_TOP = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
}
_PARTS = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "attention/query": "self_attn.q_proj",
    "attention/key": "self_attn.k_proj",
    "attention/value": "self_attn.v_proj",
    "attention/out": "self_attn.o_proj",
    "attention/query_norm": "self_attn.q_norm",
    "attention/key_norm": "self_attn.k_norm",
    "mlp/gate": "mlp.gate_proj",
    "mlp/up": "mlp.up_proj",
    "mlp/down": "mlp.down_proj",
}
_GEMMA2 = {
    "norm2": "pre_feedforward_layernorm",
    "after1": "post_attention_layernorm",
    "after2": "post_feedforward_layernorm",
}
_GPT2_TOP = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
_GPT2_PARTS = {
    "norm1": "ln_1",
    "norm2": "ln_2",
    "attention/query": "attn.c_attn",
    "attention/key": "attn.c_attn",
    "attention/value": "attn.c_attn",
    "attention/out": "attn.c_proj",
    "mlp/up": "mlp.c_fc",
    "mlp/down": "mlp.c_proj",
}
_THIRDS = ("attention/query", "attention/key", "attention/value")


def place_of(path: str, family: str) -> Place:
    """Return where the parameter of a path is in the files of a family.

    >>> place_of("layer3/mlp/up/kernel", "llama")
    Place(name='model.layers.3.mlp.up_proj.weight', transposed=True, part=None)
    """
    module, _, kind = path.rpartition("/")
    leaf = "bias" if kind == "bias" else "weight"
    gpt2 = family == "gpt2"
    layer = re.fullmatch(r"layer(\d+)/(.+)", module)
    if layer is None:
        name = (_GPT2_TOP if gpt2 else _TOP)[module]
        return Place(f"{name}.{leaf}", transposed=kind == "kernel")
    number, part = layer.groups()
    if gpt2:
        third = _THIRDS.index(part) if part in _THIRDS else None
        return Place(f"transformer.h.{number}.{_GPT2_PARTS[part]}.{leaf}", part=third)
    names = {**_PARTS, **(_GEMMA2 if family == "gemma2" else {})}
    name = f"model.layers.{number}.{names[part]}.{leaf}"
    return Place(name, transposed=kind == "kernel")


def _activation(
    record: Mapping[str, Any], family: str, name: str | None, source: str
) -> str | None:
    """Return our name of the activation."""
    if family.startswith("gemma"):
        # the first release's files say gelu, and meant its approximation
        name = record.get("hidden_activation") or name
        name = "gelu_pytorch_tanh" if name == "gelu" else name
    if name is None:
        return None
    if name not in ACTIVATIONS:
        raise InputError(
            f"{source} has the activation {name!r}; known are {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _rotary(record: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return θ and scaling, as version 4 or version 5 of transformers writes them."""
    from jax_unlearn.zoo import RopeScaling

    told = record.get("rope_parameters") or record.get("rope_scaling") or {}
    theta = told.get("rope_theta", record.get("rope_theta"))
    kind = told.get("rope_type", told.get("type", "default"))
    found: dict[str, Any] = {} if theta is None else {"rope_theta": float(theta)}
    try:
        if kind == "linear":
            found["rope_scaling"] = RopeScaling("linear", float(told["factor"]))
        elif kind == "llama3":
            found["rope_scaling"] = RopeScaling(
                "llama3",
                float(told["factor"]),
                float(told["low_freq_factor"]),
                float(told["high_freq_factor"]),
                int(told["original_max_position_embeddings"]),
            )
        elif kind != "default":
            raise InputError(
                f"{source} has rope_type={kind!r}; known are default, linear and "
                "llama3, and with another every position would be wrong"
            )
    except KeyError as error:
        raise InputError(
            f"{source}: the {kind} scaling of rotary positions lacks {error}; take "
            "another copy"
        ) from error
    return found


def _rotary_record(config: "DecoderConfig") -> dict[str, Any]:
    scaling = config.rope_scaling
    told: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        told = {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            told |= {
                "low_freq_factor": scaling.low,
                "high_freq_factor": scaling.high,
                "original_max_position_embeddings": scaling.length,
            }
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": None if scaling is None else told,
        "rope_parameters": {**told, "rope_theta": config.rope_theta},
    }


def _biases(record: Mapping[str, Any], family: str) -> dict[str, bool]:
    """Return which linear maps have a bias, where a file may choose."""
    if family in ("gpt2", "qwen2"):
        return {}
    bias = bool(record.get("attention_bias", False))
    mlp = family == "llama" and bool(record.get("mlp_bias", False))
    return {"qkv_bias": bias, "out_bias": bias, "mlp_bias": mlp}


def _windows(record: Mapping[str, Any], family: str, layers: int) -> dict[str, Any]:
    """Return the sliding window and the layers that have it."""
    window, kinds = record.get("sliding_window"), record.get("layer_types")
    if family.startswith("qwen") and not record.get("use_sliding_window"):
        window = None
    if family == "gemma2" and "sliding_window" not in record:
        window = 4096
    if window is None or family in ("llama", "gemma", "gpt2"):
        return {"window": None, "windowed": ()}
    if kinds is not None:
        windowed = [i for i, kind in enumerate(kinds) if kind == "sliding_attention"]
    elif family == "gemma2":
        windowed = range(0, layers, 2)
    elif family == "mistral":
        windowed = range(layers)
    else:
        windowed = range(int(record.get("max_window_layers", 28)), layers)
    return {"window": int(window), "windowed": tuple(windowed)}


def _tokens(record: Mapping[str, Any]) -> dict[str, Any]:
    eos = record.get("eos_token_id")
    many = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    pad = record.get("pad_token_id")
    pad = None if pad is not None and pad < 0 else pad
    return {"eos": many, "bos": record.get("bos_token_id"), "pad": pad}
