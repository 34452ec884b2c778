"""Training of attacks: known AUCs, sklearn, shadow models, real digits, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from toys import mlp, relaxed

from jax_unlearn import membership
from jax_unlearn.errors import InputError
from jax_unlearn.membership import AttackInfo, Observed

ATTACKS = membership.default_attacks()
SETTING = {"steps": 200, "learning_rate": 0.03}


def info_of(auc, members=100, nonmembers=100):
    auc = jnp.asarray(auc, jnp.float32)
    error = membership.auc_standard_error(auc, members, nonmembers)
    counts = jnp.int32(members), jnp.int32(nonmembers)
    return AttackInfo(auc, error, auc, auc, *counts)


def clouds(seed, shift, size=800, d=1):
    rng = np.random.default_rng(seed)
    members, others = rng.normal(size=(2, size, d)).astype(np.float32)
    return jnp.asarray(members + np.float32(shift)), jnp.asarray(others)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=30),
    st.lists(st.integers(-4, 4), min_size=1, max_size=30),
)
def test_auc_equals_sklearn_with_ties(members, others):
    members, others = (np.resize(x, SIZE) for x, SIZE in ((members, 12), (others, 9)))
    truth = np.repeat([1, 0], [12, 9])
    expected = roc_auc_score(truth, np.concatenate([members, others]))
    members, others = jnp.array(members, jnp.float32), jnp.array(others, jnp.float32)
    assert float(membership.auc(members, others)) == pytest.approx(expected, abs=1e-6)
    turned = membership.auc(-members, -others)
    assert float(turned) == pytest.approx(1 - expected, abs=1e-6)


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_scores_that_are_not_finite_have_no_auc(value):
    good, bad = jnp.zeros(3), jnp.array([0.0, value])
    assert np.isnan(membership.auc(good, bad))
    assert np.isnan(membership.auc(bad, good))


def test_standard_error_is_the_spread_of_simulated_aucs():
    # Hanley and McNeil's Q's are exact for exponentials: A = r/(1 + r), r = 3.
    keys = jax.random.split(jax.random.key(0), 2000)

    def one(key):
        a, b = jax.random.split(key)
        return membership.auc(
            3 * jax.random.exponential(a, (10,)), jax.random.exponential(b, (60,))
        )

    aucs = jax.jit(jax.vmap(one))(keys)
    assert np.mean(aucs) == pytest.approx(0.75, abs=0.01)
    error = membership.auc_standard_error(0.75, 10, 60)
    assert np.std(aucs) == pytest.approx(float(error), rel=0.07)


def test_standard_error_at_the_ends():
    null = np.sqrt((7 + 9 + 1) / (12 * 7 * 9))
    assert float(membership.auc_standard_error(0.5, 7, 9)) == pytest.approx(null)
    assert float(membership.auc_standard_error(1.0, 7, 9)) == 0
    assert float(membership.auc_standard_error(0.0, 7, 9)) == 0


@pytest.mark.parametrize(
    "attack", [ATTACKS[i] for i in (0, 2, 3)], ids=lambda a: a.name
)
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_two_gaussians_have_the_known_auc(attack, shift):
    members, others = clouds(0, shift)
    params, info = membership.train_attack(
        attack, members, others, jax.random.key(0), **SETTING
    )
    expected = norm.cdf(shift / np.sqrt(2))
    error = float(membership.auc_standard_error(expected, 400, 400))
    assert abs(float(info.auc) - expected) < 3 * error
    assert (int(info.members), int(info.nonmembers)) == (400, 400)
    # The best score is shift·x − shift²/2; compared where both groups have samples.
    x = jnp.linspace(shift / 2 - 1, shift / 2 + 1, 7)[:, None]
    best = shift * np.asarray(x)[:, 0] - shift**2 / 2
    scores = np.asarray(attack.score(params, x))
    assert np.abs(scores - best).max() < 0.75
    limit = {0.0: np.log(2), 1.0: 0.60, 2.0: 0.42}[shift]
    assert float(info.held_out_loss) < limit + 0.03
    for leaf in jax.tree.leaves((params, info)):
        assert not leaf.weak_type


def test_training_is_class_balanced():
    members, others = clouds(1, 1.5, size=600)
    key = jax.random.key(1)
    attack = membership.logistic()
    params, info = membership.train_attack(attack, members, others[:60], key, **SETTING)
    assert (int(info.members), int(info.nonmembers)) == (300, 30)
    # Ten times more members do not move the boundary, which is at shift/2: a mean over
    # all samples would add log 10 = 2.3 to the score.
    assert abs(float(attack.score(params, jnp.array([[0.75]]))[0])) < 0.7


def test_standardisation_is_part_of_the_parameters():
    members, others = clouds(2, 1.0, size=30, d=2)
    key = jax.random.key(2)
    attack = membership.logistic()

    def constant_and_scaled(x):
        flat = jnp.full((len(x), 1), 0.1, jnp.float32)
        return jnp.concatenate([flat, 1000.0 * x[:, :1] + 7.0, x[:, 1:]], axis=1)

    params, info = membership.train_attack(
        attack, constant_and_scaled(members), constant_and_scaled(others), key, steps=30
    )
    plain = [jnp.concatenate([0 * x[:, :1], x], axis=1) for x in (members, others)]
    _, same = membership.train_attack(attack, *plain, key, steps=30)
    assert float(params.std[0]) == 1.0
    assert float(params.std[1]) == pytest.approx(1100, rel=0.3)
    np.testing.assert_allclose(info.auc, same.auc, atol=2e-3)
    np.testing.assert_allclose(info.train_loss, same.train_loss, rtol=1e-3)


def test_held_out_samples_do_not_train():
    """An attack able to learn noise by heart is undecided on samples held out."""
    members, others = clouds(3, 0.0, size=40, d=8)
    attack = membership.entropy_mlp(hidden=(64,))
    _, info = membership.train_attack(
        attack, members, others, jax.random.key(0), steps=400, learning_rate=0.03
    )
    assert float(info.train_loss) < 0.1
    assert float(info.held_out_loss) > 0.7
    assert not membership.better_than_chance(info)


def test_the_key_alone_decides_the_division():
    members, others = clouds(4, 1.0, size=30, d=3)
    train = functools.partial(
        membership.train_attack, ATTACKS[0], members, others, steps=30
    )
    first, again = train(jax.random.key(0)), train(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    other = train(jax.random.key(1))
    assert np.abs(first[0].mean - other[0].mean).max() > 1e-4


def test_attacks_with_equal_options_share_a_program():
    members, others = clouds(5, 1.0, size=30, d=3)
    from jax_unlearn.membership.training import _train

    def train(rate, name):
        attack = membership.logistic()._replace(name=name)
        membership.train_attack(
            attack, members, others, jax.random.key(0), steps=30, learning_rate=rate
        )
        return _train._cache_size()

    assert train(0.1, "a") == train(0.2, "b")


def test_shadow_models_in_one_program_equal_one_by_one():
    attack = membership.logistic()
    pairs = [clouds(10 + s, 0.5 + s, size=30, d=3) for s in range(3)]
    members, others = (jnp.stack(group) for group in zip(*pairs, strict=True))
    key = jax.random.key(6)
    params, infos = membership.train_shadow_attack(
        attack, members, others, key, steps=30
    )
    assert infos.auc.shape == (3,)
    for s, one_key in enumerate(jax.random.split(key, 3)):
        alone = membership.train_attack(
            attack, members[s], others[s], one_key, steps=30
        )
        together = jax.tree.map(lambda leaf, s=s: leaf[s], (params, infos))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@functools.cache
def overfitted():
    """Return what a net trained by heart on 150 digits says of them and of others."""
    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))[:450]  # not by writer
    inputs = jnp.asarray(pixels[order] / 16, jnp.float32)
    labels = jnp.asarray(classes[order], jnp.int32)
    model = mlp(width=64, classes=10)
    optimizer = relaxed(optax.adam(1e-2))

    @jax.jit
    def outputs(key):
        params, state = model.init(key, inputs)

        def loss(params):
            logits = model.apply(params, state, inputs[:150], train=False)[0]
            losses = optax.softmax_cross_entropy_with_integer_labels
            return losses(logits, labels[:150]).mean()

        def step(carry, _):
            params, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        carry = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(step, carry, length=200)
        return model.apply(params, state, inputs, train=False)[0]

    logits = outputs(jax.random.key(0))
    return Observed(logits[:150], labels[:150]), Observed(logits[150:], labels[150:])


def assert_beats_chance_and_feeds_back(attacks, *, unseen):
    members, others = overfitted()
    others = Observed(*(x[:unseen] for x in others))
    params, infos = membership.train_attacks(
        attacks, members, others, jax.random.key(0)
    )
    membership.check_attacks(infos)
    for attack in attacks:
        info = infos[attack.name]
        assert float(info.auc) > 0.6, attack.name
        assert (int(info.members), int(info.nonmembers)) == (75, unseen // 2)

    # The feedback: descent on the loss makes members look like non-members.
    @jax.jit
    def step(logits):
        def total(logits):
            means = [
                membership.nonmember_loss(
                    attack, params[attack.name], logits, members.labels
                ).mean()
                for attack in attacks
            ]
            return sum(means), jnp.stack(means)

        slope, before = jax.grad(total, has_aux=True)(logits)
        return before, total(logits - 15.0 * slope)[1]

    before, after = step(members.logits)
    assert (before > np.log(2)).all()
    assert float(after.sum()) < float(before.sum())


def test_labels_drawn_again_leave_nothing_to_find():
    _, others = overfitted()
    half = Observed(*(x[:150] for x in others)), Observed(*(x[150:] for x in others))
    _, infos = membership.train_attacks(ATTACKS[:1], *half, jax.random.key(0))
    assert not membership.better_than_chance(infos["logistic"])
    with pytest.raises(InputError, match="'logistic' is no better than chance"):
        membership.check_attacks(infos, min_models=1)


@pytest.mark.slow
def test_attacks_on_an_overfitted_net_beat_chance_on_held_out_digits():
    assert_beats_chance_and_feeds_back(ATTACKS, unseen=300)


def test_two_attacks_on_an_overfitted_net_beat_chance_on_held_out_digits():
    assert_beats_chance_and_feeds_back((ATTACKS[0], ATTACKS[3]), unseen=150)


def test_better_than_chance_is_the_rank_sum_test_at_one_half():
    null = np.sqrt((100 + 100 + 1) / (12 * 100 * 100))
    assert membership.better_than_chance(info_of(0.5 + 1.97 * null))
    assert not membership.better_than_chance(info_of(0.5 + 1.95 * null))
    assert not membership.better_than_chance(info_of(0.1))
    assert not membership.better_than_chance(info_of(jnp.nan))
    assert not membership.better_than_chance(info_of(1.0, 2, 2))
    assert membership.better_than_chance(info_of(1.0, 10, 10))
    assert not membership.better_than_chance(info_of(0.62), min_auc=0.6)
    assert membership.better_than_chance(info_of([0.9, 0.5])).tolist() == [True, False]


def test_weak_or_few_attacks_are_refused():
    good = info_of(0.8)
    membership.check_attacks({"a": good, "b": good})
    membership.check_attacks({"a": good}, min_models=1)
    with pytest.raises(InputError, match=r"attacks=\['a'\]: 2 or more"):
        membership.check_attacks({"a": good})
    with pytest.raises(InputError, match=r"attack 'b' .* auc=0.520 .* above 0.580"):
        membership.check_attacks({"a": good, "b": info_of(0.52)})
    with pytest.raises(InputError, match="auc=nan"):
        membership.check_attacks({"a": good, "b": info_of(jnp.nan)})
    with pytest.raises(InputError, match="auc=0.500"):  # one shadow model of three
        membership.check_attacks({"a": good, "b": info_of([0.9, 0.5, 0.8])})
    with pytest.raises(InputError, match="min_auc=0.4"):
        membership.check_attacks({"a": good, "b": good}, min_auc=0.4)
    with pytest.raises(InputError, match="z=-1"):
        membership.better_than_chance(good, z=-1)


def test_bad_training_input_is_named():
    attack, key = membership.logistic(), jax.random.key(0)
    some, none = jnp.ones((4, 3)), jnp.ones((0, 3))

    def refused(match, *arrays, **setting):
        with pytest.raises(InputError, match=match):
            membership.train_attack(attack, *arrays, key, **setting)

    refused("nonmembers=0: attacks need unseen samples", some, none)
    refused("members=0, nonmembers=4", none, some)
    refused("members=4, nonmembers=1", some, some[:1])
    refused(r"features_members.shape=\(4,\)", some[:, 0], some)
    refused("d=3 features, features_nonmembers d=2", some, some[:, :2])
    refused("steps=0", some, some, steps=0)
    refused("learning_rate=0", some, some, learning_rate=0)
    refused("learning_rate=nan", some, some, learning_rate=float("nan"))
    refused("weight_decay=-1", some, some, weight_decay=-1)
    refused("held_out=1", some, some, held_out=1.0)
    with pytest.raises(InputError, match="of the same models"):
        membership.train_shadow_attack(attack, some[None], some, key)
    data = Observed(jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32))
    empty = Observed(jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32))
    with pytest.raises(InputError, match="nonmembers=0"):
        membership.train_attacks(ATTACKS, data, empty, key)
    with pytest.raises(InputError, match=r"attacks=\[\]"):
        membership.train_attacks([], data, data, key)
    with pytest.raises(InputError, match="each with its own name"):
        membership.train_attacks([attack, attack], data, data, key)


def test_features_that_are_not_finite_are_caught_by_the_check():
    members, others = clouds(7, 1.0, size=30, d=3)
    _, info = membership.train_attack(
        ATTACKS[0], members.at[0, 0].set(jnp.nan), others, jax.random.key(0), steps=30
    )
    assert np.isnan(info.auc)
    assert not membership.better_than_chance(info)
