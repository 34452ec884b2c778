"""An id outside a table is told, under jit too, and never read as another sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, mlp

import jax_unlearn as ju
from jax_unlearn.tables import look_up


def test_rows_are_those_of_plain_indexing_where_the_id_is_known():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(7, 3)).astype(np.float32)
    index = rng.integers(0, 7, 20)
    found = jax.jit(look_up)(jnp.asarray(table), jnp.asarray(index, jnp.int32))
    np.testing.assert_array_equal(found, table[index])


@pytest.mark.parametrize("missing", [7, 8, 2**31 - 1, -1, -7, -8])
@pytest.mark.parametrize("shape", [(7,), (7, 3)])
def test_an_id_outside_is_nan(missing, shape):
    table = jnp.zeros(shape)
    found = jax.jit(look_up)(table, jnp.asarray([missing, 0], jnp.int32))
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()


def test_a_class_outside_makes_the_loss_nan():
    labels = look_up(jnp.zeros(2, jnp.int32), jnp.asarray([2, -1, 1], jnp.int32))
    values = ju.losses.cross_entropy(jnp.zeros((3, 4)), labels)
    assert np.isnan(values).tolist() == [True, True, False]


@functools.cache
def unlearners(model):
    sgd = optax.sgd(0.1)
    scores = jnp.linspace(0.0, 1.0, 12)
    return {
        "loreun_static": ju.methods.gradient_ascent(
            model, sgd, weighting=ju.weights.loreun_static(scores, temperature=1.0)
        ),
        "transport": ju.methods.endpoint_transport(
            model, sgd, targets=jnp.full((12, 3), 1 / 3)
        ),
        "boundary": ju.methods.boundary_shrink(
            model, sgd, labels=jnp.zeros(12, jnp.int32)
        ),
    }


@pytest.mark.parametrize("name", ["loreun_static", "transport", "boundary"])
@pytest.mark.parametrize("scan", [1, 2])
def test_a_run_names_the_step(name, scan):
    model = mlp()
    unlearner = unlearners(model)[name]
    params, _ = model.init(jax.random.key(0), jnp.zeros((1, 4)))
    retain = batch(9, 6) if name == "transport" else None

    def steps(first):
        whole = [
            ju.UnlearnBatch(batch(n, 6, first_index=6 * n), retain) for n in (0, 1)
        ]
        return [*whole, ju.UnlearnBatch(batch(2, 6, first_index=first), retain)]

    def run(batches):
        state = unlearner.init(params, ())
        return ju.run(unlearner, state, batches, jax.random.key(1), scan=scan)

    after = run(steps(6)).params  # ids 6 to 11: the last of the table
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    with pytest.raises(ju.NonFiniteError, match="step 2") as caught:
        run(steps(7))  # ids 7 to 12: there is no 12
    assert caught.value.step == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: ju.weights.by_table(t, temperature=1.0), "scores of shape"),
        (lambda t: ju.weights.loreun_static(t, temperature=1.0), "scores of shape"),
        (lambda t: ju.objectives.transport(mlp(), t), "targets of shape"),
        (lambda t: ju.objectives.fixed_label(mlp(), t), "labels of shape"),
    ],
)
def test_a_table_of_another_shape(make, words):
    with pytest.raises(ju.InputError, match=words):
        make(jnp.zeros((2, 3, 4)))
