"""Too few samples leave BatchNorm statistics alone, by every way in, and it is said."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import batch, batchnorm_net, trees_close

import jax_unlearn as ju
from jax_unlearn.audit.relearn import relearn_steps
from jax_unlearn.methods.step import FEWEST

KEY, K = jax.random.key(0), 3
NET = batchnorm_net(K)
PARAMS, STATE = NET.init(KEY, jnp.zeros((1, 4)))
MANY = batch(1, 8, first_index=9)
SGD = optax.sgd(0.0)
SAID = "too few for BatchNorm statistics"


def one_of(rows):
    return batch(0, rows)


def one_step(alg, step, params=PARAMS, state=STATE):
    """Take a step, compiled anew: what is said is said while it is traced."""
    return jax.jit(lambda at: alg.step(at, step, KEY)[0])(alg.init(params, state))


def methods(**told):
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    teacher = {"teacher_params": PARAMS, "teacher_state": STATE}
    attacks = [ju.membership.logistic(), ju.membership.gaussian_ratio()]
    learned = {a.name: a.init(KEY, d) for a, d in zip(attacks, (3, 1), strict=True)}
    attacked = {"attacks": attacks, "attack_params": learned}
    relabel = {"num_classes": K}
    return {
        "gradient_ascent": ju.methods.gradient_ascent(NET, SGD, **told),
        "explicitly": ju.methods.gradient_ascent(
            NET, SGD, model_state="sequential", **told
        ),
        "random_label": ju.methods.random_label(NET, SGD, **relabel, **told),
        "scrub": ju.methods.scrub(NET, SGD, **teacher, **told),
        "boundary_shrink": ju.methods.boundary_shrink(
            NET, SGD, labels=jnp.zeros(99, int), **told
        ),
        "boundary_expand": ju.methods.boundary_expand(
            NET, NET, SGD, head_optimizer=SGD, num_classes=K, width=K, **told
        ),
        "sfron": ju.methods.sfron(NET, SGD, mask=mask, steps=9, **told),
        "ltu": ju.methods.ltu(
            NET, SGD, queries=2, model_state="sequential", **relabel, **attacked, **told
        ),
    }


ALGS = methods()


@pytest.mark.parametrize("name", ALGS)
def test_a_small_forget_batch_leaves_the_statistics_alone(name):
    alg, reads = ALGS[name], name in ("sfron", "ltu")
    few = 2 if name == "ltu" else 1
    retain = MANY if reads else None
    step = ju.UnlearnBatch(one_of(few), retain)
    with pytest.warns(UserWarning, match=SAID):
        state = ju.run(alg, alg.init(PARAMS, STATE), [step] * 2, KEY)
    if not reads:
        trees_close(state.model_state, STATE, rtol=0, atol=0)
        return
    with warnings.catch_warnings():  # the retain pass alone takes them
        warnings.simplefilter("ignore")
        other = ju.UnlearnBatch(batch(5, few), MANY)
        expected = ju.run(alg, alg.init(PARAMS, STATE), [other] * 2, KEY)
    # after LTU's virtual step, which the forget samples differ in
    trees_close(state.model_state, expected.model_state, rtol=0, atol=5e-4)
    assert np.abs(state.model_state["mean"]).max() > 0


@pytest.mark.parametrize("rows", range(1, FEWEST + 2))
def test_the_size_below_which_it_is_so(rows):
    alg = ALGS["gradient_ascent"]
    step = ju.UnlearnBatch(one_of(rows))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        state = one_step(alg, step)
    moved = float(np.abs(state.model_state["mean"] - STATE["mean"]).max())
    assert (moved > 0) == (rows >= FEWEST) == (not said)


def test_the_gradient_of_a_small_pass_is_that_of_frozen_statistics():
    one = ju.UnlearnBatch(one_of(1))
    told = [{}, {"model_state": "frozen"}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        few, frozen = (
            one_step(ju.methods.gradient_ascent(NET, optax.sgd(0.1), **own), one)
            for own in told
        )
    trees_close(few.params, frozen.params, rtol=1e-6)


def test_they_are_taken_where_asked_and_shared_passes_count_together():
    alg = ju.methods.random_label(NET, SGD, num_classes=K, fewest=0)
    state = one_step(alg, ju.UnlearnBatch(one_of(1)))
    assert np.abs(state.model_state["mean"]).max() > 0
    merged = ju.methods.random_label(NET, SGD, num_classes=K, forward="merged")
    step = ju.UnlearnBatch(one_of(1), MANY)
    state = one_step(merged, step)
    assert np.abs(state.model_state["mean"]).max() > 0


TAKEN = methods(fewest=0)


@pytest.mark.parametrize("name", TAKEN)
def test_every_method_takes_them_where_asked(name):
    reads = name in ("sfron", "ltu")
    step = ju.UnlearnBatch(one_of(2), batch(1, 2) if reads else None)
    alg = TAKEN[name]
    state = one_step(alg, step)  # nor told
    assert np.abs(state.model_state["mean"]).max() > 0


def test_padding_without_ids_is_not_counted_by_ltu():
    few = batch(0, 6, mask=np.arange(6) < 2)._replace(index=None)
    many = few._replace(mask=jnp.ones(6, bool))
    alg = ju.methods.meta_unlearn(
        NET,
        SGD,
        relabel=ju.objectives.ascent(NET),
        remember=ju.objectives.descent(NET),
        audits=[ju.objectives.ascent(NET)._replace(train=False)] * 2,
        queries=1,
        model_state="sequential",
    )
    start, step = alg.init(PARAMS, STATE), jax.jit(alg.step)
    for forget, retain in ((few, few), (many, few), (few, many)):
        state, _ = step(start, ju.UnlearnBatch(forget, retain), KEY)
        moved = float(np.abs(state.model_state["mean"] - STATE["mean"]).max())
        assert (moved > 0) == (forget is many or retain is many)


@pytest.mark.parametrize("ids", [True, False])
def test_padding_counts_where_it_has_ids(ids):
    mask = np.arange(6) < 1
    one = batch(0, 6, mask=mask)
    one = one if ids else one._replace(index=None)
    alg = ALGS["gradient_ascent"]
    state = one_step(alg, ju.UnlearnBatch(one))
    assert (np.abs(state.model_state["mean"]).max() > 0) == ids


def test_relearning_one_sample_keeps_the_statistics():
    with pytest.warns(UserWarning, match=SAID):
        found = relearn_steps(
            NET, PARAMS, STATE, [one_of(1)], SGD, KEY, loss_below=0.0, limit=5
        )
    np.testing.assert_allclose(found.losses, found.losses[0], rtol=1e-6)


def test_networks_without_statistics_are_not_told():
    from toys import mlp

    model = mlp()
    params, state = model.init(KEY, jnp.zeros((1, 4)))
    alg = ju.methods.gradient_ascent(model, SGD)
    one_step(alg, ju.UnlearnBatch(one_of(1)), params, state)
