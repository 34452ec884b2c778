"""Contracts of batches and forward passes: the same refusals by every way in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import batch, batchnorm_net, mlp, trees_close

import jax_unlearn as ju

KEY, K, SIZE = jax.random.key(0), 3, 4
MODEL = mlp()
PARAMS, STATE = MODEL.init(KEY, jnp.zeros((1, 4)))
GOOD = batch(0, SIZE)


def finetune(model=MODEL):
    return ju.methods.finetune(model, optax.sgd(0.1))


def stepped(model, one):
    alg = finetune(model)
    return alg.step(alg.init(PARAMS, STATE), ju.UnlearnBatch(retain=one), KEY)


def jitted(model, one):
    alg, step = finetune(model), ju.UnlearnBatch(retain=one)
    traced = jax.jit(lambda state: alg.step(state, step, KEY))
    return traced(alg.init(PARAMS, STATE))


def driven(model, one):
    alg, steps = finetune(model), [ju.UnlearnBatch(retain=one)] * 2
    return ju.run(alg, alg.init(PARAMS, STATE), steps, KEY)


def chunked(model, one):
    alg, steps = finetune(model), [ju.UnlearnBatch(retain=one)] * 2
    return ju.run(alg, alg.init(PARAMS, STATE), steps, KEY, scan=2)


def scanned(model, one):
    alg = finetune(model)
    several = jax.tree.map(
        lambda leaf: np.stack([leaf] * 2) if hasattr(leaf, "shape") else leaf, one
    )
    steps = ju.UnlearnBatch(retain=several)
    return ju.scan_steps(alg, alg.init(PARAMS, STATE), steps, KEY)


def ensemble(model, one):
    alg, steps = finetune(model), [[ju.UnlearnBatch(retain=one)]] * 2
    states = ju.stack([alg.init(PARAMS, STATE)] * 2)
    keys = jax.random.split(KEY, 2)
    return ju.run_ensemble(alg, states, steps, keys, how="loop")


def measured(model, one):
    loss = ju.objectives.descent(model)._replace(train=False)
    return ju.gradients.mean_gradient(loss)(PARAMS, STATE, [one], KEY)


WAYS = (stepped, jitted, driven, chunked, scanned, ensemble, measured)


def changed(**changes):
    """Return the good batch on the host with something else in it."""
    host = ju.Batch(*map(np.asarray, GOOD[:3]))
    return host._replace(**changes)


BAD = {
    "labels of text": (changed(labels=np.array(list("abca"))), "np.unique"),
    "labels in a list": (changed(labels=[0, 1, 2, 0]), r"np.asarray\(labels\)"),
    "labels of floats": (changed(labels=np.zeros(SIZE, np.float32)), "float32"),
    "labels of bools": (changed(labels=np.zeros(SIZE, bool)), "type bool"),
    "labels [N, 1]": (changed(labels=np.zeros((SIZE, 1), np.int32)), r"shape \(4,\)"),
    "inputs of text": (changed(inputs=np.array(list("abca"))), "inputs of type <U1"),
    "rows that differ": (changed(inputs=np.zeros((5, 4), np.float32)), "for 4 labels"),
    "no samples": (
        changed(inputs=np.zeros((0, 4)), labels=np.zeros(0, int), index=None),
        "1 sample or more",
    ),
    "a mask of integers": (changed(mask=np.ones(SIZE, np.int32)), "one bool"),
    "a mask of columns": (changed(mask=np.ones((SIZE, 1), bool)), r"\(4, 1\)"),
    "a short mask": (changed(mask=np.ones(2, bool)), r"mask of shape \(2,\)"),
    "an index of floats": (changed(index=np.ones(SIZE, np.float32)), "one integer"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BAD)
def test_a_batch_of_the_wrong_form_is_one_error_by_every_way_in(way, name):
    given_batch, words = BAD[name]
    if way is jitted:  # jax itself refuses text as a constant, with our words before
        pass
    with pytest.raises(ju.InputError, match=words):
        way(MODEL, given_batch)


def returning(make):
    return ju.Model(lambda key, x: (PARAMS, STATE), make)


def logits(params, x):
    return MODEL.apply(params, (), x, train=True)[0]


OUTPUTS = {
    "logits alone": (
        lambda p, s, x, *, train, key=None: logits(p, x),
        "from_stateless",
    ),
    "three things": (lambda p, s, x, *, train, key=None: (x, s, p), "tuple of 3"),
    "features for a state": (
        lambda p, s, x, *, train, key=None: (logits(p, x), x),
        "of 1 arrays",
    ),
    "a dict": (
        lambda p, s, x, *, train, key=None: ({"logits": logits(p, x)}, s),
        r"are dict: .*ju.with_outputs\(model",
    ),
    "a pair": (
        lambda p, s, x, *, train, key=None: ((logits(p, x), x), s),
        "are tuple: give logits",
    ),
    "one logit [B, 1]": (
        lambda p, s, x, *, train, key=None: (logits(p, x)[:, :1], s),
        "ju.two_classes",
    ),
    "one logit [B]": (
        lambda p, s, x, *, train, key=None: (logits(p, x)[:, 0], s),
        "ju.two_classes",
    ),
    "classes": (
        lambda p, s, x, *, train, key=None: (jnp.argmax(logits(p, x)[:, None], 1), s),
        "of type int32",
    ),
}


@pytest.mark.parametrize("way", [stepped, jitted, driven, scanned, ensemble])
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_forward_pass_that_breaks_its_word_is_told_how_to_mend_it(way, name):
    apply, words = OUTPUTS[name]
    for size in (2, SIZE):  # two rows would pass for two results
        with pytest.raises(ju.InputError, match=words):
            way(returning(apply), batch(0, size))


def test_the_remedies_work():
    told = returning(OUTPUTS["a dict"][0])
    model = ju.with_outputs(told, lambda outputs: outputs["logits"])
    trees_close(stepped(model, GOOD)[0].params, stepped(MODEL, GOOD)[0].params)
    binary = ju.with_outputs(returning(OUTPUTS["one logit [B]"][0]), ju.two_classes)
    labels = GOOD.labels % 2
    loss, _ = ju.objectives.descent(binary)(
        PARAMS, STATE, GOOD._replace(labels=labels), KEY
    )
    logit = np.asarray(logits(PARAMS, GOOD.inputs)[:, 0], np.float64)
    sigmoid = 1 / (1 + np.exp(-logit))
    expected = -np.log(np.where(labels == 1, sigmoid, 1 - sigmoid))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def named(model=MODEL):
    """Return unlearners of all kinds of objectives that read a label."""
    sgd, mask = optax.sgd(0.01), jax.tree.map(lambda p: jnp.ones(p.shape, bool), PARAMS)
    attacks = [ju.membership.logistic(), ju.membership.gaussian_ratio()]
    learned = {
        a.name: a.init(jax.random.key(1), d)
        for a, d in zip(attacks, (3, 1), strict=True)
    }
    teachers = {
        "teacher_params": PARAMS,
        "teacher_state": STATE,
    }
    rate = {"steps": 9, "forget_rate": 0.01}
    return {
        "gradient_ascent": ju.methods.gradient_ascent(model, sgd),
        "neggrad_plus": ju.methods.neggrad_plus(model, sgd),
        "random_label": ju.methods.random_label(model, sgd, num_classes=K),
        "merged": ju.methods.random_label(model, sgd, num_classes=K, forward="merged"),
        "salun": ju.methods.salun(model, sgd, mask=mask, num_classes=K),
        "salun_soft": ju.methods.salun_soft(model, sgd, threshold=1e-3, num_classes=K),
        "sfron": ju.methods.sfron(model, sgd, mask=mask, **rate),
        "scrub": ju.methods.scrub(model, sgd, **teachers),
        "boundary_shrink": ju.methods.boundary_shrink(
            model, sgd, labels=jnp.zeros(99, int)
        ),
        "boundary_expand": ju.methods.boundary_expand(
            model, model, sgd, head_optimizer=sgd, num_classes=K, width=K
        ),
        "endpoint_transport": ju.methods.endpoint_transport(
            model, sgd, targets=jnp.full((99, K), 1 / K)
        ),
        "ltu": ju.methods.ltu(
            model,
            sgd,
            num_classes=K,
            queries=2,
            attacks=attacks,
            attack_params=learned,
        ),
        "loreun": ju.methods.random_label(
            model, sgd, num_classes=K, weighting=ju.weights.loreun(temperature=1.0)
        ),
        "two_way": ju.methods.random_label(
            model, sgd, num_classes=K, harmonizer=ju.harmonize.two_way()
        ),
        "falw": ju.methods.random_label(
            model, sgd, num_classes=K, weighting=ju.weights.falw(jnp.full(K, 2))
        ),
        "el2n": ju.methods.random_label(
            model, sgd, num_classes=K, weighting=ju.weights.el2n(temperature=1.0)
        ),
        "margin": ju.methods.random_label(
            model, sgd, num_classes=K, weighting=ju.weights.margin(temperature=1.0)
        ),
        "static": ju.methods.random_label(
            model,
            sgd,
            num_classes=K,
            weighting=ju.weights.loreun_static(jnp.ones(99), temperature=1.0),
        ),
    }


ALGS = named()
BOTH = ju.UnlearnBatch(
    batch(1, 4, first_index=0), batch(2, 4, first_index=9), batch(3, 4, first_index=20)
)


@pytest.mark.parametrize("name", ["gradient_ascent", "random_label", "merged", "sfron"])
@pytest.mark.parametrize("part", ["forget", "retain"])
@pytest.mark.parametrize("label", [-1, K])
def test_a_label_that_is_no_class_is_named_by_every_method(name, part, label):
    if name == "gradient_ascent" and part == "retain":
        pytest.skip("reads no retain batch")
    one = getattr(BOTH, part)
    wrong = BOTH._replace(**{part: one._replace(labels=one.labels.at[2].set(label))})
    alg = ALGS[name]
    low, high = min(label, 0), max(label, 2)
    with pytest.raises(ju.NonFiniteError, match=f"labels {low} to {high} .* step 0$"):
        ju.run(alg, alg.init(PARAMS, STATE), [wrong], KEY)


@pytest.mark.parametrize("label", [-1, K])
@pytest.mark.parametrize("compiled", [False, True])
def test_scanned_steps_name_a_label_that_is_no_class(label, compiled):
    alg, steps = ALGS["sfron"], jax.tree.map(lambda leaf: np.stack([leaf] * 2), BOTH)
    labels = steps.forget.labels.copy()
    labels[1, 2] = label
    wrong = steps._replace(forget=steps.forget._replace(labels=labels))

    def scanned(state, steps=wrong):
        return ju.scan_steps(alg, state, steps, KEY)[1].retain_loss

    state = alg.init(PARAMS, STATE)
    with pytest.raises(ju.InputError, match=rf"labels\[1, 2\]={label} must be a class"):
        (jax.jit(scanned) if compiled else scanned)(state)
    mask = np.ones(labels.shape, bool)
    mask[1, 2] = False  # of padding it may be anything
    masked = wrong._replace(forget=wrong.forget._replace(mask=mask))
    assert np.isfinite(jax.jit(functools.partial(scanned, steps=masked))(state)).all()


def poisoned(one, rows, value):
    """Return a batch whose masked rows hold what would spoil everything."""
    mask = np.ones(len(one.labels), bool)
    mask[list(rows)] = False
    clean = one._replace(mask=jnp.asarray(mask))
    spoiled = clean._replace(
        inputs=jnp.where(mask[:, None], one.inputs, value),
        labels=jnp.where(mask, one.labels, -1 if np.isnan(value) else 99),
        index=jnp.where(mask, one.index, -1 if np.isnan(value) else 10**6),
    )
    return clean, spoiled


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ALGS)
def test_masked_rows_are_ignored_by_every_method(name, value):
    alg, pairs = ALGS[name], [poisoned(one, (1,), value) for one in BOTH]
    clean, spoiled = (ju.UnlearnBatch(*(p[i] for p in pairs)) for i in (0, 1))
    state = alg.init(PARAMS, STATE)
    step = jax.jit(alg.step)
    for _ in range(2):
        wanted, told = step(state, clean, KEY)
        found, info = step(state, spoiled, KEY)
        trees_close(found.params, wanted.params, rtol=1e-6, atol=1e-7)
        trees_close(found.weight_state, wanted.weight_state, rtol=1e-6)
        trees_close(found.opt_state, wanted.opt_state, rtol=1e-6)
        for field in ("forget_loss", "retain_loss", "update_norm", "conflict"):
            np.testing.assert_allclose(
                getattr(info, field), getattr(told, field), rtol=1e-5, atol=1e-7
            )
        state = wanted


@settings(max_examples=12, deadline=None)
@given(
    rows=st.sets(st.integers(0, 5), max_size=5),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_masked_rows_never_reach_what_is_measured(rows, value):
    clean, spoiled = poisoned(batch(7, 6), rows, value)
    loss = ju.objectives.descent(MODEL)._replace(train=False)
    for measure in (
        ju.gradients.mean_gradient(loss),
        ju.oneshot.fisher_information(loss),
        ju.oneshot.fisher_information(loss, per="batch"),
    ):
        wanted, found = (measure(PARAMS, STATE, [b], KEY) for b in (clean, spoiled))
        trees_close(found, wanted, rtol=1e-5, atol=1e-6)
    where = clean.mask
    raw = jnp.where(where, 0.5, value)
    labels = spoiled.labels
    stats = ju.weights.class_stats(raw, labels, K, where=where)
    assert all(np.isfinite(leaf).all() for leaf in stats)
    assert int(stats.count.sum()) == int(where.sum())
    weights = ju.weights.loreun_weights(raw, temperature=1.0, where=where)
    np.testing.assert_allclose(weights, where, rtol=1e-6)


def test_own_losses_never_see_what_is_not_finite_in_padding():
    clean, spoiled = poisoned(batch(7, 6), (0, 3), np.nan)

    def loss(params, model_state, one, key):
        assert not isinstance(one.inputs, np.ndarray)
        losses = jnp.sum((one.inputs @ params["w"]) ** 2, 1)
        return losses, ju.Aux(losses, losses, model_state)

    alg = ju.methods.assemble(MODEL, optax.sgd(0.1), retain=loss)
    state = alg.init(PARAMS, STATE)
    wanted, found = (
        alg.step(state, ju.UnlearnBatch(retain=one), KEY)[0] for one in (clean, spoiled)
    )
    trees_close(found.params, wanted.params)


def test_statistics_stay_finite_beside_padding_that_is_not():
    net = batchnorm_net(K)
    params, state = net.init(KEY, jnp.zeros((1, 4)))
    _, spoiled = poisoned(batch(7, 6), (0, 3), np.nan)
    alg = ju.methods.finetune(net, optax.sgd(0.1))
    state, _info = alg.step(
        alg.init(params, state), ju.UnlearnBatch(retain=spoiled), KEY
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (changed(labels=np.array([0, 1, -1, 2])), r"labels\[2\]=-1 must be .* 0 to 2"),
        (changed(labels=np.array([0, 3, 1, 2])), r"labels\[1\]=3"),
        (changed(inputs=np.full((SIZE, 4), np.nan)), r"inputs\[0, 0\]=nan .*mask it"),
        (changed(index=np.array([0, -7, 1, 2])), r"index\[1\]=-7"),
        (changed(mask=np.ones(SIZE, int)), "one bool"),
    ],
)
@pytest.mark.parametrize("part", ["alone", "forget", "reference"])
def test_values_are_looked_at_on_the_host(one, words, part):
    step = one if part == "alone" else ju.UnlearnBatch(**{part: one})
    with pytest.raises(ju.InputError, match=words):
        ju.check_batch(step, num_classes=K)
    good = ju.UnlearnBatch(GOOD, GOOD)
    assert ju.check_batch(good, num_classes=K) is good
    _, spoiled = poisoned(GOOD, (1,), np.nan)
    assert ju.check_batch(spoiled, num_classes=K) is spoiled
    free = changed(labels=np.array([0, 9, 1, 2]))
    assert ju.check_batch(free) is free


def test_what_is_no_step_is_refused():
    alg = finetune()
    with pytest.raises(ju.InputError, match=r"got a dict: give ju.UnlearnBatch"):
        alg.step(alg.init(PARAMS, STATE), {"retain": GOOD}, KEY)
    with pytest.raises(ju.InputError, match="no batch for any of its losses"):
        alg.step(alg.init(PARAMS, STATE), ju.UnlearnBatch(GOOD), KEY)


@pytest.mark.parametrize("name", ["static", "endpoint_transport", "boundary_shrink"])
def test_a_table_asks_for_ids(name):
    alg = ALGS[name]
    without = BOTH._replace(forget=BOTH.forget._replace(index=None))
    with pytest.raises(ju.InputError, match="batch.index=None"):
        alg.step(alg.init(PARAMS, STATE), without, KEY)


def test_a_measure_of_labels_that_are_no_class_is_refused():
    wrong = GOOD._replace(labels=GOOD.labels.at[1].set(-1))
    loss = ju.objectives.descent(MODEL)._replace(train=False)
    for measure in (ju.gradients.mean_gradient, ju.oneshot.fisher_information):
        with pytest.raises(ju.InputError, match="ju.check_batch"):
            measure(loss)(PARAMS, STATE, [wrong], KEY)


@pytest.mark.parametrize("label", [-1, K])
def test_objectives_that_leave_the_label_out_name_it_too(label):
    one = GOOD._replace(labels=GOOD.labels.at[2].set(label))
    for objective in (
        ju.objectives.other_classes(MODEL, PARAMS, STATE),
        ju.objectives.reference(MODEL, jnp.full((K, K), 1 / K)),
        ju.objectives.random_label(MODEL, num_classes=K),
    ):
        losses, _ = objective(PARAMS, STATE, one, KEY)
        assert np.isnan(losses).tolist() == [False, False, True, False]


@pytest.mark.parametrize("label", [-1, K])
def test_labels_given_without_a_batch_are_looked_at(label):
    labels = jnp.array([0, label])
    with pytest.raises(ju.InputError, match=f"labels {min(label, 0)} to"):
        ju.methods.unsir_noise(MODEL, PARAMS, STATE, labels, KEY, shape=(4,))
    inputs = GOOD.inputs[:2]
    with pytest.raises(ju.InputError, match=rf"labels\[1\]={label} must be a class"):
        ju.objectives.boundary_labels(MODEL, PARAMS, STATE, inputs, labels)
    within = jax.jit(  # a program that closes over them
        lambda x: ju.objectives.boundary_labels(MODEL, PARAMS, STATE, x, labels)
    )
    with pytest.raises(ju.InputError, match=rf"labels\[1\]={label} must be a class"):
        within(inputs)
