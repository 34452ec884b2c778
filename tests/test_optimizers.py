"""What an optimizer of the user's asks of the methods, and is held to."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_contracts import ALGS, BOTH, K, named
from toys import batch, batchnorm_net, mlp, trees_close

import jax_unlearn as ju
from jax_unlearn.optimizers import movable

KEY = jax.random.key(0)
MODEL = mlp()
PARAMS, STATE = MODEL.init(KEY, jnp.zeros((1, 4)))
LABELS = {"w": "body", "b": "body", "v": "head"}
FROZEN = jax.tree.map(lambda label: label == "body", LABELS)
STOP = optax.set_to_zero()


@pytest.fixture(autouse=True)
def promoting():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def head_only(optimizer):
    return optax.multi_transform({"body": STOP, "head": optimizer}, LABELS)


FREEZING = {
    "sgd": head_only(optax.sgd(0.1)),
    "adamw": head_only(optax.adamw(0.1)),
    "rprop": head_only(optax.rprop(0.1)),
    "masked after": optax.chain(optax.sgd(0.1), optax.masked(STOP, FROZEN)),
    "masked before": optax.chain(
        optax.masked(STOP, FROZEN), optax.clip_by_global_norm(1.0), optax.adam(0.1)
    ),
    "if finite": optax.apply_if_finite(head_only(optax.sgd(0.1)), 3),
    "several": optax.MultiSteps(head_only(optax.sgd(0.1)), 2).gradient_transformation(),
    "injected": optax.inject_hyperparams(lambda rate: head_only(optax.sgd(rate)))(0.1),
    "schedule": head_only(optax.sgd(optax.linear_schedule(0.0, 0.1, 9))),
}


@pytest.mark.parametrize("name", FREEZING)
def test_which_parameters_an_optimizer_moves_is_read_off_it(name):
    assert movable(FREEZING[name], PARAMS) == {"w": False, "b": False, "v": True}


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.0),
        optax.sgd(optax.linear_schedule(0.0, 0.1, 9), momentum=0.9),
        optax.adam(0.1),
        optax.lion(0.1),
        optax.rprop(0.1),
        optax.lbfgs(),
        optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation(),
        optax.apply_if_finite(optax.sgd(0.1), 3),
        ju.masks.soft_threshold(optax.sgd(0.1), 0.1),
        ju.masks.falling_threshold(optax.sgd(0.1), steps=9),
    ],
)
def test_what_may_move_is_not_taken_for_frozen(optimizer):
    assert all(jax.tree.leaves(movable(optimizer, PARAMS)))


def sfron(optimizer, **options):
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    told = {"mask": mask, "steps": 9, "forget_every": 1} | options
    return ju.methods.sfron(MODEL, optimizer, **told)


def freezing_methods(optimizer):
    """Return all methods under an optimizer of the user's."""
    teacher = {"teacher_params": PARAMS, "teacher_state": STATE}
    mask = jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    relabel = {"num_classes": K}
    return {
        "sfron": sfron(optimizer),
        "sfron, own rate": sfron(optimizer, forget_rate=0.1),
        "gradient_ascent": ju.methods.gradient_ascent(MODEL, optimizer),
        "l1_sparse": ju.methods.l1_sparse(MODEL, optimizer, penalty=0.1, steps=9),
        "salun": ju.methods.salun(MODEL, optimizer, mask=mask, **relabel),
        "salun_soft": ju.methods.salun_soft(
            MODEL, optimizer, threshold=1e-4, **relabel
        ),
        "scrub": ju.methods.scrub(MODEL, optimizer, **teacher),
        "unsir": ju.methods.unsir(MODEL, optimizer),
        "boundary_expand": ju.methods.boundary_expand(
            MODEL,
            MODEL,
            optimizer,
            head_optimizer=optax.sgd(0.1),
            num_classes=K,
            width=K,
        ),
        "two_way": ju.methods.random_label(
            MODEL, optimizer, harmonizer=ju.harmonize.two_way(), **relabel
        ),
    }


@pytest.mark.parametrize("kind", ["sgd", "masked after", "if finite"])
def test_no_method_moves_what_the_optimizer_freezes(kind):
    for name, alg in freezing_methods(FREEZING[kind]).items():
        state = alg.init(PARAMS, STATE)
        for _ in range(2):
            state, _ = alg.step(state, BOTH, KEY)
        for leaf in ("w", "b"):
            np.testing.assert_array_equal(state.params[leaf], PARAMS[leaf], name)
        assert np.abs(state.params["v"] - PARAMS["v"]).max() > 0, name


