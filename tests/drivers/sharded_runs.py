"""Runs that test_sharding.py and its second process make alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from toys import batch, batchnorm_net

import jax_unlearn as ju

STEPS, SIZE = 3, 8
KEY = jax.random.key(7)
MODEL = batchnorm_net(width=16)


def host(tree):
    """Return a tree of numpy arrays."""
    return jax.tree.map(np.asarray, tree)


INPUTS = np.asarray(batch(50, 7).inputs)
UNSEEN = host(batch(60, 16))


METHODS = {
    name: ju.methods.random_label(
        MODEL,
        optax.sgd(0.1, momentum=0.9),
        num_classes=3,
        weighting=weighting,  # looks at the whole batch
        forward=forward,
    )
    for name, weighting, forward in (
        ("loreun", ju.weights.loreun(temperature=0.5), "separate"),
        ("falw", ju.weights.falw(jnp.array([4, 3, 1])), "merged"),
    )
}


def batches():
    """Return the steps, on the host: forget, retain, the whole unseen set."""
    return [
        ju.UnlearnBatch(host(batch(s, SIZE)), host(batch(s + 9, 2 * SIZE)), UNSEEN)
        for s in range(STEPS)
    ]


def start(name):
    """Return the state before the run."""
    params = MODEL.init(jax.random.key(1), jnp.zeros((1, 4)))
    return METHODS[name].init(*params)


def finished(name, mesh=None, rules=(), *, steps=STEPS, **options):
    """Return the state after the run, on a mesh or on one device."""
    state, steps = start(name), batches()[:steps]
    if mesh is not None:
        state = ju.sharding.shard(state, mesh, rules)
        steps = ju.sharding.spread(steps, mesh)
    return ju.run(METHODS[name], state, steps, KEY, **options)


def plain(tree):
    """Return the leaves, random keys as numbers."""
    return [
        jax.random.key_data(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
        for leaf in jax.tree.leaves(tree)
    ]
