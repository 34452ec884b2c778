"""Runs on several devices and several hosts: where states and batches are put.

No step of the library names a mesh axis: arrays are placed here, `jax.jit` finds the
communication, and `ju.run` works on one device, on eight, or on many hosts alike.
Weights that are normalised over the batch (LoReUn, FaLW) and BatchNorm statistics stay
those of the whole batch. On several hosts every process calls `jax.distributed.
initialize` first and then does the same with the same values; each puts only its own
rows on its devices, for a schedule is a pure function of the step.
"""

import dataclasses
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_unlearn import _validate
from jax_unlearn.drivers.stacking import is_key, on_words
from jax_unlearn.errors import InputError
from jax_unlearn.types import Array, Batch, PyTree, UnlearnBatch

__all__ = ["Choice", "Rules", "StepInPlace", "automatic", "decoder_rules", "fetch"]
__all__ += ["fully_sharded", "in_place", "placed", "shard", "shardings", "spread"]

Choice = Callable[[Any, Mesh], PartitionSpec]
"""`(leaf with shape and dtype, mesh) -> PartitionSpec`: a rule that looks at shapes."""

Rules = Sequence[tuple[str, PartitionSpec | Choice]]
"""`(pattern, spec)`, the first whose pattern is found in a leaf's path decides.

Paths are joined by slashes, `params/head/kernel`. Moments of an optimizer end as their
parameter does (`opt_state/0/trace/head/kernel`), so `head/kernel$` places both.
"""