def test_an_ascent_of_its_own_rate_keeps_the_users_mask_too():
    mask = jax.tree.map(lambda p: jnp.zeros(p.shape, bool), PARAMS)
    alg = sfron(FREEZING["sgd"], mask=mask, forget_rate=0.1)
    assert not any(
        leaf.any()
        for leaf in jax.tree.leaves(alg.init(PARAMS, STATE).objective_state.mask)
    )


def spoiled(one):
    return one._replace(inputs=one.inputs.at[0, 0].set(jnp.nan))


BAD = ju.UnlearnBatch(*map(spoiled, BOTH))
SKIPPING = {
    "apply_if_finite": optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 5),
    "inside": optax.chain(
        optax.clip(1.0), optax.apply_if_finite(optax.sgd(0.1, momentum=0.9), 5)
    ),
    "MultiSteps": optax.MultiSteps(
        optax.sgd(0.1, momentum=0.9), 1, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
}


@pytest.mark.parametrize("scan", [1, 3])
@pytest.mark.parametrize("name", SKIPPING)
def test_a_step_left_out_is_no_failure_and_leaves_nothing(name, scan):
    net = batchnorm_net(K)
    params, model_state = net.init(KEY, jnp.zeros((1, 4)))
    for weighting in (None, ju.weights.falw(jnp.full(K, 2))):
        alg = ju.methods.random_label(
            net, SKIPPING[name], num_classes=K, weighting=weighting
        )
        start = alg.init(params, model_state)
        with_it = ju.run(alg, start, [BOTH, BAD, BOTH], KEY, scan=scan)
        assert with_it.step == 3
        half = ju.run(alg, start, [BOTH], KEY)
        other = half._replace(step=jnp.int32(2), opt_state=half.opt_state)
        without = ju.run(alg, other, [BOTH], KEY)
        trees_close(with_it.params, without.params, rtol=1e-5)
        trees_close(with_it.model_state, without.model_state, rtol=1e-5)
        trees_close(with_it.weight_state, without.weight_state, rtol=1e-5)


@pytest.mark.parametrize("rate", [None, 0.1])
def test_an_ascent_left_out_is_no_failure(rate):
    if rate is not None:
        pytest.skip("an ascent apart from the optimizer has nobody to leave it out")
    alg = sfron(SKIPPING["apply_if_finite"], forget_rate=rate)
    bad = BOTH._replace(forget=BAD.forget)
    state = ju.run(alg, alg.init(PARAMS, STATE), [bad, BOTH], KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_too_many_steps_left_out_are_a_failure():
    optimizer = optax.apply_if_finite(optax.sgd(0.1), 2)
    alg = ju.methods.finetune(MODEL, optimizer)
    with pytest.raises(ju.NonFiniteError, match="step 2"):
        ju.run(alg, alg.init(PARAMS, STATE), [BAD] * 4, KEY)


def test_ensembles_and_guards_take_a_step_left_out_too():
    alg = ju.methods.finetune(MODEL, SKIPPING["apply_if_finite"])
    start = alg.init(PARAMS, STATE)
    steps, keys = [BOTH, BAD, BOTH], jax.random.split(KEY, 2)
    for how in ("loop", "vmap"):
        states = ju.run_ensemble(
            alg, ju.stack([start] * 2), [steps, [BOTH] * 3], keys, how=how
        )
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(states.params))
    guard = ju.guards.finite_guard(roll_back=start, every=1)
    state = ju.run(alg, start, steps, KEY, callback=guard)
    assert guard.reason is None
    assert state.step == 3


def test_a_plateau_sees_the_loss():
    plateau = optax.contrib.reduce_on_plateau(
        factor=0.5, patience=1, accumulation_size=1, rtol=1.0
    )
    optimizer = optax.chain(optax.sgd(0.1), plateau)
    for alg in (
        ju.methods.finetune(MODEL, optimizer),
        ju.methods.salun(
            MODEL,
            optimizer,
            mask=jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS),
            num_classes=K,
        ),
        ju.methods.boundary_expand(
            MODEL,
            MODEL,
            optimizer,
            head_optimizer=optimizer,
            num_classes=K,
            width=K,
        ),
        sfron(optimizer),
    ):
        state = ju.run(alg, alg.init(PARAMS, STATE), [BOTH] * 4, KEY)
        scales = [
            leaf.scale
            for leaf in jax.tree.leaves(
                state.opt_state, is_leaf=lambda x: hasattr(x, "plateau_count")
            )
            if hasattr(leaf, "plateau_count")
        ]
        assert all(scale < 1 for scale in scales)


