"""Checkpoints of Hugging Face: `config.json` and safetensors, in and out, bit for bit.

Only safetensors are read, and no code of a checkpoint is run. A tensor is read, turned
and placed by itself, on several devices only the part that each of them holds.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import _validate
from jax_unlearn.adapters.parts import whole_variables
from jax_unlearn.data.files import read_json, write_atomic
from jax_unlearn.drivers.sharding import Rules, fetch, shardings
from jax_unlearn.errors import InputError, one_line
from jax_unlearn.language.families import Place, config_of, place_of, record_of
from jax_unlearn.language.model import decoder
from jax_unlearn.leaves import name_of
from jax_unlearn.types import Array, Model, ModelState, Params

if TYPE_CHECKING:
    from jax_unlearn.zoo import DecoderConfig

__all__ = ["Pretrained", "load_pretrained", "read_config", "save_pretrained"]

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Endings of what older files hold beside the weights."""

BESIDE = ("generation_config.json", "chat_template.jinja", "vocab.json", "merges.txt")
BESIDE += ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
BESIDE += ("special_tokens_map.json", "added_tokens.json")
"""What `save_pretrained` copies from the folder `like`."""


class Pretrained(NamedTuple):
    """A checkpoint that was read.

    Attributes:
      model: gives logits; `ju.language.decoder(config, outputs=...)` gives the others.
      params, model_state: its variables.
      config: sizes, form, and the tokens that begin and end a text.
    """

    model: Model
    params: Params
    model_state: ModelState
    config: "DecoderConfig"


def read_config(folder: str | os.PathLike[str]) -> "DecoderConfig":
    """Return the config of a checkpoint folder, without its weights.

    Raises:
      InputError: no folder, no `config.json`; an unknown `model_type`, activation or
        scaling of positions.
    """
    folder = Path(folder)
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(
            f"{folder} holds no config.json; give the folder of a checkpoint, of "
            "config.json and model.safetensors"
        )
    record = read_json(file)
    if not isinstance(record, dict):
        raise InputError(f"{file} holds no settings; take another copy")
    tokens = folder / "generation_config.json"
    if tokens.is_file() and (more := read_json(tokens).get("eos_token_id")) is not None:
        record["eos_token_id"] = more  # chat models end with several
    return config_of(record, str(file))


def load_pretrained(
    folder: str | os.PathLike[str],
    *,
    dtype: Any = jnp.float32,
    mesh: jax.sharding.Mesh | None = None,
    rules: Rules = (),
) -> Pretrained:
    """Return (model, params, model_state, config) of a checkpoint folder.

    Of Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma 2 and GPT-2, in one file or in shards
    with their index. Without a head the embedding is the head, one array.

    Args:
      folder: holds `config.json` and `model.safetensors` or its shards.
      dtype: of the parameters and of the products.
      mesh: where the parameters go, by default on one device.
      rules: which parts of them, as in `ju.sharding.shard`; see
        `ju.sharding.decoder_rules`.

    Raises:
      InputError: as `read_config`; shards that are absent or cut short; tensors that
        are missing, unexpected or of another shape; only `pytorch_model.bin`.

    >>> import tempfile
    >>> from jax_unlearn.zoo import DecoderConfig
    >>> config = DecoderConfig(64, width=8, layers=1, heads=2)
    >>> params, state = jax.jit(decoder(config).init)(jax.random.key(0), None)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_pretrained(folder, params, state, config=config)
    ...     again = load_pretrained(path)
    >>> same = jax.tree.map(lambda a, b: bool((a == b).all()), again.params, params)
    >>> all(jax.tree.leaves(same))
    True
    """
    folder = Path(folder)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype={dtype}: give a floating type, such as jnp.bfloat16")
    config = read_config(folder)
    with _opened(folder) as tensors:
        if "lm_head.weight" not in tensors:
            config = dataclasses.replace(config, tied=True)
        model = decoder(config, dtype=dtype, param_dtype=dtype)
        like, state = jax.eval_shape(model.init, jax.random.key(0), None)
        if config.tied:
            tensors = _without_head(tensors, folder)
        places = _checked(like, tensors, config.family, folder)
        spots = None if mesh is None else shardings(like, mesh, rules)

        def read(path: Any, leaf: Any) -> Array:
            place = places[name_of(path)]
            tensor = tensors[place.name]

            def part(index: Any) -> np.ndarray:
                return _read(tensor, place, index, leaf.shape).astype(leaf.dtype)

            if spots is None:
                return jnp.asarray(part((slice(None),) * len(leaf.shape)))
            spot = _at(spots, path)
            return jax.make_array_from_callback(leaf.shape, spot, part)

        params = jax.tree_util.tree_map_with_path(read, like)
    return Pretrained(model, params, state, config)


