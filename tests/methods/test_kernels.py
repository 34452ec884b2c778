"""CT and MSG: what they do to kernels, in numpy, and to a network with convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import three_digits

from jax_unlearn.errors import InputError
from jax_unlearn.lab import Request, Training, Unlearning
from jax_unlearn.lab.job import Trained, execute
from jax_unlearn.lab.prepare import Preparer
from jax_unlearn.lab.subject import subject_of
from jax_unlearn.methods import insensitive, reinitialised, slowed, transposed_kernels

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 2, 4)).astype(np.float32)
PARAMS = {"conv": KERNEL, "dense": KERNEL[0, 0], "bias": KERNEL[0, 0, 0]}


def test_kernels_are_transposed_and_nothing_else():
    found = transposed_kernels(
        {**PARAMS, "one": np.ones((1, 1, 2, 2)), "n": np.int32(3)}
    )
    for h in range(3):
        for w in range(3):
            np.testing.assert_array_equal(found["conv"][h, w], KERNEL[w, h])
    np.testing.assert_array_equal(found["dense"], PARAMS["dense"])
    np.testing.assert_array_equal(found["bias"], PARAMS["bias"])
    assert found["n"] == 3
    twice = transposed_kernels(found)
    np.testing.assert_array_equal(twice["conv"], KERNEL)


def test_networks_without_kernels_are_refused():
    with pytest.raises(InputError, match="none above 1 x 1"):
        transposed_kernels({"w": np.ones((3, 3))})
    with pytest.raises(InputError, match="no kernel|has none"):
        insensitive({"w": np.ones(3)}, share=0.3)
    with pytest.raises(InputError, match="share=1.0"):
        insensitive(PARAMS, share=1.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_the_least_sensitive_weights_of_each_convolution(share):
    mask = insensitive(PARAMS, share=share)
    count = int(share * KERNEL.size)
    assert int(mask["conv"].sum()) == count
    assert not mask["dense"].any()  # there are convolutions
    assert not mask["bias"].any()
    sizes = np.abs(KERNEL)[np.asarray(mask["conv"])]
    rest = np.abs(KERNEL)[~np.asarray(mask["conv"])]
    assert not count or sizes.max() <= rest.min()
    dense = insensitive({"dense": PARAMS["dense"], "bias": PARAMS["bias"]}, share=share)
    assert int(dense["dense"].sum()) == int(share * 8)


def test_new_weights_have_kaimings_spread_by_fan_out():
    big = {"k": np.ones((3, 3, 20, 50), np.float32), "b": np.ones(7, np.float32)}
    mask = {"k": RNG.random(big["k"].shape) < 0.5, "b": np.zeros(7, bool)}
    found = reinitialised(big, mask, jax.random.key(0))
    new = np.asarray(found["k"])[mask["k"]]
    assert np.std(new) == pytest.approx(np.sqrt(2 / (3 * 3 * 50)), rel=0.05)
    assert abs(new.mean()) < 0.01
    assert (np.asarray(found["k"])[~mask["k"]] == 1).all()
    np.testing.assert_array_equal(found["b"], big["b"])
    other = reinitialised(big, mask, jax.random.key(1))
    assert np.abs(other["k"] - found["k"]).max() > 0.01


def test_the_slowed_step_in_float64():
    mask = {"w": RNG.random((4, 3)) < 0.4}
    w, grads = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 4, 3))
    optimizer = optax.chain(slowed(mask, 0.1), optax.sgd(0.5, momentum=0.9))
    params = {"w": jnp.float32(w)}
    state, velocity = optimizer.init(params), np.zeros_like(w)
    for grad in grads:
        updates, state = optimizer.update({"w": jnp.float32(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        velocity = 0.9 * velocity + grad * np.where(mask["w"], 1.0, 0.1)
        w = w - 0.5 * velocity
    np.testing.assert_allclose(params["w"], w, rtol=1e-5, atol=1e-6)


DATA = three_digits(90, 30)
IDS = np.arange(len(DATA.train.labels))
REQUEST = Request(IDS[:20], IDS[20:80], IDS[80:])


@pytest.fixture(scope="module")
def world():
    training = Training(network="small_cnn", width=4, epochs=1, batch_size=20)
    subject = subject_of(training, DATA)
    params, state = jax.jit(subject.model.init)(
        jax.random.key(0), subject.examples.inputs[:2]
    )
    return subject, Trained(params, state, {})


def leaves(params):
    return {jax.tree_util.keystr(k): v for k, v in jax.tree.leaves_with_path(params)}


def test_they_start_from_damaged_kernels_and_train_on_the_retain_set(world):
    subject, original = world
    made = Preparer(subject)
    for method, share in (("ct", None), ("msg", 0.3)):
        setting = Unlearning.of(method=method, epochs=1, batch_size=20)
        job = made(setting, REQUEST, original, seed=0, origin=None)
        before, start = leaves(original.params), leaves(job.start[0])
        for name, leaf in before.items():
            changed = np.mean(np.asarray(leaf) != np.asarray(start[name]))
            if leaf.ndim < 4:
                assert changed == 0
            elif share is not None:
                assert changed == pytest.approx(share, abs=1 / leaf.size + 1e-6)
            elif leaf.shape[0] > 1:
                assert changed > 0.5
        ids = {int(i) for b in job.schedule for i in b.retain.index[b.retain.mask]}
        assert ids == set(REQUEST.retain.tolist())
        assert all(batch.forget is None for batch in job.schedule)
        found = execute(job, original, jax.random.key(0))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.params))
    with pytest.raises(InputError, match="no such option"):
        Unlearning.of(method="ct", renewed=0.4)


def test_ct_refuses_a_network_without_convolutions():
    subject = subject_of(Training(network="linear"), DATA)
    params, state = jax.jit(subject.model.init)(
        jax.random.key(0), subject.examples.inputs[:2]
    )
    original = Trained(params, state, {})
    with pytest.raises(InputError, match="take another method"):
        Preparer(subject)(Unlearning.of(method="ct"), REQUEST, original, seed=0)
