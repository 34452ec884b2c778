"""The journey of someone with a loop of their own: through files in a fresh folder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from toys import blobs, mlp, trees_close

import jax_unlearn as ju
from jax_unlearn.data import Examples

CLASSES, HALF = 3, 6


@pytest.fixture
def journey(tmp_path, monkeypatch):
    """Return examples and a request read from files, and what the loop is made of."""
    monkeypatch.chdir(tmp_path)
    inputs, labels = blobs(0, 24)
    np.savez("mine.npz", inputs=inputs, labels=labels)
    np.savetxt("delete.csv", [3, 30, 55], fmt="%d")
    with np.load("mine.npz") as file:
        examples = Examples(file["inputs"], file["labels"])
    forget = np.loadtxt("delete.csv", dtype=int)
    retain = np.setdiff1d(np.arange(len(examples.labels)), forget)
    schedule = ju.data.zipped(examples, forget, retain, batch_size=12, epochs=2)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(optax.cosine_decay_schedule(1e-2, 2 * HALF)),
    )
    model = mlp()
    alg = ju.methods.random_label(
        model,
        optax.MultiSteps(optimizer, 2).gradient_transformation(),
        num_classes=CLASSES,
        weighting=ju.weights.loreun(temperature=1.0, normalize="none"),
    )
    alg = ju.averaged(alg, 0.9)
    params, state = model.init(jax.random.key(1), examples.inputs[:2])
    return model, alg, alg.init(params, state), schedule, tmp_path


def looped(alg, state, schedule, key, *, watch=lambda *_: None):
    """Run steps as a user would, with numbers of one's own."""
    step = jax.jit(alg.step, donate_argnums=0)
    state = jax.tree.map(jnp.copy, state)
    for batch in schedule.from_step(int(state.step)):
        one = ju.check_batch(batch, num_classes=CLASSES)
        state, info = step(state, one, jax.random.fold_in(key, int(state.step)))
        watch(int(state.step), state, info)
    return state


def words(tree):
    """Return random keys as integers, as orbax takes them."""
    return jax.tree.map(
        lambda leaf: (
            jax.random.key_data(leaf)
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        ),
        tree,
    )


def restored(tree, like):
    """Undo `words`."""
    return jax.tree.map(
        lambda leaf, old: (
            jax.random.wrap_key_data(leaf)
            if jnp.issubdtype(old.dtype, jax.dtypes.prng_key)
            else leaf
        ),
        tree,
        like,
    )


def test_an_own_loop_is_the_librarys_and_resumes_bit_for_bit(journey):
    model, alg, start, schedule, folder = journey
    key, seen = jax.random.key(7), []

    def watch(step, state, info):
        logits = ju.predict(model, ju.ema_of(state), state.model_state, unseen)
        own = float(np.mean(logits.argmax(1)))
        seen.append((step, float(info.update_norm), float(info.forget_loss), own))
        if step == HALF:
            leaves = jax.tree.leaves(words(state))
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(folder / "half", leaves)

    unseen = np.zeros((5, 2), np.float32)
    with jax.numpy_dtype_promotion("standard"):
        whole = looped(alg, start, schedule, key, watch=watch)
        assert [step for step, *_ in seen] == list(range(1, 2 * HALF + 1))
        moved = [norm > 0 for _, norm, *_ in seen]
        assert moved == [step % 2 == 0 for step, *_ in seen]  # every second one
        assert np.isfinite([row[1:] for row in seen]).all()

        leaves, structure = jax.tree.flatten(words(start))
        form = jax.tree.map(ocp.utils.to_shape_dtype_struct, leaves)
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(folder / "half", form)
        half = restored(structure.unflatten(found), start)
        assert half.step == HALF
        rest = looped(alg, half, schedule, key)
        trees_close(rest, whole, rtol=0, atol=0)

        driven = ju.run(alg, start, schedule, key)
        trees_close(driven, whole, rtol=1e-6, atol=1e-7)


def test_what_goes_wrong_on_the_way_is_told_before_a_step(journey):
    _, alg, start, schedule, _ = journey
    batch = schedule[0]
    wrong = np.array(batch.retain.labels)
    wrong[4] = CLASSES
    worse = batch._replace(retain=batch.retain._replace(labels=wrong))
    with pytest.raises(ju.InputError, match=r"labels\[4\]=3 must be .* 0 to 2"):
        ju.check_batch(worse, num_classes=CLASSES)
    with jax.numpy_dtype_promotion("standard"):
        state, _ = jax.jit(alg.step)(start, worse, jax.random.key(0))
    assert not np.isfinite(state.opt_state.acc_grads["w"]).all()  # nothing silent