def shardings(tree: PyTree, mesh: Mesh, rules: Rules = ()) -> PyTree:
    """Return where each leaf of a tree goes: by the first rule that matches its path.

    A leaf that no rule matches has a whole copy on every device. The tree is of arrays,
    or of what `jax.eval_shape` returns: the result, a pytree of `NamedSharding`, makes
    a state that no single device could hold, as `out_shardings` of `unlearner.init`.

    Raises:
      InputError: a rule names an axis that the mesh lacks, has more entries than a leaf
        has dimensions, or does not divide one of them.

    >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    >>> tree = {"head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
    >>> found = shardings(tree, mesh, [("kernel$", PartitionSpec("data"))])
    >>> tuple(found["head"]["kernel"].spec), tuple(found["head"]["bias"].spec)
    (('data',), ())
    """
    mesh = automatic(mesh)

    def place(path, leaf) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = next((s for p, s in rules if re.search(p, name)), PartitionSpec())
        if not isinstance(spec, PartitionSpec):
            spec = spec(leaf, mesh)
        _check_spec(name, np.shape(leaf), spec, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def fully_sharded(
    *, axis: str | tuple[str, ...] = "data", min_size: int = 2**12
) -> Rules:
    """Return the rule that parts every big parameter over an axis (FSDP, ZeRO-3).

    Of each array of two or more dimensions and at least `min_size` elements the largest
    one that the axis (or several together) divides is parted, with its moments and
    teachers; vectors and small arrays stay whole. Rules of your own go before it:
    `[("head", PartitionSpec()), *fully_sharded()]`.

    Source: our choice; after ZeRO, arXiv 1910.02054.

    >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    >>> tree = {"kernel": jnp.ones((3, 3, 8, 16)), "scale": jnp.ones(16)}
    >>> found = shardings(tree, mesh, fully_sharded(min_size=64))
    >>> tuple(found["kernel"].spec), tuple(found["scale"].spec)
    ((None, None, None, 'data'), ())
    """

    def choose(leaf, mesh: Mesh) -> PartitionSpec:
        shape = np.shape(leaf)
        if len(shape) < 2 or math.prod(shape) < min_size:
            return PartitionSpec()
        parts = _parts(axis, mesh)
        fits = [(size, place) for place, size in enumerate(shape) if size % parts == 0]
        if not fits:
            return PartitionSpec()
        return PartitionSpec(*[None] * max(fits)[1], axis)

    return (("", choose),)


def decoder_rules(*, tensor: str | None = "tensor", data: str | None = None) -> Rules:
    """Return the rules that part a `ju.zoo.Decoder` over an axis of tensors, and FSDP.

    Over `tensor` go heads, the features of the MLP and the vocabulary, so that a block
    sums over devices twice; over `data`, if given, the other dimension of each matrix
    (FSDP). An axis that does not divide a dimension leaves it whole, and so do the
    vectors. Moments, masters and teachers go as their parameters. A model of a billion
    weights needs no rules: a copy on each device is faster.

    Source: Shoeybi et al., arXiv 1909.08053; our choice of what FSDP parts.

    >>> mesh = jax.make_mesh((1,), ("tensor",), devices=jax.devices()[:1])
    >>> tree = {
    ...     "up": {"kernel": jnp.ones((4, 8))},
    ...     "down": {"kernel": jnp.ones((8, 4))},
    ... }
    >>> found = shardings(tree, mesh, decoder_rules())
    >>> tuple(found["up"]["kernel"].spec), tuple(found["down"]["kernel"].spec)
    ((None, 'tensor'), ('tensor', None))
    """

    def parted(*axes: str | None) -> Choice:
        def choose(leaf, mesh: Mesh) -> PartitionSpec:
            pairs = zip(axes, np.shape(leaf), strict=True)
            return PartitionSpec(
                *(a if a and size % _parts(a, mesh) == 0 else None for a, size in pairs)
            )

        return choose

    return (
        ("(query|key|value|gate|up|head)/kernel$", parted(data, tensor)),
        ("(out|down)/kernel$", parted(tensor, data)),
        ("embedding/embedding$", parted(tensor, data)),
        ("positions/embedding$", parted(None, data)),
    )


def shard(tree: PyTree, mesh: Mesh, rules: Rules = ()) -> PyTree:
    """Put a state, or any pytree of arrays, on the devices of a mesh.

    `ju.run` keeps it there: every step returns its state as it was placed. Arguments
    are as in `shardings`; without rules each device gets a whole copy (data
    parallelism). In several processes the mesh spans the devices of all, and each
    gives the same values.

    Raises:
      InputError: as `shardings`; processes whose values differ.

    >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    >>> shard({"w": jnp.ones(2)}, mesh)["w"].sharding.is_fully_replicated
    True
    """
    places = shardings(tree, mesh, rules)
    _check_same(tree)
    return jax.tree.map(_put, tree, places)


def spread(
    batches: Iterable[UnlearnBatch],
    mesh: Mesh,
    *,
    axis: str | tuple[str, ...] = "data",
    uneven: str = "refuse",
) -> Iterator[UnlearnBatch]:
    """Place batch after batch, for `ju.run`, its samples parted over an axis of a mesh.

    The batches, a `ju.data` schedule or any iterable, are whole and the same in each
    process. To go on at step t, give `schedule.from_step(t)`. Batches whose size the
    axis (or several together) does not divide are refused, or with `uneven="pad"`
    filled up with copies of their first samples, masked out: losses, weights and
    gradients leave those out; BatchNorm in train mode sees them, and the result then
    differs from that of one device.

    Raises:
      InputError: an axis that the mesh lacks, unknown `uneven`; an uneven batch, when
        it is its turn.

    >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    >>> batch = UnlearnBatch(Batch(np.ones((4, 2), np.float32), np.zeros(4, np.int32)))
    >>> tuple(next(spread([batch], mesh)).forget.inputs.sharding.spec)
    ('data',)
    """
    parts = _parts(axis, mesh)
    _validate.choice("uneven", uneven, "refuse", "pad")
    place = NamedSharding(automatic(mesh), PartitionSpec(axis))

    def placed(name: str, batch: Batch) -> Batch:
        size = batch.labels.shape[0]
        if size % parts and uneven == "refuse":
            raise InputError(
                f"{name} batch of {size} samples on {parts} devices of axis {axis!r}: "
                "give a multiple, or uneven='pad' for a network without BatchNorm"
            )
        padded = _padded(batch, -size % parts)
        return jax.tree.map(lambda leaf: _put(leaf, place), padded)

    def placing() -> Iterator[UnlearnBatch]:
        last: dict[str, tuple[Batch, Batch]] = {}  # a reference set comes every step
        for batch in batches:
            parts = {k: part for k, part in batch._asdict().items() if part is not None}
            for name, part in parts.items():
                if name not in last or last[name][0] is not part:
                    last[name] = part, placed(name, part)
            yield UnlearnBatch(**{name: last[name][1] for name in parts})

    return placing()


def automatic(mesh: Mesh) -> Mesh:
    """Return the mesh with axes of which the compiler takes care, not the step.

    Those of `jax.make_mesh` are explicit, part of an array's type in every operation;
    all functions here and `ju.run_ensemble` take either.

    >>> mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    >>> automatic(mesh) == Mesh(mesh.devices, mesh.axis_names)
    True
    """
    return Mesh(mesh.devices, mesh.axis_names)


def fetch(tree: PyTree) -> PyTree:
    """Return a tree on the host, whole, even if its arrays span several processes.

    Every process must call it, with the same tree: parts are sent round. Arrays become
    those of NumPy; random keys stay keys.

    >>> fetch({"w": jnp.ones(2)})
    {'w': array([1., 1.], dtype=float32)}
    """

    def whole(leaf):
        local = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
        if local or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(lambda leaf: on_words(whole, leaf), tree)


def placed(leaf: Any, like: Any) -> Array:
    """Put an array, or a random key, that was read from a file where another lies.

    That is on its mesh; or on no device in particular, if the other is on none.

    >>> placed(np.ones(2, np.float32), jnp.zeros(2)).committed
    False
    """
    if getattr(like, "committed", False):
        return _put(leaf, like.sharding)
    # What orbax returns is bound to one device.
    return on_words(lambda words: jnp.array(np.asarray(words)), leaf)


@dataclasses.dataclass(frozen=True)
class StepInPlace:
    """A step whose new state is placed as the old one was; equal if its parts are.

    `places` has one entry a leaf of the state, None where the compiler may choose.
    """

    step: Callable
    places: tuple[NamedSharding | None, ...]

    def __call__(self, state, batch, key):
        """Return (state, info) of the step."""
        new, info = self.step(state, batch, key)
        leaves, structure = jax.tree.flatten(new)
        kept = [
            leaf if place is None else jax.lax.with_sharding_constraint(leaf, place)
            for leaf, place in zip(leaves, self.places, strict=True)
        ]
        return structure.unflatten(kept), info


def in_place(step: Callable, state: PyTree) -> Callable:
    """Return the step that keeps a state where `shard` put it; `ju.run` applies it.

    Without it the compiler may return a parted parameter whole, or the reverse. For a
    state on a single device the step comes back itself.

    >>> step = lambda state, batch, key: (state, None)
    >>> in_place(step, jnp.ones(2)) is step
    True
    """
    all_places = [getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(state)]
    places = tuple(
        place if isinstance(place, NamedSharding) and place.num_devices > 1 else None
        for place in all_places
    )
    return StepInPlace(step, places) if any(places) else step


def _check_spec(name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh):
    told = f"{spec} for {name} of shape {shape} on the mesh {dict(mesh.shape)}"
    if len(spec) > len(shape):
        raise InputError(f"{told} has more entries than dimensions; shorten the rule")
    for size, axis in zip(shape, spec, strict=False):
        if axis is not None and size % _parts(axis, mesh):
            raise InputError(
                f"{told} does not divide {size} by {_parts(axis, mesh)}; change the "
                "rule, or put one for this path before it"
            )


def _parts(axis: str | tuple[str, ...], mesh: Mesh) -> int:
    """Return over how many devices an axis parts an array."""
    names = (axis,) if isinstance(axis, str) else tuple(axis)
    for name in names:
        if name not in mesh.shape:
            raise InputError(
                f"axis {name!r} is none of the mesh's {mesh.axis_names}; name one of "
                "them"
            )
    return math.prod(mesh.shape[name] for name in names)


def _padded(batch: Batch, extra: int) -> Batch:
    """Return the batch with `extra` masked copies of its samples at the end."""
    if not extra:
        return batch
    size = batch.labels.shape[0]
    rows = np.arange(size + extra) % size
    real = np.arange(size + extra) < size
    if batch.mask is not None:
        real = real & np.asarray(batch.mask)[rows]
    filled = jax.tree.map(lambda leaf: leaf[rows], batch._replace(mask=None))
    return filled._replace(mask=real)


def _put(leaf, place: jax.sharding.Sharding):
    """Place one array; a process puts only the parts its own devices hold."""
    spans = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    if place.is_fully_addressable or spans:
        return jax.device_put(leaf, place)

    def from_host(words):
        host = np.asarray(words)
        return jax.make_array_from_callback(host.shape, place, lambda part: host[part])

    return on_words(from_host, leaf)


def _check_same(tree: PyTree) -> None:
    """Refuse values that differ from process to process."""
    if jax.process_count() == 1:
        return
    pairs = [
        (path, np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    ]
    sums = np.array([zlib.crc32(words.tobytes()) for _, words in pairs], np.uint32)
    everywhere = multihost_utils.process_allgather(sums)
    for place, (path, _) in enumerate(pairs):
        if len(set(everywhere[:, place].tolist())) > 1:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"{name} differs from process to process; make the state of the same "
                "seed and data in each"
            )
