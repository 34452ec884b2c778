"""Small networks, data and float64 comparisons shared by the tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jax_unlearn as ju
from jax_unlearn.data import Dataset, Examples, digits

MOMENTUM = 0.9


def close(actual, expected, *, scale=1.0):
    """Compare float32 with float64 to 1e-6.

    The error is relative to the value or to `scale`, the size of the largest number
    the computation passes through (a loss of 1e-3 from logits of size 10 carries the
    rounding of the logits: 10 times 6e-8).
    """
    assert np.all(np.isfinite(np.asarray(actual, np.float64)))
    np.testing.assert_allclose(
        np.asarray(actual, np.float64), expected, rtol=1e-6, atol=1e-6 * scale
    )


def trees_close(actual, expected, *, rtol=1e-6, atol=1e-7):
    """Compare pytrees of the same structure leaf by leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=atol
        )


def three_digits(train: int, test: int) -> Dataset:
    """Return the first images of 0, 1 and 2, of a name and classes of their own."""

    def some(part, count):
        keep = np.flatnonzero(part.labels < 3)[:count]
        return Examples(part.inputs[keep], part.labels[keep])

    full = digits()
    parts = some(full.train, train), some(full.test, test)
    return Dataset("three", *parts, 3, ("a", "b", "c"))


def small_plan(**changes):
    """Return the plan of a small experiment: random requests on two seeds."""
    from jax_unlearn.lab import Plan, Training

    usual = {
        "title": "small",
        "kind": "random",
        "fraction": 0.2,
        "gamma": 1.0,
        "unseen": 20,
        "training": Training(network="mlp", width=8, epochs=1),
        "methods": {},
        "seeds": (0, 1),
    }
    return Plan(**{**usual, **changes})


def forms(tree):
    """Return what a compiled program is keyed on."""
    leaves, structure = jax.tree.flatten(tree)
    weak = [getattr(leaf, "weak_type", False) for leaf in leaves]  # keys have none
    return structure, [(x.shape, x.dtype) for x in leaves], weak


def softmax64(logits):
    """Return the softmax in float64."""
    logits = np.asarray(logits, np.float64)
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def relaxed(optimizer):
    """Let optax promote dtypes: its Adam computes float ** int."""

    def update(grads, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return optimizer.update(grads, state, params)

    return optax.GradientTransformation(optimizer.init, update)


def moved(tree, scale=0.1, seed=0):
    """Return parameters with noise added on the host: nothing is compiled."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(
            leaf + scale * rng.normal(size=leaf.shape), leaf.dtype
        ),
        jax.device_get(tree),
    )


def size_of(tree):
    """Return the norm of a tree, in float64 on the host."""
    return sum(np.sum(np.float64(leaf) ** 2) for leaf in jax.tree.leaves(tree)) ** 0.5


def apart(tree, other):
    """Return the norm of the difference of two trees, in float64 on the host."""
    return size_of(
        jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), tree, other)
    )


@functools.cache
def mlp(width=16, classes=3):
    """Return a plain network of one hidden layer, without state."""

    @jax.jit
    def init(key, inputs):
        first, second = jax.random.split(key)
        features = inputs.shape[-1]
        return {
            "w": jax.random.normal(first, (features, width)) / features**0.5,
            "b": jnp.zeros(width),
            "v": jax.random.normal(second, (width, classes)) / width**0.5,
        }

    def apply(params, inputs):
        hidden = jnp.tanh(inputs @ params["w"] + params["b"][None])
        return hidden @ params["v"]

    return ju.from_stateless(init, apply)


@functools.cache
def batchnorm_net(classes=3, width=4):
    """Return a plain network: linear, BatchNorm (momentum 0.9), ReLU, linear."""

    @jax.jit
    def init(key, inputs):
        first, second = jax.random.split(key)
        features = inputs.shape[-1]
        params = {
            "w": jax.random.normal(first, (features, width)) / features**0.5,
            "scale": jnp.ones(width),
            "v": jax.random.normal(second, (width, classes)) / width**0.5,
        }
        return params, {"mean": jnp.zeros(width), "var": jnp.ones(width)}

    def apply(params, model_state, inputs, *, train, key=None):
        del key
        hidden = inputs @ params["w"]
        used = model_state
        if train:
            used = {"mean": jnp.mean(hidden, 0), "var": jnp.var(hidden, 0)}
            model_state = jax.tree.map(
                lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new,
                model_state,
                jax.lax.stop_gradient(used),
            )
        spread = jnp.sqrt(used["var"] + 1e-3)
        normal = (hidden - used["mean"][None]) / spread[None] * params["scale"][None]
        return jax.nn.relu(normal) @ params["v"], model_state

    return ju.Model(init, apply)


def next_statistics(state, params, inputs):
    """Return what `batchnorm_net` must carry after a train pass, in float64."""
    hidden = np.asarray(inputs, np.float64) @ np.asarray(params["w"], np.float64)
    fresh = {"mean": hidden.mean(0), "var": hidden.var(0)}
    return {
        name: MOMENTUM * np.asarray(state[name], np.float64)
        + (1 - MOMENTUM) * fresh[name]
        for name in state
    }


def batch(seed, size, *, features=4, classes=3, first_index=0, mask=None):
    """Return a random labelled batch."""
    rng = np.random.default_rng(seed)
    return ju.Batch(
        jnp.asarray(rng.normal(size=(size, features)), jnp.float32),
        jnp.asarray(rng.integers(0, classes, size), jnp.int32),
        jnp.asarray(np.arange(first_index, first_index + size, dtype=np.int32)),
        None if mask is None else jnp.asarray(mask),
    )


def blobs(seed, per_class, *, classes=3, spread=0.9):
    """Return overlapping Gaussian clouds on a circle: inputs [N, 2], labels [N]."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    angle = 2 * np.pi * labels / classes
    centres = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inputs = centres + spread * rng.normal(size=centres.shape)
    return inputs.astype(np.float32), labels.astype(np.int32)
