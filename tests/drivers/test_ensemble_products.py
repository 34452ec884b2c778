"""Ensembles under vmap on CPUs: large convolutions are products with patches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from toys import trees_close

import jax_unlearn as ju
from jax_unlearn.drivers import ensemble
from jax_unlearn.drivers.ensemble import run_ensemble, stack
from jax_unlearn.zoo import convolution

KEYS = jax.random.split(jax.random.key(7), 2)


@pytest.fixture(scope="module")
def convolutional():
    """Return method, states and batches of networks that convolve."""
    model = ju.from_nnx(lambda rngs: ju.zoo.SmallCNN(3, width=2, rngs=rngs))
    alg = ju.methods.finetune(model, optax.sgd(0.1))
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 5, 1))
    starts = [alg.init(*model.init(jax.random.key(i), x[i])) for i in range(2)]
    labels = jnp.arange(4, dtype=jnp.int32) % 3
    steps = [[ju.UnlearnBatch(None, ju.Batch(own, labels))] for own in x]
    return alg, stack(starts), steps


@pytest.mark.parametrize("choice", ["rule", "xla"])
def test_under_vmap_large_convolutions_are_products(convolutional, choice, monkeypatch):
    monkeypatch.setattr(convolution, "LEAST", 0)
    alg, states, steps = convolutional
    with ju.programs.using(choice):
        way = ensemble._way(alg, "vmap", None)
        given = states, stack([each[0] for each in steps]), KEYS
        program = ensemble._step.lower(way, *given).as_text()
        assert ("stablehlo.convolution" in program) == (choice == "xla")


def test_products_give_each_model_what_it_gets_alone(convolutional, monkeypatch):
    monkeypatch.setattr(convolution, "LEAST", 0)
    alg, states, steps = convolutional
    devices = Mesh(np.array(jax.devices()[:2]), ("ensemble",))
    expected = run_ensemble(alg, states, steps, KEYS, how="loop")
    done = run_ensemble(alg, states, steps, KEYS, how="vmap", mesh=devices)
    trees_close(done, expected, rtol=1e-4, atol=1e-5)