@pytest.mark.parametrize("forward", ["separate", "merged"])
def test_a_line_search_finds_its_way(forward):
    alg = ju.methods.random_label(MODEL, optax.lbfgs(), num_classes=K, forward=forward)
    state = alg.init(PARAMS, STATE)
    step = jax.jit(alg.step)
    losses = []
    for _ in range(12):
        state, info = step(state, BOTH, KEY)
        losses.append(float(info.forget_loss + info.retain_loss))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("forward", ["separate", "merged"])
def test_the_value_told_has_the_gradient_told(forward):
    told = {}

    def update(grads, state, params=None, **extra):
        told.update(extra, grads=grads, params=params)
        return grads, state

    asking = optax.GradientTransformationExtraArgs(lambda params: (), update)
    masked = BOTH.forget._replace(mask=jnp.array([True, False, True, True]))
    alg = ju.methods.random_label(
        MODEL,
        asking,
        num_classes=K,
        weighting=ju.weights.loreun(temperature=1.0),
        forward=forward,
    )
    alg.step(alg.init(PARAMS, STATE), BOTH._replace(forget=masked), KEY)
    value, grads = jax.value_and_grad(told["value_fn"])(told["params"])
    np.testing.assert_allclose(value, told["value"], rtol=1e-6)
    trees_close(grads, told["grads"], rtol=1e-5, atol=1e-6)
    trees_close(told["grad"], told["grads"])


JOINT = {
    "loreun": ju.weights.loreun(temperature=1.0),
    "relative": ju.weights.loreun(temperature=1.0, normalize="none", relative=True),
    "static": ju.weights.loreun_static(jnp.ones(99), temperature=1.0),
    "el2n": ju.weights.el2n(temperature=1.0),
    "sfron": ju.weights.sfron(),
    "chain": ju.weights.chain(ju.weights.uniform(), ju.weights.sfron()),
    "clip": ju.weights.clip(ju.weights.sfron(), 0.0, 1.0),
    "schedule": ju.weights.schedule(ju.weights.sfron(), optax.constant_schedule(1.0)),
    "falw": ju.weights.falw(jnp.ones(K), estimator=ju.weights.streaming()),
}
APART = {
    "uniform": ju.weights.uniform(),
    "loreun": ju.weights.loreun(temperature=1.0, normalize="none"),
    "falw": ju.weights.falw(jnp.ones(K)),
}
SEVERAL = optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()


@pytest.mark.parametrize("name", JOINT)
def test_accumulated_gradients_of_joint_weights_are_told(name):
    alg = ju.methods.random_label(MODEL, SEVERAL, num_classes=K, weighting=JOINT[name])
    with pytest.warns(UserWarning, match=r"MultiSteps .* ju.memory.microbatched"):
        alg.init(PARAMS, STATE)
    assert JOINT[name].joint


