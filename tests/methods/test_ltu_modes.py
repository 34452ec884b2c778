"""LTU in train and eval mode of BatchNorm, and its bad input."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ltu_made import (
    ATTACKS,
    BOTH,
    CLASSES,
    KEY,
    PAIR,
    PARAMS,
    RATE,
    check_losses,
    distance,
    flat,
    losses_of,
    make,
    moved,
    seeing,
)
from toys import batch, batchnorm_net, forms, next_statistics, trees_close

import jax_unlearn as ju
from jax_unlearn.errors import InputError

# --- BatchNorm -----------------------------------------------------------------------

PLAIN = batchnorm_net(CLASSES)


def counting_init(key, inputs):
    params, state = PLAIN.init(key, inputs)
    return params, {"norm": state, "passes": jnp.int32(3)}


def counting_apply(params, model_state, inputs, *, train, key=None):
    outputs, norm = PLAIN.apply(params, model_state["norm"], inputs, train=train)
    return outputs, {"norm": norm, "passes": model_state["passes"] + int(train)}


NET = ju.Model(counting_init, counting_apply)  # what has no mean: an integer
NET_PARAMS, NET_STATE = jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 4)))
NET_STATE["norm"] = {"mean": jnp.full(4, 0.25), "var": jnp.full(4, 1.5)}
FULL = ju.UnlearnBatch(batch(0, 6), batch(1, 8, first_index=6))


@functools.cache
def in_train_mode():
    """Return a start and a compiled step of "sequential", with the info of "retain"."""
    options = {
        "model": NET,
        "attacks": PAIR,
        "weighting": None,
        "inner": optax.sgd(RATE),
        "inner_steps": 2,
        "first_order": True,
    }
    alg, step = seeing(ju.harmonize.add(), model_state="sequential", **options)
    other = make(model_state="retain", **options)  # the same passes in one program

    @jax.jit
    def both(state):
        return step(state, FULL, KEY), other.step(state, FULL, KEY)

    return alg.init(NET_PARAMS, NET_STATE), both


def check_statistics(state, passes):
    """Compare with the mean of the states that passes over (params, inputs) make."""
    states = [next_statistics(NET_STATE["norm"], *one) for one in passes]
    for name in ("mean", "var"):
        wanted = np.mean([one[name] for one in states], axis=0)
        np.testing.assert_allclose(state.model_state["norm"][name], wanted, rtol=1e-5)
    assert state.model_state["passes"] == 4


@functools.cache
def of_train_mode():
    """Return support, queries and the parameters after the virtual steps."""
    support, queries = losses_of(NET, NET_STATE, FULL, train=True)
    return support, queries, moved(support, NET_PARAMS, rate=RATE, steps=2)


def test_train_mode_takes_the_mean_of_the_statistics():
    start, step = in_train_mode()
    (sequential, info, *_), (retain, told) = step(start)
    support, queries, virtual = of_train_mode()
    check_losses(info, support, queries, NET_PARAMS, virtual)
    check_losses(told, support, queries, NET_PARAMS, virtual)
    passes = [(virtual, inputs) for inputs in jnp.split(FULL.retain.inputs, 2)]
    check_statistics(retain, passes)
    check_statistics(sequential, [(NET_PARAMS, FULL.forget.inputs), *passes])


def test_first_order_takes_the_virtual_steps_for_constants():
    start, step = in_train_mode()
    (_, _, _, g_retain), _ = step(start)
    support, queries, virtual = of_train_mode()

    @jax.jit
    def by_hand(virtual):
        query = jax.grad(queries)(virtual)
        slope, bent = jax.jvp(jax.grad(support), (NET_PARAMS,), (query,))
        return optax.tree.add(slope, query), bent

    wanted, bent = map(flat, by_hand(virtual))
    assert distance(g_retain, wanted) < 1e-5
    # what second order adds for one step
    assert RATE * np.linalg.norm(bent) > 0.05 * np.linalg.norm(wanted)


def test_attacks_look_at_the_model_in_use():
    start, step = in_train_mode()
    used = {**NET_STATE, "norm": {"mean": jnp.full(4, -0.5), "var": jnp.full(4, 4.0)}}
    (_, info, g_forget, g_retain), _ = step(start)
    (_, told, g_changed, g_same), _ = step(start._replace(model_state=used))
    assert distance(g_changed, flat(g_forget)) > 0.1
    # g_r is normalised with the statistics of its batches, whatever the state
    trees_close(g_same, g_retain, rtol=0, atol=0)
    assert told.retain_loss == info.retain_loss


# --- bad input -----------------------------------------------------------------------


def refusal(message):
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"attacks": ATTACKS[:1]},
            "attacks=['logistic']: give 2 or more membership models, each with its own "
            "name, such as membership.default_attacks()",
        ),
        (
            {"attacks": ()},
            "attacks=[]: give 2 or more membership models, each with its own name, "
            "such as membership.default_attacks()",
        ),
        (
            {"attacks": (*ATTACKS, ATTACKS[0])},
            "attacks=['logistic', 'softmax_mlp', 'gaussian_ratio', 'logistic']: give 2 "
            "or more membership models, each with its own name, such as "
            "membership.default_attacks()",
        ),
        (
            {"attacks": (*ATTACKS, ATTACKS[0]._replace(name="second"))},
            "attack_params lacks 'second': pass what membership.train_attacks returned "
            "for these attacks",
        ),
        ({"queries": 0}, "queries=0 must be at least 1"),
        (
            {"model_state": "none"},
            "model_state='none': choose 'sequential', 'retain' or 'frozen'",
        ),
    ],
)
def test_bad_options(options, message):
    with refusal(message):
        make(**options)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            BOTH._replace(retain=batch(1, 5)),
            "5 retain samples in the batch are not queries=2 equal parts; use "
            "ju.data.queried with as many strategies",
        ),
        (
            BOTH._replace(forget=None),
            "ltu reads a forget and a retain batch each step; use ju.data.queried",
        ),
        (
            BOTH._replace(retain=None),
            "ltu reads a forget and a retain batch each step; use ju.data.queried",
        ),
        (
            BOTH._replace(forget=batch(1, 2)),
            "2 forget samples in the batch, 3 attacks: each needs one to look at; "
            "enlarge the batch",
        ),
    ],
)
def test_bad_batches(batches, message):
    alg = make(weighting=None)
    with refusal(message):
        alg.step(alg.init(PARAMS, ()), batches, KEY)


def test_fixed_labels_need_ids():
    unnamed = BOTH._replace(forget=BOTH.forget._replace(index=None))
    alg, redrawn = make(weighting=None), make(weighting=None, redraw=True)
    with pytest.raises(InputError, match=r"^batch.index=None: fixed random labels"):
        alg.step(alg.init(PARAMS, ()), unnamed, KEY)
    state = redrawn.init(PARAMS, ())
    after, info = jax.eval_shape(redrawn.step, state, unnamed, KEY)
    assert forms(after) == forms(state)
    assert info.index is None
