"""Parameters trained elsewhere, from a file onto a model, compared leaf by leaf.

What the file holds is matched by names: at its top or under a part such as "params",
with or without model state (linen's "batch_stats", nnx's BatchStat, PyTorch's running
moments). Values are those of the file, bit by bit; a type is changed only where that
loses nothing, or where asked to, and is then told.
"""

import difflib
import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_unlearn.drivers import formats, torch_names
from jax_unlearn.errors import InputError
from jax_unlearn.types import ModelState, Params, PyTree

__all__ = ["Loaded", "MismatchError", "load", "named", "save"]

NEAREST = 3  # names shown beside one that is missing
# parts of a training state that mirror the parameters, and are none
BESIDE = ("opt", "ema", "swa", "average", "scheduler", "rng", "grad", "callback")
UNREAD = ("num_batches_tracked",)  # counted by PyTorch, read by no network here

Named = Mapping[str, Any]
FromTorch = Callable[[Mapping[str, np.ndarray], Params, ModelState], Any]


class Loaded(NamedTuple):
    """A model's variables, and lines that say what was read and changed."""

    params: Params
    model_state: ModelState
    notes: tuple[str, ...]


class MismatchError(InputError):
    """Parameters of another network; `lines` compares them leaf by leaf."""

    def __init__(self, message: str, lines: tuple[str, ...]):
        super().__init__(message)
        self.lines = lines


def load(
    path: str | os.PathLike[str],
    params: Params,
    model_state: ModelState,
    *,
    subtree: str = "",
    cast: bool = False,
    from_torch: FromTorch | None = None,
) -> Loaded:
    """Return the parameters and the model state that a file or a folder holds.

    For the formats see `jax_unlearn.drivers.formats`. `params` and `model_state` say
    what is expected: those of `model.init`, or of `jax.eval_shape(model.init, key,
    inputs)`. `subtree` names the part that holds the parameters, where there are
    several ("ema_params"). `cast` allows conversions that round.

    Names of PyTorch are translated where they name the same layers: `weight` is a
    kernel, its axes reordered, or a scale, `running_mean` a mean; `from_torch`,
    `(arrays, params, model_state) -> (params, model_state)`, is asked before, as
    `zoo.weights.from_torch` does it for the networks here.

    Raises:
      MismatchError: names or shapes differ; with a line for each leaf.
      InputError: the file cannot be read, holds NaN, or values that would be rounded.

    >>> import tempfile
    >>> like = {"w": jnp.zeros((2, 3)), "b": jnp.zeros(3)}, {}
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "state.npz"
    >>> np.savez(path, **{"params/w": np.ones((2, 3)), "params/b": np.ones(3)})
    >>> found = load(path, *like)
    >>> found.params["b"].tolist(), found.notes[-1]
    ([1.0, 1.0, 1.0], '2 leaves of float64 became float32, which loses nothing')
    >>> np.savez(path, w=np.ones((2, 3), np.float32), bias=np.ones(3, np.float32))
    >>> load(path, *like)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    jax_unlearn.drivers.parameters.MismatchError: params=... are of another network: \
    1 expected leaf is not there, 1 is not expected; first 'b', nearest 'bias'; \
    give the network they were trained with
    >>> folder.cleanup()
    """
    arrays, kind = formats.read(path)
    wanted = _Wanted(named(params), named(model_state))
    notes = [f"{len(arrays)} arrays of {kind}"]
    found = _renamed(arrays)
    chosen = _matched(found, wanted, subtree)
    changes: Counter[tuple[str, str, bool]] = Counter()
    if chosen.missing and torch_names.inside(found):
        plain = torch_names.translated(found, wanted.params)
        if not (other := _matched(plain, wanted, subtree)).missing:
            found, chosen = plain, other
            notes.append(
                "names and axes of PyTorch became those of flax; a layer that reads a "
                "flattened image has its inputs in another order in PyTorch"
            )
        elif from_torch is not None:
            like = next(iter(wanted.params.values()))
            given = {
                name: np.asarray(_typed(f"/{name}", array, like, cast, changes))
                for name, array in found.items()
                if jnp.issubdtype(array.dtype, jnp.inexact) and not _is_beside(name)
            }
            made = from_torch(torch_names.state_dict(given), params, model_state)
            found = {f"params/{n}": np.asarray(a) for n, a in named(made[0]).items()}
            found |= {f"state/{n}": np.asarray(a) for n, a in named(made[1]).items()}
            chosen = _matched(found, wanted, "params")
            notes.append("names and axes of PyTorch became those of the network")
    _refuse_others(Path(path), found, wanted, chosen)
    if chosen.beside:
        counts = Counter(name.partition("/")[0] for name in chosen.beside)
        told = ", ".join(f"{name} ({count})" for name, count in counts.items())
        notes.append(f"not read: {told}")
    leaves = {
        name: _typed(name, found[at], wanted.leaves[name], cast, changes)
        for name, at in chosen.places.items()
    }
    for (before, after, exact), count in changes.items():
        loses = "which loses nothing" if exact else "rounded, as asked"
        leaf = "1 leaf" if count == 1 else f"{count} leaves"
        notes.append(f"{leaf} of {before} became {after}, {loses}")
    return Loaded(
        _like(params, leaves, "params/"),
        _like(model_state, leaves, "state/"),
        tuple(notes),
    )


