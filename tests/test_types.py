"""The nouns pass through transformations, and errors say what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from toys import batch

import jax_unlearn as ju
from jax_unlearn.errors import unknown_name
from jax_unlearn.types import copied


def test_batches_are_pytrees_and_none_is_structure():
    full = ju.UnlearnBatch(forget=batch(0, 3), retain=batch(1, 5))
    doubled = jax.jit(lambda b: jax.tree.map(lambda leaf: leaf * 2, b))(full)
    assert isinstance(doubled, ju.UnlearnBatch)
    assert isinstance(doubled.forget, ju.Batch)
    assert doubled.reference is None
    assert doubled.forget.mask is None
    assert jnp.array_equal(doubled.retain.labels, 2 * full.retain.labels)
    only = ju.UnlearnBatch(forget=batch(0, 3))
    assert jax.tree.structure(only) != jax.tree.structure(full)


def test_copies_share_no_memory_and_stay_where_they_are():
    mesh = jax.make_mesh((8,), ("data",))
    alone = {"w": jnp.asarray(np.ones((8, 2), np.float32)), "key": jax.random.key(1)}
    everywhere = jax.device_put(alone, NamedSharding(mesh, PartitionSpec()))
    parted = jax.device_put(alone["w"], NamedSharding(mesh, PartitionSpec("data")))
    tree = [alone, everywhere, parted]
    made = copied(tree)
    for leaf, own in zip(jax.tree.leaves(tree), jax.tree.leaves(made), strict=True):
        assert (own == leaf).all()
        assert own.sharding == leaf.sharding
        own.delete()  # as a step does that its state is donated to
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(tree))


def test_errors_are_what_callers_catch():
    assert issubclass(ju.InputError, ValueError)
    assert issubclass(ju.NonFiniteError, ArithmeticError)
    assert ju.NonFiniteError("loss", 7).step == 7


@pytest.mark.parametrize(
    ("name", "near"), [("salum", "'salun'"), ("zzz", "known: finetune, salun")]
)
def test_unknown_name_suggests(name, near):
    message = str(unknown_name("method", name, ["salun", "finetune"]))
    assert repr(name) in message
    assert near in message
    assert ("did you mean" in message) == (name == "salum")
    assert "\n" not in message


def test_unknown_name_among_many_is_still_one_readable_line():
    many = [f"method-{i}" for i in range(40)]
    near, far = (str(unknown_name("method", n, many)) for n in ("metod-7", "zzz"))
    assert "'method-7'" in near
    assert "40 are known" in near
    assert len(near) < 100
    assert "known: method-0, " in far
    assert "method-39" in far
