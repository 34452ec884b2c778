"""Checkpoints of seven families: logits as transformers', bits in and out, refusals."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from make_parity import CONFIGS, PADDED, PLACES, VOCAB, rows, weights_of
from safetensors.numpy import load_file, save_file

import jax_unlearn as ju
from jax_unlearn.language import Text, decoder, load_pretrained, save_pretrained

HERE = Path(__file__).parent
FAMILIES = json.loads((HERE / "parity.json").read_text())
LOGITS = np.load(HERE / "parity.npz")


def write(folder, name, *, change=None, dtype=np.float32, files=2, drop=(), add=None):
    """Write the checkpoint of a family anew, in shards."""
    told = FAMILIES[name]
    arrays = {k: weights_of(k, s).astype(dtype) for k, s in told["shapes"].items()}
    arrays = {k: v for k, v in arrays.items() if k not in drop} | (add or {})
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(told["config"] | (change or {})))
    if files == 1:
        save_file(arrays, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names, index = sorted(arrays), {}
    for number in range(files):
        file = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        own = names[number::files]
        save_file({k: arrays[k] for k in own}, folder / file)
        index |= dict.fromkeys(own, file)
    record = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(record)
    return folder


@functools.cache
def stored(folder, name, dtype="float32"):
    folder = write(folder, name, dtype=jnp.dtype(dtype))
    return load_pretrained(folder, dtype=jnp.float32)


def logits_of(model, params, state):
    """Return the logits of the places that are stored."""
    tokens, mask = rows()
    text = Text(*map(jnp.asarray, (tokens, mask)), None, jnp.asarray(mask))
    run = jax.jit(lambda p: model.apply(p, state, text, train=False)[0])
    places = np.array([0, 0, PADDED])[:, None] + np.array(PLACES)[None]
    return np.asarray(run(params))[np.arange(3)[:, None], places]


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers(name, tmp_path):
    found = stored(tmp_path / "a", name)
    logits = logits_of(*found[:3])
    most = np.abs(LOGITS[name]).max()
    np.testing.assert_allclose(logits, LOGITS[name], rtol=0, atol=3e-6 * most)
    # written again, bit for bit
    path = save_pretrained(
        tmp_path / "b", *found[1:3], config=found.config, shard_bytes=9000
    )
    again = load_pretrained(path)
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)
    assert again.config == found.config
    shards = sorted(path.glob("*.safetensors"))
    assert len(shards) > 1
    arrays = {k: v for file in shards for k, v in load_file(file).items()}
    assert {k: list(v.shape) for k, v in arrays.items()} == FAMILIES[name]["shapes"]
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, weights_of(key, list(array.shape)))


def test_a_setting_that_is_read_wrongly_shows_in_the_logits(tmp_path):
    # what a tolerance must notice: θ, its scaling, the window, caps, the scale
    changes = [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("llama3", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}}),
        ("gemma2", {"sliding_window": 17}),
        ("gemma2", {"query_pre_attn_scalar": 16}),
    ]
    for number, (name, change) in enumerate(changes):
        folder = write(tmp_path / str(number), name, change=change)
        logits = logits_of(*load_pretrained(folder)[:3])
        most = np.abs(LOGITS[name]).max()
        assert np.abs(logits - LOGITS[name]).max() > 1e-3 * most


def test_settings_of_version_four_mean_the_same(tmp_path):
    told = FAMILIES["llama3"]["config"]
    scaling = dict(told["rope_parameters"])
    theta = scaling.pop("rope_theta")
    old = {"rope_parameters": None, "rope_theta": theta, "rope_scaling": scaling}
    folder = write(tmp_path / "a", "llama3", change=old)
    config = ju.language.read_config(write(tmp_path / "b", "llama3"))
    assert ju.language.read_config(folder) == config
    assert config.rope_scaling.factor == 8
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5]}')
    assert ju.language.read_config(folder).eos == (2, 5)


def test_bfloat16_weights_are_read_and_written_as_they_are(tmp_path):
    folder = write(tmp_path / "a", "qwen2", dtype=jnp.dtype("bfloat16"), files=1)
    low = load_pretrained(folder, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(low.params)} == {jnp.dtype("bfloat16")}
    wide = load_pretrained(folder)
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a.astype(jnp.float32), b),
        low.params,
        wide.params,
    )
    path = save_pretrained(tmp_path / "b", low.params, config=low.config)
    assert (path / "model.safetensors").is_file()
    again = load_pretrained(path, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, again.params, low.params)
    # the rounding of the weights is theirs, that of the products is small
    exact, rounded = (logits_of(*each[:3]) for each in (wide, low))
    most = np.abs(exact).max()
    assert np.abs(exact - LOGITS["qwen2"]).max() < 0.1 * most
    assert 0 < np.abs(rounded - exact).max() < 0.05 * most


def test_devices_hold_their_parts(tmp_path):
    mesh = jax.make_mesh((2, 4), ("data", "tensor"))
    rules = [("(query|up)/kernel$", jax.P("data", "tensor"))]
    whole = stored(tmp_path / "a", "gpt2")
    found = load_pretrained(tmp_path / "a", mesh=mesh, rules=rules)
    jax.tree.map(np.testing.assert_array_equal, found.params, whole.params)
    kernel = found.params["layer0"]["attention"]["query"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (16, 8)
    path = save_pretrained(tmp_path / "b", found.params, config=found.config)
    jax.tree.map(
        np.testing.assert_array_equal, load_pretrained(path).params, whole.params
    )


def test_a_head_that_is_the_embedding(tmp_path):
    embedding = weights_of("model.embed_tokens.weight", [VOCAB, 32])
    same = write(tmp_path / "a", "qwen2", add={"lm_head.weight": embedding})
    assert "head" not in load_pretrained(same).params
    # without a head in the file there is none, whatever the settings say
    lacking = write(tmp_path / "b", "llama", drop=["lm_head.weight"])
    assert load_pretrained(lacking).config.tied
    other = write(tmp_path / "c", "qwen2", add={"lm_head.weight": 2 * embedding})
    with pytest.raises(ju.InputError, match="lm_head.weight is not the embedding"):
        load_pretrained(other)
    (other / "config.json").write_text(
        json.dumps(FAMILIES["qwen2"]["config"] | {"tie_word_embeddings": False})
    )
    np.testing.assert_array_equal(
        load_pretrained(other).params["head"]["kernel"], 2 * embedding.T
    )


def test_names_of_the_first_gpt2(tmp_path):
    arrays = {k: weights_of(k, s) for k, s in FAMILIES["gpt2"]["shapes"].items()}
    old = {k.removeprefix("transformer."): v for k, v in arrays.items()}
    old["h.0.attn.bias"] = np.ones((1, 1, 8, 8), np.float32)
    folder = write(tmp_path / "a", "gpt2", drop=arrays, add=old, files=1)
    found = load_pretrained(folder).params
    assert "positions" in found
    np.testing.assert_array_equal(
        found["embedding"]["embedding"], arrays["transformer.wte.weight"]
    )


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model_type": None}, "has no model_type; known are llama, mistral, qwen2"),
        ({"model_type": "mamba"}, "has model_type='mamba'; known are llama"),
        ({"hidden_act": "relu2"}, "has the activation 'relu2'; known are silu"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
            "has rope_type='yarn'; known are default, linear and llama3",
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 4.0}},
            "llama3 scaling of rotary positions lacks 'low_freq_factor'",
        ),
        ({"quantization_config": {"bits": 4}}, "is of quantized weights"),
        ({"intermediate_size": None}, "lacks intermediate_size"),
        ({"intermediate_size": 44}, "gate_proj.weight is [40, 32] for [44, 32]"),
        ({"num_hidden_layers": 3}, "input_layernorm.weight is missing"),
        ({"num_hidden_layers": 1}, "input_layernorm.weight is unexpected"),
        ({"head_dim": None, "hidden_size": 30}, "heads=4 must divide width=30"),
    ],
)
def test_settings_that_are_refused(change, told, tmp_path):
    folder = write(tmp_path / "a", "llama", change=change)
    with pytest.raises(ju.InputError) as caught:
        load_pretrained(folder)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_refused(tmp_path):
    def refused(told, folder):
        with pytest.raises(ju.InputError) as caught:
            load_pretrained(folder)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)

    refused("holds no config.json", tmp_path)
    folder = write(tmp_path / "a", "llama", files=3)
    shard = folder / "model-00002-of-00003.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    refused("model-00002-of-00003.safetensors is cut short or damaged", folder)
    shard.unlink()
    refused("lacks model-00002-of-00003.safetensors, 1 of the 3 shards", folder)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((folder / "config.json").read_text())
    refused("holds no model.safetensors", bare)
    (bare / "pytorch_model.bin").write_bytes(b"")
    refused("holds pytorch_model.bin alone", bare)
    refused("is missing", write(tmp_path / "d", "llama", drop=[NORM]))
    whole = {NORM: np.ones(32, np.int8)}
    refused(f"{NORM} is I8", write(tmp_path / "e", "llama", add=whole))
    (bare / "config.json").write_text("{")
    refused("is not JSON", bare)


def test_writing_is_refused(tmp_path):
    config = ju.zoo.DecoderConfig(VOCAB, width=8, layers=1, heads=2)
    params, state = jax.jit(decoder(config).init)(jax.random.key(0), None)
    path = save_pretrained(tmp_path / "a", params, state, config=config)
    with pytest.raises(ju.InputError, match="holds a checkpoint; give another folder"):
        save_pretrained(path, params, state, config=config)
    wider = ju.zoo.DecoderConfig(VOCAB, width=12, layers=1, heads=2)
    with pytest.raises(ju.InputError, match="not those of the config"):
        save_pretrained(tmp_path / "b", params, state, config=wider)
    assert not (tmp_path / "b").exists()
    many = save_pretrained(
        path, params, state, config=config, shard_bytes=1000, overwrite=True
    )
    assert len(list(many.glob("*.safetensors"))) > 1
    one = save_pretrained(path, params, state, config=config, overwrite=True)
    assert [file.name for file in one.glob("model*")] == ["model.safetensors"]
    (tmp_path / "tokenizer.json").write_text("{}")
    save_pretrained(path, params, state, config=config, overwrite=True, like=tmp_path)
    assert (path / "tokenizer.json").is_file()
