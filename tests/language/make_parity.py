"""Make `parity.json` and `parity.npz`: what transformers computes of small checkpoints.

Run by hand, where torch and transformers are: `python tests/language/make_parity.py`.
The weights are drawn by name (`weights_of`), so that only names and logits are stored;
the tests write the checkpoints anew and need neither.
"""

import json
import zlib
from pathlib import Path

import numpy as np

VOCAB, LENGTH = 48, 224
PLACES = (0, 1, 5, 17, 40, 100, 180, 199)  # of the text, of which logits are stored
PADDED = 24
COMMON = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=5e4,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=64,
)
CONFIGS = {
    "llama": ("llama", {**COMMON, "tie_word_embeddings": False, "head_dim": 8}),
    "llama3": ("llama", {**COMMON, "tie_word_embeddings": True, "rope": LLAMA3}),
    "qwen2": ("qwen2", {**COMMON, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**COMMON, "tie_word_embeddings": False, "head_dim": 16}),
    "gemma": ("gemma", {**COMMON, "head_dim": 16, "num_key_value_heads": 1}),
    "gemma2": (
        "gemma2",
        {
            **COMMON,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "sliding_window": 16,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gpt2": (
        "gpt2",
        dict(
            vocab_size=VOCAB,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ),
}


def weights_of(name: str, shape: list[int]) -> np.ndarray:
    """Return the weights of a name, large enough for every part to matter."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    mean = 0.5 if len(shape) == 1 and name.endswith("weight") else 0.0
    return (mean + 0.2 * drawn).astype(np.float32)


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and mask: one text whole, one padded on the right, on the left."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, VOCAB, (3, LENGTH)).astype(np.int32)
    mask = np.ones((3, LENGTH), bool)
    mask[1, -PADDED:] = mask[2, :PADDED] = False
    return np.where(mask, tokens, 0), mask


def main() -> None:
    """Compute the logits of each family in float32."""
    import tempfile

    import torch
    import transformers
    from safetensors.numpy import load_file

    tokens, mask = rows()
    position = np.maximum(mask.cumsum(1) - 1, 0)
    described, logits = {}, {}
    for name, (kind, options) in CONFIGS.items():
        options = dict(options)
        if "rope" in options:
            options["rope_parameters"] = options.pop("rope")
        config = transformers.AutoConfig.for_model(kind, **options)
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager"
        ).float()
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            stored = load_file(Path(folder) / "model.safetensors")
            shapes = {key: list(value.shape) for key, value in stored.items()}
            written = json.loads((Path(folder) / "config.json").read_text())
        arrays = {k: torch.from_numpy(weights_of(k, s)) for k, s in shapes.items()}
        model.load_state_dict(arrays, strict=False)
        model.tie_weights()
        with torch.no_grad():
            found = model.eval()(
                input_ids=torch.from_numpy(tokens).long(),
                attention_mask=torch.from_numpy(mask).long(),
                position_ids=torch.from_numpy(position).long(),
            ).logits.numpy()
        described[name] = {"config": written, "shapes": shapes}
        start = np.array([0, 0, PADDED])
        places = start[:, None] + np.array(PLACES)[None]
        logits[name] = found[np.arange(3)[:, None], places].astype(np.float32)
        print(name, np.abs(logits[name]).max(), len(shapes))
    here = Path(__file__).parent
    text = json.dumps(described, indent=1)
    (here / "parity.json").write_text(text + "\n")
    np.savez_compressed(here / "parity.npz", **logits)


if __name__ == "__main__":
    main()