def save_pretrained(
    folder: str | os.PathLike[str],
    params: Params,
    model_state: ModelState = (),
    *,
    config: "DecoderConfig",
    like: str | os.PathLike[str] | None = None,
    shard_bytes: float = 5e9,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint that transformers and `load_pretrained` read; return its path.

    The names, shapes and values are those that `load_pretrained` read, bit for bit.

    Args:
      folder: made if absent; nothing else is in it.
      params: of a decoder; those of LoRA go through `merge_lora` first.
      model_state: its state, which holds the frozen part where only some are trained.
      config: of the decoder.
      like: a checkpoint folder, whose tokenizer and generation settings are copied.
      shard_bytes: largest file.
      overwrite: whether a checkpoint that is there may be replaced.

    Raises:
      InputError: there is a checkpoint already; parameters of another config.
    """
    folder = Path(folder)
    _validate.positive("shard_bytes", shard_bytes, "try 5e9")
    if (folder / "config.json").exists() and not overwrite:
        raise InputError(f"{folder} holds a checkpoint; give another folder")
    params, _ = whole_variables(params, model_state)
    leaves = {name_of(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
    wanted = jax.eval_shape(decoder(config).init, jax.random.key(0), None)[0]
    shapes = {name_of(p): x.shape for p, x in jax.tree.leaves_with_path(wanted)}
    if shapes != {path: np.shape(leaf) for path, leaf in leaves.items()}:
        wrong = sorted(shapes.keys() ^ leaves.keys()) or [
            path for path in shapes if shapes[path] != np.shape(leaves[path])
        ]
        remedy = "give the config they were made with"
        if any(path.startswith("lora/") for path in leaves):
            remedy = "merge the adapters first: ju.language.merge_lora"
        raise InputError(
            f"the parameters are not those of the config ({wrong[0]!r}); {remedy}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    by_name: dict[str, list[tuple[Place, Any]]] = {}
    for path, leaf in leaves.items():
        place = place_of(path, config.family)
        by_name.setdefault(place.name, []).append((place, leaf))
    shards = _shards(by_name, shard_bytes)
    total = sum(leaf.nbytes for leaf in leaves.values())
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = WEIGHTS
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        arrays = {name: _written(by_name[name]) for name in names}
        write_atomic(folder / file, _bytes(arrays), overwrite=True)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_atomic(folder / INDEX, _json(index), overwrite=True)
    else:
        (folder / INDEX).unlink(missing_ok=True)  # of what was there
    for file in folder.glob("*.safetensors"):
        if file.name not in weight_map.values():
            file.unlink()
    for name in BESIDE:
        if like is not None and (Path(like) / name).is_file():
            shutil.copyfile(Path(like) / name, folder / name)
    record = record_of(config)
    kind = str(jnp.dtype(next(iter(leaves.values())).dtype))
    record |= {"torch_dtype": kind, "dtype": kind}  # versions 4 and 5
    # last, for it makes the folder a checkpoint
    write_atomic(folder / "config.json", _json(record), overwrite=True)
    return folder


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[dict[str, Any]]:
    """Give the tensors of a folder by name, to be read slice by slice."""
    from safetensors import SafetensorError, safe_open

    if (folder / INDEX).is_file():
        index = read_json(folder / INDEX)
        names = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(names, dict) or not names:
            raise InputError(f"{folder / INDEX} has no weight_map; take another copy")
        files = sorted({str(file) for file in names.values()})
        absent = [file for file in files if not (folder / Path(file).name).is_file()]
        if absent:
            raise InputError(
                f"{folder} lacks {absent[0]}, {len(absent)} of the {len(files)} shards "
                "its index names; copy all of them there"
            )
    elif (folder / WEIGHTS).is_file():
        names, files = None, [WEIGHTS]
    else:
        raise _no_weights(folder)
    tensors: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for file in files:
            try:
                opened = stack.enter_context(safe_open(folder / Path(file).name, "np"))
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"{folder / file} is cut short or damaged ({one_line(error, 90)}); "
                    "copy it anew"
                ) from error
            tensors |= {name: opened.get_slice(name) for name in list(opened.keys())}
        lacking = sorted(set(names or ()) - tensors.keys())
        if lacking:
            raise InputError(
                f"{folder}: its shards lack {lacking[0]}, which the index names; take "
                "another copy"
            )
        yield {_full(name): tensor for name, tensor in tensors.items()}


def _no_weights(folder: Path) -> InputError:
    """Return the error of a folder without safetensors."""
    if any(folder.glob("pytorch_model*.bin")):
        out = f"{folder}-safe"
        return InputError(
            f"{folder} holds pytorch_model.bin alone, which may run code and is not "
            'read; convert it where torch and transformers are: python -c "from '
            "transformers import AutoModelForCausalLM as M; "
            f"M.from_pretrained('{folder}').save_pretrained('{out}')\""
        )
    return InputError(
        f"{folder} holds no {WEIGHTS} and no {INDEX}; download the weights too"
    )


def _full(name: str) -> str:
    """Return the name of a tensor as newer files have it."""
    if name.split(".")[0] in ("wte", "wpe", "h", "ln_f"):
        return f"transformer.{name}"  # GPT-2 as first published
    return name


def _without_head(tensors: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the tensors without a copy of the embedding."""
    rest = dict(tensors)
    head = rest.pop("lm_head.weight", None)
    names = ("model.embed_tokens.weight", "transformer.wte.weight")
    own = next((rest[name] for name in names if name in rest), None)
    if head is not None and own is not None:
        same = head.get_shape() == own.get_shape()
        if not same or (head[:] != own[:]).any():
            raise InputError(
                f"{folder}: lm_head.weight is not the embedding, though config.json "
                'says so; write "tie_word_embeddings": false there'
            )
    return rest


def _checked(
    like: Params, tensors: Mapping[str, Any], family: str, folder: Path
) -> dict[str, Place]:
    """Return where each parameter is; refuse tensors that do not fit."""
    places, shapes = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        place = places[name_of(path)] = place_of(name_of(path), family)
        shape = leaf.shape[::-1] if place.transposed else leaf.shape
        if place.part is not None:
            shape = (*shape[:-1], 3 * shape[-1])
        shapes[place.name] = shape
    stored = {n: tuple(t.get_shape()) for n, t in tensors.items()}
    extra = [n for n in stored if n not in shapes and not n.endswith(BUFFERS)]
    wrong = [f"{n} is missing" for n in sorted(shapes.keys() - stored.keys())]
    wrong += [f"{n} is unexpected" for n in sorted(extra)]
    wrong += [
        f"{n} is {list(stored[n])} for {list(shapes[n])}"
        for n in sorted(shapes)
        if n in stored and stored[n] != tuple(shapes[n])
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(
            f"{folder}: its tensors are not those of config.json: "
            f"{', '.join(wrong[:3])}{more}; take config.json and weights of one source"
        )
    kinds = {name: tensors[name].get_dtype() for name in shapes}
    odd = [f"{n} is {kind}" for n, kind in kinds.items() if kind not in _FLOATS]
    if odd:
        raise InputError(f"{folder}: {odd[0]}; only {', '.join(_FLOATS)} are read")
    return places


_FLOATS = ("F64", "F32", "F16", "BF16")


def _read(
    tensor: Any, place: Place, index: tuple[slice, ...], shape: tuple[int, ...]
) -> np.ndarray:
    """Return a part of a parameter: the rows and columns of the file that hold it."""
    ranges = [slice(*i.indices(n)[:2]) for i, n in zip(index, shape, strict=True)]
    if place.part is not None:
        start, size = place.part * shape[-1], ranges[-1]
        ranges[-1] = slice(start + size.start, start + size.stop)
    if not place.transposed:
        return tensor[tuple(ranges)]
    return np.ascontiguousarray(tensor[tuple(ranges[::-1])].T)


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key.key]
    return tree


def _shards(
    by_name: Mapping[str, list[tuple[Place, Any]]], limit: float
) -> list[list[str]]:
    """Return names in files of at most a size, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, parts in by_name.items():
        own = sum(leaf.nbytes for _, leaf in parts)
        if shards[-1] and size + own > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += own
    return shards


def _written(parts: list[tuple[Place, Any]]) -> np.ndarray:
    """Return a tensor as files have it."""
    arrays = [np.asarray(fetch(leaf)) for _, leaf in parts]
    if len(arrays) > 1:
        order = sorted(range(len(arrays)), key=lambda i: parts[i][0].part or 0)
        return np.concatenate([arrays[i] for i in order], axis=-1)
    array = arrays[0].T if parts[0][0].transposed else arrays[0]
    return np.ascontiguousarray(array)


def _bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save(dict(arrays), metadata={"format": "pt"})


def _json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2) + "\n").encode()
