"""Shadow models: one program for all, equal to each alone, and of use to attacks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toys import mlp, trees_close

import jax_unlearn as ju
from jax_unlearn import membership
from jax_unlearn.errors import InputError, NonFiniteError
from jax_unlearn.membership import Observed, Shadows
from jax_unlearn.membership.shadow import _draw, _member_count, _train


def data(seed, size, *, features=4, classes=3):
    """Return samples whose labels can only be learned by heart."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(size, features)).astype(np.float32)
    return inputs, rng.integers(0, classes, size).astype(np.int32)


class Net(nnx.Module):
    """It has statistics and reads its key."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.25, rngs=rngs)

    def __call__(self, x, *, train):
        x = self.norm(self.dense(x), use_running_average=not train)
        return self.dropout(x, deterministic=not train)


def counted(model):
    """Return the model, and the list to which each of its traces adds."""
    calls = []

    def apply(params, model_state, inputs, *, train, key=None):
        calls.append((train, inputs.shape))
        return model.apply(params, model_state, inputs, train=train, key=key)

    return ju.Model(model.init, apply), calls


# One program serves most tests: 3 models of 15 samples, 8 of them members.
MODEL, CALLS = counted(ju.from_nnx(Net))
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
STEPS = {"steps": 5, "batch_size": 3}


def train(inputs, labels, seed=3):
    key = jax.random.key(seed)
    return membership.train_shadows(
        MODEL, OPTIMIZER, inputs, labels, key, count=3, **STEPS
    )


@jax.jit
def alone(key, inputs, labels):
    """Train one model as a user would, and return its members too."""
    draw_key, init_key, train_key = jax.random.split(key, 3)
    members, rows, mask = _draw(draw_key, 15, size=8, **STEPS)
    batches = ju.Batch(inputs[rows], labels[rows], rows, mask)
    unlearner = ju.methods.finetune(MODEL, OPTIMIZER, fewest=0)
    state = unlearner.init(*MODEL.init(init_key, inputs[:3]))
    state, _ = ju.scan_steps(
        unlearner, state, ju.UnlearnBatch(retain=batches), train_key
    )
    return state.params, state.model_state, members


def test_every_model_is_the_one_trained_alone():
    inputs, labels = (jnp.asarray(x) for x in data(0, 15))
    shadows = train(inputs, labels)
    for s, key in enumerate(jax.random.split(jax.random.key(3), 3)):
        together = jax.tree.map(lambda leaf, s=s: leaf[s], shadows)
        *expected, members = alone(key, inputs, labels)
        trees_close(list(together[:2]), expected, rtol=1e-5, atol=1e-6)
        assert np.flatnonzero(together.members).tolist() == sorted(members.tolist())


def test_models_differ_in_members_start_and_statistics():
    shadows = train(*data(0, 15))
    assert shadows.members.dtype == jnp.bool_
    assert shadows.members.sum(axis=1).tolist() == [8] * 3
    for rows in (
        shadows.members,
        shadows.params["dense"]["kernel"].reshape(3, -1),
        shadows.model_state["norm"]["mean"],
    ):
        assert len(np.unique(np.asarray(rows), axis=0)) == 3
    for leaf in jax.tree.leaves(shadows):
        assert not leaf.weak_type


def test_all_models_steps_and_calls_are_one_program():
    model, calls = counted(MODEL)
    samples = data(0, 15)
    setting = {"size": 8, "steps": 50, "batch_size": 3}
    jax.eval_shape(
        lambda keys: _train(
            keys, *samples, model=model, optimizer=OPTIMIZER, **setting
        ),
        jax.random.split(jax.random.key(0), 30),
    )
    assert calls == [(True, (3, 4))]

    train(*samples)
    before = len(CALLS)
    shadows = train(*data(1, 15), seed=1)
    assert len(CALLS) == before
    for seed in (1, 2):  # the last of three passes is padded
        membership.shadow_observations(MODEL, shadows, *data(seed, 15), batch_size=6)
    assert CALLS.count((False, (6, 4))) == 1


def test_a_model_that_diverges_is_named():
    inputs, labels = data(0, 15)
    members = np.asarray(train(inputs, labels).members)
    sample = np.flatnonzero(~members[0] & members[1])[0]
    inputs[sample] = np.inf
    with pytest.raises(NonFiniteError, match="of shadow model 1 is not") as caught:
        train(inputs, labels)
    assert 0 <= caught.value.step < 3  # the first pass


def test_observations_are_the_outputs_of_each_model_in_eval_mode():
    inputs, labels = data(0, 15)
    shadows = train(inputs, labels)
    observed = membership.shadow_observations(
        MODEL, shadows, inputs, labels, batch_size=6
    )
    members = np.asarray(shadows.members)
    outputs = []
    for s in range(3):
        one = jax.tree.map(lambda leaf, s=s: leaf[s], shadows)
        outputs.append(ju.predict(MODEL, one.params, one.model_state, inputs))
    for part, rows, size in zip(observed, (members, ~members), (24, 21), strict=True):
        assert part.logits.shape == (size, 3)
        expected = np.concatenate([outputs[s][rows[s]] for s in range(3)])
        np.testing.assert_allclose(part.logits, expected, rtol=1e-5, atol=1e-6)
        own = np.concatenate([labels[rows[s]] for s in range(3)])
        np.testing.assert_array_equal(part.labels, own)
        assert part.labels.dtype == jnp.int32


@pytest.mark.parametrize(("size", "steps", "batch_size"), [(8, 7, 3), (6, 9, 1)])
def test_every_pass_shows_every_member_once(size, steps, batch_size):
    draw = jax.jit(_draw, static_argnums=1, static_argnames=("size", *STEPS))
    draws = draw(jax.random.key(1), 11, size=size, steps=steps, batch_size=batch_size)
    members, rows, mask = (np.asarray(x) for x in draws)
    assert len(set(members)) == size
    assert rows.shape == mask.shape == (steps, batch_size)
    assert np.isin(rows, members).all()
    for row in rows:  # padding too is of other samples
        assert len(set(row)) == batch_size
    a_pass = -(-size // batch_size)
    orders = [
        rows[i : i + a_pass][mask[i : i + a_pass]] for i in range(0, steps, a_pass)
    ]
    for order in orders[: steps // a_pass]:
        np.testing.assert_array_equal(np.sort(order), np.sort(members))
    assert len({tuple(order[:3]) for order in orders}) == len(orders) > 1


@pytest.mark.parametrize(
    ("total", "share", "size"),
    [(10, 0.5, 5), (10, 0.29, 3), (10, 0.01, 1), (10, 0.99, 9), (2, 0.9, 1)],
)
def test_the_share_is_kept_as_far_as_both_groups_have_samples(total, share, size):
    assert _member_count(total, share) == size


def test_attacks_of_the_shadow_models_find_the_members_of_others():
    model, optimizer = mlp(width=64), optax.sgd(0.3, momentum=0.9)

    def observed(seed):
        samples = data(seed, 80)
        shadows = membership.train_shadows(
            model,
            optimizer,
            *samples,
            jax.random.key(seed),
            count=2,
            steps=150,
            batch_size=20,
        )
        return membership.shadow_observations(model, shadows, *samples)

    (seen, unseen), (own_in, own_out) = observed(0), observed(1)  # other samples
    attack = membership.gaussian_ratio(equal_variance=True)

    params, _ = membership.train_attacks([attack], seen, unseen, jax.random.key(0))
    scores = (
        attack.score(params[attack.name], jax.jit(attack.features)(*rows))
        for rows in (own_in, own_out)
    )
    # Of 40 independent rows, the samples of one model.
    chance = 3 * float(membership.auc_standard_error(0.5, 40, 40))
    assert float(membership.auc(*scores)) > 0.5 + chance


def test_pool_appends_the_model_attacked():
    half = Observed(jnp.ones((2, 3), jnp.bfloat16), jnp.array([0, 1], jnp.int16))
    whole = Observed(jnp.zeros((1, 3)), jnp.array([2], jnp.int32))
    logits, labels = membership.pool(half, whole)
    assert (logits.dtype, labels.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(logits, [[1] * 3, [1] * 3, [0] * 3])
    np.testing.assert_array_equal(labels, [0, 1, 2])
    with pytest.raises(InputError, match=r"logits.shape=\[\]"):
        membership.pool()
    other = Observed(jnp.zeros((1, 2)), jnp.array([1]))
    with pytest.raises(InputError, match=r"\(1, 3\), \(1, 2\)\]: give one or more"):
        membership.pool(whole, other)


def test_bad_input_is_named():
    (inputs, labels), key = data(6, 8), jax.random.key(0)

    def refused(match, inputs=inputs, labels=labels, **change):
        setting = {"count": 2, "steps": 1, "batch_size": 4} | change
        with pytest.raises(InputError, match=match):
            membership.train_shadows(MODEL, OPTIMIZER, inputs, labels, key, **setting)

    refused("count=0", count=0)
    refused("steps=0", steps=0)
    refused("batch_size=0", batch_size=0)
    refused("share=0", share=0)
    refused("share=1.0", share=1.0)
    refused("share=nan", share=float("nan"))
    refused(r"labels of shape \(7,\) .* inputs of \[8\] samples", labels=labels[:7])
    refused("type float32", labels=labels.astype(np.float32))
    refused("inputs hold 1 samples", inputs=inputs[:1], labels=labels[:1])

    shadows = Shadows({}, (), jnp.ones((2, 9), jnp.bool_))
    with pytest.raises(InputError, match=r"8 samples, members.shape=\(2, 9\)"):
        membership.shadow_observations(MODEL, shadows, inputs, labels)
    with pytest.raises(InputError, match="batch_size=0"):
        membership.shadow_observations(MODEL, shadows, inputs, labels, batch_size=0)