WHOLE = {
    "harmonizer": ju.methods.neggrad_plus(
        MODEL, SEVERAL, harmonizer=ju.harmonize.two_way()
    ),
    "harmonizer that scales": ju.methods.random_label(
        MODEL, SEVERAL, num_classes=K, harmonizer=ju.harmonize.bargain()
    ),
    "target": ju.methods.regun(MODEL, SEVERAL, references=jnp.full((K, K), 1 / K)),
    "look ahead": ju.methods.meta_unlearn(
        MODEL,
        SEVERAL,
        relabel=ju.objectives.random_label(MODEL, num_classes=K),
        remember=ju.objectives.descent(MODEL),
        audits=[ju.objectives.ascent(MODEL)] * 2,
        queries=1,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_accumulated_steps_of_a_whole_batch_are_told(name):
    with pytest.warns(UserWarning, match=r"MultiSteps .* ju.memory.microbatched"):
        WHOLE[name].init(PARAMS, STATE)


@pytest.mark.parametrize("kind", ["random_label", "neggrad_plus"])
def test_accumulated_sums_of_both_gradients_are_those_of_the_batch(kind):
    def made(optimizer):
        if kind == "neggrad_plus":
            return ju.methods.neggrad_plus(MODEL, optimizer, alpha=0.7)
        join = ju.harmonize.add(0.3, 1.0)
        told = {"num_classes": K, "harmonizer": join}
        return ju.methods.random_label(MODEL, optimizer, **told)

    both = ju.UnlearnBatch(batch(3, 6), batch(4, 6))
    alg, whole = made(SEVERAL), made(optax.sgd(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = alg.init(PARAMS, STATE)
    for i in (0, 1):
        half = jax.tree.map(lambda leaf, i=i: leaf[i::2], both)
        state, _ = alg.step(state, half, KEY)
    expected, _ = whole.step(whole.init(PARAMS, STATE), both, KEY)
    trees_close(state.params, expected.params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", APART)
def test_accumulated_gradients_of_other_weights_are_those_of_the_batch(name):
    alg = ju.methods.gradient_ascent(MODEL, SEVERAL, weighting=APART[name])
    whole = ju.methods.gradient_ascent(MODEL, optax.sgd(0.1), weighting=APART[name])
    one = batch(3, 6)
    halves = [jax.tree.map(lambda leaf, i=i: leaf[i::2], one) for i in (0, 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = alg.init(PARAMS, STATE)
        for half in halves:
            step = ju.UnlearnBatch(half, reference=BOTH.reference)
            state, _ = alg.step(state, step, KEY)
    step = ju.UnlearnBatch(one, reference=BOTH.reference)
    expected, _ = whole.step(whole.init(PARAMS, STATE), step, KEY)
    trees_close(state.params, expected.params, rtol=1e-5, atol=1e-6)


def test_the_remedy_for_accumulation_is_the_whole_batch():
    weighting, one = JOINT["loreun"], ju.UnlearnBatch(batch(3, 6))
    parts = ju.memory.microbatched(MODEL, 3)
    found, expected = (
        alg.step(alg.init(PARAMS, STATE), one, KEY)[0]
        for alg in (
            ju.methods.gradient_ascent(model, optax.sgd(0.1), weighting=weighting)
            for model in (parts, MODEL)
        )
    )
    trees_close(found.params, expected.params, rtol=1e-5, atol=1e-6)


def test_a_pull_at_every_part_is_told():
    with pytest.warns(UserWarning, match=r"MultiSteps\(soft_threshold"):
        ju.methods.salun_soft(MODEL, SEVERAL, threshold=1e-3, num_classes=K).init(
            PARAMS, STATE
        )
    inside = optax.MultiSteps(ju.masks.soft_threshold(optax.sgd(0.1), 1e-3), 2)
    alg = ju.methods.random_label(
        MODEL, inside.gradient_transformation(), num_classes=K
    )
    alg.init(PARAMS, STATE)


@pytest.mark.parametrize("name", ["joint", "apart"])
def test_weights_of_a_part_inside_shard_map_are_told(name):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("data",))
    weighting = JOINT["loreun"] if name == "joint" else ju.weights.uniform()
    alg = ju.methods.gradient_ascent(MODEL, optax.sgd(0.1), weighting=weighting)
    state, one = alg.init(PARAMS, STATE), ju.UnlearnBatch(batch(3, 4))
    own = jax.sharding.PartitionSpec()
    spread = jax.jit(
        jax.shard_map(
            lambda one: alg.step(state, one, KEY)[0].params,
            mesh=mesh,
            in_specs=jax.sharding.PartitionSpec("data"),
            out_specs=own,
            check_vma=False,
        )
    )
    if name == "joint":
        with pytest.warns(UserWarning, match=r"shard_map .* NamedSharding"):
            spread(one)
    else:
        spread(one)


def test_ensembles_spread_by_shard_map_are_not_told():
    alg = ALGS["loreun"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("ensemble",))
    states = ju.stack([alg.init(PARAMS, STATE)] * 2)
    keys = jax.random.split(KEY, 2)
    ju.run_ensemble(alg, states, [[BOTH]] * 2, keys, how="vmap", mesh=mesh)


def test_named_algs_serve_other_models():
    assert set(named(mlp())) == set(ALGS)