def save(
    path: str | os.PathLike[str],
    params: Params,
    model_state: ModelState,
    *,
    format: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a model's variables for other programs; `load` reads them bit by bit.

    The format is "safetensors", "npz" or "msgpack", by default that of the suffix. The
    tree is that of linen's variables where the state has "batch_stats": `{"params":
    params, **model_state}`; else `{"params": params, "model_state": model_state}`.

    Raises:
      InputError: the file exists, cannot be written, or no such format.

    >>> import tempfile
    >>> params = {"w": jnp.arange(2.0)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save(Path(folder) / "toy.msgpack", params, {})
    ...     load(path, {"w": jnp.zeros(2)}, {}).params["w"].tolist()
    [0.0, 1.0]
    """
    front = "" if "batch_stats" in (model_state or ()) else "model_state/"
    arrays = {f"params/{name}": leaf for name, leaf in named(params).items()}
    arrays |= {f"{front}{name}": leaf for name, leaf in named(model_state).items()}
    host = {name: np.asarray(leaf) for name, leaf in arrays.items()}
    return formats.write(path, host, format=format, overwrite=overwrite)


def named(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a pytree by name, the keys of its path joined by "/".

    >>> named({"layers": [{"kernel": 1}], "scale": 2})
    {'layers/0/kernel': 1, 'scale': 2}
    """
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    return {formats.name_of(keys): leaf for keys, leaf in pairs}


class _Wanted(NamedTuple):
    """The leaves that a model has, by name."""

    params: Named
    state: Named

    @property
    def leaves(self) -> dict[str, Any]:
        """Return both, told apart by their first part."""
        parts = {"params": self.params, "state": self.state}
        return {f"{p}/{n}": leaf for p, own in parts.items() for n, leaf in own.items()}


class _Match(NamedTuple):
    """Where a file has what a model expects."""

    places: dict[str, str]  # name in the file by name in `_Wanted.leaves`
    missing: list[str]  # of `_Wanted.leaves`
    others: list[str]  # in the file, among the parameters, and not expected
    beside: list[str]  # in the file, of no network
    front: str  # before the parameters' names in the file


def _matched(found: Named, wanted: _Wanted, subtree: str) -> _Match:
    """Return the best match of what is found to what is wanted."""
    front = _front(found, list(wanted.params), formats.name_of((subtree,)) or None)
    places = {f"params/{n}": front + n for n in wanted.params if front + n in found}
    taken, rest = set(places.values()), dict(found)
    for name in taken:
        rest.pop(name)
    if wanted.state:
        names = list(wanted.state)
        # a collection of linen, or none, as in a tree of all variables of nnx
        bare = {n.partition("/")[2]: n for n in names if "/" in n}
        own = _front(rest, names, None)
        more = {f"state/{n}": own + n for n in names if own + n in rest}
        if len(more) < len(names) and len(bare) == len(names):
            own = _front(rest, list(bare), None)
            short = {f"state/{n}": own + b for b, n in bare.items() if own + b in rest}
            more = max(more, short, key=len)
        places |= more
    missing = [name for name in wanted.leaves if name not in places]
    taken = set(places.values())
    others, beside = [], []
    for name, leaf in found.items():
        if name in taken or name.rpartition("/")[2] in UNREAD:
            continue
        inside = name.startswith(front) and (np.ndim(leaf) or front)
        extra = (inside or "batch_stats" in name.split("/")) and not _is_beside(name)
        (others if extra else beside).append(name)
    return _Match(places, missing, others, beside, front)


def _front(found: Named, names: list[str], subtree: str | None) -> str:
    """Return what stands before a model's names in a file; the best there is."""
    counts: Counter[str] = Counter()
    ends = set(names)
    for name in found:
        parts = name.split("/")
        for depth in range(len(parts)):
            if "/".join(parts[depth:]) in ends:
                counts["".join(f"{part}/" for part in parts[:depth])] += 1
    if subtree is not None:
        inside = [front for front in counts if front.startswith(f"{subtree}/")]
        if not inside:
            parts = {name.partition("/")[0] for name in found}
            raise InputError(
                f"subtree={subtree!r} holds no parameters of this network; the file "
                f"has {', '.join(sorted(parts)[:8])}"
            )
        counts = Counter({front: counts[front] for front in inside})
    if not counts:
        return "params/" if any(name.startswith("params/") for name in found) else ""
    counts = Counter({f: n for f, n in counts.items() if not _is_beside(f)} or counts)
    most = max(counts.values())
    own = [front for front, count in counts.items() if count == most]
    usual = [front for front in own if front in ("", "params/")] or [
        front for front in own if front.endswith("/params/")
    ]
    if len(own) > 1 and len(usual) != 1 and most == len(ends):
        listed = ", ".join(sorted(front.rstrip("/") for front in own))
        raise InputError(
            f"the file holds these parameters {len(own)} times, under {listed}; give "
            f"one: --subtree {min(own).rstrip('/')}"
        )
    return (usual or sorted(own, key=len))[0]


def _is_beside(name: str) -> bool:
    """Return whether a name is of an optimizer, an average or a random stream."""
    return any(part.lower().startswith(BESIDE) for part in name.split("/"))


def _renamed(arrays: Named) -> dict[str, Any]:
    """Return arrays without the boxes that flax puts around them: `kernel/value`."""
    found = {}
    for name, array in arrays.items():
        bare, _, last = name.rpartition("/")
        boxed = last in ("value", "raw_value") and bare and bare not in arrays
        found[bare if boxed else name] = array
    return found


def _refuse_others(path: Path, found: Named, wanted: _Wanted, chosen: _Match) -> None:
    """Say leaf by leaf where names or shapes differ."""
    lines, leaves = [], wanted.leaves
    shown = {name: name.partition("/")[2] for name in leaves}
    free = [
        name
        for name in found
        if name not in chosen.places.values() and not _is_beside(name)
    ]
    near_to = functools.partial(_nearest, front=chosen.front)

    def text(leaf: Any) -> str:
        return f"{tuple(np.shape(leaf))} {leaf.dtype}"

    first = ""
    for name in chosen.missing:
        near = near_to(shown[name], free)
        named = ", ".join(map(repr, near)) or "none"
        first = first or f"{shown[name]!r}, nearest {named}"
        listed = ", ".join(f"{n} {text(found[n])}" for n in near) or "none"
        told = f"{shown[name]} {text(leaves[name])}"
        lines.append(f"expected {told}: not there; nearest: {listed}")
    other = {shown[name]: leaves[name] for name in chosen.missing or leaves}
    for name in chosen.others:
        near = near_to(name, list(other))
        first = first or f"{name!r}, nearest {', '.join(map(repr, near))}"
        listed = ", ".join(f"{n} {text(other[n])}" for n in near) or "none"
        lines.append(f"found {name} {text(found[name])}: not expected; {listed}")
    shapes = 0
    for name, at in chosen.places.items():
        if np.shape(found[at]) != np.shape(leaves[name]):
            shapes += 1
            told = f"{tuple(np.shape(leaves[name]))}, found {np.shape(found[at])}"
            first = first or f"{shown[name]!r}: expected {told}"
            lines.append(f"shape of {shown[name]}: expected {told}")
    if not lines:
        return
    parts = [
        (len(chosen.missing), "expected {} not there"),
        (len(chosen.others), "{} not expected"),
        (shapes, "{} of another shape"),
    ]
    counts = []
    for number, words in parts:
        if number:
            leaf = "leaf " if "expected {}" in words else ""
            leaf = leaf if number == 1 else leaf.replace("leaf", "leaves")
            verb = "is" if number == 1 else "are"
            counts.append(f"{number} " + words.format(f"{leaf}{verb}"))
    raise MismatchError(
        f"params={path} are of another network: {', '.join(counts)}; first {first}; "
        "give the network they were trained with",
        tuple(lines),
    )


def _nearest(name: str, names: list[str], front: str) -> list[str]:
    """Return the names nearest to one, whatever stands before all of them."""
    plain = {other.removeprefix(front).lower(): other for other in reversed(names)}
    near = name.removeprefix(front).lower()
    found = difflib.get_close_matches(near, plain, n=NEAREST, cutoff=0.0)
    return [plain[other] for other in found]


def _typed(
    name: str, array: np.ndarray, like: Any, cast: bool, changes: Counter
) -> jax.Array:
    """Return an array in the type that is expected, if that loses nothing."""
    label, dtype = name.partition("/")[2], np.dtype(like.dtype)
    if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
        raise InputError(
            f"{label!r} holds NaN or infinity: its training diverged; take an earlier "
            "state of it"
        )
    if array.dtype == dtype:
        return jnp.asarray(array)
    widened = jnp.complex128 if array.dtype.kind == "c" else jnp.float64
    wide, after = array.astype(widened), None
    if array.dtype.kind != "c" or dtype.kind == "c":
        with np.errstate(over="ignore"):
            after = array.astype(dtype)
    exact = after is not None and np.array_equal(after.astype(widened), wide)
    if after is None or not (exact or (cast and np.isfinite(after).all())):
        share = ""
        if after is not None:
            rounded = np.mean(after.astype(widened) != wide)
            share = f", which would round {rounded:.0%} of it"
        raise InputError(
            f"{label!r} is {array.dtype}, {dtype} is expected{share}; give --cast "
            "(cast=True) to allow that, or a network of parameters of that type"
            + (", with JAX_ENABLE_X64=1" if array.dtype.itemsize == 8 else "")
        )
    changes[str(array.dtype), str(dtype), exact] += 1
    return jnp.asarray(after)


def _like(tree: PyTree, leaves: Named, front: str) -> PyTree:
    return jax.tree.unflatten(
        jax.tree.structure(tree), [leaves[front + name] for name in named(tree)]
    )
