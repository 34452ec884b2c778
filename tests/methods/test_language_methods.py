"""PDU, task vectors, two models in one; FaLW and LTU without classes of images."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jax_unlearn as ju
from jax_unlearn import language, membership, objectives
from jax_unlearn.language import Scored, Text
from jax_unlearn.weights.falw import FALW

V, T, N = 7, 5, 6
KEY = jax.random.key(0)


def init(key, text):
    del text
    first, second = jax.random.split(key)
    embed = jax.random.normal(first, (V, 4), jnp.float32)
    return {"embed": embed, "head": jax.random.normal(second, (4, V), jnp.float32)}, {}


def apply(params, state, text, *, train, key=None):
    del train, key
    return jnp.tanh(params["embed"][text.tokens]) @ params["head"], state


MODEL = ju.Model(init, apply)
RNG = np.random.default_rng(0)
TEXT = Text(
    jnp.asarray(RNG.integers(0, V, (N, T)), jnp.int32),
    jnp.asarray(np.arange(T) >= np.array([[1], [2], [3], [1], [2], [2]])),
)
PARAMS = MODEL.init(KEY, TEXT)[0]
BATCH = ju.Batch(TEXT, jnp.array([0, 0, 0, 1, 1, 1]), jnp.arange(N))


def part(rows, labels=None):
    found = jax.tree.map(lambda leaf: leaf[jnp.array(rows)], BATCH)
    return found if labels is None else found._replace(labels=jnp.array(labels))


def test_pdu_raises_the_price_of_a_retain_loss_above_its_bound():
    told = {"price": 2.0, "rate": 5.0, "bound": 0.3, "warmup": 1}
    alg = ju.methods.pdu(MODEL, optax.sgd(0.1), **told)
    step, state = jax.jit(alg.step), alg.init(PARAMS, {})
    batch = ju.UnlearnBatch(part([0, 1]), part([3, 4]))
    losses = [objectives.pdu_forget(MODEL), objectives.next_token(MODEL)]
    params, price = PARAMS, 2.0
    for number in range(3):

        def total(params, price=price):
            pair = zip(losses, batch, strict=False)
            first, second = (f(params, {}, b, KEY)[0].mean() for f, b in pair)
            return first + price * second, second

        slope, loss = jax.jit(jax.grad(total, has_aux=True))(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
        if number >= 1:
            price = max(0.0, price + 5.0 * (float(loss) - 0.3))
        state, _ = step(state, batch, KEY)
        np.testing.assert_allclose(state.weight_state[1], price, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        state.params,
        params,
    )
    found = ju.methods.multiplier(jnp.float32(1.0), jnp.float32(0.0), bound=1, rate=5)
    assert found == 0  # never below


def test_task_vector_goes_as_far_the_other_way():
    after = jax.tree.map(lambda leaf: leaf + 0.5, PARAMS)
    found = ju.oneshot.task_vector(PARAMS, after, scale=2.0)
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(PARAMS), strict=True):
        np.testing.assert_allclose(new, np.asarray(old) - 1.0, atol=1e-6)
    with pytest.raises(ju.InputError, match="overfitted has other leaves"):
        ju.oneshot.task_vector(PARAMS, {"embed": 1.0})


def test_two_models_make_one():
    other = jax.tree.map(jnp.negative, PARAMS)
    z, a = (np.asarray(apply(p, {}, TEXT, train=False)[0]) for p in (PARAMS, other))
    both = language.contrasted(MODEL, MODEL, kind="excess", scale=0.7)
    found, _ = both.apply((PARAMS, other), ({}, {}), TEXT, train=False)
    np.testing.assert_allclose(found, z - 0.7 * np.maximum(a - z, 0), rtol=1e-5)
    both = language.contrasted(MODEL, MODEL, scale=1.0, top=0.1)
    found, _ = both.apply((PARAMS, other), ({}, {}), TEXT, train=False)
    kept = np.exp(z - z.max(-1, keepdims=True)) >= 0.1
    np.testing.assert_allclose(found, np.where(kept, z - a, -1e9), rtol=1e-5)
    assert not kept.all()


def test_reference_losses_are_a_table_by_id():
    table = language.reference_nll(MODEL, PARAMS, {}, TEXT, batch_size=4)
    tokens = objectives.next_token(MODEL)(PARAMS, {}, BATCH, KEY)[1].outputs
    np.testing.assert_allclose(table, tokens.nll.sum(1), rtol=1e-5)
    some = language.reference_nll(MODEL, PARAMS, {}, part([4, 1]), size=N)
    np.testing.assert_allclose(
        some, table * jnp.array([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]), rtol=1e-5
    )


def weights_of(weighting, forget, reference):
    ascent = objectives.next_token_ascent(MODEL)
    alg = ju.methods.assemble(MODEL, optax.sgd(0.1), forget=ascent, weighting=weighting)
    seen = []
    batch = ju.UnlearnBatch(forget, None, reference)
    start = alg.init(PARAMS, {})
    ju.run(alg, start, [batch], KEY, callback=lambda s, t, i: seen.append(i.weights))
    return np.asarray(seen[0])


def test_falw_warns_where_no_forgotten_class_has_unseen_samples():
    forget, unseen = part([0, 1, 2], [0, 0, 0]), part([3, 4, 5], [1, 1, 1])
    counts = jnp.array([3, 0])
    with pytest.warns(UserWarning, match="every weight is 1") as caught:
        assert (weights_of(ju.weights.falw(counts), forget, unseen) == 1).all()
    assert len(caught) >= 1
    weights = weights_of(ju.weights.falw(counts, groups="pooled"), forget, unseen)
    assert np.abs(weights - 1).max() > 0.05
    loss = objectives.next_token(MODEL)
    p, q = (np.exp(-loss(PARAMS, {}, b, KEY)[0]) for b in (forget, unseen))
    balance = (3 / (2 * 3)) ** 0.15
    z = (p - q.mean()) / q.std()
    wanted = 1 + np.sign(z) * np.tanh(np.abs(z)) ** (1 / balance)
    np.testing.assert_allclose(weights, wanted, rtol=1e-3)
    table = jnp.array([0, 1, 0, 0, 1, 1])
    by_table = weights_of(ju.weights.falw(counts, groups=table), forget, unseen)
    assert not np.allclose(by_table, weights)
    stats = ju.weights.ClassStats(jnp.zeros(2), jnp.ones(2), jnp.array([0.0, 9.0]))
    anchored = ju.weights.falw(counts, estimator=ju.weights.anchored(stats))
    with pytest.warns(UserWarning, match="groups='pooled'"):
        anchored.init()


def test_falw_compares_with_unseen_texts_as_long_by_name():
    lengths = np.array([1, 2, 3, 3, 4, 6])
    targets = np.arange(7) < lengths[:, None]
    text = Text(jnp.zeros((6, 7), jnp.int32), jnp.asarray(targets))
    lab = SimpleNamespace(
        examples=SimpleNamespace(inputs=text),
        num_classes=2,
        labels=lambda part: np.zeros(3, int),
        ids=lambda part: np.array([0, 2, 4]),
        confidence=lambda part: np.array([0.2, 0.5, 0.9]),
    )
    options = FALW.options(groups="length", estimator="anchored", tau=0.0)
    assert options.compares == "unseen"
    weighting = FALW.build(lab, options)
    stats = weighting.init()[1]
    np.testing.assert_allclose(stats.mean, [0.2, 0.5, 0.9])  # thirds, one text each
    sample = ju.Sample(-jnp.log(jnp.full(3, 0.5)), None, jnp.zeros(3, jnp.int32))
    sample = sample._replace(index=jnp.array([1, 3, 5]))  # of the thirds 0, 1 and 2
    found = weighting.update(sample, weighting.init())[0]
    assert (found[0] > 1.9, abs(found[1] - 1) < 1e-3, found[2] < 0.1) == (True,) * 3
    lab.examples = SimpleNamespace(inputs=np.zeros((6, 8, 8, 1)))
    with pytest.raises(ju.InputError, match="no texts and have no length"):
        FALW.build(lab, options)


def test_falw_can_measure_the_loss_itself():
    forget, unseen = part([0, 1]), part([2, 3, 4])
    falw = ju.weights.falw(jnp.array([1, 1]), tau=0.0, groups="pooled", statistic="nll")
    found = weights_of(falw, forget, unseen)
    loss = objectives.next_token(MODEL)
    a, b = (np.asarray(loss(PARAMS, {}, x, KEY)[0]) for x in (forget, unseen))
    z = -(a - b.mean()) / b.std()
    np.testing.assert_allclose(found, 1 + np.tanh(z), rtol=1e-3)
    with pytest.raises(ju.InputError, match="statistic"):
        ju.weights.falw(jnp.array([1, 1]), statistic="loss")


def test_falw_of_classes_that_are_unseen_too_says_nothing():
    forget, unseen = part([0, 3]), part([1, 4])
    weights_of(
        ju.weights.falw(jnp.array([1, 1])), forget, unseen
    )  # warnings are errors


def test_a_plain_forward_with_a_reference_batch_is_refused():
    def loss(params, state, batch, key):
        tokens = objectives.next_token(MODEL)(params, state, batch, key)
        return -tokens[0], tokens[1]

    falw = ju.weights.falw(jnp.array([1, 1]))
    alg = ju.methods.assemble(MODEL, optax.sgd(0.1), forget=loss, weighting=falw)
    batch = ju.UnlearnBatch(part([0, 3]), None, part([1, 4]))
    with pytest.raises(ju.InputError, match="scores their tokens"):
        alg.step(alg.init(PARAMS, {}), batch, KEY)


def test_token_features_by_hand_and_their_gradients():
    nll = jnp.array([[4.0, 1.0, 2.0, 9.0], [3.0, 9.0, 9.0, 9.0]])
    counted = jnp.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
    tokens = Scored(nll, counted)
    found = membership.likelihood_features(tokens)
    np.testing.assert_allclose(found, [[7 / 3, 4.0], [3.0, 3.0]], rtol=1e-6)
    quantiles = membership.quantile_features(tokens)
    wanted = np.quantile([4.0, 2.0, 1.0], np.linspace(1, 0, 9))
    np.testing.assert_allclose(quantiles, [wanted, [3.0] * 9], rtol=1e-6)
    odds = membership.odds_features(tokens)
    p = np.exp(-np.array([7 / 3, 3.0]))
    np.testing.assert_allclose(odds[:, 0], np.log(p / (1 - p)), rtol=1e-5)
    for features in (membership.likelihood_features, membership.quantile_features):
        slope = jax.grad(lambda x, f=features: f(Scored(x, counted)).sum())(nll)
        assert not np.asarray(slope)[~np.asarray(counted)].any()
        assert np.isfinite(slope).all()


def test_ltu_unlearns_texts_by_objectives_of_their_own():
    attacks = membership.token_attacks()
    tokens = objectives.next_token(MODEL)(PARAMS, {}, BATCH, KEY)[1].outputs
    seen = membership.Observed(Scored(*tokens), BATCH.labels)
    rarer = membership.Observed(Scored(tokens.nll + 1, tokens.counted), BATCH.labels)
    params, infos = membership.train_attacks(attacks, seen, rarer, KEY, steps=20)
    assert set(infos) == {a.name for a in attacks}
    told = {"queries": 2, "attacks": attacks, "attack_params": params}
    refusals = objectives.alternative(MODEL, TEXT._replace(tokens=6 - TEXT.tokens))
    told |= {"remember": refusals, "feedback": objectives.token_nonmember}
    alg = ju.methods.ltu(
        MODEL, optax.sgd(0.1), task=objectives.next_token(MODEL), **told
    )
    batch = ju.UnlearnBatch(part([0, 1, 2]), part([3, 4, 5, 4]))
    state, info = jax.jit(alg.step)(alg.init(PARAMS, {}), batch, KEY)
    np.testing.assert_allclose(
        info.forget_loss, refusals(PARAMS, {}, batch.forget, KEY)[0].mean(), rtol=1e-5
    )
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), state.params, PARAMS)
    assert min(jax.tree.leaves(moved)) > 0
    with pytest.raises(ju.InputError, match="num_classes=3 and a remember"):
        ju.methods.ltu(MODEL, optax.sgd(0.1), num_classes=3, **told)


def test_relearning_and_rounding_serve_texts():
    few, held = [part([0, 1])], part([2])
    given = PARAMS, {}, few, held, optax.sgd(0.5), KEY
    found = ju.audit.recovery(MODEL, *given, steps=2)
    loss = objectives.next_token(MODEL)(PARAMS, {}, held, KEY)[0]
    np.testing.assert_allclose(found.losses[0], loss[0], rtol=1e-5)
    np.testing.assert_allclose(found.right[0], 100 * np.exp(-loss[0]), rtol=1e-5)
    again = ju.audit.relearn_steps(
        MODEL, PARAMS, {}, few, optax.sgd(0.5), KEY, loss_below=0.0, limit=2
    )
    assert again.losses[2] < again.losses[0]
    rounded = ju.audit.quantised(PARAMS, bits=4)
    assert len(np.unique(rounded["embed"])) <= 16
