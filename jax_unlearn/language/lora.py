"""LoRA: a few numbers are trained beside each linear map, which stays as it is."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn import _validate
from jax_unlearn.adapters.parts import parted, partly, whole_variables
from jax_unlearn.errors import InputError
from jax_unlearn.leaves import name_of
from jax_unlearn.types import Array, Model, ModelState, Params

__all__ = ["LINEAR", "lora", "lora_variables", "merge_lora"]

LINEAR = r"(query|key|value|out|gate|up|down)$"
"""All linear maps of the blocks; `r"(query|value)$"` are those of the LoRA paper."""

TRAINED = "^lora/"


def lora(
    model: Model, *, rank: int = 16, alpha: float = 32.0, match: str = LINEAR
) -> Model:
    """Return the model whose linear maps get adapters, which alone are trained.

    y = W x + (α / r) B A x, A `[r, in]` drawn, B `[out, r]` 0 at first, both float32.
    Its parameters are the adapters; those of the model given are in the model state,
    as `ju.trainable` puts them there: the very arrays, not differentiated, copied,
    donated, nor of any norm. `init` draws both; to begin with a checkpoint, take
    `lora_variables(params, model_state)`.

    Args:
      model: of `ju.language.decoder` or `load_pretrained`, any outputs. Of another
        network take `qwix`, or `nnx.LoRA` and
        `from_nnx(make, trainable=nnx.LoRAParam)`.
      rank: r, of what `init` draws.
      alpha: α, likewise.
      match: which linear maps, a pattern searched for in "layer0/mlp/up"; likewise.

    Raises:
      InputError: a rank or an α that is not positive; nothing that matches.

    Reference: Hu et al., arXiv 2106.09685.

    >>> import jax_unlearn as ju
    >>> config = ju.zoo.DecoderConfig(64, width=8, layers=1, heads=2)
    >>> model = lora(ju.language.decoder(config), rank=2, match="query")
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), None)
    >>> [leaf.shape for leaf in jax.tree.leaves(params)]
    [(8, 2), (2, 8)]
    """
    _check(rank, alpha)

    def init(key: Array, inputs: Any) -> tuple[Params, ModelState]:
        own, drawn = jax.random.split(key)
        params, state = model.init(own, inputs)
        options: dict[str, Any] = dict(rank=rank, alpha=alpha, match=match)
        return _with_adapters(params, state, key=drawn, **options)

    def apply(params, model_state, inputs, *, train, key=None):
        from jax_unlearn.zoo import Adapted

        low = _scaled(params["lora"], params["alpha"])
        mode: dict[str, Any] = {"train": train, "key": key}
        return model.apply(params["base"], model_state, Adapted(inputs, low), **mode)

    return partly(Model(init, apply), TRAINED)


def lora_variables(
    params: Params,
    model_state: ModelState,
    *,
    rank: int = 16,
    alpha: float = 32.0,
    match: str = LINEAR,
    key: Array | None = None,
) -> tuple[Params, ModelState]:
    """Return the variables of `lora(model)` around those of a trained model.

    The arrays given are held, not copied. Arguments are as in `lora`; `key` draws A,
    by default `jax.random.key(0)`.

    Raises:
      InputError: as `lora`.
    """
    _check(rank, alpha)
    key = jax.random.key(0) if key is None else key
    whole = whole_variables(params, model_state)
    options: dict[str, Any] = dict(rank=rank, alpha=alpha, match=match)
    return parted(*_with_adapters(*whole, key=key, **options), TRAINED)


def merge_lora(params: Params, model_state: ModelState) -> tuple[Params, ModelState]:
    """Return the variables of the plain model: W + (α / r) B A, in the dtype of W.

    Raises:
      InputError: variables without adapters.
    """
    whole, state = whole_variables(params, model_state)
    if not isinstance(whole, dict) or whole.keys() != {"base", "lora", "alpha"}:
        raise InputError(
            "these variables have no adapters of LoRA; give those of lora(model).init "
            "or of lora_variables"
        )
    scaled = _scaled(whole["lora"], whole["alpha"])

    def merged(tree: Any, low: Any) -> Any:
        if "a" in low and "kernel" in tree:
            kernel = tree["kernel"]
            wide = kernel.astype(jnp.float32) + low["a"] @ low["b"]
            return {**tree, "kernel": wide.astype(kernel.dtype)}
        return {k: merged(v, low[k]) if k in low else v for k, v in tree.items()}

    return merged(whole["base"], scaled), state


def turned_adapters(params: Params, scale: float) -> Params | None:
    """Return adapters whose products are `scale` times as large; None: these are none.

    Only B is changed. Adapters begin at B = 0, so with −α they are the task vector of
    the merged weights, W − α(W₊ − W), which moving A and B apart is not.
    """
    if not isinstance(params, dict) or params.keys() != {"base", "lora", "alpha"}:
        return None

    def turned(inner: Any) -> Any:
        if "a" in inner and "b" in inner:
            return {**inner, "b": scale * inner["b"]}
        return {key: turned(own) for key, own in inner.items()}

    return {**params, "lora": turned(params["lora"])}


def adapter_size(params: Params, *, rank: int, match: str) -> int:
    """Return how many numbers `lora` trains beside parameters, which may be shapes."""
    _check(rank, 1.0)
    chosen = _chosen(params, match).values()
    return rank * sum(sum(np.shape(kernel)) for kernel in chosen)


def _check(rank: int, alpha: float) -> None:
    _validate.at_least("rank", rank, 1, "try 16")
    _validate.positive("alpha", alpha, "try 32")


def _with_adapters(
    params: Params,
    model_state: ModelState,
    *,
    rank: int,
    alpha: float,
    match: str,
    key: Array,
) -> tuple[Params, ModelState]:
    """Return parameters of base and adapters, not yet divided."""
    adapters: dict[str, Any] = {}
    for number, (path, kernel) in enumerate(_chosen(params, match).items()):
        rows, columns = np.shape(kernel)
        bound = rows**-0.5
        drawn = jax.random.uniform(
            jax.random.fold_in(key, number), (rows, rank), jnp.float32, -bound, bound
        )
        inner = adapters
        for part in path.split("/"):
            inner = inner.setdefault(part, {})
        inner |= {"a": drawn, "b": jnp.zeros((rank, columns), jnp.float32)}
    return {"base": params, "lora": adapters, "alpha": jnp.float32(alpha)}, model_state


def _chosen(params: Params, match: str) -> dict[str, Any]:
    """Return the kernels of the linear maps that a pattern finds, by path."""
    leaves = {name_of(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
    kernels = {
        path.removesuffix("/kernel"): leaf
        for path, leaf in leaves.items()
        if re.match(r"layer\d+/.*/kernel$", path)
    }
    try:
        chosen = {path: own for path, own in kernels.items() if re.search(match, path)}
    except re.error as error:
        raise InputError(
            f"match={match!r} is no regular expression ({error}); try 'query|value'"
        ) from error
    if not chosen:
        told = f"some are {', '.join(list(kernels)[:3])}"
        if not kernels:
            told = "of a network of your own take nnx.LoRA or qwix, as lora's help says"
        raise InputError(
            f"match={match!r} is found in none of {len(kernels)} linear maps; {told}"
        )
    return chosen


def _scaled(adapters: Any, alpha: Array) -> Any:
    """Return the adapters with α / r in B."""
    if "a" in adapters and "b" in adapters:
        a, b = adapters["a"], adapters["b"]
        return {"a": a, "b": b * (alpha / a.shape[1])}
    return {key: _scaled(inner, alpha) for key, inner in adapters.items()}
